//! OpenAPI v3 of the built-in kinds, from their Rust types, with the list keys that the types do not tell.

use std::collections::HashMap;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Schema;
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
            if let Schema::Builtin(name) = &kind.schema {
                let of = json!({"group": kind.group, "kind": kind.kind, "version": kind.version});
                all[&**name]["x-kubernetes-group-version-kind"] = json!([of]);
            }
        }
        let merged = merged();
        for (name, definition) in &mut all {
            for (_, more) in merged.iter().filter(|(of, _)| is(name, of)) {
                json_patch::merge(definition, more);
            }
        }
        all
    });
    &DEFINITIONS
}

/// What is merged into which definition.
fn merged() -> HashMap<String, Value> {
    serde_saphyr::from_str(include_str!("lists.yaml")).expect("it is part of the program")
}

/// Whether a definition is `group.version.Kind`, its group told by the last part of its package.
fn is(name: &str, of: &str) -> bool {
    name.strip_suffix(of)
        .is_some_and(|package| package.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_annotated_list_is_one_and_its_items_have_the_keys() {
        for (of, more) in merged().iter().filter(|(of, _)| !of.starts_with("x-")) {
            let (_, definition) = definitions()
                .iter()
                .find(|(name, _)| is(name, of))
                .unwrap_or_else(|| panic!("{of}"));
            let properties = more["properties"].as_object();
            for (field, _) in properties.into_iter().flatten() {
                let list = &definition["properties"][field];
                let Some(keys) = list["x-kubernetes-list-map-keys"].as_array() else {
                    assert!(list.as_object().unwrap().len() > 1, "{of} {field}");
                    continue;
                };
                assert_eq!(list["type"], "array", "{of} {field}");
                let item = list["items"]["$ref"].as_str().unwrap();
                let item = item.trim_start_matches("#/components/schemas/");
                for key in keys {
                    let key = &definitions()[item]["properties"][key.as_str().unwrap()];
                    assert!(key.is_object(), "{of} {field}");
                }
            }
        }
    }
}
