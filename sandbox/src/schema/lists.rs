//! Lists whose items are told apart, by the schema's word: for validation, apply and strategic merge patch alike.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::{cause, field, join};
use crate::status::Cause;

/// The steps to the items of a list that is merged item by item, as `FieldsV1` calls them: `k:` and the keys of an object,
/// `v:` and a scalar. `None` for a list that is one value.
///
/// # Errors
/// Which item lacks which of its keys.
pub(crate) fn steps(schema: &Value, list: &[Value]) -> Result<Option<Vec<String>>, String> {
    let step = |item: &Value| match schema["x-kubernetes-list-type"].as_str()? {
        "set" => Some(Ok(format!("v:{item}"))),
        "map" => Some(keys(schema, item).map(|keys| format!("k:{keys}"))),
        _ => None,
    };
    if step(&Value::Null).is_none() {
        return Ok(None);
    }
    list.iter()
        .filter_map(step)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// The keys of a list's item as JSON.
fn keys(schema: &Value, item: &Value) -> Result<String, String> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    let keys = keys.into_iter().flatten().filter_map(Value::as_str);
    let pairs: BTreeMap<&str, &Value> = keys
        .map(|key| {
            let default = || schema["items"]["properties"][key].get("default");
            let value = item.get(key).or_else(default);
            value
                .map(|value| (key, value))
                .ok_or_else(|| format!("{item} has no {key:?}, its key"))
        })
        .collect::<Result<_, _>>()?;
    Ok(serde_json::to_string(&pairs).unwrap_or_default())
}

/// Why an applied object cannot be taken apart: a list's items without their keys, or there twice.
pub(crate) fn unmergeable(schema: &Value, value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .find_map(|(name, value)| unmergeable(field(schema, name)?, value)),
        Value::Array(list) => {
            let twice = match steps(schema, list) {
                Err(why) => Some(why),
                Ok(steps) => {
                    let mut seen = HashSet::new();
                    let twice = steps
                        .into_iter()
                        .flatten()
                        .find(|step| !seen.insert(step.clone()));
                    twice.map(|step| format!("{} is there twice", &step[2..]))
                }
            };
            twice.or_else(|| {
                list.iter()
                    .find_map(|item| unmergeable(&schema["items"], item))
            })
        }
        _ => None,
    }
}

/// Items that are there twice: of lists of custom kinds that are sets or have keys, and of lists of built-in kinds with a
/// field that must differ (`x-unique`).
pub(super) fn duplicates(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        if let Some(inner) = field(schema, name) {
            duplicates(inner, value, &join(path, name), causes);
        }
    }
    let unique = schema["x-unique"].as_str();
    let builtin = !schema["x-kubernetes-patch-strategy"].is_null();
    let mut seen = HashSet::new();
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}]");
        let (path_of, identity) = match (unique, schema["x-kubernetes-list-type"].as_str()) {
            (Some(key), _) => (join(&path, key), item.get(key).map(Value::to_string)),
            (None, Some("set")) if !builtin => (path.clone(), Some(item.to_string())),
            (None, Some("map")) if !builtin => (path.clone(), keys(schema, item).ok()),
            _ => (path.clone(), None),
        };
        if let Some(identity) = identity
            && !seen.insert(identity.clone())
        {
            causes.push(cause(
                "FieldValueDuplicate",
                path_of,
                format!("Duplicate value: {identity}"),
            ));
        }
        duplicates(&schema["items"], item, &path, causes);
    }
}
