//! What objects must look like: by the schema of a CustomResourceDefinition, or by the rules of a built-in kind. Pure.

mod definition;
mod structural;
mod values;

use serde_json::Value;

use crate::kinds::Kind;
use crate::status::Cause;
pub use definition::kinds_of;
pub use structural::Structural;

/// Checks an object of a built-in kind by its Rust type and Kubernetes' own rules for names, labels, immutable fields and
/// so on, as far as this product can meet them; fills in its defaults.
///
/// # Errors
/// What is wrong with it.
pub fn check_builtin(
    _kind: &Kind,
    _object: &mut Value,
    _before: Option<&Value>,
) -> Result<(), Vec<Cause>> {
    todo!("schema")
}

/// `FieldValueRequired`
fn required(field: impl Into<String>, why: &str) -> Cause {
    let message = if why.is_empty() {
        "Required value".to_owned()
    } else {
        format!("Required value: {why}")
    };
    cause("FieldValueRequired", field, message)
}

/// `FieldValueInvalid`
fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Cause {
    cause(
        "FieldValueInvalid",
        field,
        format!("Invalid value: {value}: {why}"),
    )
}

/// `FieldValueNotSupported`
fn unsupported<'a>(
    field: impl Into<String>,
    value: &Value,
    supported: impl Iterator<Item = &'a str>,
) -> Cause {
    let supported: Vec<String> = supported.map(|value| format!("{value:?}")).collect();
    cause(
        "FieldValueNotSupported",
        field,
        format!(
            "Unsupported value: {value}: supported values: {}",
            supported.join(", ")
        ),
    )
}

fn cause(reason: &'static str, field: impl Into<String>, message: String) -> Cause {
    Cause {
        reason,
        field: field.into(),
        message,
    }
}
