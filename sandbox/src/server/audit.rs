//! The audit log: `audit.log` in the scratch directory, `audit.k8s.io/v1` events of level Metadata, one to a line and one
//! for each request, when its answer begins.

use std::io::Write as _;

use http::header::USER_AGENT;
use serde_json::{Value, json};

use super::{Asked, Peer, body};
use crate::{cluster::Cluster, request::Attributes};

/// What is known of a request from its beginning.
pub(super) fn begin(cluster: &Cluster, asked: &Attributes, request: &Asked, peer: &Peer) -> Value {
    // Whoever asks may have named the request, so that both sides' logs join.
    let named = request.headers().get("audit-id").map(|id| id.to_str());
    let fresh = uuid::Uuid::new_v4().to_string();
    let id = named.and_then(Result::ok).unwrap_or(&fresh);
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
        "auditID": id, "verb": asked.verb, "requestURI": request.uri().to_string(),
        "user": {"username": ""}, "sourceIPs": [peer.address.ip().to_string()],
        "userAgent": body::text(request.headers(), &USER_AGENT),
        "requestReceivedTimestamp": format!("{:.6}", cluster.clock.now()),
    });
    if asked.resource_request {
        event["objectRef"] = json!({
            "resource": asked.resource, "apiVersion": asked.version, "namespace": asked.namespace,
            "name": asked.name, "apiGroup": asked.group, "subresource": asked.subresource,
        });
    }
    event
}

/// Logs it once all is known.
pub(super) fn end(cluster: &Cluster, mut event: Value) {
    event["stageTimestamp"] = format!("{:.6}", cluster.clock.now()).into();
    // Appended at once, so that lines do not mix.
    let line = format!("{event}\n");
    if let Err(error) = (&cluster.audit).write_all(line.as_bytes()) {
        tracing::warn!(%error, "failed to write the audit log");
    }
}
