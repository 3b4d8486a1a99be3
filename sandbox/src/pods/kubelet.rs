//! The kubelet's own port.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::select;

use super::connect::{find, logs, open, text};
use super::query::Query;
use crate::auth::{ANONYMOUS, authenticate, rbac};
use crate::cluster::{Cluster, NODE};
use crate::object;
use crate::request::Attributes;
use crate::server::{self, Body};

/// Pause before a kubelet that is to live again tries once more to get its port.
const RETRY: Duration = Duration::from_millis(50);

/// Serves the kubelet's own port (`/exec/{namespace}/{pod}[/{uid}]/{container}`, `/attach/…`, `/containerLogs/…`)
/// until the sandbox stops: TLS, client certificate or token, and the right to get `nodes/proxy`. The port is closed while [`crate::Faults::kubelet`] says it is dead.
pub async fn serve(cluster: Arc<Cluster>, mut listener: TcpListener) {
    let mut lives = cluster.faults.kubelet.subscribe();
    loop {
        let dead = cluster.stop.child_token();
        let shared = Arc::clone(&cluster);
        let served = server::listen(&cluster, listener, dead.clone(), move |request, peer| {
            let response = answer(&shared, peer.certificate.as_deref(), request);
            async move { response }
        });
        select! {
            () = served => return,
            _ = lives.wait_for(|lives| !lives) => dead.cancel(),
        }
        let back = async {
            while lives.wait_for(|lives| *lives).await.is_ok() {
                match TcpListener::bind(cluster.kubelet).await {
                    Ok(listener) => return Some(listener),
                    Err(error) => tracing::warn!(%error, "the kubelet cannot listen"),
                }
                tokio::time::sleep(RETRY).await;
            }
            None
        };
        match cluster.stop.run_until_cancelled(back).await.flatten() {
            Some(again) => listener = again,
            None => return,
        }
    }
}

fn answer(
    cluster: &Arc<Cluster>,
    certificate: Option<&[u8]>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let who = match authenticate::credential(cluster, certificate, &mut parts.headers) {
        Ok(who) if who.username != ANONYMOUS => who,
        _ => return text(401, "Unauthorized"),
    };
    if parts.method != Method::GET {
        return text(405, "a WebSocket is opened, and a log read, by GET");
    }
    let what = Attributes::about("get", "", "", "nodes/proxy", NODE);
    if rbac::decide(cluster, &who, &what).is_none() {
        let who = who.username;
        let why = format!("user={who}, verb=get, resource=nodes, subresource=proxy");
        return text(403, format!("Forbidden ({why})"));
    }
    let path = parts.uri.path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let (what, namespace, name, uid, container) = match *segments.as_slice() {
        [what, namespace, name, container] => (what, namespace, name, "", container),
        [what, namespace, name, uid, container] => (what, namespace, name, uid, container),
        _ => return text(404, "404 page not found"),
    };
    let pod = find(cluster, namespace, name);
    let Some(pod) = pod.filter(|pod| uid.is_empty() || object::uid(pod) == uid) else {
        return text(404, "pod does not exist");
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let request = Request::from_parts(parts, body);
    let answer = match what {
        "containerLogs" => logs(cluster, &pod, container, &query),
        "exec" | "attach" => {
            let ask = query.ask(what, true, false);
            open(cluster, &pod, container, ask, request)
        }
        _ => return text(404, "404 page not found"),
    };
    answer.unwrap_or_else(|why| text(why.code, why.message))
}
