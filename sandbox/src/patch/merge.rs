//! One object merged into another by a schema: for apply, and for strategic merge patch with its directives.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::schema::{field, lists};

/// Whose rules a merge follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Lists by `x-kubernetes-list-type`; atomic maps are replaced.
    Apply,
    /// Lists by `x-kubernetes-patch-strategy`; `null` removes; names and items may be directives.
    Strategic,
}

/// `live` with what `patch` says.
pub(crate) fn merge(live: Option<Value>, patch: &Value, schema: &Value, how: How) -> Value {
    let whole = how == How::Apply && schema["x-kubernetes-map-type"] == "atomic";
    match (live.unwrap_or_default(), patch) {
        (Value::Object(live), Value::Object(patch)) if !whole => object(live, patch, schema, how),
        (_, Value::Object(patch)) if !whole => object(Map::new(), patch, schema, how),
        (Value::Array(live), Value::Array(patch)) => list(live, patch, schema, how),
        (_, Value::Array(patch)) => list(Vec::new(), patch, schema, how),
        _ => patch.clone(),
    }
}

fn object(
    mut merged: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: &Value,
    how: How,
) -> Value {
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
            let inner = field(schema, name).unwrap_or(&Value::Null);
            let next = merge(merged.remove(name), value, inner, how);
            merged.insert(name.clone(), next);
        } else if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(list)), Some(gone)) = (merged.get_mut(list), value.as_array())
            {
                list.retain(|item| !gone.contains(item));
            }
        } else {
            merged.remove(name);
        }
    }
    Value::Object(merged)
}

/// What tells the items of a list apart; `None` if it is replaced as a whole, or an item has not its key.
fn identities(schema: &Value, items: &[Value], how: How) -> Option<Vec<String>> {
    if how == How::Apply {
        return lists::steps(schema, items);
    }
    let strategy = schema["x-kubernetes-patch-strategy"].as_str();
    strategy.filter(|strategy| strategy.contains("merge"))?;
    let identity = |item: &Value| match schema["x-kubernetes-patch-merge-key"].as_str() {
        Some(key) => item.get(key).map(Value::to_string),
        None => Some(item.to_string()),
    };
    items.iter().map(identity).collect()
}

fn list(live: Vec<Value>, patch: &[Value], schema: &Value, how: How) -> Value {
    let strategic = how == How::Strategic;
    let is = |item: &Value, directive: &str| {
        strategic && item.get("$patch").is_some_and(|is| is == directive)
    };
    let replaced = patch.iter().any(|item| is(item, "replace"));
    let identities = |items| identities(schema, items, how).filter(|_| !replaced);
    let (Some(mut before), Some(patched)) = (identities(&live), identities(patch)) else {
        let items = patch.iter().filter(|item| !is(item, "replace"));
        return items.cloned().collect();
    };
    let mut items: HashMap<String, Value> = before.iter().cloned().zip(live).collect();
    let mut wanted = Vec::with_capacity(patch.len());
    for (id, item) in patched.into_iter().zip(patch) {
        if is(item, "delete") {
            before.retain(|known| *known != id);
        } else {
            let merged = merge(items.remove(&id), item, &schema["items"], how);
            items.insert(id.clone(), merged);
            wanted.push(id);
        }
    }
    let order = interleave(&before, &wanted).into_iter();
    order.filter_map(|id| items.remove(id)).collect()
}

/// The items wanted in their order, the others where they are between those in both lists.
fn interleave<'a>(live: &'a [String], wanted: &'a [String]) -> Vec<&'a String> {
    let mut rest = live.iter().peekable();
    let mut result = Vec::with_capacity(live.len() + wanted.len());
    for (index, id) in wanted.iter().enumerate() {
        let shared = wanted[index..].iter().find(|id| live.contains(id));
        while let Some(other) = rest.next_if(|other| Some(*other) != shared) {
            result.extend(Some(other).filter(|other| !wanted.contains(other)));
        }
        rest.next_if(|other| *other == id);
        result.push(id);
    }
    result.extend(rest.filter(|other| !wanted.contains(other)));
    result
}
