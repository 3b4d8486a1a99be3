//! Lists whose items are told apart, by the schema's word: for validation, apply and strategic merge patch alike.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::{join, values::cause};
use crate::status::Cause;

/// The steps to the items of a list that is merged item by item, as `FieldsV1` calls them: `k:` and the keys of an object,
/// `v:` and a scalar. `None` for a list that is one value: by its schema, or as an item lacks its keys or is there twice.
pub(crate) fn steps(schema: &Value, list: &[Value]) -> Option<Vec<String>> {
    let mut seen = HashSet::new();
    let steps = list.iter().map(|item| step(schema, item));
    steps
        .map(|step| step.filter(|step| seen.insert(step.clone())))
        .collect()
}

fn step(schema: &Value, item: &Value) -> Option<String> {
    match schema["x-kubernetes-list-type"].as_str()? {
        "set" => return Some(format!("v:{item}")),
        "map" => {}
        _ => return None,
    }
    let value = |key: &Value| {
        let key = key.as_str()?;
        let default = || schema["items"]["properties"][key].get("default");
        Some((key.to_owned(), item.get(key).or_else(default)?.clone()))
    };
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?.iter();
    let keys: BTreeMap<_, _> = keys.map(value).collect::<Option<_>>()?;
    Some(format!("k:{}", json!(keys)))
}

/// Items of a list that are there twice: of custom kinds, if it is a set or has keys, and of built-in kinds, if it has a
/// field that must differ (`x-unique`).
pub(super) fn duplicates(schema: &Value, list: &Value, path: &str, causes: &mut Vec<Cause>) {
    let custom = schema["x-kubernetes-patch-strategy"].is_null();
    let mut seen = HashSet::new();
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}]");
        let (field, identity) = match schema["x-unique"].as_str() {
            Some(key) => (join(&path, key), item.get(key).map(Value::to_string)),
            None => (path, step(schema, item).filter(|_| custom)),
        };
        if let Some(twice) = identity.filter(|identity| !seen.insert(identity.clone())) {
            causes.push(cause("FieldValueDuplicate", &field, &twice));
        }
    }
}
