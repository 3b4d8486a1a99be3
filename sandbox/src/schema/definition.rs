//! CustomResourceDefinitions: the kinds one defines, if its schemas are structural.

use kube_cel::CompiledSchema;
use serde_json::Value;

use super::{INT_OR_STRING, PRESERVE, RULES, Structural, builtin, cause, values};
use crate::kinds::{Column, Kind, Schema, Source};
use crate::release::Release;
use crate::status::Cause;

/// As deep as the engine of the CEL rules goes.
const MAX_DEPTH: usize = 64;
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// The kinds a CustomResourceDefinition defines, one for each served version.
///
/// # Errors
/// What is wrong with its schemas; the rest is checked as any built-in object is.
pub fn kinds_of(definition: &Value, release: Release) -> Result<Vec<Kind>, Vec<Cause>> {
    let mut definition = definition.clone();
    if release < Release::V1_30 {
        forget_rules(&mut definition);
    }
    let mut kinds = Vec::new();
    let mut causes = Vec::new();
    let versions = definition["spec"]["versions"].as_array();
    for (index, version) in versions.into_iter().flatten().enumerate() {
        let at = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            causes.push(cause(
                "FieldValueRequired",
                at,
                "Required value: schemas are required",
            ));
            continue;
        }
        match compile(schema, &at) {
            Ok(schema) if version["served"] == true => {
                kinds.push(kind(&definition["spec"], version, schema));
            }
            Ok(_) => {}
            Err(wrong) => causes.extend(wrong),
        }
    }
    if causes.is_empty() {
        Ok(kinds)
    } else {
        Err(causes)
    }
}

/// Takes the rules out of a CustomResourceDefinition, as a release that knows none does.
pub fn forget_rules(definition: &mut Value) {
    let versions = definition.pointer_mut("/spec/versions");
    for version in versions.and_then(Value::as_array_mut).into_iter().flatten() {
        let schema = version.pointer_mut("/schema/openAPIV3Schema");
        schema.into_iter().for_each(without_rules);
    }
}

fn without_rules(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        fields.remove(RULES);
    }
    values::inner(schema).for_each(without_rules);
}

/// Fails with what makes the schema at `at` not structural, and with rules that do not compile.
fn compile(schema: &Value, at: &str) -> Result<Structural, Vec<Cause>> {
    let mut causes = Vec::new();
    if schema["type"] != "object" {
        let why = "Invalid value: must be object at the root";
        causes.push(cause("FieldValueInvalid", format!("{at}.type"), why));
    }
    check(schema, at, 0, &mut causes);
    if !causes.is_empty() {
        return Err(causes);
    }
    let structural = Structural::compile(builtin::with_metadata(schema)).map_err(|why| {
        vec![cause(
            "FieldValueInvalid",
            at,
            format!("Invalid value: {why}"),
        )]
    })?;
    check_rules(&structural.rules, &structural.schema, at, &mut causes);
    if causes.is_empty() {
        Ok(structural)
    } else {
        Err(causes)
    }
}

