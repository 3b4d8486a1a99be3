//! CustomResourceDefinitions: their kinds become served, and go with what is stored of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::{amend, delete, unhold};
use crate::cluster::Cluster;
use crate::object::{deleting, metadata_mut, name};
use crate::status::qualified;
use crate::store::Key;

pub(super) const RESOURCE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Finalizer of definitions: objects of the kind go first.
const CLEAN_UP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Serves what a definition defines, until it is gone.
pub(super) async fn look_after(cluster: &Cluster, definition: &Value, gone: bool) {
    let (group, plural) = names(definition);
    if gone {
        cluster.kinds.define(group, plural, Vec::new());
    } else if deleting(definition) {
        retire(cluster, definition).await;
    } else {
        establish(cluster, definition);
    }
}

/// Looks again after a definition that waited for the last object of its kind.
pub(super) async fn emptied(cluster: &Cluster, resource: &str) {
    for definition in cluster.store.list(RESOURCE, None).1 {
        if deleting(&definition) && name(&definition) == resource {
            retire(cluster, &definition).await;
        }
    }
}

fn names(definition: &Value) -> (&str, &str) {
    let (plural, group) = name(definition).split_once('.').unwrap_or_default();
    (group, plural)
}

fn establish(cluster: &Cluster, definition: &Value) {
    let (group, plural) = names(definition);
    // What is stored was checked; nothing is served of what was not.
    let Ok(kinds) = crate::schema::kinds_of(definition, cluster.release) else {
        return;
    };
    cluster.kinds.define(group, plural, kinds);
    amend(cluster, &Key::new(RESOURCE, "", name(definition)), |next| {
        if next["status"]["conditions"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            let now = cluster
                .clock
                .now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string();
            let known = [
                ("NamesAccepted", "NoConflicts"),
                ("Established", "InitialNamesAccepted"),
            ];
            let known = known.map(|(kind, reason)| {
                json!({"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now})
            });
            next["status"]["conditions"] = json!(known);
        }
        next["status"]["acceptedNames"] = next["spec"]["names"].clone();
        let finalizers = metadata_mut(next).entry("finalizers").or_insert(json!([]));
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|one| one == CLEAN_UP)
        {
            list.push(CLEAN_UP.into());
        }
    });
}

/// Deletes the objects of a kind, and lets its definition go when none is left.
async fn retire(cluster: &Cluster, definition: &Value) {
    let (group, plural) = names(definition);
    let objects = || cluster.store.list(&qualified(group, plural), None).1;
    let kinds = cluster.kinds.all();
    let mut kinds = kinds
        .iter()
        .filter(|kind| kind.group == group && kind.plural == plural);
    if let Some(kind) = kinds.next() {
        for object in objects() {
            let who = "customresourcedefinition-controller";
            delete(cluster, who, kind, &object, &DeleteOptions::default()).await;
        }
    }
    if objects().is_empty() {
        let key = Key::new(RESOURCE, "", name(definition));
        amend(cluster, &key, |next| unhold(next, "metadata", CLEAN_UP));
    }
}
