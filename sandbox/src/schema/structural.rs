//! The schema of one version of a CustomResourceDefinition: pruning, defaulting, validation.

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, Validator, compile_schema};
use serde_json::{Map, Value};

use super::fields::undefined;
use super::values::Values;
use super::{cause, invalid, names, required};
use crate::release::Release;
use crate::status::Cause;

const RULES: &str = "x-kubernetes-validations";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
/// What every object has beside what its schema says.
const ALWAYS: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// As deep as the engine of the CEL rules goes.
const MAX_DEPTH: usize = 64;

/// A CustomResourceDefinition's schema for one version, compiled.
#[derive(Debug)]
pub struct Structural {
    /// As it was declared (`openAPIV3Schema`), without the rules if the release has none.
    pub schema: Value,
    values: Values,
    rules: CompiledSchema,
    release: Release,
}

impl Structural {
    /// # Errors
    /// What makes the schema not structural, or a rule that does not compile. Fields of causes are relative to the schema:
    /// `.properties[spec].type`.
    pub fn compile(schema: &Value, release: Release) -> Result<Self, Vec<Cause>> {
        let mut schema = schema.clone();
        if release < Release::V1_30 {
            without_rules(&mut schema, 0);
        }
        let mut causes = Vec::new();
        check_structure(&schema, "", 0, &mut causes);
        if schema["type"] != "object" {
            causes.push(invalid(
                ".type",
                &schema["type"],
                "must be object at the root",
            ));
        }
        if !causes.is_empty() {
            return Err(causes);
        }
        let rules = compile_schema(&schema);
        check_rules(&rules, &schema, "", &mut causes);
        match Values::compile(&schema) {
            Ok(values) if causes.is_empty() => Ok(Self {
                schema,
                values,
                rules,
                release,
            }),
            Ok(_) => Err(causes),
            Err(why) => {
                causes.push(cause(
                    "FieldValueInvalid",
                    "",
                    format!("Invalid value: {why}"),
                ));
                Err(causes)
            }
        }
    }

    /// Takes out fields the schema does not name. Returns their paths, for `fieldValidation`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune(&self.schema, object, "", true, &mut unknown);
        unknown
    }

    /// Fills in defaults, and takes out each `null` where there may be none.
    pub fn default(&self, object: &mut Value) {
        default(&self.schema, object, true);
    }

    /// What is wrong with an object, `before` being the one it replaces: schema first, then CEL rules.
    #[must_use]
    pub fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let mut causes = names::metadata(object);
        let wrong = self.values.check(&self.schema, object, self.release);
        causes.extend(wrong);
        // The rules need not cope with what the schema rules out.
        let blocking = [
            "FieldValueNotSupported",
            "FieldValueRequired",
            "FieldValueTooLong",
            "FieldValueTooMany",
            "FieldValueTypeInvalid",
        ];
        if self.release < Release::V1_30 {
            return causes;
        }
        if causes.iter().any(|cause| blocking.contains(&cause.reason)) {
            if has_rules(&self.rules) {
                causes.push(invalid(
                    "<nil>",
                    &Value::from("null"),
                    "some validation rules were not checked because the object was invalid; correct the existing \
                     errors to complete validation",
                ));
            }
        } else if let Err(broken) = Validator::new().validate_compiled(&self.rules, object, before)
        {
            causes.extend(broken.iter().map(|broken| rule_cause(broken, object)));
        }
        causes
    }
}

/// What a broken rule is to the client. Instead of the value Kubernetes shows its type.
fn rule_cause(broken: &ValidationError, object: &Value) -> Cause {
    let path = broken.field_path.trim_start_matches('.');
    let mut value = object;
    for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
        value = match step.parse::<usize>() {
            Ok(index) if value.is_array() => &value[index],
            _ => &value[step],
        };
    }
    let kind = type_name(value);
    let field = if path.is_empty() { "<nil>" } else { path };
    let message = match broken.kind {
        ErrorKind::ValidationFailure => broken.message.clone(),
        _ => format!("rule evaluation error: {}", broken.message),
    };
    match broken.reason.as_deref() {
        Some("FieldValueForbidden") => cause(
            "FieldValueForbidden",
            field,
            format!("Forbidden: {message}"),
        ),
        Some("FieldValueRequired") => required(field, &message),
        Some("FieldValueDuplicate") => cause(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {kind:?}"),
        ),
        _ => invalid(field, &Value::from(kind), &message),
    }
}

