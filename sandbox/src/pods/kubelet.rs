//! The kubelet's own port.

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::logs;
use super::query::{Dialect, Query};
use super::serve::{Ask, Hop, pod, text};
use crate::auth::{authenticate, rbac};
use crate::cluster::{Cluster, NODE};
use crate::faults::KUBELET_RETURN;
use crate::object;
use crate::request::Attributes;
use crate::server::{self, Body};
use crate::status::Failure;

/// Serves until the sandbox stops; while the kubelet is dead the port is closed.
pub(super) async fn serve(cluster: Arc<Cluster>, listener: TcpListener) {
    let mut listener = Some(listener);
    let mut lives = cluster.faults.kubelet.subscribe();
    while !cluster.stop.is_cancelled() {
        let listening = match listener.take() {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(cluster.kubelet).await,
        };
        match listening {
            Ok(listener) => {
                let dead = cluster.stop.child_token();
                let shared = Arc::clone(&cluster);
                let served =
                    server::listen(&cluster, listener, dead.clone(), move |request, peer| {
                        let response = answer(&shared, peer.certificate.as_deref(), request);
                        async move { response }
                    });
                tokio::select! {
                    () = served => {}
                    _ = lives.wait_for(|lives| !lives) => dead.cancel(),
                }
            }
            Err(error) => {
                tracing::warn!(%error, address = %cluster.kubelet, "the kubelet cannot listen");
            }
        }
        tokio::select! {
            () = cluster.stop.cancelled() => return,
            _ = lives.wait_for(|lives| *lives) => {}
        }
        tokio::time::sleep(KUBELET_RETURN).await;
    }
}

fn answer(
    cluster: &Arc<Cluster>,
    certificate: Option<&[u8]>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    // The kubelet knows no impersonation.
    let impersonation: Vec<_> = parts
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in impersonation {
        parts.headers.remove(name);
    }
    let who = match authenticate::authenticate(cluster, certificate, &mut parts) {
        Ok(who) if who.identity.username != "system:anonymous" => who.identity,
        _ => return text(401, "Unauthorized"),
    };
    let verb = match parts.method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let what = Attributes {
        verb: verb.to_owned(),
        resource_request: true,
        version: "v1".to_owned(),
        resource: "nodes".to_owned(),
        subresource: "proxy".to_owned(),
        name: NODE.to_owned(),
        path: parts.uri.path().to_owned(),
        ..Attributes::default()
    };
    if !rbac::decide(cluster, &who, &what).allowed {
        let user = who.username;
        // Since 1.32 a path may stand for several subresources.
        let proxy = if cluster.release.minor() >= 32 {
            "subresource(s)=[proxy]"
        } else {
            "subresource=proxy"
        };
        let why = format!("Forbidden (user={user}, verb={verb}, resource=nodes, {proxy})");
        return text(403, why);
    }
    route(cluster, Request::from_parts(parts, body))
}

fn route(cluster: &Arc<Cluster>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let (what, namespace, name, uid, container) = match segments.as_slice() {
        ["healthz"] => return text(200, "ok"),
        [
            what @ ("exec" | "attach" | "containerLogs"),
            namespace,
            name,
            container,
        ] => (*what, *namespace, *name, None, *container),
        [what @ ("exec" | "attach"), namespace, name, uid, container] => {
            (*what, *namespace, *name, Some(*uid), *container)
        }
        _ => return text(404, "404 page not found\n"),
    };
    let found = pod(cluster, namespace, name);
    let Some(pod) = found.filter(|pod| uid.is_none_or(|uid| object::uid(pod) == uid)) else {
        return text(404, "pod does not exist");
    };
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if what == "containerLogs" {
        let answer = query
            .logs(cluster.clock.now())
            .and_then(|wanted| logs::answer(cluster, &pod, container, wanted));
        return answer.unwrap_or_else(|Failure { code, message, .. }| text(code, message));
    }
    if !super::wire::is_upgrade(request.headers()) {
        return text(400, "unable to upgrade: only WebSocket is spoken here");
    }
    let ask = Ask {
        attach: what == "attach",
        container: container.to_owned(),
        query,
        dialect: Dialect::Kubelet,
        hop: Hop::Kubelet,
    };
    ask.answer(cluster, &pod, request)
}
