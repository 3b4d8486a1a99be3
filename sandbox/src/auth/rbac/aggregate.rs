//! ClusterRoles made of others: whose labels an `aggregationRule` selects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::stored;
use crate::auth::selector;
use crate::cluster::Cluster;
use crate::object;
use crate::store::Key;

/// Keeps the rules of every ClusterRole with an `aggregationRule` what the selected ones say, until the sandbox stops.
pub async fn aggregate(cluster: Arc<Cluster>) {
    let resource = stored("clusterrole");
    loop {
        let (revision, all) = cluster.store.list(&resource, None);
        for role in &all {
            let Some(rules) = collected(role, &all) else {
                continue;
            };
            if role["rules"] == json!(rules) {
                continue;
            }
            let mut next = (**role).clone();
            next["rules"] = json!(rules);
            let key = Key {
                resource: resource.as_str().into(),
                namespace: String::new(),
                name: object::name(role).to_owned(),
            };
            // Whoever was faster has made a change that brings us here again.
            let _ = cluster.store.replace(&key, object::revision(role), next);
        }
        // What was written above comes back as a change, until a role that collects another one's has settled.
        let Ok(mut watch) = cluster.store.watch(&resource, None, revision) else {
            continue;
        };
        tokio::select! {
            () = cluster.stop.cancelled() => return,
            _ = watch.next() => {}
        }
    }
}

/// The rules a role should have by its `aggregationRule`; `None` if it has none.
pub(super) fn collected(role: &Value, all: &[Arc<Value>]) -> Option<Vec<Value>> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array()?;
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        for other in all {
            if object::name(other) == object::name(role)
                || !selector::matches(selector, &other["metadata"]["labels"])
            {
                continue;
            }
            for rule in other["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}
