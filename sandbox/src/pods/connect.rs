//! Requests for exec, attach and log: what is refused before the upgrade, and what is served.

use std::sync::Arc;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::channel::{self, STDERR, STDIN, STDOUT};
use super::{log, stream::Stream};
use crate::request::{Attributes, Query};
use crate::server::{Body, TEXT, text, typed};
use crate::{cluster::Cluster, object, status::Failure, store::Key};

const NO_UPGRADE: &str = "Upgrade request required: exec and attach speak WebSocket, not SPDY";
const NO_STREAM: &str = "you must specify at least 1 of stdin, stdout, stderr";
const NOT_RUNNING: &str = "container not found, or it has ended";
const DEAD: &str = "error dialing backend: connection refused";

/// Answers `…/pods/{pod}/{exec|attach|log}` of somebody who may: a WebSocket for the first two, text for `log`.
///
/// # Errors
/// What the API server would answer before the upgrade.
pub(crate) fn connect(
    cluster: &Arc<Cluster>,
    asked: &Attributes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let (pod, what) = (asked.name.as_str(), asked.subresource.as_str());
    let found = cluster.store.get(&Key::new("pods", &asked.namespace, pod));
    let pod = found.ok_or_else(|| Failure::not_found("", "pods", pod))?;
    let query = asked.query.clone();
    let container = choose(&pod, query.get("container")).map_err(Failure::bad_request)?;
    if what == "log" {
        let last = cluster.pods.last(object::uid(&pod), container);
        let none = || Failure::bad_request(format!("container {container:?} has not started"));
        return log::answer(cluster, last.ok_or_else(none)?.log.subscribe(), &query);
    }
    serve(cluster, &pod, container, what, query, request)
}

/// The container meant: the only one, or the one named.
fn choose<'a>(pod: &'a Value, named: &str) -> Result<&'a str, String> {
    let listed = |list: &str| pod["spec"][list].as_array().into_iter().flatten();
    let all = ["containers", "initContainers", "ephemeralContainers"].into_iter();
    let every = all.flat_map(listed).filter_map(|one| one["name"].as_str());
    let every: Vec<&str> = every.collect();
    let pod_name = object::name(pod);
    if named.is_empty() && listed("containers").count() != 1 {
        let why = format!("a container name must be specified for pod {pod_name}");
        return Err(format!("{why}, choose one of: [{}]", every.join(" ")));
    }
    let mut found = every.into_iter();
    let found = found.find(|one| named.is_empty() || *one == named);
    found.ok_or_else(|| format!("container {named} is not valid for pod {pod_name}"))
}

/// Serves an exec or attach, as the kubelet does.
///
/// # Errors
/// What there is to say before the upgrade.
pub(super) fn serve(
    cluster: &Arc<Cluster>,
    pod: &Value,
    container: &str,
    what: &str,
    query: Query,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    if cluster.faults.borrow().kubelet_dead {
        return Err(Failure::new(500, DEAD));
    }
    let handshake = create_response_with_body(&request, || Full::default().boxed());
    let mut response = handshake.map_err(|_| Failure::bad_request(NO_UPGRADE))?;
    let last = cluster.pods.last(object::uid(pod), container);
    let Some(container) = last.filter(|last| last.runs()) else {
        return Ok(typed(500, TEXT, NOT_RUNNING.to_owned()));
    };
    // Nothing is an offer of `""`, and is answered with it. Clients that keep to RFC 6455 refuse that, and the real
    // servers do it.
    let offer = text(request.headers(), &SEC_WEBSOCKET_PROTOCOL);
    let Some(protocol) = channel::choose(offer, cluster.release) else {
        return Ok(typed(403, TEXT, String::new()));
    };
    let name = HeaderValue::from_static(protocol.0);
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    let stream = Stream {
        cluster: Arc::clone(cluster),
        query,
        attach: what == "attach",
        container,
        protocol,
        moved: Notify::new(),
    };
    if ![STDIN, STDOUT, STDERR].iter().any(|one| stream.wants(*one)) {
        return Ok(typed(400, TEXT, NO_STREAM.to_owned()));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    cluster.tasks.spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            stream.run(TokioIo::new(upgraded)).await;
        }
    });
    Ok(response)
}
