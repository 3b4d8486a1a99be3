//! The audit log: `audit.log` in the scratch directory, `audit.k8s.io/v1` events of level Metadata, one to a line.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::request::Attributes;

/// The log.
#[derive(Debug)]
pub struct Audit {
    file: Mutex<File>,
}

/// A request's events. What it was answered with is logged when this is dropped, as `ResponseComplete`.
pub(super) struct Entry {
    cluster: Arc<crate::cluster::Cluster>,
    event: Value,
    complete: bool,
}

impl Audit {
    /// Name of the file in the scratch directory.
    pub const FILE: &str = "audit.log";

    /// Starts a log in `dir`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(Self::FILE);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("failed to open {}", path.display()))?;
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// A log nobody reads.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let file = File::options().append(true).open("/dev/null").unwrap();
        Self {
            file: Mutex::new(file),
        }
    }

    fn write(&self, event: &Value) {
        let line = format!("{event}\n");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "failed to write the audit log");
        }
    }
}

/// Time as the audit log has it: with microseconds.
fn time(now: Timestamp) -> Value {
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into()
}

impl Entry {
    pub(super) fn new(
        cluster: &Arc<crate::cluster::Cluster>,
        id: &str,
        asked: &Attributes,
        uri: &str,
        agent: &str,
        from: std::net::SocketAddr,
    ) -> Self {
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
            "auditID": id, "requestURI": uri, "verb": asked.verb,
            "user": {"username": "", "groups": []},
            "sourceIPs": [from.ip().to_string()], "userAgent": agent,
            "requestReceivedTimestamp": time(cluster.clock.now()),
            "annotations": {},
        });
        if asked.resource_request {
            let mut object = json!({"resource": asked.resource, "apiVersion": asked.version});
            for (key, value) in [
                ("namespace", &asked.namespace),
                ("name", &asked.name),
                ("apiGroup", &asked.group),
                ("subresource", &asked.subresource),
            ] {
                if !value.is_empty() {
                    object[key] = value.as_str().into();
                }
            }
            event["objectRef"] = object;
        }
        Self {
            cluster: Arc::clone(cluster),
            event,
            complete: true,
        }
    }

    /// Who asked, and as whom.
    pub(super) fn who(&mut self, user: &Identity, impersonated: Option<&Identity>) {
        self.event["user"] = user.user_info();
        if let Some(impersonated) = impersonated {
            self.event["impersonatedUser"] = impersonated.user_info();
        }
    }

    /// How it was decided whether they may.
    pub(super) fn decided(&mut self, allowed: bool, reason: &str) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.event["annotations"] = json!({
            "authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": reason,
        });
    }

    /// What it is answered with.
    pub(super) fn status(&mut self, code: u16, failure: Option<&crate::status::Failure>) {
        let mut status = json!({"metadata": {}, "code": code});
        if let Some(failure) = failure {
            status["status"] = "Failure".into();
            status["message"] = failure.message.as_str().into();
            status["reason"] = (*failure.reason).into();
        }
        self.event["responseStatus"] = status;
    }

    /// Logs that a long answer has begun.
    pub(super) fn started(&mut self) {
        self.log("ResponseStarted");
    }

    /// A request that gets no answer is not said to have got one.
    pub(super) fn forget(mut self) {
        self.complete = false;
    }

    fn log(&mut self, stage: &str) {
        self.event["stage"] = stage.into();
        self.event["stageTimestamp"] = time(self.cluster.clock.now());
        self.cluster.audit.write(&self.event);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.complete {
            self.log("ResponseComplete");
        }
    }
}
