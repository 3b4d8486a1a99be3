//! JSON patch, merge patch, strategic merge patch. Pure.

use serde_json::Value;

use crate::status::Failure;

/// RFC 6902.
///
/// # Errors
/// 400 for a patch that does not parse, 422 for one that cannot be applied.
pub fn json(_document: &Value, _patch: &Value) -> Result<Value, Failure> {
    todo!("patch")
}

/// RFC 7386.
#[must_use]
pub fn merge(_document: &Value, _patch: &Value) -> Value {
    todo!("patch")
}

/// Kubernetes' own, for built-in kinds: lists of objects are merged by key, `$patch` and `$deleteFromPrimitiveList` and
/// `$setElementOrder` are understood.
///
/// # Errors
/// 400 for a patch that makes no sense.
pub fn strategic(_document: &Value, _patch: &Value) -> Result<Value, Failure> {
    todo!("patch")
}
