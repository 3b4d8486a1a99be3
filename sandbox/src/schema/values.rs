//! Validation of values by a schema, with what is wrong told as Kubernetes tells it.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value, json};

use super::structural::type_name;
use super::{cause, invalid, required, unsupported};
use crate::release::Release;
use crate::status::Cause;

/// Keywords that mean the same in JSON Schema (draft 4) and in the schema of a CustomResourceDefinition.
const SAME: [&str; 15] = [
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
];

/// A compiled schema for values.
#[derive(Debug)]
pub(super) struct Values(Validator);

impl Values {
    /// Fails with what is wrong with the schema, e.g. a pattern.
    pub(super) fn compile(schema: &Value) -> Result<Self, String> {
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
            .build(&json_schema(schema))
            .map(Self)
            .map_err(|why| why.to_string())
    }

    /// What is wrong with an object.
    pub(super) fn check(&self, schema: &Value, object: &Value, release: Release) -> Vec<Cause> {
        let mut causes: Vec<Cause> = self
            .0
            .iter_errors(object)
            .map(|error| told(&error, release))
            .collect();
        unique(schema, object, "", &mut causes);
        causes
    }
}

fn json_schema(schema: &Value) -> Value {
    let Some(from) = schema.as_object() else {
        return schema.clone();
    };
    let mut to = Map::new();
    let nullable = schema["nullable"] == true;
    for (name, value) in from {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                let properties = properties
                    .iter()
                    .map(|(name, schema)| (name.clone(), json_schema(schema)));
                to.insert(name.clone(), properties.collect());
            }
            ("items" | "additionalProperties" | "not", _) => {
                to.insert(name.clone(), json_schema(value));
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) if !list.is_empty() => {
                to.insert(name.clone(), list.iter().map(json_schema).collect());
            }
            // Draft 4 has no empty list of them.
            ("required", Value::Array(list)) if !list.is_empty() => {
                to.insert(name.clone(), value.clone());
            }
            (same, _) if SAME.contains(&same) => {
                to.insert(name.clone(), value.clone());
            }
            _ => {}
        }
    }
    if schema["x-kubernetes-int-or-string"] == true {
        to.insert("type".to_owned(), json!(["integer", "string"]));
    }
    if nullable {
        match to.get_mut("type") {
            Some(Value::Array(types)) => types.push(json!("null")),
            Some(one) => *one = json!([one, "null"]),
            None => {}
        }
        if let Some(Value::Array(values)) = to.get_mut("enum") {
            values.push(Value::Null);
        }
    }
    // Formats of numbers are ranges.
    if schema["format"] == "int32" && schema["type"] == "integer" {
        to.entry("minimum").or_insert(json!(i32::MIN));
        to.entry("maximum").or_insert(json!(i32::MAX));
    }
    Value::Object(to)
}

fn told(error: &ValidationError<'_>, release: Release) -> Cause {
    let at = path(error.instance_path());
    let value = error.instance().as_ref();
    let why = match should(error.kind()) {
        Some(should) => format!("{} in body {should}", if at.is_empty() { "." } else { &at }),
        None => error.to_string(),
    };
    let short = |count: usize| invalid(field(&at), &json!(count), &why);
    let wrong_type = |expected: &str, got: &Value| {
        let why = format!("{at} in body must be of type {expected}: {got}");
        cause(
            "FieldValueTypeInvalid",
            field(&at),
            format!("Invalid value: {got}: {why}"),
        )
    };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            if at.is_empty() {
                required(property, "")
            } else {
                required(format!("{at}.{property}"), "")
            }
        }
        ValidationErrorKind::Type { kind } => {
            let expected = match kind {
                TypeKind::Single(kind) => kind.to_string(),
                TypeKind::Multiple(kinds) => {
                    let kinds = kinds.iter().map(|kind| kind.to_string());
                    let kinds: Vec<String> = kinds.filter(|kind| kind != "null").collect();
                    kinds.join(",")
                }
            };
            wrong_type(&expected, &json!(type_name(value)))
        }
        ValidationErrorKind::Format { format } => wrong_type(format, value),
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> = options
                .as_array()
                .into_iter()
                .flatten()
                .filter(|option| !option.is_null())
                .map(|option| match option {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
                .collect();
            unsupported(field(&at), value, options.iter().map(String::as_str))
        }
        ValidationErrorKind::MaxLength { limit } => {
            let limit = if release < Release::V1_36 {
                format!("may not be longer than {limit}")
            } else {
                format!("may not be more than {limit} bytes")
            };
            cause(
                "FieldValueTooLong",
                field(&at),
                format!("Too long: {limit}"),
            )
        }
        ValidationErrorKind::MaxItems { limit } => {
            too_many(&at, value.as_array().map_or(0, Vec::len), *limit)
        }
        ValidationErrorKind::MaxProperties { limit } => {
            too_many(&at, value.as_object().map_or(0, Map::len), *limit)
        }
        ValidationErrorKind::MinItems { .. } => short(value.as_array().map_or(0, Vec::len)),
        ValidationErrorKind::MinProperties { .. } => short(value.as_object().map_or(0, Map::len)),
        _ => invalid(field(&at), value, &why),
    }
}

