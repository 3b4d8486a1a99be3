//! Owners and what they own: an object whose owners are all gone goes too, unless it was let go before.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use serde_json::{Value, json};

use super::{amend, delete, unhold};
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{deleting, metadata_mut, namespace, uid};
use crate::rest::{FOREGROUND, ORPHAN};
use crate::store::Key;

/// Ends what an object waits for as an owner, and the object itself if it has lost its owners.
pub(super) async fn look_after(cluster: &Cluster, key: &Key, object: &Value) {
    if waits(object, ORPHAN) {
        for (key, _) in dependents(cluster, object) {
            release(cluster, &key, |reference| reference["uid"] != uid(object));
        }
        amend(cluster, key, |next| unhold(next, "metadata", ORPHAN));
    }
    if waits(object, FOREGROUND) {
        wait_for_dependents(cluster, key, object).await;
    }
    collect(cluster, key, object).await;
}

/// What follows from the end of an object: what it owned goes, and who waited for it may.
pub(super) async fn gone(cluster: &Cluster, object: &Value) {
    for (key, dependent) in dependents(cluster, object) {
        collect(cluster, &key, &dependent).await;
    }
    for reference in references(object) {
        if let Some((key, owner)) = owner(cluster, reference, object)
            && waits(&owner, FOREGROUND)
        {
            wait_for_dependents(cluster, &key, &owner).await;
        }
    }
}

fn references(object: &Value) -> impl Iterator<Item = &Value> {
    let list = object["metadata"]["ownerReferences"].as_array();
    list.into_iter().flatten()
}

/// Whether an object is to be deleted once this finalizer's work is done.
fn waits(object: &Value, finalizer: &str) -> bool {
    let list = object["metadata"]["finalizers"].as_array();
    deleting(object) && list.is_some_and(|list| list.iter().any(|one| one == finalizer))
}

/// What an owner owns.
fn dependents(cluster: &Cluster, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let mut all = cluster.store.all();
    all.retain(|(_, object)| references(object).any(|one| one["uid"] == uid(owner)));
    all
}

/// The owner a reference means.
fn owner(cluster: &Cluster, reference: &Value, dependent: &Value) -> Option<(Key, Arc<Value>)> {
    let kind = kind_of(cluster, reference)?;
    let key = Cluster::place(&kind, namespace(dependent), reference["name"].as_str()?);
    let owner = cluster.store.get(&key)?;
    (reference["uid"] == uid(&owner)).then_some((key, owner))
}

/// Whether an owner is gone, or there only until what it owns is. One of a kind nobody knows stays, as does one in a
/// namespace of what is in none: that makes no sense, and Kubernetes leaves it alone.
fn lost(cluster: &Cluster, reference: &Value, dependent: &Value) -> bool {
    let kind = kind_of(cluster, reference);
    kind.is_some_and(|kind| !kind.namespaced || !namespace(dependent).is_empty())
        && owner(cluster, reference, dependent).is_none_or(|(_, owner)| waits(&owner, FOREGROUND))
}

/// Deletes an object if no owner is left to it.
async fn collect(cluster: &Cluster, key: &Key, object: &Value) {
    let lost = |reference: &Value| lost(cluster, reference, object);
    if deleting(object) || !references(object).any(lost) {
        return;
    }
    if !references(object).all(lost) {
        return release(cluster, key, |reference| !lost(reference));
    }
    let Some(kind) = kind_of(cluster, object) else {
        return;
    };
    // Who waits for it waits for what it owns, too.
    let waiting = references(object).any(|one| owner(cluster, one, object).is_some());
    let foreground = waiting && !dependents(cluster, object).is_empty();
    let same = Preconditions {
        uid: Some(uid(object).to_owned()),
        ..Preconditions::default()
    };
    let options = DeleteOptions {
        propagation_policy: foreground.then(|| "Foreground".to_owned()),
        preconditions: Some(same),
        ..DeleteOptions::default()
    };
    delete(
        cluster,
        "generic-garbage-collector",
        &kind,
        object,
        &options,
    )
    .await;
}

/// The kind an object or a reference says it is of.
fn kind_of(cluster: &Cluster, object: &Value) -> Option<Arc<Kind>> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    cluster.kinds.of(text("apiVersion"), text("kind"))
}

/// Takes owners out of an object but those to keep.
fn release(cluster: &Cluster, key: &Key, keep: impl Fn(&Value) -> bool) {
    amend(cluster, key, |next| {
        let left: Vec<Value> = references(next).filter(|one| keep(one)).cloned().collect();
        if left.is_empty() {
            metadata_mut(next).remove("ownerReferences");
        } else {
            metadata_mut(next).insert("ownerReferences".into(), json!(left));
        }
    });
}

/// Deletes what an owner owns; once nothing that blocks it is left, lets the owner go.
async fn wait_for_dependents(cluster: &Cluster, key: &Key, owner: &Value) {
    for (key, dependent) in dependents(cluster, owner) {
        collect(cluster, &key, &dependent).await;
    }
    let blocks = |one: &Value| one["uid"] == uid(owner) && one["blockOwnerDeletion"] == true;
    if !dependents(cluster, owner)
        .iter()
        .any(|(_, object)| references(object).any(blocks))
    {
        amend(cluster, key, |next| unhold(next, "metadata", FOREGROUND));
    }
}
