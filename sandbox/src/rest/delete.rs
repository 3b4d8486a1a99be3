//! Deletion: at once, after a grace, or once finalizers are gone.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{ATTEMPTS, Delete, MODIFIED, Selection, meta, special};
use crate::admission;
use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{
    deleting, meta as meta_text, metadata_mut, name as object_name, namespace as object_namespace,
    revision, uid,
};
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
        special::check_delete(kind, name)?;
        for _ in 0..ATTEMPTS {
            let live = self.get(kind, namespace, name)?;
            delete.check(kind, &live)?;
            let options = delete.review();
            let write = admission::Write {
                operation: "DELETE",
                kind,
                subresource: "",
                namespace,
                name,
                before: Some(&live),
                dry_run: delete.dry_run,
                options: &options,
                who,
            };
            admission::mutate(self, write, Value::Null).await?;
            admission::validate(self, write, &Value::Null).await?;
            let next = self.marked(kind, &live, delete);
            let done = special::done(kind, &next);
            if delete.dry_run {
                return Ok((!done).then(|| Arc::new(next)));
            }
            let stored = if done {
                self.store.remove(&key, revision(&live)).map(|_| None)
            } else {
                self.store.replace(&key, revision(&live), next).map(Some)
            };
            if let Ok(left) = stored {
                return Ok(left);
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
        let (_, found) = self.select(kind, selection);
        let mut deleted = Vec::new();
        for object in found {
            let (namespace, name) = (object_namespace(&object), object_name(&object));
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
        let mut finalizers: Vec<&str> = meta::finalizers(live);
        if !delete.propagation.is_empty() {
            finalizers.retain(|one| *one != ORPHAN && *one != FOREGROUND);
        }
        match delete.propagation.as_str() {
            "Orphan" => finalizers.push(ORPHAN),
            "Foreground" => finalizers.push(FOREGROUND),
            _ => {}
        }
        let finalizers = json!(finalizers);
        let grace = special::grace(kind, live, delete.grace);
        let metadata = metadata_mut(&mut next);
        if finalizers.as_array().is_none_or(Vec::is_empty) {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".into(), finalizers);
        }
        let sooner = live["metadata"]["deletionGracePeriodSeconds"]
            .as_u64()
            .is_none_or(|known| grace < known);
        if deleting(live) && !sooner {
            return next;
        }
        let seconds = SignedDuration::from_secs(i64::try_from(grace).unwrap_or(i64::MAX));
        let end = self.clock.now().checked_add(seconds);
        let end = meta::time(end.unwrap_or(jiff::Timestamp::MAX));
        metadata.insert("deletionTimestamp".into(), end);
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
        if kind.generation && !deleting(live) {
            meta::bump(&mut next);
        }
        special::mark(kind, &mut next);
        next
    }
}

impl Delete {
    fn check(&self, kind: &Kind, live: &Value) -> Result<(), Failure> {
        let (group, revision) = (&kind.group, meta_text(live, "resourceVersion"));
        for (what, wanted, there, happened) in [
            ("UID", &self.uid, uid(live), "deleted and then recreated"),
            ("ResourceVersion", &self.revision, revision, "modified"),
        ] {
            if let Some(wanted) = wanted
                && wanted != there
            {
                let why = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({there}). The object might \
                     have been {happened}"
                );
                // Kubernetes names the kind here, not the resource.
                let (kind, name) = (&kind.kind, object_name(live));
                return Err(Failure::conflict(group, kind, name, &why));
            }
        }
        Ok(())
    }

    /// As webhooks are told of it.
    fn review(&self) -> Value {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(grace) = self.grace {
            options["gracePeriodSeconds"] = grace.into();
        }
        if !self.propagation.is_empty() {
            options["propagationPolicy"] = self.propagation.as_str().into();
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    /// What a `DELETE` is answered with: the object if something is left of it or its kind is shown, otherwise a Status.
    #[must_use]
    pub fn answer(kind: &Kind, before: &Value, left: Option<&Value>) -> Value {
        if let Some(left) = left.or_else(|| special::shown_when_deleted(kind).then_some(before)) {
            return left.clone();
        }
        let mut details =
            json!({"name": object_name(before), "kind": kind.plural, "uid": uid(before)});
        if !kind.group.is_empty() {
            details["group"] = kind.group.as_str().into();
        }
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    }
}
