//! Server-side apply: who manages which fields. Pure.

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::Kind;
use crate::status::Failure;

/// A write whose fields are accounted for.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or what the user agent says before its first slash.
    pub manager: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    /// Of the write.
    pub now: Timestamp,
}

/// What the live object (`None`: there is none yet) becomes when `config` is applied to it: merged by the lists' keys,
/// fields dropped that the manager had applied before and nobody else manages, `metadata.managedFields` brought up to
/// date. A result that differs in nothing but times keeps the old times.
///
/// # Errors
/// 409 with one cause for each field somebody else manages, unless `force`.
pub fn apply(
    _live: Option<&Value>,
    _config: &Value,
    _kind: &Kind,
    _writer: Writer<'_>,
    _force: bool,
) -> Result<Value, Failure> {
    todo!("apply")
}

/// Brings `metadata.managedFields` of `object`, which replaces `live`, up to date after any other write: the fields that
/// changed belong to the writer (operation `Update`), those that went to nobody.
pub fn record(_live: Option<&Value>, _object: &mut Value, _kind: &Kind, _writer: Writer<'_>) {
    todo!("apply")
}
