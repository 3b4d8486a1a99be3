//! Deletion: at once, after a grace, or once finalizers are gone.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::Value;

use super::{ATTEMPTS, Call, MODIFIED, rules};
use crate::admission::{self, Stage};
use crate::object::{deleting, meta as text, name, namespace, over, uid};
use crate::status::{Failure, Result};
use crate::{cluster::Cluster, kinds::Kind};

/// Longest grace, in seconds, that is added to the time; nobody waits for its end.
const YEAR: i64 = 31_536_000;

impl Cluster {
    /// Deletes an object, or marks it if something must be done first (finalizers, a pod's grace). Returns whether it is
    /// still there, and what it is or was last.
    ///
    /// # Errors
    /// 404, 409, what a webhook refused.
    pub async fn delete(&self, call: &Call, how: &DeleteOptions) -> Result<(bool, Arc<Value>)> {
        let kind = &call.kind;
        let key = Self::place(kind, &call.namespace, &call.name);
        for _ in 0..ATTEMPTS {
            let live = self.get(kind, &call.namespace, &call.name)?;
            check(kind, &live, how)?;
            for stage in [Stage::Mutating, Stage::Validating] {
                admission::admit(self, stage, call, Some(&live), Value::Null).await?;
            }
            let next = self.marked(kind, &live, how);
            let stays = !over(&next);
            if call.dry_run() {
                return Ok((stays, Arc::new(next)));
            }
            if let Ok(last) = self.store.write(&key, Some(&live), stays.then_some(next)) {
                return Ok((stays, last));
            }
        }
        Err(call.conflict(MODIFIED))
    }

    /// Deletes what is selected. Returns what became of it, as of one object.
    ///
    /// # Errors
    /// Of the first object that cannot be deleted.
    pub async fn delete_all(&self, call: &Call, how: &DeleteOptions) -> Result<Vec<Arc<Value>>> {
        let mut deleted = Vec::new();
        for object in self.select(call, None)?.1 {
            let mut one = call.clone();
            namespace(&object).clone_into(&mut one.namespace);
            name(&object).clone_into(&mut one.name);
            match self.delete(&one, how).await {
                Ok((_, last)) => deleted.push(last),
                Err(failure) if failure.code == 404 => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(deleted)
    }

    /// What is stored of an object that is to be deleted.
    fn marked(&self, kind: &Kind, live: &Value, options: &DeleteOptions) -> Value {
        let mut next = live.clone();
        let grace = rules::grace(kind, live, options.grace_period_seconds);
        let known = live["metadata"]["deletionGracePeriodSeconds"].as_i64();
        if deleting(live) && known.is_some_and(|known| grace >= known) {
            return next;
        }
        let end = self.clock.now() + SignedDuration::from_secs(grace.min(YEAR));
        next["metadata"]["deletionTimestamp"] = format!("{end:.0}").into();
        next["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if kind.generation && !deleting(live) {
            rules::bump(&mut next);
        }
        if kind.resource() == "namespaces" {
            next["status"]["phase"] = "Terminating".into();
        }
        next
    }
}

/// Whether an object is the one that is meant.
fn check(kind: &Kind, live: &Value, options: &DeleteOptions) -> Result<()> {
    let wanted = options.preconditions.clone().unwrap_or_default();
    let (same, version) = (wanted.uid, wanted.resource_version);
    for (what, wanted, there) in [
        ("UID", same, uid(live)),
        ("ResourceVersion", version, text(live, "resourceVersion")),
    ] {
        if let Some(wanted) = wanted.filter(|wanted| wanted != there) {
            let why = format!("the {what} in the precondition ({wanted}) does not match");
            let why = format!("{why} the {what} in record ({there})");
            // Kubernetes names the kind here, not the resource.
            return Err(Failure::conflict(&kind.group, &kind.kind, name(live), &why));
        }
    }
    Ok(())
}
