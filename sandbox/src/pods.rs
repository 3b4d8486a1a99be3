//! Pods as local processes: a container is a directory and a command.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::server::Body;
use crate::status::Failure;

/// Containers that run, by pod UID.
#[derive(Debug, Default)]
pub struct Pods {}

/// Starts what the store says should run, ends what should not, and reports it in each pod's status; until the sandbox
/// stops, and then ends every process.
pub async fn run(_cluster: Arc<Cluster>) {
    todo!("pods")
}

/// Answers `…/pods/{pod}/{exec|attach|log|portforward}` of somebody who may: a WebSocket for the first two (SPDY is
/// refused with the reason), text for `log`.
///
/// # Errors
/// What the API server would answer before the upgrade.
pub async fn connect(
    _cluster: &Arc<Cluster>,
    _who: &Identity,
    _namespace: &str,
    _pod: &str,
    _subresource: &str,
    _request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    todo!("pods")
}

/// Serves the kubelet's own port (`/exec/{namespace}/{pod}[/{uid}]/{container}`, `/attach/…`, `/containerLogs/…`,
/// `/healthz`) until the sandbox stops: TLS, client certificate or token, and the right to `nodes/proxy` by the verb of
/// the method. Does not answer while [`crate::Faults::kubelet`] says it is dead.
pub async fn serve_kubelet(_cluster: Arc<Cluster>, _listener: TcpListener) {
    todo!("pods")
}
