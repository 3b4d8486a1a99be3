//! Strategic merge patch.

use serde_json::{Map, Value};

use super::keys::{self, List};
use crate::status::Failure;

const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";

/// Kubernetes' own, for built-in kinds: lists of objects are merged by key, `$patch`, `$retainKeys`,
/// `$deleteFromPrimitiveList` and `$setElementOrder` are understood.
///
/// # Errors
/// 400 for a directive that makes no sense; 500, as Kubernetes has it, for an item without its key.
pub fn strategic(document: &Value, patch: &Value) -> Result<Value, Failure> {
    let Value::Object(patch) = patch else {
        return Err(Failure::bad_request("Invalid JSON document"));
    };
    let original = document.as_object().cloned().unwrap_or_default();
    object(original, patch, "").map(Value::Object)
}

fn object(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    parent: &str,
) -> Result<Map<String, Value>, Failure> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => original.clear(),
        Some(Some("delete")) => return Ok(Map::new()),
        Some(_) => {
            return Err(Failure::bad_request(format!(
                "Unknown patch type found: {}",
                plain(&patch[DIRECTIVE])
            )));
        }
    }
    if let Some(retained) = patch.get(RETAIN) {
        retain(&mut original, retained, patch)?;
    }
    let live = original.clone();
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix(DELETE_FROM) {
            let (Some(gone), Some(Value::Array(list))) =
                (value.as_array(), original.get_mut(field))
            else {
                continue;
            };
            list.retain(|item| !gone.contains(item));
        } else if !name.starts_with('$') {
            merge_field(&mut original, name, value, parent)?;
        }
    }
    for (name, order) in patch {
        let Some(field) = name.strip_prefix(ORDER) else {
            continue;
        };
        let (Some(order), Some(Value::Array(list))) = (order.as_array(), original.get_mut(field))
        else {
            continue;
        };
        let key = key(parent, field);
        let patched = patch.get(field).and_then(Value::as_array);
        let stray = patched
            .into_iter()
            .flatten()
            .any(|item| item.get(DIRECTIVE).is_none() && position(order, item, key).is_none());
        if stray {
            return Err(Failure::bad_request(format!(
                "The items of {field} are not all in {name}"
            )));
        }
        let live = live.get(field).and_then(Value::as_array);
        *list = ordered(
            std::mem::take(list),
            order,
            live.map_or(&[], Vec::as_slice),
            key,
        );
    }
    Ok(original)
}

fn retain(
    original: &mut Map<String, Value>,
    retained: &Value,
    patch: &Map<String, Value>,
) -> Result<(), Failure> {
    let bad = || Failure::bad_request("The patch contains an invalid $retainKeys list");
    let retained = retained.as_array().ok_or_else(bad)?;
    let kept = |name: &str| retained.iter().any(|keep| keep == name);
    // What is set but not retained contradicts itself.
    if patch
        .iter()
        .any(|(name, value)| !name.starts_with('$') && !value.is_null() && !kept(name))
    {
        return Err(bad());
    }
    original.retain(|name, _| kept(name));
    Ok(())
}

fn merge_field(
    original: &mut Map<String, Value>,
    name: &str,
    patch: &Value,
    parent: &str,
) -> Result<(), Failure> {
    if patch.is_null() {
        original.remove(name);
        return Ok(());
    }
    let merged = match (original.remove(name), patch) {
        (Some(Value::Object(before)), Value::Object(patch)) => {
            Value::Object(object(before, patch, name)?)
        }
        (_, Value::Object(patch)) => Value::Object(object(Map::new(), patch, name)?),
        (before, Value::Array(patch)) => {
            let before = match before {
                Some(Value::Array(before)) => before,
                _ => Vec::new(),
            };
            Value::Array(list(&before, patch, parent, name)?)
        }
        (_, scalar) => scalar.clone(),
    };
    original.insert(name.to_owned(), merged);
    Ok(())
}

