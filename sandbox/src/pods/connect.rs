//! Requests for exec, attach and log: what is refused before the upgrade, and what is served.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::channel::{self, V5};
use super::log;
use super::query::{Ask, Query};
use super::stream::Stream;
use crate::cluster::Cluster;
use crate::object;
use crate::release::Release;
use crate::server::{Body, Io};
use crate::status::Failure;

/// Answers `…/pods/{pod}/{exec|attach|log}` of somebody who may: a WebSocket for the first two, text for `log`.
///
/// # Errors
/// What the API server would answer before the upgrade.
pub fn connect(
    cluster: &Arc<Cluster>,
    namespace: &str,
    pod: &str,
    subresource: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let found = find(cluster, namespace, pod);
    let pod = found.ok_or_else(|| Failure::not_found("", "pods", pod))?;
    let container = choose(&pod, query.get("container").unwrap_or_default())?;
    let translated = cluster.release == Release::V1_30 && offered(request.headers()).contains(&V5);
    if !translated && !*cluster.faults.kubelet.borrow() {
        return Err(Failure::new(500, DEAD));
    }
    match subresource {
        "log" => logs(cluster, &pod, container, &query),
        "portforward" => Err(Failure::bad_request("the sandbox forwards no ports")),
        _ => {
            let ask = query.ask(subresource, false, translated);
            open(cluster, &pod, container, ask, request)
        }
    }
}

const NO_UPGRADE: &str = "Upgrade request required: exec and attach speak WebSocket, not SPDY";
const DEAD: &str = "error dialing backend: connection refused";

/// The pod there.
pub(super) fn find(cluster: &Cluster, namespace: &str, name: &str) -> Option<Arc<Value>> {
    let (_, pods) = cluster.store.list("pods", Some(namespace));
    pods.into_iter().find(|pod| object::name(pod) == name)
}

/// The container meant: the only one, or the one named.
fn choose<'a>(pod: &'a Value, named: &'a str) -> Result<&'a str, Failure> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let listed = lists
        .iter()
        .filter_map(|list| pod["spec"][*list].as_array());
    let all = listed.flatten().filter_map(|one| one["name"].as_str());
    let all: Vec<&str> = all.collect();
    let only = pod["spec"]["containers"]
        .as_array()
        .is_some_and(|main| main.len() == 1);
    let name = object::name(pod);
    match named {
        "" if only => Ok(all[0]),
        "" => Err(Failure::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
        _ if all.contains(&named) => Ok(named),
        _ => Err(Failure::bad_request(format!(
            "container {named} is not valid for pod {name}"
        ))),
    }
}

/// Answers with a container's log.
///
/// # Errors
/// 400 if there is none yet, or none before.
pub(super) fn logs(
    cluster: &Arc<Cluster>,
    pod: &Value,
    container: &str,
    query: &Query,
) -> Result<Response<Body>, Failure> {
    let starts = cluster.pods.starts(object::uid(pod), container);
    let back = usize::from(query.flag("previous"));
    let start = starts.iter().rev().nth(back).ok_or_else(|| {
        let which = ["container", "previous terminated container"][back];
        let pod = object::name(pod);
        Failure::bad_request(format!("{which} {container:?} in pod {pod:?} not found"))
    })?;
    log::answer(cluster, start.log.subscribe(), query)
}

/// The subprotocols the first header line offers; nothing is an offer of `""`.
fn offered(headers: &HeaderMap) -> Vec<&str> {
    let line = headers.get(SEC_WEBSOCKET_PROTOCOL);
    let line = line.and_then(|line| line.to_str().ok()).unwrap_or_default();
    line.split(',').map(str::trim).collect()
}

/// `text/plain`, as the kubelet answers.
pub(super) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Full::from(text.into()).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// Answers a request for exec or attach.
///
/// # Errors
/// 400 if it is no handshake of a WebSocket.
pub(super) fn open(
    cluster: &Arc<Cluster>,
    pod: &Value,
    container: &str,
    ask: Ask,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let handshake = create_response_with_body(&request, || Full::default().boxed());
    let mut response = handshake.map_err(|_| Failure::bad_request(NO_UPGRADE))?;
    let found = cluster.pods.starts(object::uid(pod), container).pop();
    let container = if !*cluster.faults.kubelet.borrow() {
        Err((500, DEAD))
    } else if !(ask.stdin || ask.stdout || ask.stderr) {
        Err((400, "you must specify at least 1 of stdin, stdout, stderr"))
    } else {
        let runs = found.filter(|found| found.runs());
        runs.ok_or((500, "container not found, or it has ended"))
    };
    let container = match container {
        Err((code, why)) if !ask.translated => return Ok(text(code, why)),
        container => container.map_err(|(_, why)| why.to_owned()),
    };
    let v5 = ask.translated || cluster.release >= Release::V1_36;
    let Some(protocol) = channel::choose(&offered(request.headers()), v5) else {
        return Ok(text(403, ""));
    };
    // Empty if nothing was offered. Clients that keep to RFC 6455 refuse that, and the real servers do it.
    let name = HeaderValue::from_static(protocol.0);
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    let stream = Stream {
        cluster: Arc::clone(cluster),
        ask,
        container,
        protocol,
        moved: Notify::new(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    // What must live as long as the stream does: its entry in the audit log.
    let kept = request.into_parts().0.extensions;
    cluster.tasks.spawn(async move {
        if let Ok(upgraded) = upgrade.await
            && let Ok(parts) = upgraded.downcast::<TokioIo<Io>>()
        {
            stream.run(parts.io.into_inner(), parts.read_buf).await;
        }
        drop(kept);
    });
    Ok(response)
}