fn check(schema: &Value, at: &str, depth: usize, causes: &mut Vec<Cause>) {
    let mut wrong = |reason, field: &str, why: &str| {
        causes.push(cause(reason, format!("{at}{field}"), why));
    };
    let properties = schema.get("properties");
    if !schema.is_object() || properties.is_some_and(|all| !all.is_object()) || depth > MAX_DEPTH {
        let why = "Invalid value: must be a schema, not nested too deep";
        return wrong("FieldValueInvalid", "", why);
    }
    match schema["type"].as_str().unwrap_or_default() {
        "" if schema[INT_OR_STRING] == true || schema[PRESERVE] == true => {}
        "" => wrong(
            "FieldValueRequired",
            ".type",
            "Required value: must not be empty",
        ),
        "array" if !schema["items"].is_object() => {
            wrong(
                "FieldValueRequired",
                ".items",
                "Required value: must be specified",
            );
        }
        known if TYPES.contains(&known) => {}
        _ => wrong(
            "FieldValueNotSupported",
            ".type",
            "Unsupported value: is no type",
        ),
    }
    for name in [
        "$ref",
        "definitions",
        "dependencies",
        "patternProperties",
        "id",
    ] {
        if schema.get(name).is_some() {
            wrong(
                "FieldValueForbidden",
                &format!(".{name}"),
                "Forbidden: is not supported",
            );
        }
    }
    let values = &schema["additionalProperties"];
    let several = values.is_object()
        && schema["properties"]
            .as_object()
            .is_some_and(|all| !all.is_empty());
    if *values == false || several {
        let why = "Forbidden: must be a schema or true, and without properties";
        wrong("FieldValueForbidden", ".additionalProperties", why);
    }
    if schema["uniqueItems"] == true {
        wrong(
            "FieldValueForbidden",
            ".uniqueItems",
            "Forbidden: cannot be set to true",
        );
    }
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    match schema["x-kubernetes-list-type"].as_str() {
        Some("map") if keys.is_none_or(Vec::is_empty) => {
            let why = "Required value: must not be empty if x-kubernetes-list-type is map";
            wrong("FieldValueRequired", ".x-kubernetes-list-map-keys", why);
        }
        None | Some("atomic" | "set" | "map") => {}
        Some(_) => {
            let why = "Unsupported value: supported values: atomic, map, set";
            wrong("FieldValueNotSupported", ".x-kubernetes-list-type", why);
        }
    }
    for key in keys.into_iter().flatten() {
        if schema["items"]["properties"][key.as_str().unwrap_or_default()].is_null() {
            let why = format!("Invalid value: {key}: must be a property of the items");
            wrong("FieldValueInvalid", ".x-kubernetes-list-map-keys", &why);
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        check(
            inner,
            &format!("{at}.properties[{name}]"),
            depth + 1,
            causes,
        );
    }
    for name in ["items", "additionalProperties"] {
        if schema[name].is_object() {
            check(&schema[name], &format!("{at}.{name}"), depth + 1, causes);
        }
    }
}

/// Rules that do not compile. `optionalOldSelf` is refused: the engine has no optional values for it.
fn check_rules(rules: &CompiledSchema, schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    for (index, rule) in rules.validations.iter().enumerate() {
        let why = match rule {
            Err(why) => format!("compilation failed: {why}"),
            Ok(rule) if rule.rule.optional_old_self == Some(true) => {
                "optionalOldSelf is not supported by the sandbox".to_owned()
            }
            Ok(_) => continue,
        };
        let message = format!("Invalid value: {}: {why}", schema[RULES][index]["rule"]);
        causes.push(cause(
            "FieldValueInvalid",
            format!("{at}.{RULES}[{index}].rule"),
            message,
        ));
    }
    for (name, rules) in &rules.properties {
        let at = format!("{at}.properties[{name}]");
        check_rules(rules, &schema["properties"][name], &at, causes);
    }
    for (name, rules) in [
        ("items", &rules.items),
        ("additionalProperties", &rules.additional_properties),
    ] {
        if let Some(rules) = rules {
            check_rules(rules, &schema[name], &format!("{at}.{name}"), causes);
        }
    }
}

fn kind(spec: &Value, version: &Value, schema: Structural) -> Kind {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |list: &Value| list.as_array().into_iter().flatten().map(text).collect();
    let names = &spec["names"];
    let kind = text(&names["kind"]);
    let or = |field: &str, other: String| names[field].as_str().map_or(other, str::to_owned);
    let columns = version["additionalPrinterColumns"].as_array();
    Kind {
        group: text(&spec["group"]),
        version: text(&version["name"]),
        plural: text(&names["plural"]),
        singular: or("singular", kind.to_lowercase()),
        list_kind: or("listKind", format!("{kind}List")),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        status: version["subresources"].get("status").is_some(),
        generation: true,
        subresources: Vec::new(),
        virtual_only: false,
        columns: columns.into_iter().flatten().map(column).collect(),
        schema: Schema::Custom(Box::new(schema)),
        kind,
    }
}

fn column(declared: &Value) -> Column {
    let text = |field: &str| declared[field].as_str().unwrap_or_default().to_owned();
    let priority = declared["priority"].as_i64().unwrap_or_default();
    Column {
        name: text("name"),
        kind: text("type"),
        format: text("format"),
        priority: priority.try_into().unwrap_or_default(),
        description: text("description"),
        value: Source::Path(text("jsonPath")),
    }
}
