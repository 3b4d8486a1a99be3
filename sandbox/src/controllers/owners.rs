//! Owners and what they own: an object whose owners are all gone goes too, unless it was let go before.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{amend, delete, unhold};
use crate::cluster::Cluster;
use crate::object::{deleting, metadata_mut, namespace, uid};
use crate::rest::{Delete, FOREGROUND, ORPHAN};
use crate::store::Key;

/// What has become of an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// There, or of a kind nobody knows.
    There,
    /// There, but only until what it owns is gone.
    Waiting,
    Gone,
}

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
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let kind = cluster.kinds.of(text("apiVersion"), text("kind"))?;
    let key = Cluster::place(&kind, namespace(dependent), text("name"));
    let owner = cluster.store.get(&key)?;
    (reference["uid"] == uid(&owner)).then_some((key, owner))
}

fn state(cluster: &Cluster, reference: &Value, dependent: &Value) -> Owner {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let known = cluster.kinds.of(text("apiVersion"), text("kind"));
    match owner(cluster, reference, dependent) {
        // One in no namespace cannot have an owner in one: Kubernetes leaves it alone.
        _ if known.is_none_or(|kind| kind.namespaced && namespace(dependent).is_empty()) => {
            Owner::There
        }
        None => Owner::Gone,
        Some((_, owner)) if waits(&owner, FOREGROUND) => Owner::Waiting,
        Some(_) => Owner::There,
    }
}

/// Deletes an object if no owner is left to it.
async fn collect(cluster: &Cluster, key: &Key, object: &Value) {
    let gone = |reference: &Value| state(cluster, reference, object) != Owner::There;
    if deleting(object) || !references(object).any(gone) {
        return;
    }
    if !references(object).all(gone) {
        return release(cluster, key, |reference| !gone(reference));
    }
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let Some(kind) = cluster.kinds.of(text("apiVersion"), text("kind")) else {
        return;
    };
    let waiting = references(object).any(|one| state(cluster, one, object) == Owner::Waiting);
    let foreground = waiting && !dependents(cluster, object).is_empty();
    let options = Delete {
        propagation: if foreground { "Foreground" } else { "" }.to_owned(),
        uid: Some(uid(object).to_owned()),
        ..Delete::default()
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
