//! One object merged into another by a schema: for apply, and for strategic merge patch with its directives.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::schema::{field, lists};
use crate::status::Failure;

const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";

/// Whose rules a merge follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Lists by `x-kubernetes-list-type`; atomic maps are replaced.
    Apply,
    /// Lists by `x-kubernetes-patch-strategy`; `null` removes; names and items may be directives.
    Strategic,
}

/// `live` with what `patch` says.
pub(crate) fn merge(
    live: Option<Value>,
    patch: &Value,
    schema: &Value,
    how: How,
) -> Result<Value, Failure> {
    match (live, patch) {
        (_, Value::Object(_))
            if how == How::Apply && schema["x-kubernetes-map-type"] == "atomic" =>
        {
            Ok(patch.clone())
        }
        (Some(Value::Object(live)), Value::Object(patch)) => object(live, patch, schema, how),
        (_, Value::Object(patch)) => object(Map::new(), patch, schema, how),
        (Some(Value::Array(live)), Value::Array(patch)) => list(live, patch, None, schema, how),
        (_, Value::Array(patch)) => list(Vec::new(), patch, None, schema, how),
        _ => Ok(patch.clone()),
    }
}

fn object(
    mut merged: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: &Value,
    how: How,
) -> Result<Value, Failure> {
    let strategic = how == How::Strategic;
    match patch
        .get(DIRECTIVE)
        .filter(|_| strategic)
        .map(Value::as_str)
    {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => merged.clear(),
        Some(Some("delete")) => return Ok(json!({})),
        Some(_) => return Err(unknown(&patch[DIRECTIVE])),
    }
    if let Some(kept) = patch.get(RETAIN).filter(|_| strategic) {
        let kept = |name: &str| {
            kept.as_array()
                .is_some_and(|all| all.iter().any(|one| one == name))
        };
        if patch
            .iter()
            .any(|(name, value)| !name.starts_with('$') && !value.is_null() && !kept(name))
        {
            return Err(Failure::bad_request(
                "$retainKeys must list every field that is set",
            ));
        }
        merged.retain(|name, _| kept(name));
    }
    for (name, value) in patch {
        let (name, order) = match name.strip_prefix(ORDER).filter(|_| strategic) {
            // With the list itself, if that is patched, too.
            Some(name) if patch.contains_key(name) || !merged.contains_key(name) => continue,
            Some(name) => (name, Some(value)),
            None => (
                name.as_str(),
                patch.get(&format!("{ORDER}{name}")).filter(|_| strategic),
            ),
        };
        if let Some(gone) = name.strip_prefix(DELETE_FROM).filter(|_| strategic) {
            if let Some(list) = merged.get_mut(gone).and_then(Value::as_array_mut) {
                list.retain(|item| !value.as_array().is_some_and(|gone| gone.contains(item)));
            }
        } else if strategic && value.is_null() {
            merged.remove(name);
        } else if !strategic || !name.starts_with('$') {
            let inner = field(schema, name).unwrap_or(&Value::Null);
            let live = merged.remove(name);
            let next = match (live, value, order.and_then(Value::as_array)) {
                (live, Value::Array(items), Some(order)) => {
                    let live = live
                        .and_then(|live| live.as_array().cloned())
                        .unwrap_or_default();
                    let items = if patch.contains_key(name) {
                        items.as_slice()
                    } else {
                        &[]
                    };
                    list(live, items, Some(order), inner, how)?
                }
                (live, value, _) => merge(live, value, inner, how)?,
            };
            merged.insert(name.to_owned(), next);
        }
    }
    Ok(Value::Object(merged))
}

/// What tells an item of a list from the others; `None` if the list is replaced as a whole.
fn identities(schema: &Value, items: &[Value], how: How) -> Result<Option<Vec<String>>, Failure> {
    if how == How::Apply {
        // A list that is not what it should be is taken as a whole.
        return Ok(lists::steps(schema, items).ok().flatten());
    }
    let strategy = schema["x-kubernetes-patch-strategy"].as_str();
    if !strategy.is_some_and(|strategy| strategy.contains("merge")) {
        return Ok(None);
    }
    let identity = |item: &Value| match schema["x-kubernetes-patch-merge-key"].as_str() {
        None => Ok(item.to_string()),
        // Not foreseen by Kubernetes either: it answers 500 without a reason.
        Some(key) => item
            .get(key)
            .filter(|key| !key.is_null())
            .map(Value::to_string)
            .ok_or_else(|| {
                Failure::new(
                    500,
                    "",
                    format!("{item} does not contain the merge key {key}"),
                )
            }),
    };
    items
        .iter()
        .map(identity)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn list(
    live: Vec<Value>,
    patch: &[Value],
    order: Option<&Vec<Value>>,
    schema: &Value,
    how: How,
) -> Result<Value, Failure> {
    let directive = |item: &Value| {
        item.get(DIRECTIVE)
            .filter(|_| how == How::Strategic)
            .cloned()
    };
    let plain = || {
        patch
            .iter()
            .filter(|item| directive(item).is_none())
            .cloned()
    };
    if patch
        .iter()
        .any(|item| directive(item).is_some_and(|how| how == "replace"))
    {
        return Ok(plain().collect());
    }
    let (Some(mut before), Some(patched)) = (
        identities(schema, &live, how)?,
        identities(schema, patch, how)?,
    ) else {
        return Ok(plain().collect());
    };
    let mut items: HashMap<String, Value> = before.iter().cloned().zip(live).collect();
    let mut wanted = Vec::with_capacity(patch.len());
    for (id, item) in patched.into_iter().zip(patch) {
        match directive(item) {
            None => {
                let merged = merge(items.remove(&id), item, &schema["items"], how)?;
                items.insert(id.clone(), merged);
                wanted.push(id);
            }
            Some(gone) if gone == "delete" => {
                items.remove(&id);
                before.retain(|known| *known != id);
            }
            Some(other) => return Err(unknown(&other)),
        }
    }
    if let Some(order) = order {
        let order = identities(schema, order, how)?.unwrap_or_default();
        if wanted.iter().any(|id| !order.contains(id)) {
            return Err(Failure::bad_request(format!(
                "{ORDER} must list every item that is set"
            )));
        }
        wanted = order
            .into_iter()
            .filter(|id| items.contains_key(id))
            .collect();
    }
    let order = interleave(&before, &wanted, how);
    Ok(order
        .into_iter()
        .filter_map(|id| items.remove(id))
        .collect())
}

/// The items wanted in their order. Apply leaves the others where they are between those in both lists; strategic merge
/// patch, before those wanted that they were before.
fn interleave<'a>(live: &'a [String], wanted: &'a [String], how: How) -> Vec<&'a String> {
    let mut rest = live.iter().peekable();
    let mut result = Vec::with_capacity(live.len() + wanted.len());
    for (index, id) in wanted.iter().enumerate() {
        let anchor = match how {
            How::Apply => wanted[index..].iter().find(|id| live.contains(id)),
            How::Strategic => Some(id),
        };
        if how == How::Apply || rest.clone().any(|other| Some(other) == anchor) {
            while let Some(other) = rest.next_if(|other| Some(*other) != anchor) {
                result.extend(Some(other).filter(|other| !wanted.contains(other)));
            }
        }
        rest.next_if(|other| *other == id);
        result.push(id);
    }
    result.extend(rest.filter(|other| !wanted.contains(other)));
    result
}

fn unknown(directive: &Value) -> Failure {
    Failure::bad_request(format!("unknown {DIRECTIVE} {directive}"))
}
