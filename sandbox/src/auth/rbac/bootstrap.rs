//! The roles and bindings every cluster begins with: `bootstrap.yaml`.

use serde_json::{Value, json};

use super::GROUP;

/// Rules by role, and the groups roles are bound to.
const TABLE: &str = include_str!("bootstrap.yaml");

/// Objects every cluster begins with: ClusterRoles `cluster-admin`, `admin`, `edit`, `view` (with aggregation),
/// `system:basic-user`, `system:discovery`, `system:public-info-viewer` and so on, and their bindings.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "the table is part of the program"
)]
pub fn bootstrap() -> Vec<Value> {
    let table: Value = serde_saphyr::from_str(TABLE).expect("bootstrap.yaml is YAML");
    let entries = |part: &str| table[part].as_object().into_iter().flatten();
    let mut all: Vec<Value> = Vec::new();
    for (name, rules) in entries("roles") {
        let mut role = object("ClusterRole", name);
        if let Some(to) = name.strip_prefix("system:aggregate-to-") {
            role["metadata"]["labels"][label(to)] = "true".into();
        }
        role["rules"] = rules.clone();
        all.push(role);
    }
    // In this order, as each collects the one before.
    let mut rules: Vec<Value> = Vec::new();
    for (name, to) in [
        ("view", Some("edit")),
        ("edit", Some("admin")),
        ("admin", None),
    ] {
        let mut role = object("ClusterRole", name);
        if let Some(to) = to {
            role["metadata"]["labels"][label(to)] = "true".into();
        }
        role["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {(label(name)): "true"}}]});
        let own = table["roles"][format!("system:aggregate-to-{name}")].as_array();
        rules.splice(..0, own.into_iter().flatten().cloned());
        role["rules"] = json!(rules);
        all.push(role);
    }
    all.extend(entries("bindings").map(|(name, groups)| {
        let groups = groups.as_array().into_iter().flatten();
        let mut binding = object("ClusterRoleBinding", name);
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": name});
        binding["subjects"] = groups
            .map(|group| json!({"apiGroup": GROUP, "kind": "Group", "name": group}))
            .collect();
        binding
    }));
    all
}

fn object(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    })
}

fn label(name: &str) -> String {
    format!("{GROUP}/aggregate-to-{name}")
}