/// What a value should be, by the rule it breaks; `None` for rules that schemas here have not.
fn should(broken: &ValidationErrorKind) -> Option<String> {
    let text = match broken {
        ValidationErrorKind::Pattern { pattern } => format!("should match '{pattern}'"),
        ValidationErrorKind::MinLength { limit } => {
            format!("should be at least {limit} chars long")
        }
        ValidationErrorKind::MinItems { limit } => format!("should have at least {limit} items"),
        ValidationErrorKind::MinProperties { limit } => {
            format!("should have at least {limit} properties")
        }
        ValidationErrorKind::Maximum { limit } => {
            format!("should be less than or equal to {}", number(limit))
        }
        ValidationErrorKind::Minimum { limit } => {
            format!("should be greater than or equal to {}", number(limit))
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            format!("should be less than {}", number(limit))
        }
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            format!("should be greater than {}", number(limit))
        }
        ValidationErrorKind::MultipleOf { multiple_of } => {
            format!("should be a multiple of {multiple_of}")
        }
        ValidationErrorKind::AnyOf { .. } => "must validate at least one schema (anyOf)".to_owned(),
        ValidationErrorKind::OneOfNotValid { .. } => {
            "must validate one and only one schema (oneOf). Found none valid".to_owned()
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            "must validate one and only one schema (oneOf)".to_owned()
        }
        ValidationErrorKind::Not { .. } => "must not validate the schema (not)".to_owned(),
        _ => return None,
    };
    Some(text)
}

fn too_many(at: &str, count: usize, limit: u64) -> Cause {
    cause(
        "FieldValueTooMany",
        field(at),
        format!("Too many: {count}: must have at most {limit} items"),
    )
}

/// Kubernetes has no name for the object itself.
fn field(at: &str) -> &str {
    if at.is_empty() { "<nil>" } else { at }
}

/// Without the fraction a whole number is declared with.
fn number(limit: &Value) -> String {
    limit
        .as_f64()
        .map_or_else(|| limit.to_string(), |limit| limit.to_string())
}

/// `spec.command[0]`
fn path(location: &Location) -> String {
    let mut path = String::new();
    for segment in location {
        match segment {
            LocationSegment::Index(index) => path = format!("{path}[{index}]"),
            LocationSegment::Property(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
            }
        }
    }
    path
}

/// Items of sets, and keys of maps' items, are there once.
fn unique(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let inner = schema["properties"]
                    .get(name)
                    .or_else(|| schema.get("additionalProperties"));
                if let Some(inner) = inner {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    unique(inner, value, &path, causes);
                }
            }
        }
        Value::Array(list) => {
            let keys = &schema["x-kubernetes-list-map-keys"];
            let mut seen = HashSet::new();
            for (index, item) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let identity = match schema["x-kubernetes-list-type"].as_str() {
                    Some("set") => Some(item.clone()),
                    Some("map") => Some(
                        keys.as_array()
                            .into_iter()
                            .flatten()
                            .filter_map(Value::as_str)
                            .filter_map(|key| Some((key.to_owned(), item.get(key)?.clone())))
                            .collect::<Map<_, _>>()
                            .into(),
                    ),
                    _ => None,
                };
                if let Some(identity) = identity
                    && !seen.insert(identity.to_string())
                {
                    causes.push(cause(
                        "FieldValueDuplicate",
                        path.clone(),
                        format!("Duplicate value: {identity}"),
                    ));
                }
                unique(&schema["items"], item, &path, causes);
            }
        }
        _ => {}
    }
}
