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
    let resource = format!("{}s", kind.to_lowercase());
    let granted = match kind {
        "Role" | "ClusterRole" => {
            if may(
                cluster,
                who,
                "escalate",
                &resource,
                object::namespace(object),
                object::name(object),
            ) {
                return Ok(());
            }
            let aggregates = |object: &Value| object["aggregationRule"].is_object();
            if aggregates(object) || before.is_some_and(aggregates) {
                return all(cluster, who).map_err(|()| {
                    let why = "must have cluster-admin privileges to use the aggregationRule";
                    Failure::forbidden(GROUP, &resource, object::name(object), why)
                });
            }
            rules_in(object)
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = &object["roleRef"];
            let (named, namespace) = (text(role, "name"), object::namespace(object));
            let roles = format!("{}s", text(role, "kind").to_lowercase());
            if may(cluster, who, "bind", &roles, namespace, named) {
                return Ok(());
            }
            role_rules(cluster, role, namespace)
                .map_err(|_| Failure::not_found(GROUP, &roles, named))?
        }
        _ => return Ok(()),
    };
    let why = lacking(cluster, who, object::namespace(object), &granted);
    why.map_or(Ok(()), |why| {
        Err(Failure::forbidden(
            GROUP,
            &resource,
            object::name(object),
            &why,
        ))
    })
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

fn may(
    cluster: &Cluster,
    who: &Identity,
    verb: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let what = Attributes {
        verb: verb.to_owned(),
        resource_request: true,
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        namespace: namespace.to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    decide(cluster, who, &what).allowed
}

fn all(cluster: &Cluster, who: &Identity) -> Result<(), ()> {
    let everything = vec!["*".to_owned()];
    let full = [
        Rule {
            verbs: everything.clone(),
            api_groups: everything.clone(),
            resources: everything.clone(),
            ..Rule::default()
        },
        Rule {
            verbs: everything.clone(),
            non_resource_urls: everything,
            ..Rule::default()
        },
    ];
    lacking(cluster, who, "", &full).map_or(Ok(()), |_| Err(()))
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