/// As OpenAPI calls the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The schemas in a schema that say what a value is, with their paths; not those that only restrict it.
fn inner<'a>(schema: &'a Value, path: &str) -> Vec<(&'a Value, String)> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut all: Vec<_> = properties
        .map(|(name, schema)| (schema, format!("{path}.properties[{name}]")))
        .collect();
    for name in ["items", "additionalProperties"] {
        if let Some(schema) = schema.get(name).filter(|schema| schema.is_object()) {
            all.push((schema, format!("{path}.{name}")));
        }
    }
    all
}

fn check_structure(schema: &Value, path: &str, depth: usize, causes: &mut Vec<Cause>) {
    let forbidden = |field: &str, why: &str| {
        cause(
            "FieldValueForbidden",
            format!("{path}.{field}"),
            format!("Forbidden: {why}"),
        )
    };
    if depth > MAX_DEPTH {
        causes.push(invalid(path, &Value::from("object"), "is nested too deep"));
        return;
    }
    let yes = |name: &str| schema[name] == true;
    if !schema.is_object() {
        causes.push(invalid(path, schema, "must be an object"));
        return;
    }
    match schema["type"].as_str() {
        None | Some("") if yes(INT_OR_STRING) || yes(PRESERVE) => {}
        None | Some("") => causes.push(required(
            format!("{path}.type"),
            match path {
                "" => "must not be empty at the root",
                _ if path.rsplit('.').next() == Some("items") => {
                    "must not be empty for specified array items"
                }
                _ => "must not be empty for specified object fields",
            },
        )),
        Some("array") if !schema["items"].is_object() => {
            causes.push(required(format!("{path}.items"), "must be specified"));
        }
        Some("object" | "array" | "string" | "integer" | "number" | "boolean") => {}
        Some(_) => causes.push(super::unsupported(
            format!("{path}.type"),
            &schema["type"],
            ["array", "boolean", "integer", "number", "object", "string"].into_iter(),
        )),
    }
    for name in [
        "$ref",
        "definitions",
        "dependencies",
        "patternProperties",
        "id",
    ] {
        if schema.get(name).is_some() {
            causes.push(forbidden(name, &format!("{name} is not supported")));
        }
    }
    if schema["additionalProperties"] == false {
        causes.push(forbidden(
            "additionalProperties",
            "additionalProperties cannot be set to false",
        ));
    }
    if yes("uniqueItems") {
        causes.push(forbidden(
            "uniqueItems",
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    let has = |name: &str| {
        schema[name]
            .as_object()
            .is_some_and(|object| !object.is_empty())
    };
    if has("properties") && schema["additionalProperties"].is_object() {
        causes.push(forbidden(
            "additionalProperties",
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    check_list(schema, path, causes);
    for (schema, path) in inner(schema, path) {
        check_structure(schema, &path, depth + 1, causes);
    }
}

fn check_list(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            if keys.is_none_or(Vec::is_empty) {
                causes.push(required(
                    format!("{path}.x-kubernetes-list-map-keys"),
                    "must not be empty if x-kubernetes-list-type is map",
                ));
            }
            for key in keys.into_iter().flatten() {
                let property = &schema["items"]["properties"][key.as_str().unwrap_or_default()];
                if property.is_null() {
                    causes.push(invalid(
                        format!("{path}.x-kubernetes-list-map-keys"),
                        key,
                        "entries must all be names of item properties",
                    ));
                }
            }
        }
        None | Some("atomic" | "set") => {}
        Some(_) => causes.push(super::unsupported(
            format!("{path}.x-kubernetes-list-type"),
            &schema["x-kubernetes-list-type"],
            ["atomic", "map", "set"].into_iter(),
        )),
    }
}

/// Rules that do not compile, or name fields that the schema has not.
fn check_rules(rules: &CompiledSchema, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, rule) in rules.validations.iter().enumerate() {
        let why = match rule {
            Err(why) => format!("compilation failed: {why}"),
            // The engine has no optional values for it.
            Ok(rule) if rule.rule.optional_old_self == Some(true) => {
                "optionalOldSelf is not supported by the sandbox".to_owned()
            }
            Ok(rule) => {
                let message = rule.message_program.as_ref();
                let unknown = std::iter::once(&rule.program)
                    .chain(message)
                    .find_map(|program| undefined(program.expression(), schema, path.is_empty()));
                match unknown {
                    Some(field) => format!("compilation failed: undefined field '{field}'"),
                    None => continue,
                }
            }
        };
        causes.push(invalid(
            format!("{path}.{RULES}[{index}].rule"),
            &schema[RULES][index]["rule"],
            &why,
        ));
    }
    for (name, rules) in &rules.properties {
        let path = format!("{path}.properties[{name}]");
        check_rules(rules, &schema["properties"][name], &path, causes);
    }
    for (name, rules) in [
        ("items", &rules.items),
        ("additionalProperties", &rules.additional_properties),
    ] {
        if let Some(rules) = rules {
            check_rules(rules, &schema[name], &format!("{path}.{name}"), causes);
        }
    }
}

fn has_rules(rules: &CompiledSchema) -> bool {
    !rules.validations.is_empty()
        || rules.properties.values().any(has_rules)
        || [&rules.items, &rules.additional_properties]
            .into_iter()
            .flatten()
            .any(|inner| has_rules(inner))
}

/// Takes the rules out of a CustomResourceDefinition, as a release that knows none does.
pub fn forget_rules(definition: &mut Value) {
    let versions = definition.pointer_mut("/spec/versions");
    for version in versions.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
            without_rules(schema, 0);
        }
    }
}

fn without_rules(schema: &mut Value, depth: usize) {
    let Some(map) = schema.as_object_mut().filter(|_| depth <= MAX_DEPTH) else {
        return;
    };
    map.remove(RULES);
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        for schema in properties.values_mut() {
            without_rules(schema, depth + 1);
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(schema) = map.get_mut(name) {
            without_rules(schema, depth + 1);
        }
    }
}

/// The schema of a field, if the schema of its object says anything of it.
fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema["properties"]
        .get(name)
        .or_else(|| schema.get("additionalProperties"))
        .filter(|schema| **schema != Value::Bool(false))
}

