//! What objects must look like: by the schema of a CustomResourceDefinition, or by the rules of a built-in kind. Pure.

mod builtin;
mod definition;
mod fields;
pub(crate) mod names;
mod structural;
mod values;

use serde_json::Value;

use crate::status::Cause;
pub use builtin::{check_builtin, decode};
pub use definition::kinds_of;
pub use structural::{Structural, forget_rules};

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
