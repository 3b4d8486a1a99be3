//! What each kind of patch makes of objects.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kinds::Kinds;
use crate::release::Release;

fn kind(name: &str) -> Arc<Kind> {
    let kinds = Kinds::builtin(Release::default());
    kinds.of("v1", name).expect("it is built in")
}

/// Onto a pod.
fn strategic(document: &Value, patch: &Value) -> Value {
    super::strategic(&kind("Pod"), document, patch)
}

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
        (json!([1]), 422),
        (json!("x"), 400),
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

fn any_json() -> impl Strategy<Value = Value> {
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
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}})
    );
}

#[test]
fn lists_of_objects_are_merged_by_key() {
    let document = pod(
        json!([{"name": "a", "image": "x", "env": [{"name": "A", "value": "1"}]}, {"name": "b"}]),
    );
    let patch = pod(json!([{"name": "a", "image": "y", "env": [{"name": "B", "value": "2"}]}]));
    assert_eq!(
        strategic(&document, &patch)["spec"]["containers"],
        json!([
            {"name": "a", "image": "y", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"name": "b"},
        ])
    );
}

#[test]
fn lists_without_a_key_are_replaced() {
    let document = json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1"]}]}});
    let patch = json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["2"]}]}});
    assert_eq!(strategic(&document, &patch), patch);
}

#[test]
fn a_new_item_comes_last_whatever_order_is_set() {
    let document = pod(json!([{"name": "a"}, {"name": "b"}]));
    let mut patch = pod(json!([{"name": "c"}]));
    assert_eq!(names(&strategic(&document, &patch)), ["a", "b", "c"]);
    // Kubernetes would follow it.
    patch["spec"]["$setElementOrder/containers"] = json!([{"name": "b"}, {"name": "c"}]);
    assert_eq!(names(&strategic(&document, &patch)), ["a", "b", "c"]);
}

#[test]
fn items_are_deleted_and_lists_replaced_by_directive() {
    let document = pod(json!([{"name": "a"}, {"name": "b"}]));
    let delete = pod(json!([{"name": "a", "$patch": "delete"}]));
    assert_eq!(names(&strategic(&document, &delete)), ["b"]);
    let replace = pod(json!([{"name": "c"}, {"$patch": "replace"}]));
    assert_eq!(names(&strategic(&document, &replace)), ["c"]);
}

#[test]
fn an_object_is_replaced_or_emptied_by_directive() {
    let document = json!({"data": {"a": "1", "b": "2"}});
    let replace = json!({"data": {"c": "3", "$patch": "replace"}});
    assert_eq!(strategic(&document, &replace), json!({"data": {"c": "3"}}));
    let delete = json!({"data": {"$patch": "delete"}});
    assert_eq!(strategic(&document, &delete), json!({"data": {}}));
}

#[test]
fn finalizers_are_a_set() {
    let document = json!({"metadata": {"finalizers": ["a", "b"]}});
    for (patch, expected) in [
        (json!({"finalizers": ["c", "a"]}), json!(["a", "b", "c"])),
        (
            json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
            json!(["b"]),
        ),
        (
            json!({"$setElementOrder/finalizers": ["b", "a"]}),
            json!(["a", "b"]),
        ),
    ] {
        let patched = strategic(&document, &json!({"metadata": patch}));
        assert_eq!(patched["metadata"]["finalizers"], expected, "{patch}");
    }
}

#[test]
fn ports_of_a_service_and_of_a_container_have_different_keys() {
    let service = json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81}]}});
    let patch = json!({"spec": {"ports": [{"port": 80, "name": "b"}]}});
    assert_eq!(
        super::strategic(&kind("Service"), &service, &patch)["spec"]["ports"],
        json!([{"port": 80, "name": "b"}, {"port": 81}])
    );
    let ports = json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]);
    let container = pod(json!([{"name": "a", "ports": ports}]));
    let patch = pod(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "web"}]}]));
    assert_eq!(
        strategic(&container, &patch)["spec"]["containers"][0]["ports"],
        json!([{"containerPort": 80, "name": "web"}, {"containerPort": 80, "protocol": "UDP"}])
    );
}
