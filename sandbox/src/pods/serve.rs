//! Requests for exec, attach and log, from the API server's side and from the kubelet's: what is refused, by whom and in
//! which words, and what is served.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, RETRY_AFTER, UPGRADE};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::channel::{self, End};
use super::container::Container;
use super::logs;
use super::query::{Dialect, Query};
use super::stream::{Stream, Subject};
use super::{spec, wire};
use crate::cluster::Cluster;
use crate::object;
use crate::release::Release;
use crate::server::{Body, Io};
use crate::status::Failure;
use crate::store::Key;

/// `text/plain`, as the kubelet answers.
pub(super) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Full::from(text.into()).boxed());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if code == 429 {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

/// The pod there.
pub(super) fn pod(cluster: &Cluster, namespace: &str, name: &str) -> Option<Arc<Value>> {
    cluster.store.get(&Key {
        resource: "pods".into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// A request to `…/pods/{name}/{subresource}`.
///
/// # Errors
/// What the API server finds wrong.
pub(super) fn from_api_server(
    cluster: &Arc<Cluster>,
    namespace: &str,
    name: &str,
    subresource: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let pod = pod(cluster, namespace, name).ok_or_else(|| Failure::not_found("", "pods", name))?;
    if subresource == "portforward" {
        let mut failure = Failure::new(501, "NotImplemented", "the sandbox does not forward ports");
        failure.details = Value::Null;
        return Err(failure);
    }
    let container = choose(&pod, query.get("container").unwrap_or_default())?;
    if pod["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        return Err(Failure::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let lives = *cluster.faults.kubelet.borrow();
    if subresource == "log" {
        let wanted = query.logs(cluster.clock.now())?;
        if !lives {
            let path = format!("containerLogs/{namespace}/{name}/{container}");
            let why = format!(
                "Get \"https://{}/{path}\": {}",
                cluster.kubelet,
                refused(cluster)
            );
            return Err(Failure::new(500, "InternalError", why));
        }
        return logs::answer(cluster, &pod, &container, wanted);
    }
    if request.headers().get(UPGRADE).is_some() && !wire::is_upgrade(request.headers()) {
        return Err(Failure::bad_request(
            "unable to upgrade: the sandbox speaks WebSocket only, not SPDY; use a client that offers WebSocket first",
        ));
    }
    if !wire::is_upgrade(request.headers()) {
        return Err(Failure::bad_request("Upgrade request required"));
    }
    let translates =
        cluster.release == Release::V1_30 && channel::offers_v5(&wire::offered(request.headers()));
    if !lives && !translates {
        let why = format!("error dialing backend: {}", refused(cluster));
        return Err(Failure::new(500, "InternalError", why));
    }
    let hop = if translates {
        Hop::Translator
    } else {
        Hop::Kubelet
    };
    let ask = Ask {
        attach: subresource == "attach",
        container,
        query,
        dialect: Dialect::ApiServer,
        hop,
    };
    Ok(ask.answer(cluster, &pod, request))
}

fn refused(cluster: &Cluster) -> String {
    format!("dial tcp {}: connect: connection refused", cluster.kubelet)
}

/// The container meant: the only one, or the one named.
fn choose(pod: &Value, named: &str) -> Result<String, Failure> {
    let name = object::name(pod);
    let containers = pod["spec"]["containers"].as_array();
    match (named, containers.map(Vec::as_slice)) {
        ("", Some([only])) => Ok(only["name"].as_str().unwrap_or_default().to_owned()),
        ("", _) => {
            let mut all: Vec<(u8, &str)> = spec::containers(pod)
                .map(|(part, one)| (order(part), one["name"].as_str().unwrap_or_default()))
                .collect();
            all.sort_by_key(|(order, _)| *order);
            let all: Vec<&str> = all.into_iter().map(|(_, name)| name).collect();
            Err(Failure::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all.join(" ")
            )))
        }
        (named, _) if spec::containers(pod).any(|(_, one)| one["name"] == named) => {
            Ok(named.to_owned())
        }
        (named, _) => Err(Failure::bad_request(format!(
            "container {named} is not valid for pod {name}"
        ))),
    }
}

/// The API server lists containers first, then init containers, then ephemeral ones.
fn order(part: super::report::Part) -> u8 {
    use super::report::Part;
    match part {
        Part::Main => 0,
        Part::Init | Part::Sidecar => 1,
        Part::Ephemeral => 2,
    }
}

/// Who answers the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// The API server, which speaks v5 with the client and SPDY with the kubelet.
    Translator,
    /// The kubelet or the runtime behind it.
    Kubelet,
}

/// A request for exec or attach.
pub(super) struct Ask {
    pub(super) attach: bool,
    pub(super) container: String,
    pub(super) query: Query,
    pub(super) dialect: Dialect,
    pub(super) hop: Hop,
}

impl Ask {
    /// Answers it. The kubelet's refusals come before the upgrade, unless somebody upgrades before asking it.
    pub(super) fn answer(
        self,
        cluster: &Arc<Cluster>,
        pod: &Value,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let mut streams = self.query.streams(self.dialect);
        let subject = if !*cluster.faults.kubelet.borrow() {
            Err((500, format!("error dialing backend: {}", refused(cluster))))
        } else if streams.any() {
            self.subject(cluster, pod)
        } else {
            let why = "you must specify at least 1 of stdin, stdout, stderr";
            Err((400, why.to_owned()))
        };
        let v5 = self.hop == Hop::Translator || cluster.release >= Release::V1_36;
        let subject = match (subject, self.hop) {
            (Ok(subject), _) => subject,
            (Err((code, why)), Hop::Kubelet) => return text(code, why),
            (Err((500, why)), Hop::Translator) if why.starts_with("error dialing") => {
                Subject::Failed(End::Dial(why))
            }
            (Err((_, why)), Hop::Translator) => {
                Subject::Failed(End::Dial(format!("unable to upgrade connection: {why}")))
            }
        };
        if let Subject::Attach(container) = &subject {
            // Whether there is a terminal was settled when the container was started.
            streams.tty = container.plan.tty;
            streams.stderr &= !streams.tty;
        }
        let (response, protocol) = wire::handshake(request.method(), request.headers(), |offer| {
            channel::choose(offer, v5)
        });
        let Some(protocol) = protocol else {
            return response;
        };
        let stream = Stream {
            cluster: Arc::clone(cluster),
            subject,
            streams,
            protocol,
            outlives_kubelet: self.hop == Hop::Translator,
        };
        let upgrade = hyper::upgrade::on(&mut request);
        cluster.tasks.spawn(async move {
            match upgrade.await {
                Ok(upgraded) => match upgraded.downcast::<TokioIo<Io>>() {
                    Ok(parts) => stream.run(parts.io.into_inner(), parts.read_buf).await,
                    Err(_) => {
                        tracing::error!("a connection of another kind than the servers accept");
                    }
                },
                Err(error) => tracing::debug!(%error, "a client left before its upgrade"),
            }
        });
        response
    }

    /// What is to be talked to, or the kubelet's refusal.
    fn subject(&self, cluster: &Cluster, pod: &Value) -> Result<Subject, (u16, String)> {
        let reach = cluster.pods.reach(object::uid(pod));
        let found = reach.and_then(|reach| reach.get(&self.container).current);
        let container: Arc<Container> =
            found.ok_or_else(|| (500, format!("container not found ({:?})", self.container)))?;
        if !container.runs() {
            let what = if self.attach { "attach" } else { "exec" };
            let why = format!(
                "failed to {what} container: container is in CONTAINER_EXITED state: {}",
                container.id
            );
            return Err((500, why));
        }
        Ok(if self.attach {
            Subject::Attach(container)
        } else {
            Subject::Exec(container, self.query.command())
        })
    }
}
