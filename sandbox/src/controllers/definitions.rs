//! CustomResourceDefinitions: their kinds become served, and go with what is stored of them.

use serde_json::{Value, json};

use super::{amend, delete, let_go};
use crate::{cluster::Cluster, object::deleting, store::Key};

pub(super) const RESOURCE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Finalizer of definitions: objects of the kind go first.
const CLEAN_UP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Serves what an object defines, if it is a definition, and says so in it.
pub(super) fn serve(cluster: &Cluster, key: &Key, definition: &Value) {
    if *key.resource != *RESOURCE || deleting(definition) {
        return;
    }
    // What is stored was checked; nothing is served of what was not.
    let Ok(kinds) = crate::schema::kinds_of(definition, cluster.release) else {
        return;
    };
    let (plural, group) = key.name.split_once('.').unwrap_or_default();
    cluster.kinds.define(group, plural, kinds);
    amend(cluster, key, |next| {
        let versions = next["spec"]["versions"].as_array().into_iter().flatten();
        let stored = versions.filter(|version| version["storage"] == true);
        let stored: Vec<&Value> = stored.map(|version| &version["name"]).collect();
        let status = json!({"acceptedNames": next["spec"]["names"], "storedVersions": stored});
        let conditions = &next["status"]["conditions"];
        let mut known = conditions.clone();
        if conditions.get(0).is_none() {
            let now = format!("{:.0}", cluster.clock.now());
            let condition = |kind, reason| json!({"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now});
            known = json!([
                condition("NamesAccepted", "NoConflicts"),
                condition("Established", "InitialNamesAccepted"),
            ]);
        }
        let finalizers = next["metadata"]["finalizers"].as_array();
        let mut finalizers = finalizers.cloned().unwrap_or_default();
        finalizers.retain(|one| one != CLEAN_UP);
        finalizers.push(CLEAN_UP.into());
        next["status"] = status;
        next["status"]["conditions"] = known;
        next["metadata"]["finalizers"] = finalizers.into();
    });
}

/// Deletes the objects of a kind, and lets its definition go when none is left.
pub(super) async fn retire(cluster: &Cluster, key: &Key) {
    let (_, objects) = cluster.store.list(&key.name, ""); // its name is what the store calls the kind
    for object in &objects {
        delete(cluster, "customresourcedefinition-controller", object).await;
    }
    if objects.is_empty() {
        let (plural, group) = key.name.split_once('.').unwrap_or_default();
        cluster.kinds.define(group, plural, Vec::new());
        let_go(cluster, key, "metadata", CLEAN_UP);
    }
}
