//! Objects are JSON; these read and write the metadata every one of them has.

use serde_json::{Map, Value, json};

/// A text in `metadata`; empty if absent.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    text(&object["metadata"][field])
}

/// A text; empty for what is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `metadata.name`
pub(crate) fn name(object: &Value) -> &str {
    meta(object, "name")
}

/// `metadata.namespace`; empty for what is in none.
pub(crate) fn namespace(object: &Value) -> &str {
    meta(object, "namespace")
}

/// `metadata.uid`
pub(crate) fn uid(object: &Value) -> &str {
    meta(object, "uid")
}

/// Whether it is being deleted.
pub(crate) fn deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// A list of texts in `metadata` or `spec`.
pub(crate) fn texts<'a>(object: &'a Value, part: &str, list: &str) -> Vec<&'a str> {
    let list = object[part][list].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// Whether it is deleted and has nothing left to wait for: no grace, no finalizer.
pub(crate) fn over(object: &Value) -> bool {
    let held = ["metadata", "spec"].map(|part| texts(object, part, "finalizers").len());
    deleting(object) && object["metadata"]["deletionGracePeriodSeconds"] == 0 && held == [0, 0]
}

/// Its metadata alone, as `PartialObjectMetadata`.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// `metadata`, made if absent or not an object.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    json_patch::merge(object, &json!({"metadata": {}}));
    let metadata = object["metadata"].as_object_mut();
    metadata.expect("it was made an object above")
}
