//! ClusterRoles that consist of others: their rules are those of every ClusterRole their selectors choose.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Controller;
use crate::cluster::Cluster;
use crate::object::{name, revision};
use crate::selector::label_selector_matches;
use crate::store::Key;

const RESOURCE: &str = "clusterroles.rbac.authorization.k8s.io";

/// Keeps them up to date.
pub(super) struct Roles(pub(super) Arc<Cluster>);

impl Controller for Roles {
    async fn seen(&self, key: &Key, _before: Option<&Value>, _after: Option<&Arc<Value>>) {
        if &*key.resource != RESOURCE {
            return;
        }
        let (_, all) = self.0.store.list(RESOURCE, None);
        for role in &all {
            let Some(selectors) = role["aggregationRule"]["clusterRoleSelectors"].as_array() else {
                continue;
            };
            let chosen = |other: &Value| {
                name(other) != name(role)
                    && selectors.iter().any(|selector| {
                        label_selector_matches(selector, &other["metadata"]["labels"])
                    })
            };
            let mut rules: Vec<&Value> = Vec::new();
            for other in all.iter().filter(|other| chosen(other)) {
                for rule in other["rules"].as_array().into_iter().flatten() {
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
            }
            let mut next = (**role).clone();
            next["rules"] = json!(rules);
            let key = Key::new(RESOURCE, "", name(role));
            // Raced by another write, this is done again when that is seen.
            let _ = self.0.store.replace(&key, revision(role), next);
        }
    }
}
