//! The way of one request: who asks, may they, what goes wrong by order, then the answer; all of it audited.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use super::audit::Entry;
use super::body::TEXT;
use super::{Body, Peer, body, resource};
use crate::auth::authenticate::{credential, impersonated};
use crate::auth::rbac;
use crate::cluster::Cluster;
use crate::faults::{Answer, Faults, Order};
use crate::request::{Attributes, Query, attributes};
use crate::status::Failure;
use crate::{discovery, openapi};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Answers a request.
pub(super) async fn answer(
    cluster: &Arc<Cluster>,
    mut request: Request<Incoming>,
    peer: &Peer,
) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let asked = attributes(request.method(), request.uri().path(), &query);
    let id = uuid::Uuid::new_v4().to_string();
    let entry = Arc::new(Entry::new(cluster, &id, &asked, &request, peer));
    request.extensions_mut().insert(Arc::clone(&entry));
    let mut status = json!({});
    let answered = serve(cluster, request, peer, &asked, query, &entry).await;
    let mut response = answered.unwrap_or_else(|failure| {
        status = failure.body();
        let mut response = body::answer(failure.code, &status, &[]);
        if let Some(seconds) = failure.details["retryAfterSeconds"].as_u64() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    });
    status["code"] = response.status().as_u16().into();
    entry.set("responseStatus", status);
    if let Ok(id) = id.parse() {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    // Who serves a stream keeps the entry with the request; a body that goes on keeps it itself.
    let stream = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if stream || asked.verb == "watch" || asked.subresource == "log" {
        entry.log("ResponseStarted");
        let keep = move |frame| (frame, &entry).0;
        return response.map(|body| {
            if stream {
                body
            } else {
                body.map_frame(keep).boxed()
            }
        });
    }
    response
}

async fn serve(
    cluster: &Arc<Cluster>,
    mut request: Request<Incoming>,
    peer: &Peer,
    asked: &Attributes,
    query: Query,
    entry: &Entry,
) -> Result<Response<Body>, Failure> {
    let mut who = credential(cluster, peer.certificate.as_deref(), request.headers_mut())?;
    let acts_as = impersonated(cluster, &who, request.headers())?;
    entry.set("user", json!(who));
    if let Some(acts_as) = acts_as {
        entry.set("impersonatedUser", json!(acts_as));
        who = acts_as;
    }
    rbac::require(cluster, &who, asked)?;
    if !asked.resource_request {
        return other(cluster, asked, request).await;
    }
    let mut fault = None;
    cluster.faults.send_if_modified(|faults| {
        fault = faults.answer(&asked.verb, &asked.qualified());
        false // nobody waits for this
    });
    match fault {
        None => {}
        Some(Answer::Code(code)) => {
            let failure = Failure::new(code, "refused by order");
            let mut failure = failure.about(&asked.group, &asked.resource, &asked.name);
            if matches!(code, 429 | 503 | 504) {
                failure.details["retryAfterSeconds"] = 1.into();
            }
            return Err(failure);
        }
        Some(Answer::DelayMs(time)) => {
            let late = tokio::time::sleep(Duration::from_millis(time));
            cluster.stop.run_until_cancelled(late).await;
        }
        Some(Answer::Reset) => {
            entry.forget();
            peer.reset.cancel();
            return std::future::pending().await; // the connection is about to be dropped, and this with it
        }
    }
    resource::answer(cluster, who, asked, query, request).await
}

/// Everything that is no resource.
async fn other(
    cluster: &Arc<Cluster>,
    asked: &Attributes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let path = asked.path.trim_end_matches('/');
    let found = match (request.method(), path) {
        (_, "/sandbox/faults") => return faults(cluster, request).await,
        (&Method::GET | &Method::HEAD, "/healthz" | "/livez" | "/readyz") => {
            return Ok(body::typed(200, TEXT, "ok".to_owned()));
        }
        (&Method::GET | &Method::HEAD, path) => match path.strip_prefix("/openapi/") {
            Some(path) => {
                body::form(request.headers())?;
                let document = openapi::document(&cluster.kinds.all(), cluster.release, path);
                document.map(|document| (body::JSON, document))
            }
            None => discovery::document(cluster, path, request.headers()),
        },
        _ => None,
    };
    Ok(match found {
        Some((media, document)) => body::typed(200, media, document.to_string()),
        None => body::typed(404, TEXT, "404 page not found\n".to_owned()),
    })
}

/// The admin route for faults.
async fn faults(cluster: &Cluster, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    match *request.method() {
        Method::GET => {}
        Method::POST => {
            let order = serde_json::from_slice::<Order>(&body::read(request.into_body()).await?);
            let order = order.map_err(|error| Failure::bad_request(error.to_string()))?;
            order.place(cluster);
        }
        Method::DELETE => drop(cluster.faults.send_replace(Faults::default())),
        _ => return Err(resource::no_such_method()),
    }
    Ok(body::answer(200, &json!(*cluster.faults.borrow()), &[]))
}
