//! Role-based access control, evaluated for every request.

mod bootstrap;
mod escalation;
pub mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Value, json};

use self::rule::Rule;
use super::{Identity, MASTERS};
use crate::cluster::Cluster;
use crate::object;
use crate::request::Attributes;
use crate::status::Failure;
use crate::store::Key;

pub use self::bootstrap::bootstrap;
pub use self::escalation::check_escalation;

/// API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// A decision and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// E.g. `RBAC: allowed by RoleBinding "x/y" of Role "y" to User "z"`; when denied, which roles that bindings name
    /// are not there, or empty.
    pub reason: String,
}

/// Whether somebody may do something, by the roles and bindings in the store.
#[must_use]
pub fn decide(cluster: &Cluster, who: &Identity, what: &Attributes) -> Decision {
    if who.is_in(MASTERS) {
        return Decision {
            allowed: true,
            reason: String::new(),
        };
    }
    let mut missing = Vec::new();
    for grant in grants(cluster, who, &what.namespace) {
        match role_rules(cluster, &grant.binding["roleRef"], &grant.namespace) {
            Ok(rules) if rules.iter().any(|rule| rule.allows(what)) => {
                return Decision {
                    allowed: true,
                    reason: format!("RBAC: allowed by {}", grant.source()),
                };
            }
            Ok(_) => {}
            Err(role) => missing.push(role.to_string()),
        }
    }
    let reason = match missing.as_slice() {
        [] => String::new(),
        some => format!("RBAC: {}", aggregated(some)),
    };
    Decision {
        allowed: false,
        reason,
    }
}

/// The same as a 403 with the API server's words:
/// `pods "x" is forbidden: User "y" cannot get resource "pods" in API group "" in the namespace "z"`.
///
/// # Errors
/// When denied.
pub fn require(cluster: &Cluster, who: &Identity, what: &Attributes) -> Result<(), Failure> {
    let decision = decide(cluster, who, what);
    if decision.allowed {
        return Ok(());
    }
    let (user, verb) = (&who.username, &what.verb);
    let mut why = if what.resource_request {
        let resource = if what.subresource.is_empty() {
            what.resource.clone()
        } else {
            format!("{}/{}", what.resource, what.subresource)
        };
        let scope = if what.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", what.namespace)
        };
        let group = &what.group;
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
    } else {
        format!("User {user:?} cannot {verb} path {:?}", what.path)
    };
    // The message may end up in a page.
    for (raw, safe) in [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")] {
        why = why.replace(raw, safe);
    }
    if !decision.reason.is_empty() {
        why = format!("{why}: {}", decision.reason);
    }
    if what.resource_request {
        return Err(Failure::forbidden(
            &what.group,
            &what.resource,
            &what.name,
            &why,
        ));
    }
    let mut failure = Failure::new(403, "Forbidden", format!("forbidden: {why}"));
    failure.details = json!({});
    Err(failure)
}

/// All rules somebody has in a namespace (empty: everywhere), and what is wrong with those that could not be read.
#[must_use]
pub fn rules(cluster: &Cluster, who: &Identity, namespace: &str) -> (Vec<Rule>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for grant in grants(cluster, who, namespace) {
        match role_rules(cluster, &grant.binding["roleRef"], &grant.namespace) {
            Ok(rules) => found.extend(rules),
            Err(role) => missing.push(role.to_string()),
        }
    }
    (found, missing)
}

/// Several errors as one text, as the API server joins them.
#[must_use]
pub fn aggregated(errors: &[String]) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for error in errors {
        if !seen.contains(&error.as_str()) {
            seen.push(error);
        }
    }
    match seen.as_slice() {
        [one] => (*one).to_owned(),
        all => format!("[{}]", all.join(", ")),
    }
}

/// A binding that names somebody.
struct Grant {
    binding: Arc<Value>,
    /// Index of the first subject that is meant.
    subject: usize,
    /// Of the binding; empty for a ClusterRoleBinding.
    namespace: String,
}

impl Grant {
    /// The binding as a reason names it.
    fn source(&self) -> String {
        let (binding, role) = (&self.binding, &self.binding["roleRef"]);
        let subject = &binding["subjects"][self.subject];
        let (kind, name) = (text(subject, "kind"), text(subject, "name"));
        let subject = match (kind, text(subject, "namespace")) {
            ("ServiceAccount", "") => format!("{name}/{}", self.namespace),
            ("ServiceAccount", namespace) => format!("{name}/{namespace}"),
            _ => name.to_owned(),
        };
        let (of, named) = (text(role, "kind"), text(role, "name"));
        let name = object::name(binding);
        let binding = if self.namespace.is_empty() {
            format!("ClusterRoleBinding {name:?}")
        } else {
            format!("RoleBinding {:?}", format!("{name}/{}", self.namespace))
        };
        format!("{binding} of {of} {named:?} to {kind} {subject:?}")
    }
}

fn grants(cluster: &Cluster, who: &Identity, namespace: &str) -> Vec<Grant> {
    let everywhere = cluster.store.list(&stored("clusterrolebinding"), None).1;
    let here = if namespace.is_empty() {
        Vec::new()
    } else {
        let bindings = stored("rolebinding");
        cluster.store.list(&bindings, Some(namespace)).1
    };
    let everywhere = everywhere.into_iter().map(|binding| (binding, ""));
    let here = here.into_iter().map(|binding| (binding, namespace));
    everywhere
        .chain(here)
        .filter_map(|(binding, namespace)| {
            let subjects = binding["subjects"].as_array()?;
            let subject = subjects
                .iter()
                .position(|one| is_meant(one, who, namespace))?;
            Some(Grant {
                subject,
                namespace: namespace.to_owned(),
                binding,
            })
        })
        .collect()
}

/// Whether a subject of a binding in `namespace` is this identity.
fn is_meant(subject: &Value, who: &Identity, namespace: &str) -> bool {
    let name = text(subject, "name");
    match text(subject, "kind") {
        "User" => who.username == name,
        "Group" => who.is_in(name),
        "ServiceAccount" => {
            let namespace = match text(subject, "namespace") {
                "" => namespace,
                named => named,
            };
            super::account_of(&who.username) == Some((namespace, name))
        }
        _ => false,
    }
}

/// A role that a binding names and that is not there.
#[derive(Debug, thiserror::Error)]
#[error("{kind}.{GROUP} {name:?} not found")]
struct Missing {
    kind: String,
    name: String,
}

/// Rules of the role a binding in `namespace` refers to.
fn role_rules(cluster: &Cluster, role_ref: &Value, namespace: &str) -> Result<Vec<Rule>, Missing> {
    let (kind, name) = (
        text(role_ref, "kind").to_lowercase(),
        text(role_ref, "name"),
    );
    let key = Key {
        resource: stored(&kind).into(),
        namespace: if kind == "role" { namespace } else { "" }.to_owned(),
        name: name.to_owned(),
    };
    let role = cluster.store.get(&key).ok_or(Missing {
        kind,
        name: name.to_owned(),
    })?;
    Ok(rules_in(&role))
}

/// Rules of a role; what is no rule grants nothing.
fn rules_in(role: &Value) -> Vec<Rule> {
    let rules = role["rules"].as_array().into_iter().flatten();
    rules
        .filter_map(|rule| Rule::deserialize(rule).ok())
        .collect()
}

/// The store's name for a kind of this group.
fn stored(kind: &str) -> String {
    format!("{kind}s.{GROUP}")
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}
