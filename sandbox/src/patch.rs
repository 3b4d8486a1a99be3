//! JSON patch, merge patch, strategic merge patch. Pure.

pub(crate) mod merge;

use json_patch::PatchOperation;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::schema::Structural;
use crate::status::Failure;
use merge::How;

/// Operations in one JSON patch: as many as Kubernetes takes.
const MAX_OPERATIONS: usize = 10_000;

/// RFC 6902.
///
/// # Errors
/// 400 for a patch that is no list of objects, 413 for more than 10,000 operations, 422 for one that cannot be applied. Kubernetes
/// does not say which operation failed.
pub fn json(document: &Value, patch: &Value) -> Result<Value, Failure> {
    let operations = patch
        .as_array()
        .filter(|all| all.iter().all(Value::is_object))
        .ok_or_else(|| Failure::bad_request("a JSON patch is a list of operations"))?;
    if operations.len() > MAX_OPERATIONS {
        let why = format!("a JSON patch has at most {MAX_OPERATIONS} operations");
        return Err(Failure::new(413, why));
    }
    let cannot_be_applied = || {
        let why = "the server rejected our request due to an error in our request";
        let mut failure = Failure::new(422, why);
        failure.details = json!({});
        failure
    };
    let operations: Vec<PatchOperation> =
        serde_json::from_value(patch.clone()).map_err(|_| cannot_be_applied())?;
    let mut patched = document.clone();
    json_patch::patch(&mut patched, &operations).map_err(|_| cannot_be_applied())?;
    Ok(patched)
}

/// RFC 7386.
#[must_use]
pub fn merge(document: &Value, patch: &Value) -> Value {
    let mut merged = document.clone();
    json_patch::merge(&mut merged, patch);
    merged
}

/// Kubernetes' own, for built-in kinds: lists of objects are merged by key, `$patch`, `$retainKeys`
/// and `$deleteFromPrimitiveList` are understood; `$setElementOrder` is not followed.
///
/// # Errors
/// 400 for a patch that is no object.
pub fn strategic(kind: &Kind, document: &Value, patch: &Value) -> Result<Value, Failure> {
    if !patch.is_object() {
        return Err(Failure::bad_request("a strategic merge patch is an object"));
    }
    let schema = &Structural::of(kind).schema;
    let document = Some(document.clone());
    Ok(merge::merge(document, patch, schema, How::Strategic))
}

#[cfg(test)]
mod tests;
