//! Configured webhooks, and which writes one wants to see.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, RuleWithOperations};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{Refused, Write};
use crate::cluster::Cluster;
use crate::selector::label_selector_matches;
use crate::store::Key;

const GROUP: &str = "admissionregistration.k8s.io";

/// Webhooks of the configurations of this resource, by the configurations' names; a validating one is a mutating one that
/// cannot be asked again. What cannot be read is left out, as it cannot have been stored; configurations themselves are
/// shown to nobody, so that they can be repaired.
pub(super) fn hooks(cluster: &Cluster, write: &Write<'_>, resource: &str) -> Vec<MutatingWebhook> {
    if write.kind.group == GROUP {
        return Vec::new();
    }
    let (_, configurations) = cluster.store.list(&format!("{resource}.{GROUP}"), None);
    configurations
        .iter()
        .filter_map(|one| one["webhooks"].as_array())
        .flatten()
        .filter_map(|hook| {
            let hook = MutatingWebhook::deserialize(hook);
            hook.inspect_err(|error| tracing::warn!(%error, "a webhook that cannot be read"))
                .ok()
        })
        .collect()
}

/// Whether a webhook wants to see a write, by its rules and selectors. With one version of each kind,
/// `matchPolicy: Equivalent` is `Exact`.
pub(super) fn wants(
    cluster: &Cluster,
    hook: &MutatingWebhook,
    write: &Write<'_>,
    object: &Value,
) -> Result<bool, Refused> {
    let mut rules = hook.rules.iter().flatten();
    if !rules.any(|rule| covers(rule, write))
        || !selects_namespace(cluster, hook.namespace_selector.as_ref(), write, object)
        || !selects_object(hook.object_selector.as_ref(), write, object)
    {
        return Ok(false);
    }
    match hook.match_conditions.as_deref() {
        None | Some([]) => Ok(true),
        // Neither shown nor passed over by guessing.
        Some(_) => Err(Refused::Failed(
            "matchConditions are not evaluated by the sandbox".to_owned(),
        )),
    }
}

fn covers(rule: &RuleWithOperations, write: &Write<'_>) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: &str| {
        let mut list = list.iter().flatten();
        list.any(|one| one == "*" || one == wanted)
    };
    let kind = write.kind;
    let namespaced = !write.namespace.is_empty() && !is_namespace(write);
    has(&rule.operations, write.operation)
        && has(&rule.api_groups, &kind.group)
        && has(&rule.api_versions, &kind.version)
        && rule.resources.iter().flatten().any(|one| {
            let (resource, subresource) = one.split_once('/').unwrap_or((one, ""));
            (resource == "*" || resource == kind.plural)
                && (subresource == "*" || subresource == write.subresource)
        })
        && match rule.scope.as_deref() {
            Some("Namespaced") => namespaced,
            Some("Cluster") => !namespaced,
            _ => true,
        }
}

fn is_namespace(write: &Write<'_>) -> bool {
    write.kind.group.is_empty() && write.kind.plural == "namespaces"
}

/// By the labels of the namespace, which for a Namespace are its own. What is in none is selected always.
fn selects_namespace(
    cluster: &Cluster,
    selector: Option<&LabelSelector>,
    write: &Write<'_>,
    object: &Value,
) -> bool {
    let labels = |object: &Value| object["metadata"]["labels"].clone();
    let labels = if is_namespace(write) {
        labels(write.before.filter(|_| object.is_null()).unwrap_or(object))
    } else if write.namespace.is_empty() {
        return true;
    } else {
        let namespace = cluster.store.get(&Key {
            resource: "namespaces".into(),
            namespace: String::new(),
            name: write.namespace.to_owned(),
        });
        namespace.map_or(Value::Null, |namespace| labels(&namespace))
    };
    selector.is_none_or(|selector| label_selector_matches(&json!(selector), &labels))
}

/// By the labels of the object as it is or as it was. Options of an exec can have none, so only who asks for nothing
/// gets them.
fn selects_object(selector: Option<&LabelSelector>, write: &Write<'_>, object: &Value) -> bool {
    let Some(selector) = selector.filter(|selector| **selector != LabelSelector::default()) else {
        return true;
    };
    let selected = |object: &Value| {
        object["metadata"].is_object()
            && label_selector_matches(&json!(selector), &object["metadata"]["labels"])
    };
    selected(object) || write.before.is_some_and(selected)
}
