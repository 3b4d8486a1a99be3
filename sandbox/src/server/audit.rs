//! The audit log: `audit.log` in the scratch directory, `audit.k8s.io/v1` events of level Metadata, one to a line.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use http::Request;
use http::header::USER_AGENT;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Peer, body};
use crate::cluster::Cluster;
use crate::request::Attributes;

/// The log.
#[derive(Debug)]
pub struct Audit(Mutex<File>);

impl Audit {
    /// Starts a log in `dir`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("audit.log");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("failed to open {}", path.display()))?;
        Ok(Self(Mutex::new(file)))
    }

    /// A log nobody reads.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let file = File::options().append(true).open("/dev/null");
        Self(Mutex::new(file.unwrap()))
    }
}

/// A request's events. What it was answered with is logged when this is dropped, as `ResponseComplete`.
pub(super) struct Entry {
    cluster: Arc<Cluster>,
    /// `Null` for a request that gets no answer.
    event: Mutex<Value>,
}

impl Entry {
    pub(super) fn new<B>(
        cluster: &Arc<Cluster>,
        id: &str,
        asked: &Attributes,
        request: &Request<B>,
        peer: &Peer,
    ) -> Self {
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": id, "verb": asked.verb,
            "requestURI": request.uri().to_string(), "user": {"username": ""},
            "sourceIPs": [peer.address.ip().to_string()], "userAgent": body::text(request.headers(), &USER_AGENT),
            "requestReceivedTimestamp": time(cluster.clock.now()),
        });
        if asked.resource_request {
            event["objectRef"] = json!({
                "resource": asked.resource, "apiVersion": asked.version, "namespace": asked.namespace,
                "name": asked.name, "apiGroup": asked.group, "subresource": asked.subresource,
            });
        }
        Self {
            cluster: Arc::clone(cluster),
            event: Mutex::new(event),
        }
    }

    /// Adds what has become known: `user`, `impersonatedUser`, `responseStatus`.
    pub(super) fn set(&self, field: &str, value: Value) {
        self.event.lock().unwrap_or_else(PoisonError::into_inner)[field] = value;
    }

    /// A request that gets no answer is not said to have got one.
    pub(super) fn forget(&self) {
        *self.event.lock().unwrap_or_else(PoisonError::into_inner) = Value::Null;
    }

    /// Logs it at a stage: `ResponseStarted`, `ResponseComplete`.
    pub(super) fn log(&self, stage: &str) {
        let mut event = self.event.lock().unwrap_or_else(PoisonError::into_inner);
        if event.is_null() {
            return;
        }
        event["stage"] = stage.into();
        event["stageTimestamp"] = time(self.cluster.clock.now());
        let log = self.cluster.audit.0.lock();
        let mut log = log.unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.write_all(format!("{event}\n").as_bytes()) {
            tracing::warn!(%error, "failed to write the audit log");
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log("ResponseComplete");
    }
}

/// Time as the audit log has it: with microseconds.
fn time(now: Timestamp) -> Value {
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into()
}