fn prune(schema: &Value, value: &mut Value, path: &str, object: bool, unknown: &mut Vec<String>) {
    let object = object || schema[EMBEDDED] == true;
    match value {
        Value::Object(map) => map.retain(|name, value| {
            if object && ALWAYS.contains(&name.as_str()) {
                return true;
            }
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            match field(schema, name) {
                Some(schema) => prune(schema, value, &path, false, unknown),
                None if schema[PRESERVE] == true => {}
                None => {
                    unknown.push(path);
                    return false;
                }
            }
            true
        }),
        // Where anything is allowed, nothing is said of items either.
        Value::Array(list) if schema["items"].is_object() => {
            for (index, item) in list.iter_mut().enumerate() {
                prune(
                    &schema["items"],
                    item,
                    &format!("{path}[{index}]"),
                    false,
                    unknown,
                );
            }
        }
        _ => {}
    }
}

fn default(schema: &Value, value: &mut Value, root: bool) {
    match value {
        Value::Object(map) => {
            let alone = |name: &str| root && ALWAYS.contains(&name);
            map.retain(|name, value| {
                !value.is_null()
                    || alone(name)
                    || field(schema, name).is_none_or(|schema| {
                        schema["nullable"] == true || schema.get("type").is_none()
                    })
            });
            fill(schema, map);
            for (name, value) in map.iter_mut().filter(|(name, _)| !alone(name)) {
                if let Some(schema) = field(schema, name) {
                    default(schema, value, false);
                }
            }
        }
        Value::Array(list) => {
            for item in list {
                default(&schema["items"], item, false);
            }
        }
        _ => {}
    }
}

fn fill(schema: &Value, map: &mut Map<String, Value>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = schema.get("default")
            && !map.contains_key(name)
        {
            map.insert(name.clone(), default.clone());
        }
    }
}

#[cfg(test)]
mod tests;
