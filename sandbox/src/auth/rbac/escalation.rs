//! Nobody gives away by a role or a binding what he does not hold himself.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rule::{Rule, quoted};
use super::{GROUP, decide, role_rules, rules, rules_in, text};
use crate::auth::{Identity, MASTERS};
use crate::cluster::Cluster;
use crate::object;
use crate::request::Attributes;
use crate::status::Failure;

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
    if who.is_in(MASTERS) || before.is_some_and(|before| only_collected(before, object)) {
        return Ok(());
    }
    let kind = text(object, "kind");
    let (name, namespace) = (object::name(object), object::namespace(object));
    let resource = format!("{}s", kind.to_lowercase());
    let may = |verb: &str, resource: &str, name: &str| {
        let what = Attributes::about(verb, GROUP, namespace, resource, name);
        decide(cluster, who, &what).allowed
    };
    let refused = |why: &str| Err(Failure::forbidden(GROUP, &resource, name, why));
    let granted = match kind {
        "Role" | "ClusterRole" => {
            if may("escalate", &resource, name) {
                return Ok(());
            }
            let aggregates = |object: &Value| object["aggregationRule"].is_object();
            if aggregates(object) || before.is_some_and(aggregates) {
                return match lacking(cluster, who, "", &everything()) {
                    None => Ok(()),
                    Some(_) => {
                        refused("must have cluster-admin privileges to use the aggregationRule")
                    }
                };
            }
            rules_in(object)
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = &object["roleRef"];
            let named = text(role, "name");
            let roles = format!("{}s", text(role, "kind").to_lowercase());
            if may("bind", &roles, named) {
                return Ok(());
            }
            role_rules(cluster, role, namespace)
                .map_err(|_| Failure::not_found(GROUP, &roles, named))?
        }
        _ => return Ok(()),
    };
    lacking(cluster, who, namespace, &granted).map_or(Ok(()), |why| refused(&why))
}

/// Whether a write changes only what the garbage collector changes.
fn only_collected(before: &Value, after: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        let metadata = object::metadata_mut(&mut object);
        for field in [
            "finalizers",
            "managedFields",
            "ownerReferences",
            "resourceVersion",
        ] {
            metadata.remove(field);
        }
        object
    };
    rest(before) == rest(after)
}

fn everything() -> [Rule; 2] {
    let all = vec!["*".to_owned()];
    let urls = Rule {
        verbs: all.clone(),
        non_resource_urls: all.clone(),
        ..Rule::default()
    };
    let resources = Rule {
        verbs: all.clone(),
        api_groups: all.clone(),
        resources: all,
        ..Rule::default()
    };
    [urls, resources]
}

/// What somebody does not hold of what is to be granted, in the API server's words.
fn lacking(cluster: &Cluster, who: &Identity, namespace: &str, granted: &[Rule]) -> Option<String> {
    let (held, missing) = rules(cluster, who, namespace);
    let mut lacking: Vec<Rule> = Vec::new();
    for atom in granted.iter().flat_map(Rule::atoms) {
        if held.iter().any(|rule| rule.covers(&atom)) {
            continue;
        }
        // One line for the verbs of one resource.
        let same = lacking.iter_mut().find(|rule| {
            atom.resource_names.is_empty()
                && atom.non_resource_urls.is_empty()
                && rule.resource_names.is_empty()
                && (&rule.api_groups, &rule.resources) == (&atom.api_groups, &atom.resources)
        });
        match same {
            Some(rule) => rule.verbs.extend(atom.verbs),
            None => lacking.push(atom),
        }
    }
    if lacking.is_empty() {
        return None;
    }
    let lines: BTreeSet<String> = lacking.iter().map(Rule::to_string).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        who.username,
        quoted(&who.groups),
        lines.join("\n")
    );
    if !missing.is_empty() {
        why = format!(
            "{why}; resolution errors: [{}]",
            super::aggregated(&missing)
        );
    }
    Some(why)
}
