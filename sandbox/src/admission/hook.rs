//! Configured webhooks, and which writes one wants to see.

use kube_cel::{
    AdmissionRequest, GroupVersionKind, GroupVersionResource, VapEvaluator, VapExpression,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Refused, Write};
use crate::auth::selector;
use crate::cluster::Cluster;
use crate::status::Failure;
use crate::store::Key;

const GROUP: &str = "admissionregistration.k8s.io";

/// A webhook of a configuration, with the defaults filled in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) client_config: ClientConfig,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default = "fail")]
    pub(super) failure_policy: String,
    #[serde(default)]
    namespace_selector: Value,
    #[serde(default)]
    object_selector: Value,
    #[serde(default)]
    pub(super) side_effects: String,
    #[serde(default = "ten")]
    pub(super) timeout_seconds: u64,
    #[serde(default)]
    match_conditions: Vec<Condition>,
    #[serde(default)]
    pub(super) reinvocation_policy: String,
}

fn fail() -> String {
    "Fail".to_owned()
}

fn ten() -> u64 {
    10
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientConfig {
    pub(super) url: Option<String>,
    pub(super) service: Option<Service>,
    /// PEM, in base64.
    #[serde(default)]
    pub(super) ca_bundle: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) path: String,
    pub(super) port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Rule {
    operations: Vec<String>,
    api_groups: Vec<String>,
    api_versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

#[derive(Debug, Deserialize)]
struct Condition {
    expression: String,
}

/// Webhooks of the configurations of this resource, by the configurations' names. What cannot be read is left out, as it
/// cannot have been stored; configurations themselves are shown to nobody, so that they can be repaired.
pub(super) fn hooks(cluster: &Cluster, write: &Write<'_>, resource: &str) -> Vec<Hook> {
    if write.kind.group == GROUP {
        return Vec::new();
    }
    let (_, configurations) = cluster.store.list(&format!("{resource}.{GROUP}"), None);
    let hooks = configurations
        .iter()
        .filter_map(|one| one["webhooks"].as_array());
    hooks
        .flatten()
        .filter_map(|hook| match Hook::deserialize(hook) {
            Ok(hook) => Some(hook),
            Err(error) => {
                tracing::warn!(%error, "a webhook that cannot be read");
                None
            }
        })
        .collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    fn covers(&self, write: &Write<'_>) -> bool {
        let kind = write.kind;
        let namespaced = !write.namespace.is_empty() && kind.plural != "namespaces";
        has(&self.operations, write.operation)
            && has(&self.api_groups, &kind.group)
            && has(&self.api_versions, &kind.version)
            && self.resources.iter().any(|one| {
                let (resource, subresource) = one.split_once('/').unwrap_or((one, ""));
                (resource == "*" || resource == kind.plural)
                    && (subresource == "*" || subresource == write.subresource)
            })
            && match self.scope.as_str() {
                "Namespaced" => namespaced,
                "Cluster" => !namespaced,
                _ => true,
            }
    }
}

impl Hook {
    /// Whether it wants to see a write: by rules, selectors and conditions. With one version of each kind,
    /// `matchPolicy: Equivalent` is `Exact`.
    pub(super) fn wants(
        &self,
        cluster: &Cluster,
        write: &Write<'_>,
        object: &Value,
    ) -> Result<bool, Refused> {
        Ok(self.rules.iter().any(|rule| rule.covers(write))
            && self.selects_namespace(cluster, write, object)?
            && self.selects_object(write, object)
            && self.meets_conditions(write, object)?)
    }

    fn selects_namespace(
        &self,
        cluster: &Cluster,
        write: &Write<'_>,
        object: &Value,
    ) -> Result<bool, Refused> {
        if is_empty(&self.namespace_selector) {
            return Ok(true);
        }
        if write.kind.group.is_empty() && write.kind.plural == "namespaces" {
            let namespace = if object.is_null() {
                write.before.unwrap_or(object)
            } else {
                object
            };
            return Ok(selector::matches(
                &self.namespace_selector,
                &namespace["metadata"]["labels"],
            ));
        }
        if write.namespace.is_empty() {
            return Ok(true);
        }
        let namespace = cluster.store.get(&Key {
            resource: "namespaces".into(),
            namespace: String::new(),
            name: write.namespace.to_owned(),
        });
        let namespace = namespace.ok_or_else(|| {
            Refused::Denied(Failure::not_found("", "namespaces", write.namespace))
        })?;
        let labels = &namespace["metadata"]["labels"];
        Ok(selector::matches(&self.namespace_selector, labels))
    }

    fn selects_object(&self, write: &Write<'_>, object: &Value) -> bool {
        let selected = |object: &Value| {
            // Options of an exec have no labels, so nothing is known of them.
            object["metadata"].is_object()
                && selector::matches(&self.object_selector, &object["metadata"]["labels"])
        };
        is_empty(&self.object_selector) || selected(object) || write.before.is_some_and(selected)
    }

    fn meets_conditions(&self, write: &Write<'_>, object: &Value) -> Result<bool, Refused> {
        if self.match_conditions.is_empty() {
            return Ok(true);
        }
        let evaluator = evaluator(write, object);
        let holds = |expression: String| {
            let expression = VapExpression {
                expression,
                message: None,
                message_expression: None,
            };
            let results = evaluator.evaluate(&[expression]);
            results.iter().all(|result| result.passed)
        };
        let mut failed = None;
        for Condition { expression } in &self.match_conditions {
            if holds(expression.clone()) {
                continue;
            }
            // What is neither true nor false cannot be evaluated; one that is false decides whatever the others are.
            if holds(format!("!({expression})")) {
                return Ok(false);
            }
            failed = failed.or(Some(expression));
        }
        failed.map_or(Ok(true), |expression| {
            let why = format!("failed to evaluate match condition {expression:?}");
            Err(Refused::Failed(why))
        })
    }
}

/// Whether a selector asks for nothing.
fn is_empty(selector: &Value) -> bool {
    selector.as_object().is_none_or(|selector| {
        selector.values().all(|part| match part {
            Value::Object(labels) => labels.is_empty(),
            Value::Array(requirements) => requirements.is_empty(),
            _ => true,
        })
    })
}

/// CEL with `object`, `oldObject` and `request`; `authorizer` is not there.
fn evaluator(write: &Write<'_>, object: &Value) -> VapEvaluator {
    let (group, version, kind) = super::review::kind(write, object);
    let mut builder = VapEvaluator::builder()
        .object(object.clone())
        .request(AdmissionRequest {
            operation: write.operation.to_owned(),
            username: write.who.username.clone(),
            uid: write.who.uid.clone(),
            groups: write.who.groups.clone(),
            name: write.name.to_owned(),
            namespace: write.namespace.to_owned(),
            dry_run: write.dry_run,
            kind: GroupVersionKind {
                group,
                version,
                kind,
            },
            resource: GroupVersionResource {
                group: write.kind.group.clone(),
                version: write.kind.version.clone(),
                resource: write.kind.plural.clone(),
            },
        });
    if let Some(before) = write.before {
        builder = builder.old_object(before.clone());
    }
    builder.build()
}
