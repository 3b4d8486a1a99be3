//! One object merged into another by a schema: for apply, and for strategic merge patch with its directives.

use serde_json::{Map, Value};

use crate::schema::{field, lists};

/// Whose rules a merge follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Atomic maps are replaced.
    Apply,
    /// `null` removes; names and items may be directives.
    Strategic,
}

/// `live` with what `patch` says. Lists are merged by `x-kubernetes-list-type`; what is new in one comes last.
pub(crate) fn merge(live: &Value, patch: &Value, schema: &Value, how: How) -> Value {
    match patch {
        Value::Object(patch)
            if how == How::Strategic || schema["x-kubernetes-map-type"] != "atomic" =>
        {
            let live = live.as_object().cloned().unwrap_or_default();
            object(live, patch, schema, how).into()
        }
        Value::Array(patch) => {
            let live = live.as_array().cloned().unwrap_or_default();
            list(live, patch, schema, how).into()
        }
        _ => patch.clone(),
    }
}

fn object(
    mut merged: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: &Value,
    how: How,
) -> Map<String, Value> {
    let strategic = how == How::Strategic;
    let directive = patch.get("$patch").filter(|_| strategic);
    if directive.is_some_and(|how| how == "replace" || how == "delete") {
        merged.clear();
    }
    if let Some(Value::Array(kept)) = patch.get("$retainKeys").filter(|_| strategic) {
        merged.retain(|name, _| kept.iter().any(|kept| kept == name));
    }
    for (name, value) in patch {
        if !strategic || !(value.is_null() || name.starts_with('$')) {
            let live = merged.get(name).unwrap_or(&Value::Null);
            let next = merge(live, value, field(schema, name), how);
            merged.insert(name.clone(), next);
        } else if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let list = merged.get_mut(list).and_then(Value::as_array_mut);
            if let (Some(list), Some(gone)) = (list, value.as_array()) {
                list.retain(|item| !gone.contains(item));
            }
        } else {
            merged.remove(name);
        }
    }
    merged
}

fn list(mut merged: Vec<Value>, patch: &[Value], schema: &Value, how: How) -> Vec<Value> {
    let is = |item: &Value, directive: &str| how == How::Strategic && item["$patch"] == directive;
    let rest = patch.iter().filter(|item| !is(item, "replace")).cloned();
    let rest: Vec<Value> = rest.collect();
    let known = lists::steps(schema, &merged).filter(|_| rest.len() == patch.len());
    let (Some(mut known), Some(steps)) = (known, lists::steps(schema, patch)) else {
        return rest;
    };
    for (step, item) in steps.into_iter().zip(patch) {
        let at = known.iter().position(|known| *known == step);
        match at {
            Some(at) if is(item, "delete") => {
                known.remove(at);
                merged.remove(at);
            }
            Some(at) => merged[at] = merge(&merged[at], item, &schema["items"], how),
            None if is(item, "delete") => {}
            None => {
                known.push(step);
                merged.push(merge(&Value::Null, item, &schema["items"], how));
            }
        }
    }
    merged
}
