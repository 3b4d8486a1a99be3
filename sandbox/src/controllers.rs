//! What a controller manager does in a cluster: namespaces and their contents, owners and what they own, the ServiceAccount
//! and the certificate of each namespace, CustomResourceDefinitions that become served, ClusterRoles that consist of others.
//!
//! One task sees every change, one after the other. What a change cannot lead to now (a write came in between) the change
//! after it leads to.

mod definitions;
mod namespaces;
mod owners;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::Value;

use crate::auth::{Identity, rbac};
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{deleting, metadata_mut, name, namespace};
use crate::rest::Call;
use crate::store::Key;

/// Starts all of them, until the sandbox stops. Returns once every namespace has what it needs.
pub async fn start(cluster: &Arc<Cluster>) {
    let changes = |cluster: &Cluster| cluster.store.watch("", None, cluster.store.revision());
    let mut watch = changes(cluster);
    all(cluster).await;
    let cluster = Arc::clone(cluster);
    cluster.tasks.clone().spawn(async move {
        let follow = async {
            loop {
                while let Ok(event) = watch.next().await {
                    seen(&cluster, &event.key, &event.object, event.gone).await;
                }
                // It fell behind, and starts over.
                watch = changes(&cluster);
                all(&cluster).await;
            }
        };
        cluster.stop.run_until_cancelled(follow).await;
    });
}

/// Shows the controllers everything there is.
async fn all(cluster: &Cluster) {
    for (key, object) in cluster.store.all() {
        seen(cluster, &key, &object, false).await;
    }
}

/// What follows from a change of an object, or from its being `gone`.
async fn seen(cluster: &Cluster, key: &Key, object: &Arc<Value>, gone: bool) {
    match &*key.resource {
        "namespaces" if !gone => namespaces::look_after(cluster, object).await,
        "clusterroles.rbac.authorization.k8s.io" => aggregate(cluster, &key.resource),
        definitions::RESOURCE => definitions::look_after(cluster, object, gone).await,
        _ => {}
    }
    if gone {
        namespaces::emptied(cluster, &key.namespace).await;
        definitions::emptied(cluster, &key.resource).await;
        owners::gone(cluster, object).await;
    } else {
        owners::look_after(cluster, key, object).await;
    }
}

/// Brings the rules of ClusterRoles that consist of others up to date.
fn aggregate(cluster: &Cluster, resource: &str) {
    let (_, all) = cluster.store.list(resource, None);
    for role in &all {
        if let Some(rules) = rbac::aggregated(role, &all) {
            amend(cluster, &Key::new(resource, "", name(role)), |role| {
                role["rules"] = rules;
            });
        }
    }
}

/// Changes an object as it is now; it goes if it is to be deleted and nothing holds it any more. Raced by another write,
/// this is done again when that is seen.
fn amend(cluster: &Cluster, key: &Key, change: impl FnOnce(&mut Value)) {
    let Some(live) = cluster.store.get(key) else {
        return;
    };
    let mut next = (*live).clone();
    change(&mut next);
    let held = |part: &str| {
        next[part]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    };
    let over = deleting(&next) && next["metadata"]["deletionGracePeriodSeconds"] == 0;
    let stays = !over || held("metadata") || held("spec");
    let _ = cluster.store.write(key, Some(&live), stays.then_some(next));
}

/// Takes a finalizer out of the `metadata` or `spec` of an object.
fn unhold(object: &mut Value, part: &str, finalizer: &str) {
    let list = object.pointer_mut(&format!("/{part}/finalizers"));
    if let Some(list) = list.and_then(Value::as_array_mut) {
        list.retain(|one| one != finalizer);
        if list.is_empty() && part == "metadata" {
            metadata_mut(object).remove("finalizers");
        }
    }
}

/// Deletes an object as the controller of this name, unless that was done.
async fn delete(
    cluster: &Cluster,
    controller: &str,
    kind: &Arc<Kind>,
    object: &Value,
    options: &DeleteOptions,
) {
    let (namespace, name) = (namespace(object), name(object));
    if deleting(object) {
        return;
    }
    let call = Call::new(identity(controller), kind, namespace, name, "");
    if let Err(error) = cluster.delete(&call, options).await
        && error.code != 404
    {
        tracing::debug!(%error, namespace, name, controller, "not deleted");
    }
}

/// As whom a controller acts.
fn identity(name: &str) -> Identity {
    Identity::sandbox(&format!("system:serviceaccount:kube-system:{name}"))
}
