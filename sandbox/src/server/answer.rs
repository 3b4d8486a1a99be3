//! The way of one request: who asks, may they, what goes wrong by order, then the answer; all of it audited.

use std::{future::pending, sync::Arc};

use http::{Method, Response, header::RETRY_AFTER};
use serde_json::{Value, json};

use super::body::{self, JSON, TEXT, typed};
use super::{Asked, Body, Peer, audit, resource};
use crate::auth::{authenticate, rbac};
use crate::faults::{Answer, Order};
use crate::request::{Attributes, attributes};
use crate::status::{Failure, Result};
use crate::{cluster::Cluster, discovery, openapi};

/// Answers a request.
pub(super) async fn answer(cluster: Arc<Cluster>, request: Asked, peer: Peer) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let asked = attributes(request.method(), request.uri().path(), query);
    let mut event = audit::begin(&cluster, &asked, &request, &peer);
    let answered = serve(&cluster, request, &peer, &asked, &mut event).await;
    let mut response = answered.unwrap_or_else(|failure| {
        event["responseStatus"] = failure.body();
        let mut response = body::answer(failure.code, &event["responseStatus"], &[]);
        if matches!(failure.code, 429 | 503) {
            response.headers_mut().insert(RETRY_AFTER, 1.into());
        }
        response
    });
    event["responseStatus"]["code"] = response.status().as_u16().into();
    let id = event["auditID"].as_str().and_then(|id| id.parse().ok());
    id.map(|id| response.headers_mut().insert("audit-id", id));
    audit::end(&cluster, event);
    response
}

async fn serve(
    cluster: &Arc<Cluster>,
    mut request: Asked,
    peer: &Peer,
    asked: &Attributes,
    event: &mut Value,
) -> Result<Response<Body>> {
    let certificate = peer.certificate.as_deref();
    let mut who = authenticate::credential(cluster, certificate, request.headers_mut())?;
    let acts_as = authenticate::impersonated(cluster, &who, request.headers())?;
    event["user"] = json!(who);
    if let Some(acts_as) = acts_as {
        event["impersonatedUser"] = json!(acts_as);
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
        None => resource::answer(cluster, who, asked, request).await,
        Some(Answer::Code(code)) => Err(Failure::new(code, "refused by order")),
        Some(Answer::Reset) => {
            peer.reset.cancel();
            pending().await // the connection is about to be dropped, and this with it
        }
    }
}

/// Everything that is no resource.
async fn other(cluster: &Cluster, asked: &Attributes, request: Asked) -> Result<Response<Body>> {
    let path = asked.path.trim_end_matches('/');
    if path == "/sandbox/faults" {
        if request.method() == Method::POST {
            let order = body::read(request.into_body()).await?;
            let order = serde_json::from_slice::<Order>(&order);
            let order = order.map_err(|error| Failure::bad_request(error.to_string()))?;
            order.place(cluster);
        }
        return Ok(body::answer(200, &json!(*cluster.faults.borrow()), &[]));
    }
    let found = if !matches!(&*asked.verb, "get" | "head") {
        None
    } else if matches!(path, "/healthz" | "/livez" | "/readyz") {
        return Ok(typed(200, TEXT, "ok".to_owned()));
    } else if let Some(path) = path.strip_prefix("/openapi/") {
        body::form(request.headers())?;
        let document = openapi::document(&cluster.kinds.all(), cluster.release, path);
        document.map(|document| (JSON, document))
    } else {
        discovery::document(cluster, path, request.headers())
    };
    Ok(match found {
        Some((media, document)) => typed(200, media, document.to_string()),
        None => typed(404, TEXT, "404 page not found\n".to_owned()),
    })
}
