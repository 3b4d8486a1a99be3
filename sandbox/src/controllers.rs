//! What a controller manager does in a cluster: namespaces and their contents, owners and what they own, the ServiceAccount
//! and the certificate of each namespace, CustomResourceDefinitions that become served, ClusterRoles that consist of others.
//!
//! One task sees every change, one after the other. What a change cannot lead to now (a write came in between) the change
//! after it leads to.

mod definitions;
mod owners;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{deleting, name, namespace};
use crate::rest::Call;
use crate::selector::label_selector_matches;
use crate::store::Key;

/// Starts all of them, until the sandbox stops. Returns once every namespace has what it needs.
pub(crate) async fn start(cluster: &Arc<Cluster>) {
    let changes = |cluster: &Cluster| cluster.store.watch("", None, cluster.store.revision());
    let mut watch = changes(cluster);
    everything(cluster).await;
    let cluster = Arc::clone(cluster);
    cluster.tasks.clone().spawn(async move {
        let follow = async {
            loop {
                let mut looked = 0;
                while let Some(event) = watch.next().await {
                    let ends = event.gone || deleting(&event.object);
                    if ends && event.revision > looked {
                        // Anything may have waited for it. What ends meanwhile is seen with it.
                        looked = cluster.store.revision();
                        everything(&cluster).await;
                    } else if let Some(object) = cluster.store.get(&event.key).filter(|_| !ends) {
                        definitions::serve(&cluster, &event.key, &object);
                        look_after(&cluster, &event.key, &object, &[]).await;
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
    let all = cluster.store.all();
    for (key, _) in &all {
        // As it is after what was done for those before it.
        if let Some(object) = cluster.store.get(key) {
            look_after(cluster, key, &object, &all).await;
        }
    }
}

/// Does what an object asks for; `all` matters only to those that are being deleted.
async fn look_after(cluster: &Cluster, key: &Key, object: &Value, all: &[(Key, Arc<Value>)]) {
    match (&*key.resource, deleting(object)) {
        (_, true) if all.is_empty() => return, // its own event comes
        ("namespaces", false) => furnish(cluster, &key.name),
        ("namespaces", true) => empty(cluster, key, all).await,
        (definitions::RESOURCE, true) => definitions::retire(cluster, key).await,
        ("clusterroles.rbac.authorization.k8s.io", false) => aggregate(cluster, &key.resource),
        _ => {}
    }
    if owners::look_after(cluster, key, object, all) {
        delete(cluster, "generic-garbage-collector", object).await;
    }
}

/// Gives a namespace what each has from the start, and keeps.
fn furnish(cluster: &Cluster, namespace: &str) {
    let authority = json!({"ca.crt": cluster.pki.authority()});
    for (kind, name, data) in [
        ("ServiceAccount", "default", Value::Null),
        ("ConfigMap", "kube-root-ca.crt", authority),
    ] {
        let resource = format!("{}s", kind.to_lowercase());
        let there = cluster.store.get(&Key::new(&resource, namespace, name));
        if there.is_some() {
            continue;
        }
        let metadata = json!({"namespace": namespace, "name": name});
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
        json_patch::merge(&mut object, &json!({"data": data}));
        let _ = cluster.plant(object); // unless somebody was faster
    }
}

/// Deletes what is in a namespace, and lets the namespace go when nothing is left.
async fn empty(cluster: &Cluster, key: &Key, all: &[(Key, Arc<Value>)]) {
    let within = all.iter().filter(|(one, _)| one.namespace == key.name);
    let contents: Vec<_> = within.map(|(_, object)| object).collect();
    for object in &contents {
        delete(cluster, "namespace-controller", object).await;
    }
    if contents.is_empty() {
        keep(cluster, key, "spec", "finalizers", |one| {
            one != "kubernetes"
        });
    }
}

/// Gives ClusterRoles that consist of others the rules of those.
pub(crate) fn aggregate(cluster: &Cluster, resource: &str) {
    let (_, all) = cluster.store.list(resource, None);
    for role in &all {
        let selectors = &role["aggregationRule"]["clusterRoleSelectors"];
        let Some(selectors) = selectors.as_array() else {
            continue;
        };
        let mut rules: Vec<&Value> = Vec::new();
        for other in all.iter().filter(|other| name(other) != name(role)) {
            let chosen = |one| label_selector_matches(one, &other["metadata"]["labels"]);
            if selectors.iter().any(chosen) {
                rules.extend(other["rules"].as_array().into_iter().flatten());
            }
        }
        amend(cluster, &Key::new(resource, "", name(role)), |role| {
            role["rules"] = json!(rules);
        });
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
        let list = next[part]["finalizers"].as_array();
        list.is_some_and(|list| !list.is_empty())
    };
    let over = deleting(&next) && next["metadata"]["deletionGracePeriodSeconds"] == 0;
    let stays = !over || held("metadata") || held("spec");
    let _ = cluster.store.write(key, Some(&live), stays.then_some(next));
}

/// Takes what is not to be kept out of a list in the `metadata` or `spec` of an object.
fn keep(cluster: &Cluster, key: &Key, part: &str, list: &str, keep: impl Fn(&Value) -> bool) {
    amend(cluster, key, |object| {
        let all = object[part][list].as_array().into_iter().flatten();
        let left: Vec<&Value> = all.filter(|one| keep(one)).collect();
        let left = (!left.is_empty()).then_some(left);
        let patch = json!({part: {list: left}});
        json_patch::merge(object, &patch);
    });
}

/// The kind an object or a reference says it is of.
fn kind_of(cluster: &Cluster, object: &Value) -> Option<Arc<Kind>> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    cluster.kinds.of(text("apiVersion"), text("kind"))
}

/// Deletes an object as the controller of this name, unless that was done.
async fn delete(cluster: &Cluster, controller: &str, object: &Value) {
    let kind = kind_of(cluster, object).filter(|_| !deleting(object));
    let Some(kind) = kind else {
        return;
    };
    let who = Identity::sandbox(&format!("system:serviceaccount:kube-system:{controller}"));
    let options = DeleteOptions {
        propagation_policy: Some("Background".to_owned()),
        ..DeleteOptions::default()
    };
    let (at, name) = (namespace(object), name(object));
    let call = Call::new(who, &kind, at, name, "");
    if let Err(error) = cluster.delete(&call, &options).await {
        tracing::debug!(%error, at, name, controller, "not deleted");
    }
}
