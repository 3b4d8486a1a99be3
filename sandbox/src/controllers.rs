//! What a controller manager does in a cluster: namespaces and their contents, owners and what they own, the ServiceAccount
//! and the certificate of each namespace, CustomResourceDefinitions that become served.
//!
//! One task sees every change, one after the other. What a change cannot lead to now (a write came in between) the change
//! after it leads to.

mod definitions;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use crate::object::{deleting, name, namespace, over, text, uid};
use crate::{auth::Identity, cluster::Cluster, rest::Call, store::Key};

const OWNERS: &str = "ownerReferences";

/// Starts all of them, until the sandbox stops. Returns once every namespace has what it needs.
pub(crate) async fn start(cluster: &Arc<Cluster>) {
    let changes = |cluster: &Cluster| cluster.store.watch("", "", cluster.store.revision());
    let mut watch = changes(cluster);
    everything(cluster).await;
    let cluster = Arc::clone(cluster);
    cluster.tasks.clone().spawn(async move {
        let follow = async {
            loop {
                let mut looked = 0;
                while let Some(event) = watch.next().await {
                    if event.gone && event.revision > looked {
                        // Anything may have waited for it. What goes meanwhile is seen with it.
                        looked = cluster.store.revision();
                        everything(&cluster).await;
                    } else if let Some(object) = cluster.store.get(&event.key) {
                        definitions::serve(&cluster, &event.key, &object);
                        look_after(&cluster, &event.key, &object).await;
                    }
                }
                // It fell behind, and starts over.
                watch = changes(&cluster);
                for (key, object) in cluster.store.all() {
                    definitions::serve(&cluster, &key, &object);
                }
                everything(&cluster).await;
            }
        };
        cluster.stop.run_until_cancelled(follow).await;
    });
}

async fn everything(cluster: &Cluster) {
    for (key, _) in cluster.store.all() {
        // As it is after what was done for those before it.
        if let Some(object) = cluster.store.get(&key) {
            look_after(cluster, &key, &object).await;
        }
    }
}

/// Does what an object asks for, and deletes it if all its owners are gone.
async fn look_after(cluster: &Cluster, key: &Key, object: &Value) {
    match (&*key.resource, deleting(object)) {
        ("namespaces", false) => furnish(cluster, &key.name),
        ("namespaces", true) => empty(cluster, key).await,
        (definitions::RESOURCE, true) => definitions::retire(cluster, key).await,
        _ => {}
    }
    let owners = object["metadata"][OWNERS].as_array().into_iter().flatten();
    let lost = |owner: &&Value| lost(cluster, owner, namespace(object));
    let (gone, there): (Vec<_>, Vec<_>) = owners.partition(lost);
    if there.is_empty() && !gone.is_empty() {
        delete(cluster, "generic-garbage-collector", object).await;
    } else if !gone.is_empty() {
        amend(cluster, key, |next| next["metadata"][OWNERS] = json!(there));
    }
}

/// Whether the owner of something in a namespace is gone. One of a kind nobody knows stays, as does one in a namespace of
/// what is in none: that makes no sense, and Kubernetes leaves it alone.
fn lost(cluster: &Cluster, owner: &Value, namespace: &str) -> bool {
    let kind = cluster
        .kinds
        .of(text(&owner["apiVersion"]), text(&owner["kind"]));
    kind.is_some_and(|kind| {
        let key = Cluster::place(&kind, namespace, text(&owner["name"]));
        let found = cluster.store.get(&key);
        let may_be = !kind.namespaced || !namespace.is_empty();
        may_be && found.is_none_or(|found| owner["uid"] != uid(&found))
    })
}

/// Gives a namespace what each has from the start, and keeps.
fn furnish(cluster: &Cluster, namespace: &str) {
    let authority = json!({"ca.crt": cluster.pki.authority});
    for (kind, name, data) in [
        ("ServiceAccount", "default", Value::Null),
        ("ConfigMap", "kube-root-ca.crt", authority),
    ] {
        let metadata = json!({"namespace": namespace, "name": name});
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
        json_patch::merge(&mut object, &json!({"data": data}));
        let _ = cluster.plant(object); // unless it is there
    }
}

/// Deletes what is in a namespace, and lets the namespace go when nothing is left.
async fn empty(cluster: &Cluster, key: &Key) {
    let mut contents = cluster.store.all();
    contents.retain(|(one, _)| one.namespace == key.name);
    for (_, object) in &contents {
        delete(cluster, "namespace-controller", object).await;
    }
    if contents.is_empty() {
        let_go(cluster, key, "spec", "kubernetes");
    }
}

/// Takes a finalizer out of the `metadata` or `spec` of an object that is to be deleted.
fn let_go(cluster: &Cluster, key: &Key, part: &str, finalizer: &str) {
    amend(cluster, key, |object| {
        if let Some(list) = object[part]["finalizers"].as_array_mut() {
            list.retain(|one| one != finalizer);
        }
    });
}

/// Changes an object as it is now; it goes if it is to be deleted and nothing holds it any more. Raced by another write,
/// this is done again when that is seen.
fn amend(cluster: &Cluster, key: &Key, change: impl FnOnce(&mut Value)) {
    let Some(live) = cluster.store.get(key) else {
        return;
    };
    let mut next = (*live).clone();
    change(&mut next);
    let next = (!over(&next)).then_some(next);
    let _ = cluster.store.write(key, Some(&live), next);
}

/// Deletes an object as the controller of this name, unless that was done.
async fn delete(cluster: &Cluster, controller: &str, object: &Value) {
    let kind = cluster
        .kinds
        .of(text(&object["apiVersion"]), text(&object["kind"]));
    let Some(kind) = kind.filter(|_| !deleting(object)) else {
        return;
    };
    let who = Identity::sandbox(&format!("system:serviceaccount:kube-system:{controller}"));
    let (at, name) = (namespace(object), name(object));
    let call = Call::new(who, &kind, at, name, "");
    if let Err(error) = cluster.delete(&call, &DeleteOptions::default()).await {
        tracing::debug!(%error, at, name, controller, "not deleted");
    }
}
