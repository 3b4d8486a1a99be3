//! Role-based access control, evaluated for every request.

pub mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Value, json};

use self::rule::{Rule, resource};
use super::{Identity, MASTERS};
use crate::cluster::Cluster;
use crate::object::{name, namespace};
use crate::request::Attributes;
use crate::selector::label_selector_matches;
use crate::status::Failure;
use crate::store::Key;

/// API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// A decision and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// E.g. `RBAC: allowed by RoleBinding "x/y" of Role "y"`; empty when denied.
    pub reason: String,
}

/// Whether somebody may do something, by the roles and bindings in the store.
#[must_use]
pub fn decide(cluster: &Cluster, who: &Identity, what: &Attributes) -> Decision {
    let allows = |(_, rules): &(_, Vec<Rule>)| rules.iter().any(|rule| rule.allows(what));
    let by = grants(cluster, who, &what.namespace).find(allows);
    let reason = by.as_ref().map(|(binding, _)| {
        let (at, role) = (namespace(binding), &binding["roleRef"]);
        let mut name = name(binding).to_owned();
        if !at.is_empty() {
            name = format!("{name}/{at}");
        }
        let (kind, of) = (text(binding, "kind"), text(role, "kind"));
        format!("RBAC: allowed by {kind} {name:?} of {of} {}", role["name"])
    });
    Decision {
        allowed: by.is_some() || who.is_in(MASTERS),
        reason: reason.unwrap_or_default(),
    }
}

/// The same as a 403 that says who, what and where.
///
/// # Errors
/// When denied.
pub fn require(cluster: &Cluster, who: &Identity, what: &Attributes) -> Result<(), Failure> {
    if decide(cluster, who, what).allowed {
        return Ok(());
    }
    let (user, verb, group) = (&who.username, &what.verb, &what.group);
    if !what.resource_request {
        let why = format!(
            "forbidden: User {user:?} cannot {verb} path {:?}",
            what.path
        );
        return Err(Failure::new(403, why));
    }
    let scope = match what.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let resource = resource(what);
    let why =
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}");
    Err(Failure::forbidden(group, &what.resource, &what.name, &why))
}

/// All rules somebody has in a namespace (empty: everywhere).
#[must_use]
pub fn rules(cluster: &Cluster, who: &Identity, namespace: &str) -> Vec<Rule> {
    let grants = grants(cluster, who, namespace);
    grants.flat_map(|(_, rules)| rules).collect()
}

/// The bindings that name somebody, with the rules they give. A role that is not there gives none.
fn grants(
    cluster: &Cluster,
    who: &Identity,
    namespace: &str,
) -> impl Iterator<Item = (Arc<Value>, Vec<Rule>)> {
    let list = |kind: &str, namespace| cluster.store.list(&stored(kind), namespace).1;
    let mut bindings = list("ClusterRoleBinding", None);
    if !namespace.is_empty() {
        bindings.extend(list("RoleBinding", Some(namespace)));
    }
    let bindings = bindings
        .into_iter()
        .filter(|binding| is_meant(binding, who));
    bindings.map(|binding| {
        let role = role_of(cluster, &binding);
        let rules = role.map_or_else(Vec::new, |role| rules_in(&role));
        (binding, rules)
    })
}

/// Whether a binding has a subject that is this identity.
fn is_meant(binding: &Value, who: &Identity) -> bool {
    let mut subjects = binding["subjects"].as_array().into_iter().flatten();
    subjects.any(|subject| {
        let name = text(subject, "name");
        match text(subject, "kind") {
            "User" => who.username == name,
            "Group" => who.is_in(name),
            "ServiceAccount" => {
                let of = subject["namespace"].as_str().filter(|of| !of.is_empty());
                let of = of.unwrap_or_else(|| namespace(binding));
                super::account_of(&who.username) == Some((of, name))
            }
            _ => false,
        }
    })
}

/// The role a binding refers to.
fn role_of(cluster: &Cluster, binding: &Value) -> Option<Arc<Value>> {
    let role = &binding["roleRef"];
    let kind = text(role, "kind");
    let at = if kind == "Role" {
        namespace(binding)
    } else {
        ""
    };
    cluster
        .store
        .get(&Key::new(&stored(kind), at, text(role, "name")))
}

