//! Whether an object has the form its kind demands: unknown fields, defaults, validation. Pure.

use serde_json::Value;

use super::{Options, Patch, meta};
use crate::kinds::Kind;
use crate::schema::{self, Structural};
use crate::status::{Cause, Failure};

/// The object without the fields its kind does not have, and warnings about them; refuses them if the client wants that,
/// and values of another type than a built-in kind's fields have.
/// `patch` is what they came by, if not by the object itself.
pub(super) fn known_fields(
    kind: &Kind,
    mut object: Value,
    options: &Options,
    patch: Option<&Patch>,
) -> Result<(Value, Vec<String>), Failure> {
    let unknown = schema::decode(kind, &mut object)?;
    let texts: Vec<String> = unknown
        .iter()
        .map(|field| format!("unknown field {field:?}"))
        .collect();
    if texts.is_empty() || options.field_validation == "Ignore" {
        return Ok((object, Vec::new()));
    }
    if options.field_validation != "Strict" {
        return Ok((object, texts));
    }
    let why = format!("strict decoding error: {}", texts.join(", "));
    Err(match patch {
        Some(Patch::Json(patch) | Patch::Merge(patch) | Patch::Strategic(patch)) => {
            let cause = Cause {
                reason: "FieldValueInvalid",
                field: "patch".to_owned(),
                message: format!("Invalid value: {:?}: {why}", patch.to_string()),
            };
            Failure::invalid("", "", "", &[cause])
        }
        _ => Failure::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: {why}",
            kind.kind, kind.version
        )),
    })
}

/// Fills in what the schema says.
pub(super) fn defaults(kind: &Kind, object: &mut Value) {
    Structural::of(kind).default(object);
}

/// Everything the kind demands.
pub(super) fn check(
    kind: &Kind,
    object: &mut Value,
    before: Option<&Value>,
) -> Result<(), Failure> {
    let structural = Structural::of(kind);
    // A webhook may have added what the kind does not have.
    structural.prune(object);
    structural.default(object);
    meta::fail(kind, object, &structural.validate(object, before))
}
