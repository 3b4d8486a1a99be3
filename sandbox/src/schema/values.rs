//! Values and CEL rules: what the engines for both find wrong, as causes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonschema::error::ValidationErrorKind as Wrong;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use kube_cel::CompiledSchema;
use serde_json::{Value, json};

use super::{INT_OR_STRING, cause, join};
use crate::status::Cause;

/// Compiles a schema for values. Fails with what is wrong with it, e.g. a pattern.
pub(super) fn compile(schema: &Value) -> Result<Validator, String> {
    let mut schema = schema.clone();
    to_json_schema(&mut schema);
    jsonschema::options()
        .with_draft(Draft::Draft4)
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .with_format("byte", |text: &str| STANDARD.decode(text).is_ok())
        .with_format("date-time", |text: &str| {
            text.parse::<jiff::Timestamp>().is_ok()
        })
        .with_format("duration", |text: &str| {
            text.parse::<jiff::SignedDuration>().is_ok()
        })
        .build(&schema)
        .map_err(|why| why.to_string())
}

/// Makes JSON Schema (draft 4) of what means something else, or nothing, in OpenAPI.
fn to_json_schema(schema: &mut Value) {
    for item in schema.as_array_mut().into_iter().flatten() {
        to_json_schema(item);
    }
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    fields.values_mut().for_each(to_json_schema);
    if fields.get(INT_OR_STRING) == Some(&json!(true)) {
        fields.insert("type".into(), json!(["integer", "string"]));
    }
    // Formats of numbers are ranges.
    if fields.get("format") == Some(&json!("int32")) {
        fields.entry("minimum").or_insert(json!(i32::MIN));
        fields.entry("maximum").or_insert(json!(i32::MAX));
    }
    if fields.get("nullable") == Some(&json!(true)) {
        match fields.get_mut("type") {
            Some(Value::Array(types)) => types.push(json!("null")),
            Some(one) => *one = json!([one, "null"]),
            None => {}
        }
        if let Some(Value::Array(values)) = fields.get_mut("enum") {
            values.push(Value::Null);
        }
    }
    // Draft 4 has no empty list of what is required.
    fields.retain(|_, value| *value != json!([]));
}

/// What is wrong with the values of an object.
pub(super) fn check(values: &Validator, object: &Value) -> Vec<Cause> {
    let errors = values.iter_errors(object);
    errors.map(|error| told(&error)).collect()
}

fn told(error: &ValidationError<'_>) -> Cause {
    let at = path(error.instance_path());
    if let Wrong::Required { property } = error.kind() {
        let field = join(&at, property.as_str().unwrap_or_default());
        return cause("FieldValueRequired", field, "Required value");
    }
    let (reason, title) = match error.kind() {
        Wrong::Enum { .. } => ("FieldValueNotSupported", "Unsupported"),
        Wrong::MaxLength { .. } => ("FieldValueTooLong", "Too long a"),
        Wrong::MaxItems { .. } | Wrong::MaxProperties { .. } => {
            ("FieldValueTooMany", "Too large a")
        }
        Wrong::Type { .. } | Wrong::Format { .. } => ("FieldValueTypeInvalid", "Invalid"),
        _ => ("FieldValueInvalid", "Invalid"),
    };
    // What is of the wrong form, or more than one value, may be secret.
    let value = error.instance();
    let secret = reason == "FieldValueTypeInvalid" || value.is_object() || value.is_array();
    let value = if secret {
        String::new()
    } else {
        format!("{value}: ")
    };
    let message = format!("{title} value: {value}{}", error.masked());
    cause(reason, at, message)
}

/// `spec.command[0]`
fn path(location: &Location) -> String {
    location
        .into_iter()
        .fold(String::new(), |path, segment| match segment {
            LocationSegment::Index(index) => format!("{path}[{index}]"),
            LocationSegment::Property(name) => join(&path, &name),
        })
}

/// The rules an object breaks.
pub(super) fn broken_rules(
    rules: &CompiledSchema,
    object: &Value,
    before: Option<&Value>,
) -> Vec<Cause> {
    const REASONS: [(&str, &str); 5] = [
        ("FieldValueInvalid", "Invalid value"),
        ("FieldValueForbidden", "Forbidden"),
        ("FieldValueRequired", "Required value"),
        ("FieldValueDuplicate", "Duplicate value"),
        ("FieldValueNotFound", "Not found"),
    ];
    let broken = kube_cel::validate_compiled(rules, object, before).err();
    let broken = broken.iter().flat_map(kube_cel::ValidationErrors::as_slice);
    broken
        .map(|rule| {
            let reason = rule.reason.as_deref().unwrap_or_default();
            let known = REASONS.iter().find(|(known, _)| *known == reason);
            let (reason, title) = known.unwrap_or(&REASONS[0]);
            let field = match rule.field_path.trim_start_matches('.') {
                "" => "<nil>",
                path => path,
            };
            cause(reason, field, format!("{title}: {}", rule.message))
        })
        .collect()
}
