//! Values and CEL rules: what the engines for both find wrong, as causes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use jsonschema::{error::ValidationErrorKind as Wrong, paths::LocationSegment};
use kube_cel::CompiledSchema;
use serde_json::Value;

use super::join;
use crate::status::Cause;

/// What can be wrong with a field, and how the message begins. The first is for all that has no reason of its own.
const REASONS: [(&str, &str); 9] = [
    ("FieldValueInvalid", "Invalid value"),
    ("FieldValueTypeInvalid", "Invalid value"),
    ("FieldValueNotSupported", "Unsupported value"),
    ("FieldValueTooLong", "Too long"),
    ("FieldValueTooMany", "Too many"),
    ("FieldValueForbidden", "Forbidden"),
    ("FieldValueRequired", "Required value"),
    ("FieldValueDuplicate", "Duplicate value"),
    ("FieldValueNotFound", "Not found"),
];

/// One cause, its message from the reason and what is to be said beside it (empty for nothing).
pub(super) fn cause(reason: &str, field: &str, more: &str) -> Cause {
    let known = REASONS.iter().find(|(known, _)| *known == reason);
    let (reason, title) = known.unwrap_or(&REASONS[0]);
    let message = format!("{title}: {more}");
    Cause::new(reason, field, message.trim_end_matches(": "))
}

/// Compiles a schema for values. Fails with what is wrong with it, e.g. a pattern.
pub(super) fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft4)
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .with_format("byte", |text: &str| STANDARD.decode(text).is_ok())
        .build(schema)
        .map_err(|why| why.to_string())
}

/// What is wrong with rules.
pub(super) fn wrong_rules(rules: &CompiledSchema) -> Vec<String> {
    let errors = rules.compilation_errors().into_iter();
    let errors = errors.map(|why| format!("compilation failed: {why}"));
    let within = rules.properties.values().chain(rules.items.as_deref());
    let within = within.chain(rules.additional_properties.as_deref());
    errors.chain(within.flat_map(wrong_rules)).collect()
}

/// What is wrong with the values of an object.
pub(super) fn check(values: &Validator, object: &Value) -> Vec<Cause> {
    let errors = values.iter_errors(object);
    errors.map(|error| told(&error)).collect()
}

fn told(error: &ValidationError<'_>) -> Cause {
    // `spec.command[0]`
    let segments = error.instance_path().into_iter();
    let field = segments.fold(String::new(), |path, segment| match segment {
        LocationSegment::Index(index) => format!("{path}[{index}]"),
        LocationSegment::Property(name) => join(&path, &name),
    });
    let reason = match error.kind() {
        Wrong::Required { property } => {
            let missing = join(&field, property.as_str().unwrap_or_default());
            return cause("FieldValueRequired", &missing, "");
        }
        Wrong::Type { .. } | Wrong::Format { .. } => "FieldValueTypeInvalid",
        Wrong::Enum { .. } => "FieldValueNotSupported",
        Wrong::MaxLength { .. } => "FieldValueTooLong",
        Wrong::MaxItems { .. } | Wrong::MaxProperties { .. } => "FieldValueTooMany",
        _ => "FieldValueInvalid",
    };
    let (value, mut why) = (error.instance(), error.masked().to_string());
    // What is of the wrong form, or more than one value, may be secret.
    if reason != "FieldValueTypeInvalid" && !value.is_object() && !value.is_array() {
        why = format!("{value}: {why}");
    }
    cause(reason, &field, &why)
}

/// The rules an object breaks.
pub(super) fn broken_rules(
    rules: &CompiledSchema,
    object: &Value,
    before: Option<&Value>,
) -> Vec<Cause> {
    let broken = kube_cel::validate_compiled(rules, object, before).err();
    let broken = broken.iter().flat_map(kube_cel::ValidationErrors::as_slice);
    let told = |rule: &kube_cel::ValidationError| {
        let path = Some(rule.field_path.trim_start_matches('.'));
        let field = path.filter(|path| !path.is_empty()).unwrap_or("<nil>");
        let reason = rule.reason.as_deref().unwrap_or_default();
        cause(reason, field, &rule.message)
    };
    broken.map(told).collect()
}