fn list(
    before: &[Value],
    patch: &[Value],
    parent: &str,
    name: &str,
) -> Result<Vec<Value>, Failure> {
    let is_directive = |item: &&Value| item.get(DIRECTIVE).is_some();
    let replaced = patch
        .iter()
        .any(|item| item.get(DIRECTIVE).is_some_and(|how| how == "replace"));
    if replaced {
        return Ok(patch
            .iter()
            .filter(|item| !is_directive(item))
            .cloned()
            .collect());
    }
    match keys::list(parent, name) {
        List::Atomic => Ok(patch
            .iter()
            .filter(|item| !is_directive(item))
            .cloned()
            .collect()),
        List::Set => {
            let mut merged = before.to_vec();
            for item in patch {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            Ok(ordered(merged, patch, before, None))
        }
        List::Map(fields) => map_list(before, patch, fields[0], name),
    }
}

fn map_list(
    before: &[Value],
    patch: &[Value],
    key: &str,
    name: &str,
) -> Result<Vec<Value>, Failure> {
    let mut merged = before.to_vec();
    let mut order = Vec::with_capacity(patch.len());
    for item in patch {
        let Value::Object(fields) = item else {
            return Err(Failure::bad_request(format!(
                "The patch of {name} has an item that is no object"
            )));
        };
        if fields.get(key).is_none_or(Value::is_null) {
            // Not foreseen by Kubernetes either: it answers 500 without a reason.
            return Err(Failure::new(
                500,
                "",
                format!("map: {item} does not contain declared merge key: {key}"),
            ));
        }
        match fields.get(DIRECTIVE).map(plain).as_deref() {
            None => {}
            Some("delete") => {
                merged.retain(|known| known.get(key) != item.get(key));
                continue;
            }
            Some("merge") => {
                return Err(Failure::bad_request(
                    "merging lists cannot yet be specified in the patch",
                ));
            }
            Some(other) => {
                return Err(Failure::bad_request(format!(
                    "Unknown patch type found: {other}"
                )));
            }
        }
        order.push(item.clone());
        match merged
            .iter_mut()
            .find(|known| known.get(key) == item.get(key))
        {
            Some(Value::Object(known)) => *known = object(std::mem::take(known), fields, name)?,
            _ => merged.push(Value::Object(object(Map::new(), fields, name)?)),
        }
    }
    Ok(ordered(merged, &order, before, Some(key)))
}

/// The items in the order of `order`; those not in it where `live` had them, as far as both can be had.
fn ordered(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    interleave(
        merged,
        |item| position(order, item, key),
        |item| position(live, item, key),
    )
}

/// The items that have a place in an order, in that order; the others among them where the places they had let them.
fn interleave<T>(
    items: Vec<T>,
    place: impl Fn(&T) -> Option<usize>,
    place_before: impl Fn(&T) -> Option<usize>,
) -> Vec<T> {
    let (mut placed, others): (Vec<T>, Vec<T>) =
        items.into_iter().partition(|item| place(item).is_some());
    placed.sort_by_key(&place);
    let mut result = Vec::with_capacity(placed.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in placed {
        if let Some(before) = place_before(&item) {
            while let Some(other) =
                others.next_if(|other| place_before(other).is_some_and(|other| other < before))
            {
                result.push(other);
            }
        }
        result.push(item);
    }
    result.extend(others);
    result
}

fn position(items: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    items.iter().position(|known| match key {
        Some(key) => known.get(key) == item.get(key),
        None => known == item,
    })
}

fn key(parent: &str, field: &str) -> Option<&'static str> {
    match keys::list(parent, field) {
        List::Map(fields) => Some(fields[0]),
        List::Set | List::Atomic => None,
    }
}

/// A text without its quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "it is given a literal")]
    fn pod(containers: Value) -> Value {
        json!({"kind": "Pod", "spec": {"containers": containers}})
    }

    fn names(of: &Value) -> Vec<&str> {
        of["spec"]["containers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|item| item["name"].as_str().expect("a name"))
            .collect()
    }

    #[test]
    fn objects_are_merged_and_null_removes() {
        let document = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"x": 1}});
        let patch = json!({"metadata": {"labels": {"a": null, "c": "3", "d": null}}, "spec": null});
        assert_eq!(
            strategic(&document, &patch),
            Ok(json!({"metadata": {"labels": {"b": "2", "c": "3"}}}))
        );
    }

    #[test]
    fn lists_of_objects_are_merged_by_key() {
        let document = pod(
            json!([{"name": "a", "image": "x", "env": [{"name": "A", "value": "1"}]}, {"name": "b"}]),
        );
        let patch = pod(json!([{"name": "a", "image": "y", "env": [{"name": "B", "value": "2"}]}]));
        assert_eq!(
            strategic(&document, &patch).expect("can be applied")["spec"]["containers"],
            json!([
                {"name": "a", "image": "y", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]},
                {"name": "b"},
            ])
        );
    }

    #[test]
    fn lists_without_a_key_are_replaced() {
        let document = json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1"]}]}});
        let patch = json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["2"]}]}});
        assert_eq!(strategic(&document, &patch), Ok(patch));
    }

    #[test]
    fn a_new_item_comes_first_unless_an_order_is_set() {
        let document = pod(json!([{"name": "a"}, {"name": "b"}]));
        let mut patch = pod(json!([{"name": "c"}]));
        assert_eq!(
            names(&strategic(&document, &patch).expect("can be applied")),
            ["c", "a", "b"]
        );
        patch["spec"]["$setElementOrder/containers"] =
            json!([{"name": "b"}, {"name": "c"}, {"name": "a"}]);
        assert_eq!(
            names(&strategic(&document, &patch).expect("can be applied")),
            ["b", "c", "a"]
        );
        patch["spec"]["$setElementOrder/containers"] = json!([{"name": "b"}, {"name": "c"}]);
        assert_eq!(
            names(&strategic(&document, &patch).expect("can be applied")),
            ["a", "b", "c"]
        );
        patch["spec"]["$setElementOrder/containers"] = json!([{"name": "b"}]);
        assert_eq!(
            strategic(&document, &patch)
                .expect_err("cannot be applied")
                .code,
            400
        );
    }

    #[test]
    fn items_are_deleted_and_lists_replaced_by_directive() {
        let document = pod(json!([{"name": "a"}, {"name": "b"}]));
        let delete = pod(json!([{"name": "a", "$patch": "delete"}]));
        assert_eq!(
            names(&strategic(&document, &delete).expect("can be applied")),
            ["b"]
        );
        let replace = pod(json!([{"name": "c"}, {"$patch": "replace"}]));
        assert_eq!(
            names(&strategic(&document, &replace).expect("can be applied")),
            ["c"]
        );
        for (bad, code) in [
            (pod(json!([{"name": "a", "$patch": "merge"}])), 400),
            (pod(json!([{"name": "a", "$patch": "explode"}])), 400),
            (pod(json!([{"image": "a"}])), 500),
            (json!({"$patch": "explode"}), 400),
            (json!([]), 400),
        ] {
            assert_eq!(
                strategic(&document, &bad)
                    .expect_err("cannot be applied")
                    .code,
                code,
                "{bad}"
            );
        }
    }

    #[test]
    fn an_object_is_replaced_or_emptied_by_directive() {
        let document = json!({"data": {"a": "1", "b": "2"}});
        let replace = json!({"data": {"c": "3", "$patch": "replace"}});
        assert_eq!(
            strategic(&document, &replace),
            Ok(json!({"data": {"c": "3"}}))
        );
        let delete = json!({"data": {"$patch": "delete"}});
        assert_eq!(strategic(&document, &delete), Ok(json!({"data": {}})));
    }

    #[test]
    fn keys_that_are_not_retained_go() {
        let document = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w"}]}});
        let patch = json!({"spec": {"volumes": [
            {"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}},
        ]}});
        assert_eq!(
            strategic(&document, &patch).expect("can be applied")["spec"]["volumes"],
            json!([{"name": "v", "secret": {"secretName": "s"}}, {"name": "w"}])
        );
        let contradiction = json!({"$retainKeys": ["a"], "b": 1});
        assert_eq!(
            strategic(&document, &contradiction)
                .expect_err("cannot be applied")
                .code,
            400
        );
    }

    #[test]
    fn finalizers_are_a_set() {
        let document = json!({"metadata": {"finalizers": ["a", "b"]}});
        for (patch, expected) in [
            (json!({"finalizers": ["c", "a"]}), json!(["c", "a", "b"])),
            (
                json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
                json!(["b"]),
            ),
            (
                json!({"$setElementOrder/finalizers": ["b", "a"]}),
                json!(["b", "a"]),
            ),
        ] {
            let patched =
                strategic(&document, &json!({"metadata": patch})).expect("can be applied");
            assert_eq!(patched["metadata"]["finalizers"], expected, "{patch}");
        }
    }

    #[test]
    fn ports_of_a_service_and_of_a_container_have_different_keys() {
        let service = json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81}]}});
        let patch = json!({"spec": {"ports": [{"port": 80, "name": "b"}]}});
        assert_eq!(
            strategic(&service, &patch).expect("can be applied")["spec"]["ports"],
            json!([{"port": 80, "name": "b"}, {"port": 81}])
        );
        let container = pod(json!([{"name": "a", "ports": [{"containerPort": 80}]}]));
        let patch =
            pod(json!([{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP"}]}]));
        assert_eq!(strategic(&container, &patch), Ok(patch));
    }
}
