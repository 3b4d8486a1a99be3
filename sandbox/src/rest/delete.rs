//! Deletion: at once, after a grace, or once finalizers are gone.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{ATTEMPTS, Delete, MODIFIED, Selection, meta, special};
use crate::admission;
use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{deleting, meta as text, name as name_of, namespace as namespace_of, uid};
use crate::status::Failure;

/// Finalizer of an owner whose dependents are to be let go.
pub(crate) const ORPHAN: &str = "orphan";
/// Finalizer of an owner that waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

impl Cluster {
    /// Deletes an object, or marks it if something must be done first (finalizers, a pod's grace). Returns what is left
    /// of it; `None` when it is gone.
    ///
    /// # Errors
    /// 404, 409.
    pub async fn delete(
        &self,
        who: &Identity,
        kind: &Kind,
        namespace: &str,
        name: &str,
        delete: &Delete,
    ) -> Result<Option<Arc<Value>>, Failure> {
        let key = Self::place(kind, namespace, name);
        for _ in 0..ATTEMPTS {
            let live = self.get(kind, namespace, name)?;
            delete.check(kind, &live)?;
            let write = admission::Write {
                operation: "DELETE",
                kind,
                subresource: "",
                namespace,
                name,
                before: Some(&live),
                dry_run: delete.dry_run,
                options: &json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}),
                who,
            };
            admission::mutate(self, write, Value::Null).await?;
            admission::validate(self, write, &Value::Null).await?;
            let next = self.marked(kind, &live, delete);
            let left = (!special::done(kind, &next)).then_some(next);
            if delete.dry_run {
                return Ok(left.map(Arc::new));
            }
            let stays = left.is_some();
            if let Ok(stored) = self.store.write(&key, Some(&live), left) {
                return Ok(stays.then_some(stored));
            }
        }
        Err(Failure::conflict(&kind.group, &kind.plural, name, MODIFIED))
    }

    /// Deletes what is selected. Returns what was.
    ///
    /// # Errors
    /// Of the first object that cannot be deleted.
    pub async fn delete_all(
        &self,
        who: &Identity,
        kind: &Kind,
        selection: &Selection,
        delete: &Delete,
    ) -> Result<Vec<Arc<Value>>, Failure> {
        let mut deleted = Vec::new();
        for object in self.select(kind, selection, None)?.1 {
            let (namespace, name) = (namespace_of(&object), name_of(&object));
            match self.delete(who, kind, namespace, name, delete).await {
                Ok(left) => deleted.push(left.unwrap_or(object)),
                Err(failure) if failure.code == 404 => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(deleted)
    }

    /// What is stored of an object that is to be deleted.
    fn marked(&self, kind: &Kind, live: &Value, delete: &Delete) -> Value {
        let mut next = live.clone();
        let mut finalizers = meta::finalizers(live);
        if !delete.propagation.is_empty() {
            finalizers.retain(|one| *one != ORPHAN && *one != FOREGROUND);
        }
        match delete.propagation.as_str() {
            "Orphan" => finalizers.push(ORPHAN),
            "Foreground" => finalizers.push(FOREGROUND),
            _ => {}
        }
        let finalizers = (!finalizers.is_empty()).then(|| json!(finalizers));
        meta::put(&mut next, "/metadata/finalizers", finalizers.as_ref());
        let grace = special::grace(kind, live, delete.grace);
        let known = live["metadata"]["deletionGracePeriodSeconds"].as_u64();
        if deleting(live) && known.is_some_and(|known| grace >= known) {
            return next;
        }
        let seconds = SignedDuration::from_secs(i64::try_from(grace).unwrap_or(i64::MAX));
        let end = self.clock.now().checked_add(seconds);
        next["metadata"]["deletionTimestamp"] = meta::time(end.unwrap_or(Timestamp::MAX));
        next["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if kind.generation && !deleting(live) {
            meta::bump(&mut next);
        }
        if kind.resource() == "namespaces" {
            next["status"]["phase"] = "Terminating".into();
        }
        next
    }
}

impl Delete {
    fn check(&self, kind: &Kind, live: &Value) -> Result<(), Failure> {
        let conditions = [
            ("UID", &self.uid, uid(live)),
            (
                "ResourceVersion",
                &self.revision,
                text(live, "resourceVersion"),
            ),
        ];
        let mut conditions = conditions.iter();
        let failed = |(_, wanted, there): &&(_, &Option<String>, &str)| {
            wanted.as_ref().is_some_and(|wanted| wanted != there)
        };
        let Some((what, Some(wanted), there)) = conditions.find(failed) else {
            return Ok(());
        };
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({there})"
        );
        // Kubernetes names the kind here, not the resource.
        let (group, kind) = (&kind.group, &kind.kind);
        Err(Failure::conflict(group, kind, name_of(live), &why))
    }

    /// What a `DELETE` is answered with: what is left of the object, otherwise a Status.
    #[must_use]
    pub fn answer(kind: &Kind, before: &Value, left: Option<&Value>) -> Value {
        let details = json!({"name": name_of(before), "group": kind.group, "kind": kind.plural, "uid": uid(before)});
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        left.cloned().unwrap_or(status)
    }
}
