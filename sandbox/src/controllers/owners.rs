//! Owners and what they own: an object whose owners are all gone goes too, unless it was let go before.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Controller, identity, kind_of};
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{deleting, metadata_mut, name, namespace, revision, uid};
use crate::rest::{Delete, FOREGROUND, ORPHAN};
use crate::store::Key;

/// The garbage collector.
pub(super) struct Owners(pub(super) Arc<Cluster>);

/// What has become of an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// There, or of a kind nobody knows.
    There,
    /// There, but only until what it owns is gone.
    Waiting,
    Gone,
}

impl Controller for Owners {
    async fn seen(&self, key: &Key, before: Option<&Value>, after: Option<&Arc<Value>>) {
        if let Some(object) = after {
            if has_finalizer(object, ORPHAN) && deleting(object) {
                self.orphan(key, object);
            }
            if has_finalizer(object, FOREGROUND) && deleting(object) {
                self.wait_for_dependents(key, object).await;
            }
            self.collect(object).await;
        } else if let Some(object) = before {
            for (_, dependent) in self.dependents(object) {
                self.collect(&dependent).await;
            }
            // Somebody may have waited for this one.
            for reference in references(object) {
                if let Some((key, owner)) = self.owner(reference, object)
                    && has_finalizer(&owner, FOREGROUND)
                    && deleting(&owner)
                {
                    self.wait_for_dependents(&key, &owner).await;
                }
            }
        }
    }
}

fn references(object: &Value) -> impl Iterator<Item = &Value> {
    let list = object["metadata"]["ownerReferences"].as_array();
    list.into_iter().flatten()
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    let list = object["metadata"]["finalizers"].as_array();
    list.is_some_and(|list| list.iter().any(|one| one == finalizer))
}

impl Owners {
    /// What an owner owns.
    fn dependents(&self, owner: &Value) -> Vec<(Key, Arc<Value>)> {
        let mut all = self.0.store.all();
        all.retain(|(_, object)| references(object).any(|one| one["uid"] == uid(owner)));
        all
    }

    fn owner_kind(&self, reference: &Value) -> Option<Arc<Kind>> {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        self.0.kinds.of(text("apiVersion"), text("kind"))
    }

    /// The owner a reference means.
    fn owner(&self, reference: &Value, dependent: &Value) -> Option<(Key, Arc<Value>)> {
        let kind = self.owner_kind(reference)?;
        let name = reference["name"].as_str().unwrap_or_default();
        let key = Cluster::place(&kind, namespace(dependent), name);
        let owner = self.0.store.get(&key)?;
        (reference["uid"] == uid(&owner)).then_some((key, owner))
    }

    fn state(&self, reference: &Value, dependent: &Value) -> Owner {
        let Some(kind) = self.owner_kind(reference) else {
            return Owner::There;
        };
        if kind.namespaced && namespace(dependent).is_empty() {
            return Owner::There; // makes no sense, and Kubernetes leaves it alone
        }
        match self.owner(reference, dependent) {
            None => Owner::Gone,
            Some((_, owner)) if deleting(&owner) && has_finalizer(&owner, FOREGROUND) => {
                Owner::Waiting
            }
            Some(_) => Owner::There,
        }
    }

    /// Deletes an object if no owner is left to it.
    async fn collect(&self, object: &Arc<Value>) {
        let states: Vec<Owner> = references(object)
            .map(|reference| self.state(reference, object))
            .collect();
        if states.iter().all(|state| *state == Owner::There) || deleting(object) {
            return;
        }
        let Some(kind) = kind_of(&self.0, object) else {
            return;
        };
        if states.contains(&Owner::There) {
            let mut kept = states.iter();
            self.release(&kind, object, |_| kept.next() == Some(&Owner::There));
            return;
        }
        let propagation = if has_finalizer(object, ORPHAN) {
            "Orphan"
        } else if has_finalizer(object, FOREGROUND)
            || states.contains(&Owner::Waiting) && !self.dependents(object).is_empty()
        {
            "Foreground"
        } else {
            "Background"
        };
        let delete = Delete {
            propagation: propagation.to_owned(),
            uid: Some(uid(object).to_owned()),
            ..Delete::default()
        };
        let who = identity("generic-garbage-collector");
        let (namespace, name) = (namespace(object), name(object));
        let deleted = self.0.delete(&who, &kind, namespace, name, &delete);
        if let Err(error) = deleted.await
            && error.code != 404
        {
            tracing::debug!(%error, namespace, name, "not collected");
        }
    }

    /// Takes owners out of an object but those to keep.
    fn release(&self, kind: &Kind, object: &Value, mut keep: impl FnMut(&Value) -> bool) {
        let mut next = object.clone();
        let metadata = metadata_mut(&mut next);
        let mut left = metadata["ownerReferences"].clone();
        if let Some(left) = left.as_array_mut() {
            left.retain(&mut keep);
        }
        if left.as_array().is_none_or(Vec::is_empty) {
            metadata.remove("ownerReferences");
        } else {
            metadata.insert("ownerReferences".into(), left);
        }
        let key = Cluster::place(kind, namespace(object), name(object));
        // Raced by another write, this is done again when that is seen.
        let _ = self.0.store.replace(&key, revision(object), next);
    }

    /// Lets go what an owner owned, then the owner.
    fn orphan(&self, key: &Key, owner: &Value) {
        for (_, dependent) in self.dependents(owner) {
            if let Some(kind) = kind_of(&self.0, &dependent) {
                self.release(&kind, &dependent, |reference| {
                    reference["uid"] != uid(owner)
                });
            }
        }
        if self.dependents(owner).is_empty() {
            self.unhold(key, owner, ORPHAN);
        }
    }

    /// Deletes what an owner owns; once nothing that blocks it is left, lets the owner go.
    async fn wait_for_dependents(&self, key: &Key, owner: &Value) {
        for (_, dependent) in self.dependents(owner) {
            self.collect(&dependent).await;
        }
        let blocks = |object: &Value| {
            references(object)
                .any(|one| one["uid"] == uid(owner) && one["blockOwnerDeletion"] == true)
        };
        let left = self.dependents(owner);
        if !left.iter().any(|(_, object)| blocks(object)) {
            self.unhold(key, owner, FOREGROUND);
        }
    }

    /// Takes a finalizer out of an owner; the last one takes the owner along.
    fn unhold(&self, key: &Key, owner: &Value, finalizer: &str) {
        let mut next = owner.clone();
        let mut left = owner["metadata"]["finalizers"].clone();
        if let Some(left) = left.as_array_mut() {
            left.retain(|one| one != finalizer);
        }
        let empty = left.as_array().is_none_or(Vec::is_empty);
        let _ = if empty && owner["metadata"]["deletionGracePeriodSeconds"] == json!(0) {
            self.0.store.remove(key, revision(owner))
        } else {
            let metadata = metadata_mut(&mut next);
            if empty {
                metadata.remove("finalizers");
            } else {
                metadata.insert("finalizers".into(), left);
            }
            self.0.store.replace(key, revision(owner), next)
        };
    }
}
