//! JSON patch, merge patch, strategic merge patch. Pure.

pub mod keys;
mod strategic;

use json_patch::{PatchError, PatchOperation};
use serde_json::{Value, json};

use crate::status::Failure;
pub use strategic::strategic;

/// Operations in one JSON patch: as many as Kubernetes takes.
const MAX_OPERATIONS: usize = 10_000;

/// RFC 6902.
///
/// # Errors
/// 400 for a patch that is no list of objects, 413 for more than 10,000 operations, 422 for one that cannot be applied. Kubernetes
/// does not say which operation failed.
pub fn json(document: &Value, patch: &Value) -> Result<Value, Failure> {
    let Some(operations) = patch
        .as_array()
        .filter(|all| all.iter().all(Value::is_object))
    else {
        return Err(Failure::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type jsonpatch.Patch",
            type_name(patch)
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Failure::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                operations.len()
            ),
        ));
    }
    // A bad operation is found when its turn comes: one that fails before it hides it, but both are answered alike.
    let operations: Vec<PatchOperation> =
        serde_json::from_value(patch.clone()).map_err(|_| cannot_be_applied())?;
    let mut patched = document.clone();
    json_patch::patch(&mut patched, &operations).map_err(|_: PatchError| cannot_be_applied())?;
    Ok(patched)
}

/// RFC 7386.
#[must_use]
pub fn merge(document: &Value, patch: &Value) -> Value {
    let mut merged = document.clone();
    json_patch::merge(&mut merged, patch);
    merged
}

fn cannot_be_applied() -> Failure {
    let mut failure = Failure::new(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    );
    failure.details = json!({});
    failure
}

/// As Go's JSON decoder calls it.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_applies_all_its_operations_or_none() {
        let document = json!({"a": [1, 2], "b": {"c": "d"}});
        let patched = json(
            &document,
            &json!([
                {"op": "test", "path": "/a/0", "value": 1},
                {"op": "add", "path": "/a/-", "value": 3},
                {"op": "replace", "path": "/b/c", "value": "e"},
                {"op": "copy", "from": "/b", "path": "/x"},
                {"op": "remove", "path": "/a/0"},
                {"op": "move", "from": "/x/c", "path": "/y"},
            ]),
        );
        assert_eq!(
            patched,
            Ok(json!({"a": [2, 3], "b": {"c": "e"}, "x": {}, "y": "e"}))
        );
    }

    #[test]
    fn a_json_patch_that_cannot_be_applied_is_invalid_and_one_that_is_none_a_bad_request() {
        let document = json!({"a": [1]});
        for (patch, code) in [
            (json!([{"op": "test", "path": "/a/0", "value": 2}]), 422),
            (json!([{"op": "remove", "path": "/b"}]), 422),
            (json!([{"op": "replace", "path": "/b", "value": null}]), 422),
            (json!([{"op": "add", "path": "/b/c", "value": 1}]), 422),
            (json!([{"op": "add", "path": "/a/7", "value": 1}]), 422),
            (json!([{"op": "frobnicate", "path": "/a"}]), 422),
            (json!([{"op": "add", "path": "a", "value": 1}]), 422),
            (json!({"a": 1}), 400),
            (json!([1]), 400),
            (json!("x"), 400),
            (
                json!(vec![json!({"op": "remove", "path": "/a"}); 10_001]),
                413,
            ),
        ] {
            let failure = json(&document, &patch).expect_err("cannot be applied");
            assert_eq!(failure.code, code, "{failure} for {patch:.80}");
        }
    }

    #[test]
    fn a_merge_patch_sets_replaces_lists_and_removes_with_null() {
        let document = json!({"a": {"b": 1, "c": 2}, "l": [1, 2], "k": 1});
        let patch = json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]});
        assert_eq!(
            merge(&document, &patch),
            json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3], "k": 1})
        );
    }

    pub(super) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            "[a-c]".prop_map(Value::from),
            "\\$patch|replace|delete".prop_map(Value::from),
        ];
        let key = prop_oneof![
            "[a-c]",
            Just("name".to_owned()),
            Just("spec".to_owned()),
            Just("containers".to_owned()),
            Just("metadata".to_owned()),
            Just("finalizers".to_owned()),
            Just("$patch".to_owned()),
            Just("$retainKeys".to_owned()),
            Just("$setElementOrder/containers".to_owned()),
            Just("$deleteFromPrimitiveList/finalizers".to_owned()),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_patch_is_a_reason_to_panic(document in any_json(), patch in any_json()) {
            let _ = json(&document, &patch);
            let _ = merge(&document, &patch);
            let _ = strategic(&document, &patch);
        }
    }
}
