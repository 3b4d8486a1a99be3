//! Owners and what they own: an object whose owners are all gone goes too, unless it was let go before.

use std::sync::Arc;

use serde_json::Value;

use super::{keep, kind_of};
use crate::cluster::Cluster;
use crate::object::{deleting, namespace, uid};
use crate::rest::{FOREGROUND, ORPHAN};
use crate::store::Key;

const OWNERS: &str = "ownerReferences";

/// Ends what an object waits for as an owner of some of `all`. Returns whether it has lost all its own owners, and is to go.
pub(super) fn look_after(
    cluster: &Cluster,
    key: &Key,
    object: &Value,
    all: &[(Key, Arc<Value>)],
) -> bool {
    let owned = |one: &Value| one["uid"] == uid(object);
    let blocked = |one: &Value| owned(one) && one["blockOwnerDeletion"] == true;
    if waits(object, ORPHAN) {
        for (key, _) in all.iter().filter(|(_, one)| references(one).any(owned)) {
            keep(cluster, key, "metadata", OWNERS, |one| !owned(one));
        }
        keep(cluster, key, "metadata", "finalizers", |one| one != ORPHAN);
    }
    if waits(object, FOREGROUND) && !all.iter().any(|(_, one)| references(one).any(blocked)) {
        keep(cluster, key, "metadata", "finalizers", |one| {
            one != FOREGROUND
        });
    }
    let lost = |reference: &Value| lost(cluster, reference, object);
    let owners = references(object).count();
    let gone = references(object).filter(|one| lost(one)).count();
    if gone > 0 && gone < owners {
        keep(cluster, key, "metadata", OWNERS, |one| !lost(one));
    }
    gone > 0 && gone == owners
}

fn references(object: &Value) -> impl Iterator<Item = &Value> {
    let list = object["metadata"][OWNERS].as_array();
    list.into_iter().flatten()
}

/// Whether an object is to be deleted once this finalizer's work is done.
fn waits(object: &Value, finalizer: &str) -> bool {
    let list = object["metadata"]["finalizers"].as_array();
    deleting(object) && list.is_some_and(|list| list.iter().any(|one| one == finalizer))
}

/// Whether an owner is gone, or there only until what it owns is. One of a kind nobody knows stays, as does one in a
/// namespace of what is in none: that makes no sense, and Kubernetes leaves it alone.
fn lost(cluster: &Cluster, reference: &Value, dependent: &Value) -> bool {
    let (at, kind) = (namespace(dependent), kind_of(cluster, reference));
    kind.is_some_and(|kind| {
        let name = reference["name"].as_str().unwrap_or_default();
        let owner = cluster.store.get(&Cluster::place(&kind, at, name));
        (!kind.namespaced || !at.is_empty())
            && owner.is_none_or(|one| reference["uid"] != uid(&one) || waits(&one, FOREGROUND))
    })
}
