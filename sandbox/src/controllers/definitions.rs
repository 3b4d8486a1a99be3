//! CustomResourceDefinitions: their kinds become served, and go with what is stored of them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Controller, identity, set_condition, time};
use crate::cluster::Cluster;
use crate::object::{deleting, metadata_mut, name, namespace, revision};
use crate::rest::Delete;
use crate::status::qualified;
use crate::store::Key;

const RESOURCE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Finalizer of definitions: objects of the kind go first.
const CLEAN_UP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Serves what definitions define.
pub(super) struct Definitions(pub(super) Arc<Cluster>);

impl Controller for Definitions {
    async fn seen(&self, key: &Key, before: Option<&Value>, after: Option<&Arc<Value>>) {
        if &*key.resource != RESOURCE {
            // The last object of a kind that is to go?
            if after.is_none() {
                for definition in self.0.store.list(RESOURCE, None).1 {
                    let (group, plural) = names(&definition);
                    if deleting(&definition) && *key.resource == *qualified(group, plural) {
                        self.retire(&definition).await;
                    }
                }
            }
            return;
        }
        match after {
            Some(definition) if deleting(definition) => self.retire(definition).await,
            Some(definition) => self.establish(definition),
            None => {
                let (group, plural) = before.map(names).unwrap_or_default();
                self.0.kinds.define(group, plural, Vec::new());
            }
        }
    }
}

fn names(definition: &Value) -> (&str, &str) {
    let spec = &definition["spec"];
    (
        spec["group"].as_str().unwrap_or_default(),
        spec["names"]["plural"].as_str().unwrap_or_default(),
    )
}

fn key(definition: &Value) -> Key {
    Key {
        resource: RESOURCE.into(),
        namespace: String::new(),
        name: name(definition).to_owned(),
    }
}

impl Definitions {
    fn establish(&self, definition: &Value) {
        let (group, plural) = names(definition);
        // What is stored was checked; nothing is served of what was not.
        let Ok(kinds) = crate::schema::kinds_of(definition, self.0.release) else {
            return;
        };
        let taken = self.0.kinds.all().iter().any(|known| {
            known.group == group
                && known.plural != plural
                && kinds.iter().any(|kind| kind.kind == known.kind)
        });
        let now = time(&self.0);
        let mut next = definition.clone();
        if taken {
            let why = (
                "KindConflict",
                "another definition of the group has this kind",
            );
            set_condition(&mut next, &now, "NamesAccepted", false, why);
            let why = ("NotAccepted", "not all names are accepted");
            set_condition(&mut next, &now, "Established", false, why);
        } else {
            self.0.kinds.define(group, plural, kinds);
            next["status"]["acceptedNames"] = definition["spec"]["names"].clone();
            let why = ("NoConflicts", "no conflicts found");
            set_condition(&mut next, &now, "NamesAccepted", true, why);
            let why = (
                "InitialNamesAccepted",
                "the initial names have been accepted",
            );
            set_condition(&mut next, &now, "Established", true, why);
            let metadata = metadata_mut(&mut next);
            let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
            if let Some(finalizers) = finalizers.as_array_mut()
                && !finalizers.iter().any(|one| one == CLEAN_UP)
            {
                finalizers.push(CLEAN_UP.into());
            }
        }
        // Raced by another write, this is done again when that is seen.
        let _ = self
            .0
            .store
            .replace(&key(definition), revision(definition), next);
    }

    /// Deletes the objects of a kind, and lets its definition go when none is left.
    async fn retire(&self, definition: &Value) {
        let (group, plural) = names(definition);
        let resource = qualified(group, plural);
        let kinds = self.0.kinds.all();
        let kind = kinds
            .iter()
            .find(|kind| kind.group == group && kind.plural == plural);
        if let Some(kind) = kind {
            let who = identity("customresourcedefinition-controller");
            let delete = Delete::default();
            for object in self.0.store.list(&resource, None).1 {
                if !deleting(&object) {
                    let (namespace, name) = (namespace(&object), name(&object));
                    let deleted = self.0.delete(&who, kind, namespace, name, &delete);
                    if let Err(error) = deleted.await {
                        tracing::debug!(%error, resource, "not deleted with its definition");
                    }
                }
            }
        }
        let Some(live) = self.0.store.get(&key(definition)) else {
            return;
        };
        let mut next = (*live).clone();
        let left = !self.0.store.list(&resource, None).1.is_empty();
        let why = if left {
            (
                "InstanceDeletionInProgress",
                "CustomResource deletion is in progress",
            )
        } else {
            ("InstanceDeletionCompleted", "removed all instances")
        };
        set_condition(&mut next, &time(&self.0), "Terminating", left, why);
        let mut others = false;
        if let Some(finalizers) = metadata_mut(&mut next)
            .get_mut("finalizers")
            .and_then(Value::as_array_mut)
        {
            finalizers.retain(|one| left || one != CLEAN_UP);
            others = !finalizers.is_empty();
        }
        let _ = if others {
            self.0
                .store
                .replace(&key(definition), revision(&live), next)
        } else {
            self.0.store.remove(&key(definition), revision(&live))
        };
    }
}