/// Rules of a role; what is no rule grants nothing.
fn rules_in(role: &Value) -> Vec<Rule> {
    let rules = role["rules"].as_array().into_iter().flatten();
    let rules = rules.filter_map(|rule| Rule::deserialize(rule).ok());
    rules.collect()
}

/// The rules of a ClusterRole that consists of others: those of all its selectors choose. `None` for another one.
pub(crate) fn aggregated(role: &Value, all: &[impl AsRef<Value>]) -> Option<Value> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array()?;
    let chosen = |other: &Value| {
        let labels = &other["metadata"]["labels"];
        name(other) != name(role)
            && (selectors.iter()).any(|selector| label_selector_matches(selector, labels))
    };
    let mut rules: Vec<&Value> = Vec::new();
    for other in all.iter().map(AsRef::as_ref).filter(|other| chosen(other)) {
        for rule in other["rules"].as_array().into_iter().flatten() {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    Some(json!(rules))
}

/// Objects every cluster begins with, as `rbac/bootstrap.yaml` has them: ClusterRoles `cluster-admin`, `admin`, `edit`,
/// `view` (with aggregation), `system:basic-user`, `system:discovery` and so on, and their bindings.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "it is part of the program")]
pub fn bootstrap() -> Vec<Value> {
    let list: Value = serde_saphyr::from_str(include_str!("rbac/bootstrap.yaml")).expect("YAML");
    let items = list["items"].as_array().into_iter().flatten();
    let mut all: Vec<Arc<Value>> = items.cloned().map(Arc::new).collect();
    for at in 0..all.len() {
        if let Some(rules) = aggregated(&all[at], &all) {
            Arc::make_mut(&mut all[at])["rules"] = rules;
        }
    }
    all.into_iter().map(Arc::unwrap_or_clone).collect()
}

/// The escalation check: whoever writes a Role or ClusterRole must hold what it grants (or `escalate`), whoever writes a
/// binding what the role it names grants (or `bind`). Called for every write of these kinds with the object there was,
/// if any, and the one to be stored, both with `kind`, and `metadata.namespace` where there is one.
///
/// # Errors
/// 403 that names what is not held; 404 for a binding to a role that is not there.
pub fn check_escalation(
    cluster: &Cluster,
    who: &Identity,
    before: Option<&Value>,
    object: &Value,
) -> Result<(), Failure> {
    let at = namespace(object);
    let resource = plural(text(object, "kind"));
    let (verb, of, named) = match &object["roleRef"] {
        Value::Null => ("escalate", resource.clone(), name(object)),
        role => ("bind", plural(text(role, "kind")), text(role, "name")),
    };
    let what = Attributes::about(verb, GROUP, at, &of, named);
    if who.is_in(MASTERS) || decide(cluster, who, &what).allowed {
        return Ok(());
    }
    let aggregates = |object: &Value| object["aggregationRule"].is_object();
    let granted = if verb == "bind" {
        let role = role_of(cluster, object).ok_or_else(|| Failure::not_found(GROUP, &of, named));
        rules_in(role?.as_ref())
    } else if aggregates(object) || before.is_some_and(aggregates) {
        // What will be chosen is not known yet.
        rules_in(&json!({"rules": [
            {"verbs": ["*"], "nonResourceURLs": ["*"]},
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        ]}))
    } else {
        rules_in(object)
    };
    let held = rules(cluster, who, at);
    let mut lacking = granted.iter().flat_map(Rule::atoms).collect::<Vec<_>>();
    lacking.retain(|atom| !held.iter().any(|rule| rule.covers(atom)));
    if lacking.is_empty() {
        return Ok(());
    }
    let why = format!(
        "user {:?} is attempting to grant RBAC permissions not currently held: {}",
        who.username,
        json!(lacking)
    );
    Err(Failure::forbidden(GROUP, &resource, name(object), &why))
}

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

/// The store's name for a kind of this group.
fn stored(kind: &str) -> String {
    format!("{}.{GROUP}", plural(kind))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}
