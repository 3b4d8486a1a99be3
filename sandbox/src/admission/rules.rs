//! Which writes a webhook wants to see.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, RuleWithOperations};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::Write;
use crate::{auth::rbac::has, cluster::Cluster, selector::label_selector_matches, store::Key};

/// Whether a webhook wants to see a write, by its rules and selectors. With one version of each kind,
/// `matchPolicy: Equivalent` is `Exact`.
pub(super) fn wants(cluster: &Cluster, hook: &MutatingWebhook, write: &Write<'_>) -> bool {
    let selects = |selector: &Option<LabelSelector>, of: &Value| {
        let labels = &of["metadata"]["labels"];
        (selector.as_ref()).is_none_or(|selector| label_selector_matches(selector, labels))
    };
    // By the labels of the object as it is or as it was.
    let objects = [Some(&write.object), write.before].into_iter().flatten();
    let mut objects = objects.filter(|one| one.is_object());
    // A Namespace is selected by its own labels, what is in none always.
    let namespace = match &*write.call.namespace {
        _ if write.call.kind.resource() == "namespaces" => objects.clone().next().cloned(),
        "" => None,
        namespace => {
            let found = cluster.store.get(&Key::new("namespaces", "", namespace));
            Some(found.as_deref().cloned().unwrap_or_default())
        }
    };
    hook.rules.iter().flatten().any(|rule| covers(rule, write))
        && namespace.is_none_or(|namespace| selects(&hook.namespace_selector, &namespace))
        && objects.any(|one| selects(&hook.object_selector, one))
}

fn covers(rule: &RuleWithOperations, write: &Write<'_>) -> bool {
    let kind = &write.call.kind;
    let wanted = |one: &String| {
        let (resource, subresource) = one.split_once('/').unwrap_or((one, ""));
        let is = |one: &str, wanted: &str| one == "*" || one == wanted;
        is(resource, &kind.plural) && is(subresource, &write.call.subresource)
    };
    let scope = ["Cluster", "Namespaced"][usize::from(kind.namespaced)];
    has(rule.operations.iter().flatten(), write.operation().0)
        && has(rule.api_groups.iter().flatten(), &kind.group)
        && has(rule.api_versions.iter().flatten(), &kind.version)
        && rule.resources.iter().flatten().any(wanted)
        && has(&rule.scope.clone().or(Some("*".to_owned())), scope)
}
