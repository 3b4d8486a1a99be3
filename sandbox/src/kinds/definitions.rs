//! OpenAPI v3 of the built-in kinds, from their Rust types, with the list keys that the types do not tell.

use std::{collections::HashMap, sync::LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::builtin::{ROWS, kinds};
use crate::release::Release;

/// The definitions of all built-in kinds and what they consist of, by name (`io.k8s.api.core.v1.Pod`). References among
/// them are `#/components/schemas/{name}`. Lists that are merged by keys say so (`x-kubernetes-list-type` and
/// `x-kubernetes-list-map-keys` for apply, `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key` for strategic
/// merge patch), as do objects that are replaced as a whole (`x-kubernetes-map-type`).
pub(crate) fn definitions() -> &'static Map<String, Value> {
    static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
        let mut generator = SchemaSettings::openapi3().into_generator();
        for row in &ROWS {
            (row.define)(&mut generator);
        }
        let mut all = generator.take_definitions(true);
        for kind in kinds(Release::V1_36) {
            let of = json!({"group": kind.group, "kind": kind.kind, "version": kind.version});
            all[&*kind.definition]["x-kubernetes-group-version-kind"] = json!([of]);
        }
        let merged = merged();
        for (name, definition) in &mut all {
            for (_, more) in merged
                .iter()
                .filter(|(of, _)| name.ends_with(&format!(".{of}")))
            {
                json_patch::merge(definition, more);
            }
        }
        all
    });
    &DEFINITIONS
}

/// What is merged into which definition: `group.version.Kind`, its group told by the last part of its package.
fn merged() -> HashMap<String, Value> {
    serde_saphyr::from_str(include_str!("lists.yaml")).expect("it is part of the program")
}

#[cfg(test)]
mod tests;
