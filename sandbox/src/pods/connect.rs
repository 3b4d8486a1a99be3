//! Requests for exec, attach and log: what is refused before the upgrade, and what is served.

use std::sync::{Arc, OnceLock};

use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::channel::{self, V5};
use super::container::Container;
use super::log;
use super::query::{Query, Streams};
use super::stream::Stream;
use crate::cluster::Cluster;
use crate::object;
use crate::release::Release;
use crate::server::{Body, Io};
use crate::status::Failure;
use crate::store::Key;

const NO_UPGRADE: &str = "Upgrade request required: exec and attach speak WebSocket here, not SPDY";

/// Answers `…/pods/{pod}/{exec|attach|log|portforward}` of somebody who may: a WebSocket for the first two (SPDY is
/// refused with the reason), text for `log`.
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
    let dead = !*cluster.faults.kubelet.borrow();
    if dead && (subresource == "log" || !translated) {
        let why = format!(
            "error dialing backend: {} refuses connections",
            cluster.kubelet
        );
        return Err(Failure::new(500, "InternalError", why));
    }
    match subresource {
        "log" => logs(cluster, &pod, &container, &query),
        "portforward" => Err(Failure::bad_request("the sandbox does not forward ports")),
        _ if !is_upgrade(request.headers()) => Err(Failure::bad_request(NO_UPGRADE)),
        _ => {
            let ask = Ask::new(&query, subresource, query.streams(false), translated);
            Ok(ask.answer(cluster, &pod, &container, request))
        }
    }
}

/// The pod there.
pub(super) fn find(cluster: &Cluster, namespace: &str, name: &str) -> Option<Arc<Value>> {
    cluster.store.get(&Key {
        resource: "pods".into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// The container meant: the only one, or the one named.
fn choose(pod: &Value, named: &str) -> Result<String, Failure> {
    let listed = |field: &str| {
        let all = pod["spec"][field].as_array().into_iter().flatten();
        all.filter_map(|one| one["name"].as_str())
    };
    let mut all: Vec<&str> = listed("containers").collect();
    if let ("", [only]) = (named, all.as_slice()) {
        return Ok((*only).to_owned());
    }
    all.extend(listed("initContainers").chain(listed("ephemeralContainers")));
    let pod = object::name(pod);
    if named.is_empty() {
        let why = format!(
            "a container name must be specified for pod {pod}, choose one of: [{}]",
            all.join(" ")
        );
        Err(Failure::bad_request(why))
    } else if all.contains(&named) {
        Ok(named.to_owned())
    } else {
        let why = format!("container {named} is not valid for pod {pod}");
        Err(Failure::bad_request(why))
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

/// Whether this asks for a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
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

/// A request for exec or attach.
pub(super) struct Ask {
    pub(super) attach: bool,
    pub(super) command: Vec<String>,
    pub(super) streams: Streams,
    /// Whether the API server speaks v5 in place of the node: it upgrades before it asks the node, so that refusals come
    /// in the stream.
    pub(super) translated: bool,
}

impl Ask {
    pub(super) fn new(query: &Query, what: &str, streams: Streams, translated: bool) -> Self {
        Self {
            attach: what == "attach",
            command: query.command(),
            streams,
            translated,
        }
    }

    /// Answers it.
    pub(super) fn answer(
        self,
        cluster: &Arc<Cluster>,
        pod: &Value,
        container: &str,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let container = match self.container(cluster, pod, container) {
            Ok(container) => Ok(container),
            Err((_, why)) if self.translated => Err(why),
            Err((code, why)) => return text(code, why),
        };
        let v5 = self.translated || cluster.release >= Release::V1_36;
        let Some(protocol) = channel::choose(&offered(request.headers()), v5) else {
            return text(403, "");
        };
        let empty = || Full::default().boxed();
        let Ok(mut response) = create_response_with_body(&request, empty) else {
            return text(400, "this is no handshake of a WebSocket");
        };
        // Empty if nothing was offered. Clients that keep to RFC 6455 refuse that, and the real servers do it.
        let name = HeaderValue::from_static(protocol.name);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
        let stream = Stream {
            cluster: Arc::clone(cluster),
            ask: self,
            container,
            protocol,
            moved: Notify::new(),
            own: OnceLock::new(),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        cluster.tasks.spawn(async move {
            if let Ok(upgraded) = upgrade.await
                && let Ok(parts) = upgraded.downcast::<TokioIo<Io>>()
            {
                stream.run(parts.io.into_inner(), parts.read_buf).await;
            }
        });
        response
    }

    /// The container that runs, or the kubelet's refusal.
    fn container(
        &self,
        cluster: &Cluster,
        pod: &Value,
        name: &str,
    ) -> Result<Arc<Container>, (u16, String)> {
        let found = cluster.pods.starts(object::uid(pod), name).pop();
        let refused = if !*cluster.faults.kubelet.borrow() {
            (500, "error dialing backend: connection refused".to_owned())
        } else if self.streams.none() {
            (
                400,
                "you must specify at least 1 of stdin, stdout, stderr".to_owned(),
            )
        } else if let Some(found) = found.filter(|found| found.process.runs()) {
            return Ok(found);
        } else {
            (
                500,
                format!("container not found ({name:?}), or it has ended"),
            )
        };
        Err(refused)
    }
}
