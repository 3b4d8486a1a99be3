//! Role-based access control, evaluated for every request.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize as _;
use serde_json::Value;

use super::{Identity, MASTERS, account_of};
use crate::object::{name, namespace, text};
use crate::{cluster::Cluster, request::Attributes, status::Failure};

/// API group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// Why somebody may do something, by the roles and bindings in the store: e.g.
/// `RBAC: allowed by RoleBinding "x/y" of Role "y"`, or nothing for who needs no role; `None` if he may not.
pub(crate) fn decide(cluster: &Cluster, who: &Identity, what: &Attributes) -> Option<String> {
    if who.is_in(MASTERS) {
        return Some(String::new());
    }
    let by = |(_, rules): &(_, Vec<PolicyRule>)| rules.iter().any(|rule| allows(rule, what));
    let (binding, _) = grants(cluster, who, &what.namespace).find(by)?;
    let named = [name(&binding), namespace(&binding)].join("/");
    let named = named.trim_end_matches('/');
    let (kind, role) = (text(&binding["kind"]), &binding["roleRef"]);
    let (of, role) = (text(&role["kind"]), text(&role["name"]));
    Some(format!(
        "RBAC: allowed by {kind} {named:?} of {of} {role:?}"
    ))
}

/// The same as a 403 that says who, what and where.
///
/// # Errors
/// When denied.
pub(crate) fn require(cluster: &Cluster, who: &Identity, what: &Attributes) -> Result<(), Failure> {
    if decide(cluster, who, what).is_some() {
        return Ok(());
    }
    let (user, verb, group) = (&who.username, &what.verb, &what.group);
    if !what.resource_request {
        let why = format!("User {user:?} cannot {verb} path {:?}", what.path);
        return Err(Failure::new(403, format!("forbidden: {why}")));
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

/// The bindings that name somebody, with the rules they give. A role that is not there gives none.
fn grants(
    cluster: &Cluster,
    who: &Identity,
    namespace: &str,
) -> impl Iterator<Item = (Arc<Value>, Vec<PolicyRule>)> {
    let list = |kind: &str, at| cluster.store.list(&format!("{kind}.{GROUP}"), at).1;
    let mut bindings = list("clusterrolebindings", "");
    if !namespace.is_empty() {
        bindings.extend(list("rolebindings", namespace));
    }
    bindings.retain(|binding| is_meant(binding, who));
    bindings.into_iter().map(|binding| {
        let rules = role_of(cluster, &binding).map(|role| rules_in(&role));
        (binding, rules.unwrap_or_default())
    })
}

/// Whether a binding has a subject that is this identity.
fn is_meant(binding: &Value, who: &Identity) -> bool {
    let mut subjects = binding["subjects"].as_array().into_iter().flatten();
    subjects.any(|subject| {
        let name = text(&subject["name"]);
        let at = subject["namespace"].as_str();
        match text(&subject["kind"]) {
            "User" => who.username == name,
            "Group" => who.is_in(name),
            _ => account_of(&who.username) == Some((at.unwrap_or(namespace(binding)), name)),
        }
    })
}

/// The role a binding refers to.
fn role_of(cluster: &Cluster, binding: &Value) -> Option<Arc<Value>> {
    let (version, role) = (format!("{GROUP}/v1"), &binding["roleRef"]);
    let kind = cluster.kinds.of(&version, text(&role["kind"]))?;
    let key = Cluster::place(&kind, namespace(binding), text(&role["name"]));
    cluster.store.get(&key)
}

fn rules_in(role: &Value) -> Vec<PolicyRule> {
    Vec::deserialize(&role["rules"]).unwrap_or_default()
}

/// Objects every cluster begins with, as `rbac/bootstrap.yaml` has them: ClusterRoles `cluster-admin`, `admin`, `edit`,
/// `view`, `system:basic-user`, `system:discovery` and so on, and their bindings; and its namespaces.
pub(crate) fn bootstrap() -> Vec<Value> {
    serde_saphyr::from_str(include_str!("rbac/bootstrap.yaml")).expect("YAML")
}

/// The escalation check: whoever writes a Role or ClusterRole must hold what it grants (or `escalate`), whoever writes a
/// binding what the role it names grants (or `bind`). Called for every write of these kinds with the object to be stored,
/// with `kind`, and `metadata.namespace` where there is one.
///
/// # Errors
/// 403 that names something that is not held; 404 for a binding to a role that is not there.
pub(crate) fn check_escalation(
    cluster: &Cluster,
    who: &Identity,
    object: &Value,
) -> Result<(), Failure> {
    let plural = |object: &Value| format!("{}s", text(&object["kind"]).to_lowercase());
    let (at, resource) = (namespace(object), plural(object));
    let (verb, of, named) = match &object["roleRef"] {
        Value::Null => ("escalate", resource.clone(), name(object)),
        role => ("bind", plural(role), text(&role["name"])),
    };
    let what = Attributes::about(verb, GROUP, at, &of, named);
    if decide(cluster, who, &what).is_some() {
        return Ok(());
    }
    let granted = if verb == "bind" {
        let role = role_of(cluster, object);
        rules_in(&*role.ok_or_else(|| Failure::not_found(GROUP, &of, named))?)
    } else {
        rules_in(object)
    };
    let held = grants(cluster, who, at).flat_map(|(_, rules)| rules);
    let held: Vec<PolicyRule> = held.collect();
    let mut lacking = granted.iter().flat_map(atoms);
    let lacking = lacking.find(|atom| !held.iter().any(|rule| allows(rule, atom)));
    let Some(atom) = lacking else {
        return Ok(());
    };
    let told = format!("{} {}{}", atom.verb, atom.qualified(), atom.path);
    let why = "is attempting to grant RBAC permissions not currently held:";
    let why = format!("user {:?} {why} {told} {:?}", who.username, atom.name);
    Err(Failure::forbidden(GROUP, &resource, name(object), &why))
}

/// All that a rule allows, as questions with one verb, one resource and at most one name each; `*` stays what it is, and
/// is [allowed](allows) by `*` alone.
fn atoms(rule: &PolicyRule) -> Vec<Attributes> {
    let mut atoms = Vec::new();
    let names = rule.resource_names.as_deref().unwrap_or_default();
    let any = [String::new()];
    let names = if names.is_empty() { &any[..] } else { names };
    for verb in &rule.verbs {
        for path in rule.non_resource_urls.iter().flatten() {
            atoms.push(Attributes {
                verb: verb.clone(),
                path: path.clone(),
                ..Attributes::default()
            });
        }
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let about = |name: &String| Attributes::about(verb, group, "", resource, name);
                atoms.extend(names.iter().map(about));
            }
        }
    }
    atoms
}

/// Whether a rule allows what is asked for.
fn allows(rule: &PolicyRule, what: &Attributes) -> bool {
    if !has(&rule.verbs, &what.verb) {
        return false;
    }
    if !what.resource_request {
        let leads = |prefix| what.path.starts_with(prefix);
        let mut urls = rule.non_resource_urls.iter().flatten();
        return urls.any(|url| *url == what.path || url.strip_suffix('*').is_some_and(leads));
    }
    let names = rule.resource_names.as_deref().unwrap_or_default();
    let resources = rule.resources.as_deref().unwrap_or_default();
    has(rule.api_groups.iter().flatten(), &what.group)
        && (has(resources, &resource(what))
            || resources.contains(&format!("*/{}", what.subresource)))
        && (names.is_empty() || names.contains(&what.name))
}

/// Whether a list has a value, or `*`.
pub(crate) fn has<'a>(list: impl IntoIterator<Item = &'a String>, wanted: &str) -> bool {
    list.into_iter().any(|one| one == "*" || one == wanted)
}

/// The resource with its subresource: `pods/exec`.
fn resource(what: &Attributes) -> String {
    let resource = format!("{}/{}", what.resource, what.subresource);
    resource.trim_end_matches('/').to_owned()
}
