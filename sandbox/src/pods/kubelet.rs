//! The kubelet's own port.

use std::{future::ready, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{net::TcpListener, select};

use super::connect;
use crate::auth::{ANONYMOUS, authenticate, rbac};
use crate::cluster::{Cluster, NODE};
use crate::request::{Attributes, Query};
use crate::server::{self, Body, Peer, TEXT, typed};
use crate::{object, status::Failure, store::Key};

/// Pause before a kubelet that is to live again tries once more to get its port.
const RETRY: Duration = Duration::from_millis(50);

/// Serves the kubelet's own port (`/exec/{namespace}/{pod}[/{uid}]/{container}`, `/attach/…`) until the
/// sandbox stops: TLS, client certificate or token, and the right to get `nodes/proxy`. The port is closed while
/// [`crate::Faults`] says that it is dead.
pub(crate) async fn serve(cluster: Arc<Cluster>, listener: TcpListener) {
    let (mut faults, mut bound) = (cluster.faults.subscribe(), Ok(listener));
    while !cluster.stop.is_cancelled() {
        if let Ok(listener) = bound {
            let (dead, shared) = (cluster.stop.child_token(), Arc::clone(&cluster));
            let answer = move |request, peer: Peer| {
                let answer = answer(&shared, peer.certificate.as_deref(), request);
                ready(answer.unwrap_or_else(|why| typed(why.code, TEXT, why.message)))
            };
            select! {
                () = server::listen(&cluster, listener, dead.clone(), answer) => {}
                _ = faults.wait_for(|now| now.kubelet_dead) => dead.cancel(),
            }
        }
        let lives = faults.wait_for(|now| !now.kubelet_dead);
        cluster.stop.run_until_cancelled(lives).await;
        tokio::time::sleep(RETRY).await;
        bound = TcpListener::bind(cluster.kubelet).await;
    }
}

fn answer(
    cluster: &Arc<Cluster>,
    certificate: Option<&[u8]>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let (mut parts, body) = request.into_parts();
    let who = authenticate::credential(cluster, certificate, &mut parts.headers)?;
    if who.username == ANONYMOUS {
        return Err(Failure::unauthorized());
    }
    let what = Attributes::about("get", "", "", "nodes/proxy", NODE);
    if rbac::decide(cluster, &who, &what).is_none() {
        let who = who.username;
        let why = format!("Forbidden (user={who}, verb=get, resource=nodes, subresource=proxy)");
        return Err(Failure::new(403, why));
    }
    let path = parts.uri.path().to_owned();
    let path: Vec<&str> = path.split('/').collect();
    let [_, what @ ("exec" | "attach"), at, name, uid @ .., container] = &path[..] else {
        return Err(Failure::new(404, "404 page not found"));
    };
    let pod = cluster.store.get(&Key::new("pods", at, name));
    let pod = pod.filter(|pod| uid.iter().all(|uid| object::uid(pod) == *uid));
    let pod = pod.ok_or_else(|| Failure::new(404, "pod does not exist"))?;
    let mut query = Query::parse(parts.uri.query().unwrap_or_default());
    // It has names of its own for streams, and takes only `1` for true.
    let its = ["input", "output", "error", "tty"];
    for (name, its) in ["stdin", "stdout", "stderr", "tty"].into_iter().zip(its) {
        let value = ["0", "1"][usize::from(query.get(its) == "1")];
        query.set(name, value);
    }
    let request = Request::from_parts(parts, body);
    connect::serve(cluster, &pod, container, what, query, request)
}
