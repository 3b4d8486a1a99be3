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
        .with_format("date", |text: &str| {
            text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10
        })
        .with_format("date-time", |text: &str| {
            text.parse::<jiff::Timestamp>().is_ok()
        })
        .with_format("duration", |text: &str| {
            text.parse::<jiff::SignedDuration>().is_ok()
        })
        .with_format("uuid", |text: &str| uuid::Uuid::parse_str(text).is_ok())
        .build(&schema)
        .map_err(|why| why.to_string())
}

/// The schemas in a schema.
pub(super) fn inner(schema: &mut Value) -> impl Iterator<Item = &mut Value> {
    let fields = schema.as_object_mut().into_iter().flatten();
    fields.flat_map(|(name, value)| -> Box<dyn Iterator<Item = &mut Value>> {
        match (name.as_str(), value) {
            ("properties" | "patternProperties", Value::Object(all)) => Box::new(all.values_mut()),
            ("items" | "additionalProperties" | "not", schema) => Box::new(std::iter::once(schema)),
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => Box::new(all.iter_mut()),
            _ => Box::new(std::iter::empty()),
        }
    })
}

/// Makes JSON Schema (draft 4) of what means something else, or nothing, in OpenAPI.
fn to_json_schema(schema: &mut Value) {
    inner(schema).for_each(to_json_schema);
    if schema[INT_OR_STRING] == true {
        schema["type"] = json!(["integer", "string"]);
    }
    // Formats of numbers are ranges.
    if schema["format"] == "int32" && schema["minimum"].is_null() && schema["maximum"].is_null() {
        schema["minimum"] = json!(i32::MIN);
        schema["maximum"] = json!(i32::MAX);
    }
    let nullable = schema["nullable"] == true;
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    if nullable {
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
    fields.retain(|name, value| name == "default" || *value != json!([]));
}

/// What is wrong with the values of an object.
pub(super) fn check(values: &Validator, object: &Value) -> Vec<Cause> {
    values
        .iter_errors(object)
        .map(|error| told(&error))
        .collect()
}

fn told(error: &ValidationError<'_>) -> Cause {
    let at = path(error.instance_path());
    let value = error.instance();
    match error.kind() {
        Wrong::Required { property } => {
            let field = join(&at, property.as_str().unwrap_or_default());
            cause("FieldValueRequired", field, "Required value")
        }
        Wrong::Enum { options } => {
            let options = options.as_array().into_iter().flatten();
            let options: Vec<String> = options
                .filter(|one| !one.is_null())
                .map(Value::to_string)
                .collect();
            let options = options.join(", ");
            let message = format!("Unsupported value: {value}: supported values: {options}");
            cause("FieldValueNotSupported", at, message)
        }
        Wrong::MaxLength { limit } => cause(
            "FieldValueTooLong",
            at,
            format!("Too long: may not be more than {limit} bytes"),
        ),
        Wrong::MaxItems { limit } | Wrong::MaxProperties { limit } => cause(
            "FieldValueTooMany",
            at,
            format!("Too many: must have at most {limit} items"),
        ),
        Wrong::Type { .. } | Wrong::Format { .. } => cause(
            "FieldValueTypeInvalid",
            at,
            format!("Invalid value: {value}: {error}"),
        ),
        _ => cause(
            "FieldValueInvalid",
            at,
            format!("Invalid value: {value}: {error}"),
        ),
    }
}

/// `spec.command[0]`; `<nil>` for the object itself, as Kubernetes has it.
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
