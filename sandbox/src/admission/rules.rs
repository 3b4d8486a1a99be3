//! Which writes a webhook wants to see.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, RuleWithOperations};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::Write;
use crate::cluster::Cluster;
use crate::selector::label_selector_matches;
use crate::store::Key;

/// Whether a webhook wants to see a write, by its rules and selectors. With one version of each kind,
/// `matchPolicy: Equivalent` is `Exact`.
pub(super) fn wants(
    cluster: &Cluster,
    hook: &MutatingWebhook,
    write: &Write<'_>,
    object: &Value,
) -> bool {
    let selects = |selector: &Option<LabelSelector>, labels: &Value| {
        (selector.as_ref()).is_none_or(|selector| label_selector_matches(&json!(selector), labels))
    };
    let labels = |object: &Value| object["metadata"]["labels"].clone();
    // A Namespace is selected by its own labels, what is in none always.
    let shown = if object.is_null() {
        write.before
    } else {
        Some(object)
    };
    let namespace = match &*write.call.namespace {
        _ if write.call.kind.resource() == "namespaces" => shown.map(labels),
        "" => None,
        namespace => {
            let found = cluster.store.get(&Key::new("namespaces", "", namespace));
            Some(found.map_or(Value::Null, |found| labels(&found)))
        }
    };
    // By the labels of the object as it is or as it was.
    let mut objects = [Some(object), write.before].into_iter().flatten();
    hook.rules.iter().flatten().any(|rule| covers(rule, write))
        && namespace.is_none_or(|labels| selects(&hook.namespace_selector, &labels))
        && objects.any(|one| !one.is_null() && selects(&hook.object_selector, &labels(one)))
}

fn covers(rule: &RuleWithOperations, write: &Write<'_>) -> bool {
    let is = |one: &str, wanted: &str| one == "*" || one == wanted;
    let has =
        |list: &Option<Vec<String>>, wanted: &str| list.iter().flatten().any(|one| is(one, wanted));
    let kind = &write.call.kind;
    has(&rule.operations, write.operation)
        && has(&rule.api_groups, &kind.group)
        && has(&rule.api_versions, &kind.version)
        && rule.resources.iter().flatten().any(|one| {
            let (resource, subresource) = one.split_once('/').unwrap_or((one, ""));
            is(resource, &kind.plural) && is(subresource, &write.call.subresource)
        })
        && match rule.scope.as_deref() {
            Some("Namespaced") => kind.namespaced,
            Some("Cluster") => !kind.namespaced,
            _ => true,
        }
}
