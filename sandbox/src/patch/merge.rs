//! One object merged into another by a schema: for apply, and for strategic merge patch with its directives.

use serde_json::{Map, Value};

use crate::schema::{self, lists};

/// `live` with what `patch` says. Lists are merged by `x-kubernetes-list-type`; what is new in one comes last. Apply
/// replaces atomic maps; in a `strategic` merge `null` removes, and names and items may be directives.
pub(crate) fn merge(live: &Value, patch: &Value, schema: &Value, strategic: bool) -> Value {
    match patch {
        Value::Object(patch) if strategic || schema["x-kubernetes-map-type"] != "atomic" => {
            let mut merged = live.as_object().cloned().unwrap_or_default();
            if strategic {
                follow(patch, &mut merged);
            }
            let fields = patch.iter();
            for (name, value) in fields.filter(|(name, _)| !strategic || !name.starts_with('$')) {
                if strategic && value.is_null() {
                    merged.remove(name);
                } else {
                    let field = merged.entry(name).or_insert(Value::Null);
                    *field = merge(field, value, schema::field(schema, name), strategic);
                }
            }
            merged.into()
        }
        Value::Array(patch) => {
            let merged = live.as_array().cloned().unwrap_or_default();
            list(merged, patch, schema, strategic).into()
        }
        _ => patch.clone(),
    }
}

/// Does what the directives of a patch say to the object they are about.
fn follow(patch: &Map<String, Value>, merged: &mut Map<String, Value>) {
    let directive = patch.get("$patch");
    if directive.is_some_and(|how| how == "replace" || how == "delete") {
        merged.clear();
    }
    for (name, gone) in patch {
        let list = name.strip_prefix("$deleteFromPrimitiveList/");
        let list = list.and_then(|list| merged.get_mut(list)?.as_array_mut());
        if let Some((list, gone)) = list.zip(gone.as_array()) {
            list.retain(|item| !gone.contains(item));
        }
    }
}

fn list(mut merged: Vec<Value>, patch: &[Value], schema: &Value, strategic: bool) -> Vec<Value> {
    let is = |item: &Value, directive: &str| strategic && item["$patch"] == directive;
    let items = patch.iter().filter(|item| !is(item, "replace"));
    let known = lists::steps(schema, &merged).filter(|_| items.clone().count() == patch.len());
    let (Some(mut known), Some(steps)) = (known, lists::steps(schema, patch)) else {
        return items.cloned().collect();
    };
    for (step, item) in steps.into_iter().zip(patch) {
        let at = known.iter().position(|known| *known == step);
        let at = at.unwrap_or_else(|| {
            merged.push(Value::Null);
            known.push(step);
            known.len() - 1
        });
        if is(item, "delete") {
            known.remove(at);
            merged.remove(at);
        } else {
            merged[at] = merge(&merged[at], item, &schema["items"], strategic);
        }
    }
    merged
}
