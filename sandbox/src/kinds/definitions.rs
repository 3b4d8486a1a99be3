//! OpenAPI v3 of the built-in kinds, from their Rust types, with the list keys that the types do not tell.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::builtin::rows;

/// The definitions of all built-in kinds and what they consist of, by name (`io.k8s.api.core.v1.Pod`). References among
/// them are `#/components/schemas/{name}`. Lists that are merged by keys say so (`x-kubernetes-list-type` and
/// `x-kubernetes-list-map-keys` for apply, `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key` for strategic
/// merge patch), as do objects that are replaced as a whole (`x-kubernetes-map-type`).
#[must_use]
pub fn definitions() -> &'static Map<String, Value> {
    static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
        let mut generator = SchemaSettings::openapi3().into_generator();
        let rows = rows();
        for row in &rows {
            (row.define)(&mut generator);
        }
        let mut all = generator.take_definitions(true);
        for row in rows {
            all[&*row.definition]["x-kubernetes-group-version-kind"] =
                json!([{"group": row.group, "kind": row.kind, "version": row.version}]);
        }
        annotate(&mut all);
        all
    });
    &DEFINITIONS
}

/// Lists merged item by item: definition, field, keys (`-` for a set), strategy of strategic merge patch (`-` for
/// none), whose key is the first. After the comments on Kubernetes' types (`+listMapKey`, `patchMergeKey`).
const LISTS: &str = "
    admissionregistration.v1.MutatingWebhook matchConditions name merge
    admissionregistration.v1.MutatingWebhookConfiguration webhooks name merge
    admissionregistration.v1.ValidatingWebhook matchConditions name merge
    admissionregistration.v1.ValidatingWebhookConfiguration webhooks name merge
    apps.v1.DaemonSetStatus conditions type merge
    apps.v1.DeploymentStatus conditions type merge
    apps.v1.ReplicaSetStatus conditions type merge
    apps.v1.StatefulSetStatus conditions type merge
    batch.v1.JobStatus conditions type merge
    core.v1.Container env name merge
    core.v1.Container ports containerPort,protocol merge
    core.v1.Container volumeDevices devicePath merge
    core.v1.Container volumeMounts mountPath merge
    core.v1.ContainerStatus allocatedResourcesStatus name merge
    core.v1.ContainerStatus volumeMounts mountPath merge
    core.v1.EphemeralContainer env name merge
    core.v1.EphemeralContainer ports containerPort,protocol merge
    core.v1.EphemeralContainer volumeDevices devicePath merge
    core.v1.EphemeralContainer volumeMounts mountPath merge
    core.v1.NamespaceStatus conditions type merge
    core.v1.NodeSpec podCIDRs - merge
    core.v1.NodeStatus addresses type merge
    core.v1.NodeStatus conditions type merge
    core.v1.PersistentVolumeClaimStatus conditions type merge
    core.v1.PodSpec containers name merge
    core.v1.PodSpec ephemeralContainers name merge
    core.v1.PodSpec hostAliases ip merge
    core.v1.PodSpec imagePullSecrets name merge
    core.v1.PodSpec initContainers name merge
    core.v1.PodSpec resourceClaims name merge,retainKeys
    core.v1.PodSpec schedulingGates name merge
    core.v1.PodSpec topologySpreadConstraints topologyKey,whenUnsatisfiable merge
    core.v1.PodSpec volumes name merge,retainKeys
    core.v1.PodStatus conditions type merge
    core.v1.PodStatus hostIPs ip merge
    core.v1.PodStatus podIPs ip merge
    core.v1.PodStatus resourceClaimStatuses name merge,retainKeys
    core.v1.ResourceRequirements claims name -
    core.v1.ResourceStatus resources resourceID -
    core.v1.ServiceAccount secrets name merge
    core.v1.ServiceSpec ports port,protocol merge
    core.v1.ServiceStatus conditions type merge
    apiextensions.v1.CustomResourceDefinitionStatus conditions type -
    apiextensions.v1.JSONSchemaProps x-kubernetes-validations rule merge
    meta.v1.ObjectMeta finalizers - merge
    meta.v1.ObjectMeta ownerReferences uid merge
";

/// Objects, and maps of strings in them, that are replaced as a whole (`+structType=atomic`, `+mapType=atomic`).
const ATOMIC: &str = "
    core.v1.ConfigMapKeySelector core.v1.LocalObjectReference core.v1.NodeSelector core.v1.NodeSelectorTerm
    core.v1.ObjectFieldSelector core.v1.ObjectReference core.v1.ResourceFieldSelector core.v1.SecretKeySelector
    core.v1.TypedLocalObjectReference core.v1.PodSpec/nodeSelector core.v1.ServiceSpec/selector
    rbac.v1.RoleRef rbac.v1.Subject meta.v1.LabelSelector meta.v1.OwnerReference
