//! Roles and their bindings.

use serde_json::{Value, json};

use super::{fill, invalid, items, listed, need, one_of, required, text};
use crate::status::Cause;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(role: &Value, namespaced: bool, causes: &mut Vec<Cause>) {
    for (at, rule) in listed(role, "", "rules") {
        let has = |field: &str| rule[field].as_array().is_some_and(|list| !list.is_empty());
        let mut lacks = |field: &str, what: &str| {
            if !has(field) {
                causes.push(required(format!("{at}.{field}"), what));
            }
        };
        lacks("verbs", "verbs must contain at least one value");
        if has("nonResourceURLs") {
            let at = format!("{at}.nonResourceURLs");
            let urls = &rule["nonResourceURLs"];
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                causes.push(invalid(at, urls, why));
            } else if ["apiGroups", "resources", "resourceNames"]
                .into_iter()
                .any(has)
            {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                causes.push(invalid(at, urls, why));
            }
        } else {
            lacks(
                "apiGroups",
                "resource rules must supply at least one api group",
            );
            lacks(
                "resources",
                "resource rules must supply at least one resource",
            );
        }
    }
}

pub(super) fn default_binding(binding: &mut Value) {
    fill(binding, "/roleRef", &json!({"apiGroup": GROUP}));
    for subject in items(binding, "/subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            fill(subject, "", &json!({"apiGroup": GROUP}));
        }
    }
}

pub(super) fn binding(
    binding: &Value,
    namespaced: bool,
    before: Option<&Value>,
    causes: &mut Vec<Cause>,
) {
    let role = &binding["roleRef"];
    if let Some(before) = before
        && before["roleRef"] != *role
    {
        causes.push(invalid("roleRef", role, "cannot change roleRef"));
    }
    one_of(role, "roleRef", "apiGroup", &[GROUP], causes);
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if text(role, "kind").is_empty() {
        causes.push(super::unsupported(
            "roleRef.kind",
            &json!(""),
            kinds.iter().copied(),
        ));
    }
    one_of(role, "roleRef", "kind", kinds, causes);
    need(role, "roleRef", &["name"], causes);
    for (at, subject) in listed(binding, "", "subjects") {
        need(subject, &at, &["name"], causes);
        let kinds = ["ServiceAccount", "User", "Group"];
        match text(subject, "kind") {
            "ServiceAccount" => {
                // A RoleBinding does not fill in its own namespace either.
                need(subject, &at, &["namespace"], causes);
                one_of(subject, &at, "apiGroup", &[""], causes);
            }
            "User" | "Group" => one_of(subject, &at, "apiGroup", &[GROUP], causes),
            other => causes.push(super::unsupported(
                format!("{at}.kind"),
                &json!(other),
                kinds.into_iter(),
            )),
        }
    }
}
