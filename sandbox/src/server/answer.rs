//! The way of one request: who asks, may they, what goes wrong by order, then the answer; all of it audited.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::audit::Entry;
use super::{Body, Peer, body, negotiate, resource};
use crate::auth::authenticate::authenticate;
use crate::auth::{Identity, rbac};
use crate::cluster::Cluster;
use crate::faults::{Answer, Order};
use crate::request::{Attributes, attributes};
use crate::status::Failure;
use crate::{discovery, openapi};

/// Longest audit ID taken from a client, in bytes.
const MAX_AUDIT_ID: usize = 64;
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Subresources whose answer may take as long as the client likes.
const LONG: [&str; 4] = ["exec", "attach", "log", "portforward"];

/// A header's text; empty if absent or no text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// Answers a request.
pub(super) async fn answer(
    cluster: &Arc<Cluster>,
    request: Request<Incoming>,
    peer: &Peer,
) -> Response<Body> {
    let uri = request.uri();
    let asked = attributes(
        request.method(),
        uri.path(),
        uri.query().unwrap_or_default(),
    );
    let given = text(request.headers(), &AUDIT_ID);
    let id = if given.is_empty() || given.len() > MAX_AUDIT_ID {
        uuid::Uuid::new_v4().to_string()
    } else {
        given.to_owned()
    };
    let uri = uri.path_and_query().map_or("/", |uri| uri.as_str());
    let agent = text(request.headers(), &USER_AGENT);
    let mut entry = Entry::new(cluster, &id, &asked, uri, agent, peer.address);
    let answered = serve(cluster, request, peer, &asked, &mut entry).await;
    let mut response = match answered {
        Ok(response) => {
            entry.status(response.status().as_u16(), None);
            response
        }
        Err(Refused::Failed(failure)) => {
            entry.status(failure.code, Some(&failure));
            refusal(&failure)
        }
        Err(Refused::Reset) => {
            entry.forget();
            peer.reset.cancel();
            return std::future::pending().await; // the connection is about to be dropped, and this with it
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        entry.started();
        let (stop, gone) = (cluster.stop.clone(), peer.gone.clone());
        cluster.tasks.spawn(async move {
            stop.run_until_cancelled(gone.cancelled()).await;
            drop(entry);
        });
    } else if response.status().is_success()
        && (asked.verb == "watch" || LONG.contains(&asked.subresource.as_str()))
    {
        entry.started();
        return response.map(|body| {
            // Kept as long as the body is.
            body.map_frame(move |frame| {
                let _ = &entry;
                frame
            })
            .boxed()
        });
    }
    response
}

/// A request that gets no ordinary answer.
enum Refused {
    Failed(Failure),
    Reset,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn refusal(failure: &Failure) -> Response<Body> {
    if failure.plain {
        let text = failure.message.clone();
        return body::typed(failure.code, "text/plain; charset=utf-8", text);
    }
    let mut response = body::answer(failure.code, &failure.body(), &[]);
    if let Some(seconds) = failure.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

async fn serve(
    cluster: &Arc<Cluster>,
    request: Request<Incoming>,
    peer: &Peer,
    asked: &Attributes,
    entry: &mut Entry,
) -> Result<Response<Body>, Refused> {
    let (mut parts, incoming) = request.into_parts();
    let who = authenticate(cluster, peer.certificate.as_deref(), &mut parts)?;
    match &who.impersonated_by {
        Some(sender) => entry.who(sender, Some(&who.identity)),
        None => entry.who(&who.identity, None),
    }
    let who = who.identity;
    let decision = rbac::decide(cluster, &who, asked);
    entry.decided(decision.allowed, &decision.reason);
    if !decision.allowed {
        rbac::require(cluster, &who, asked)?;
    }
    if !asked.resource_request {
        return Ok(other(cluster, asked, &parts, incoming).await?);
    }
    match cluster.faults.answer(&asked.verb, &asked.qualified()) {
        None => {}
        Some(Answer::Reset) => return Err(Refused::Reset),
        Some(Answer::Code(code)) => return Err(ordered(code, asked).into()),
        Some(Answer::DelayMs(time)) => {
            let late = tokio::time::sleep(Duration::from_millis(time));
            cluster.stop.run_until_cancelled(late).await;
        }
    }
    let request = Request::from_parts(parts, incoming);
    Ok(resource::answer(cluster, &who, asked, request).await?)
}

/// The Status Kubernetes would send with a code.
fn ordered(code: u16, asked: &Attributes) -> Failure {
    let (group, resource, name) = (&asked.group, &asked.resource, &asked.name);
    let again = |reason, message: &str| {
        let mut failure = Failure::new(code, reason, message);
        failure.details = json!({"retryAfterSeconds": 1});
        failure
    };
    match code {
        401 => Failure::unauthorized(),
        403 => Failure::forbidden(group, resource, name, "refused by order"),
        404 => Failure::not_found(group, resource, name),
        409 => Failure::conflict(group, resource, name, crate::rest::MODIFIED),
        410 => Failure::expired("The resourceVersion for the provided watch is too old."),
        429 => again(
            "TooManyRequests",
            "Too many requests, please try again later.",
        ),
        500 => Failure::internal("refused by order"),
        503 => again(
            "ServiceUnavailable",
            "the server is currently unable to handle the request",
        ),
        504 => again(
            "Timeout",
            "the server was unable to return a response in time",
        ),
        _ => Failure::new(code, "", "refused by order"),
    }
}

/// Everything that is no resource.
async fn other(
    cluster: &Arc<Cluster>,
    asked: &Attributes,
    parts: &Parts,
    incoming: Incoming,
) -> Result<Response<Body>, Failure> {
    if asked.path == "/sandbox/faults" {
        return faults(cluster, &parts.method, incoming).await;
    }
    let missing = || {
        body::typed(
            404,
            "text/plain; charset=utf-8",
            "404 page not found\n".to_owned(),
        )
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(missing());
    }
    let path = asked.path.trim_end_matches('/');
    if matches!(path.split('/').nth(1), Some("healthz" | "livez" | "readyz")) {
        return Ok(body::typed(
            200,
            "text/plain; charset=utf-8",
            "ok".to_owned(),
        ));
    }
    let kinds = cluster.kinds.all();
    if path.starts_with("/openapi/") {
        negotiate::form(&parts.headers)?;
        let document = openapi::document(&kinds, cluster.release, path);
        return Ok(document.map_or_else(missing, |document| body::answer(200, &document, &[])));
    }
    let accept: Vec<&str> = parts
        .headers
        .get_all(http::header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let address = cluster.address.to_string();
    let document = discovery::document(&kinds, cluster.release, path, &accept.join(","), &address);
    Ok(document.map_or_else(missing, |(content_type, document)| {
        body::typed(200, content_type, document.to_string())
    }))
}

/// The admin route for faults.
async fn faults(
    cluster: &Cluster,
    method: &Method,
    incoming: Incoming,
) -> Result<Response<Body>, Failure> {
    match method.as_str() {
        "GET" => {}
        "POST" => {
            let order: Order = serde_json::from_slice(&body::read(incoming).await?)
                .map_err(|error| Failure::bad_request(error.to_string()))?;
            order.place(cluster);
        }
        "DELETE" => cluster.faults.clear(),
        _ => return Err(resource::no_such_method()),
    }
    Ok(body::answer(200, &cluster.faults.list(), &[]))
}

/// The object webhooks see of a connection: `PodExecOptions` and its like.
pub(super) fn connect_options(subresource: &str, query: &str) -> Value {
    let kind = match subresource {
        "exec" => "PodExecOptions",
        "attach" => "PodAttachOptions",
        _ => "PodPortForwardOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "command" => match &mut options["command"] {
                Value::Array(command) => command.push((*value).into()),
                first => *first = json!([value]),
            },
            "container" => options["container"] = (*value).into(),
            "stdin" | "stdout" | "stderr" | "tty" => {
                options[&*key] = crate::request::flag(query, &key).into();
            }
            _ => {}
        }
    }
    options
}

/// Lets webhooks object to a connection.
pub(super) async fn admit_connect(
    cluster: &Cluster,
    who: &Identity,
    kind: &crate::kinds::Kind,
    asked: &Attributes,
    query: &str,
) -> Result<(), Failure> {
    let write = crate::admission::Write {
        operation: "CONNECT",
        kind,
        subresource: &asked.subresource,
        namespace: &asked.namespace,
        name: &asked.name,
        before: None,
        dry_run: false,
        options: &Value::Null,
        who,
    };
    let options = connect_options(&asked.subresource, query);
    let (options, _) = crate::admission::mutate(cluster, write, options).await?;
    crate::admission::validate(cluster, write, &options).await?;
    Ok(())
}