";

fn annotate(all: &mut Map<String, Value>) {
    for (name, definition) in all {
        for line in LISTS.lines() {
            let &[of, field, keys, strategy] = &*line.split_whitespace().collect::<Vec<_>>() else {
                continue;
            };
            if !is(name, of) {
                continue;
            }
            let list = &mut definition["properties"][field];
            if keys == "-" {
                list["x-kubernetes-list-type"] = "set".into();
            } else {
                list["x-kubernetes-list-type"] = "map".into();
                list["x-kubernetes-list-map-keys"] = keys.split(',').collect();
            }
            if strategy != "-" {
                list["x-kubernetes-patch-strategy"] = strategy.into();
                if let Some(key) = keys.split(',').next().filter(|key| *key != "-") {
                    list["x-kubernetes-patch-merge-key"] = key.into();
                }
            }
        }
        for atomic in ATOMIC.split_whitespace() {
            let (of, field) = atomic.split_once('/').unwrap_or((atomic, ""));
            if is(name, of) {
                let map = match field {
                    "" => &mut *definition,
                    field => &mut definition["properties"][field],
                };
                map["x-kubernetes-map-type"] = "atomic".into();
            }
        }
        if is(name, "apps.v1.DeploymentSpec") {
            definition["properties"]["strategy"]["x-kubernetes-patch-strategy"] =
                "retainKeys".into();
        }
    }
}

/// Whether a definition is `group.version.Kind`, its group told by the last part of its package.
fn is(name: &str, of: &str) -> bool {
    name.strip_suffix(of)
        .is_some_and(|package| package.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::keys;

    #[test]
    fn every_annotated_list_is_one() {
        for line in LISTS.lines().filter(|line| !line.trim().is_empty()) {
            let &[of, field, keys, _] = &*line.split_whitespace().collect::<Vec<_>>() else {
                panic!("{line}");
            };
            let (_, definition) = definitions()
                .iter()
                .find(|(name, _)| is(name, of))
                .unwrap_or_else(|| panic!("{of}"));
            let list = &definition["properties"][field];
            assert_eq!(list["type"], "array", "{line}");
            let item = list["items"]["$ref"].as_str().unwrap_or_default();
            let item = item.trim_start_matches("#/components/schemas/");
            for key in keys.split(',').filter(|key| *key != "-") {
                let key = &definitions()[item]["properties"][key];
                assert!(key.is_object(), "{line}");
            }
        }
        for atomic in ATOMIC.split_whitespace() {
            let (of, field) = atomic.split_once('/').unwrap_or((atomic, ""));
            let (_, definition) = definitions()
                .iter()
                .find(|(name, _)| is(name, of))
                .unwrap_or_else(|| panic!("{of}"));
            assert!(field.is_empty() || definition["properties"][field]["type"] == "object");
        }
    }

    /// Goes through all lists below a definition, with the names of the field and of the one around it.
    fn walk(name: &str, parent: &str, seen: &mut Vec<(String, String)>) {
        let known = (name.to_owned(), parent.to_owned());
        if seen.contains(&known) {
            return;
        }
        seen.push(known);
        let fields = definitions()[name]["properties"].as_object();
        for (field, schema) in fields.into_iter().flatten() {
            let told = match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => "Set".to_owned(),
                Some("map") => {
                    format!("Map({})", schema["x-kubernetes-list-map-keys"]).replace(',', ", ")
                }
                _ => "Atomic".to_owned(),
            };
            if schema["type"] == "array" {
                let merged = format!("{:?}", keys::list(parent, field));
                assert_eq!(merged, told, "{field} in {parent} ({name})");
            }
            // What is in a list that is replaced as a whole is never merged.
            let items = if told == "Atomic" {
                &Value::Null
            } else {
                &schema["items"]["$ref"]
            };
            let below = [&schema["$ref"], &schema["allOf"][0]["$ref"], items];
            for to in below.into_iter().filter_map(Value::as_str) {
                walk(to.trim_start_matches("#/components/schemas/"), field, seen);
            }
        }
    }

    #[test]
    fn patches_merge_lists_as_the_definitions_say() {
        let mut seen = Vec::new();
        for row in rows() {
            walk(&row.definition, "", &mut seen);
        }
        assert!(seen.len() > 100);
    }
}
