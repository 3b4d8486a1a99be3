//! JSON patch, merge patch, strategic merge patch. Pure.

pub(crate) mod merge;

use json_patch::Patch;
use serde::Deserialize as _;
use serde_json::Value;

use crate::{kinds::Kind, schema::Structural, status::Failure};

/// RFC 6902.
///
/// # Errors
/// 400 for a patch that is no list, 422 for one that cannot be applied. Kubernetes does not say which operation failed.
pub(crate) fn json(document: &Value, patch: &Value) -> Result<Value, Failure> {
    if !patch.is_array() {
        return Err(Failure::bad_request("a JSON patch is a list of operations"));
    }
    let mut patched = document.clone();
    let applied = Patch::deserialize(patch).map(|patch| json_patch::patch(&mut patched, &patch));
    let why = "the server rejected our request due to an error in our request";
    match applied {
        Ok(Ok(())) => Ok(patched),
        _ => Err(Failure::new(422, why)),
    }
}

/// RFC 7386.
pub(crate) fn merge(document: &Value, patch: &Value) -> Value {
    let mut merged = document.clone();
    json_patch::merge(&mut merged, patch);
    merged
}

/// Kubernetes' own, for built-in kinds: lists of objects are merged by key, `$patch` and `$deleteFromPrimitiveList` are
/// understood; `$setElementOrder` and `$retainKeys` are not followed.
pub(crate) fn strategic(kind: &Kind, document: &Value, patch: &Value) -> Value {
    let schema = &Structural::of(kind).schema;
    merge::merge(document, patch, schema, true)
}

#[cfg(test)]
mod tests;
