//! Namespaces: what each has from the start, and their end.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::{amend, delete, identity, unhold};
use crate::cluster::Cluster;
use crate::object::{deleting, name};
use crate::rest::{Call, Change};
use crate::store::Key;

/// Keeps a namespace furnished, and empties one that ends.
pub(super) async fn look_after(cluster: &Cluster, namespace: &Value) {
    if deleting(namespace) {
        empty(cluster, name(namespace)).await;
    } else {
        furnish(cluster, name(namespace)).await;
    }
}

/// Looks again after the namespace of an object that is gone: it is replaced, or was waited for.
pub(super) async fn emptied(cluster: &Cluster, namespace: &str) {
    if let Some(found) = cluster.store.get(&Key::new("namespaces", "", namespace)) {
        look_after(cluster, &found).await;
    }
}

async fn furnish(cluster: &Cluster, namespace: &str) {
    let authority = cluster.pki.authority();
    for (kind, object) in [
        ("ServiceAccount", json!({"metadata": {"name": "default"}})),
        (
            "ConfigMap",
            json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": authority}}),
        ),
    ] {
        let Some(kind) = cluster.kinds.of("v1", kind) else {
            continue;
        };
        if cluster.get(&kind, namespace, name(&object)).is_ok() {
            continue;
        }
        let (who, manager) = (
            identity("namespace-controller"),
            "fieldManager=kube-controller-manager",
        );
        let call = Call::new(who, &kind, namespace, "", manager);
        if let Err(error) = cluster.write(&call, Change::Create, &object).await {
            tracing::debug!(%error, namespace, "not furnished");
        }
    }
}

/// Deletes what is in a namespace, and lets the namespace go when nothing is left.
async fn empty(cluster: &Cluster, namespace: &str) {
    let kinds = cluster.kinds.all();
    let contents = || {
        let kinds = kinds
            .iter()
            .filter(|kind| kind.namespaced && !kind.virtual_only);
        let objects = kinds.map(|kind| {
            (
                kind,
                cluster.store.list(&kind.resource(), Some(namespace)).1,
            )
        });
        objects.flat_map(|(kind, objects)| objects.into_iter().map(move |object| (kind, object)))
    };
    let background = DeleteOptions {
        propagation_policy: Some("Background".to_owned()),
        ..DeleteOptions::default()
    };
    for (kind, object) in contents() {
        delete(cluster, "namespace-controller", kind, &object, &background).await;
    }
    if contents().next().is_none() {
        let key = Key::new("namespaces", "", namespace);
        amend(cluster, &key, |next| unhold(next, "spec", "kubernetes"));
    }
}
