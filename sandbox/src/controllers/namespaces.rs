//! Namespaces: what each has from the start, and their end.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Controller, identity, set_condition, time};
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{deleting, name, revision};
use crate::rest::{Delete, Options};
use crate::store::Key;

/// Keeps namespaces furnished, and empties those that end.
pub(super) struct Namespaces(pub(super) Arc<Cluster>);

impl Controller for Namespaces {
    async fn seen(&self, key: &Key, _before: Option<&Value>, after: Option<&Arc<Value>>) {
        // What is in a namespace counts only when it goes: it is replaced, or was waited for.
        if &*key.resource == "namespaces" {
            if let Some(namespace) = after {
                self.look_after(namespace).await;
            }
        } else if after.is_none() && !key.namespace.is_empty() {
            let found = self.0.store.get(&namespace_key(&key.namespace));
            if let Some(namespace) = found {
                self.look_after(&namespace).await;
            }
        }
    }
}

fn namespace_key(name: &str) -> Key {
    Key {
        resource: "namespaces".into(),
        namespace: String::new(),
        name: name.to_owned(),
    }
}

impl Namespaces {
    /// Furnishes all there are.
    pub(super) async fn furnish_all(&self) {
        for namespace in self.0.store.list("namespaces", None).1 {
            self.look_after(&namespace).await;
        }
    }

    async fn look_after(&self, namespace: &Value) {
        if deleting(namespace) {
            self.empty(name(namespace)).await;
        } else {
            self.furnish(name(namespace)).await;
        }
    }

    async fn furnish(&self, namespace: &str) {
        let authority = self.0.pki.authority();
        for (kind, who, object) in [
            (
                "ServiceAccount",
                "service-account-controller",
                json!({"metadata": {"name": "default"}}),
            ),
            (
                "ConfigMap",
                "root-ca-cert-publisher",
                json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": authority}}),
            ),
        ] {
            let Some(kind) = self.0.kinds.of("v1", kind) else {
                continue;
            };
            if self.0.get(&kind, namespace, name(&object)).is_ok() {
                continue;
            }
            let who = identity(who);
            let options = Options {
                manager: "kube-controller-manager".to_owned(),
                ..Options::default()
            };
            let made = self.0.create(&who, &kind, namespace, object, &options);
            if let Err(error) = made.await {
                tracing::debug!(%error, namespace, "not furnished");
            }
        }
    }

    /// Deletes what is in a namespace, and lets the namespace go when nothing is left.
    async fn empty(&self, namespace: &str) {
        let contents = |kind: &Kind| self.0.store.list(&kind.resource(), Some(namespace)).1;
        let who = identity("namespace-controller");
        let kinds = self.0.kinds.all();
        let namespaced = || {
            kinds
                .iter()
                .filter(|kind| kind.namespaced && !kind.virtual_only)
        };
        for kind in namespaced() {
            for object in contents(kind) {
                if deleting(&object) {
                    continue;
                }
                let delete = Delete {
                    propagation: "Background".to_owned(),
                    ..Delete::default()
                };
                let deleted = self.0.delete(&who, kind, namespace, name(&object), &delete);
                if let Err(error) = deleted.await {
                    tracing::debug!(%error, namespace, "not deleted with its namespace");
                }
            }
        }
        let mut left: Vec<(String, usize, Vec<String>)> = namespaced()
            .map(|kind| {
                let objects = contents(kind);
                let finalizers = objects.iter().flat_map(|object| {
                    let list = object["metadata"]["finalizers"].as_array().cloned();
                    list.unwrap_or_default()
                });
                let finalizers = finalizers.filter_map(|one| one.as_str().map(str::to_owned));
                (kind.resource(), objects.len(), finalizers.collect())
            })
            .filter(|(_, count, _)| *count > 0)
            .collect();
        left.sort();
        left.dedup();
        let key = namespace_key(namespace);
        let Some(live) = self.0.store.get(&key) else {
            return;
        };
        let mut next = (*live).clone();
        self.describe(&mut next, &left);
        if left.is_empty()
            && let Some(finalizers) = next["spec"]["finalizers"].as_array_mut()
        {
            finalizers.retain(|one| one != "kubernetes");
        }
        let held = |object: &Value| {
            [
                &object["spec"]["finalizers"],
                &object["metadata"]["finalizers"],
            ]
            .iter()
            .any(|list| list.as_array().is_some_and(|list| !list.is_empty()))
        };
        // Raced by another write, this is done again when that is seen.
        let _ = if held(&next) {
            self.0.store.replace(&key, revision(&live), next)
        } else {
            self.0.store.remove(&key, revision(&live))
        };
    }

    /// Says in a namespace's conditions what it waits for.
    fn describe(&self, namespace: &mut Value, left: &[(String, usize, Vec<String>)]) {
        let now = time(&self.0);
        let mut set = |kind: &str, is: bool, yes: (&str, String), no: (&str, &str)| {
            let why = if is { (yes.0, yes.1.as_str()) } else { no };
            set_condition(namespace, &now, kind, is, why);
        };
        set(
            "NamespaceDeletionDiscoveryFailure",
            false,
            ("", String::new()),
            (
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
        );
        set(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("", String::new()),
            (
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
        );
        set(
            "NamespaceDeletionContentFailure",
            false,
            ("", String::new()),
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        );
        let remaining: Vec<String> = left
            .iter()
            .map(|(resource, count, _)| format!("{resource} has {count} resource instances"))
            .collect();
        set(
            "NamespaceContentRemaining",
            !left.is_empty(),
            (
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", remaining.join(", ")),
            ),
            ("ContentRemoved", "All content successfully removed"),
        );
        let mut finalizers: Vec<&String> = left.iter().flat_map(|(_, _, list)| list).collect();
        finalizers.sort();
        let counted: Vec<String> = finalizers
            .chunk_by(|one, other| one == other)
            .map(|same| format!("{} in {} resource instances", same[0], same.len()))
            .collect();
        set(
            "NamespaceFinalizersRemaining",
            !counted.is_empty(),
            (
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    counted.join(", ")
                ),
            ),
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        );
    }
}
