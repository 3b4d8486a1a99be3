//! Whether an object has the form its kind demands: unknown fields, defaults, validation. Pure.

use serde_json::Value;

use super::{Options, Patch, meta};
use crate::kinds::{Kind, Schema, definitions};
use crate::schema::{check_builtin, decode, names};
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
    let unknown = match &kind.schema {
        Schema::Custom(structural) => structural.prune(&mut object),
        Schema::Builtin(name) => {
            decode(kind, &mut object)?;
            let mut unknown = Vec::new();
            let schema = &definitions()[&**name];
            prune(schema, &mut object, "", &mut unknown);
            unknown
        }
    };
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

/// Fills in what the schema says. A built-in kind's defaults come with its check.
pub(super) fn defaults(kind: &Kind, object: &mut Value) {
    match &kind.schema {
        Schema::Custom(structural) => structural.default(object),
        // What is wrong with it is said by `check`, after the webhooks.
        Schema::Builtin(_) => drop(check_builtin(kind, object, None)),
    }
}

/// Everything the kind demands.
pub(super) fn check(
    kind: &Kind,
    object: &mut Value,
    before: Option<&Value>,
) -> Result<(), Failure> {
    let causes = match &kind.schema {
        Schema::Custom(structural) => {
            structural.default(object);
            let mut causes = structural.validate(object, before);
            causes.extend(names::name(kind, object));
            causes
        }
        Schema::Builtin(_) => check_builtin(kind, object, before)
            .err()
            .unwrap_or_default(),
    };
    meta::fail(kind, object, &causes)
}

/// Takes out the fields a built-in kind's type does not have, as decoding into it would.
fn prune(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    let schema = resolve(schema);
    if let Some(list) = value.as_array_mut() {
        for (index, item) in list.iter_mut().enumerate() {
            prune(&schema["items"], item, &format!("{path}[{index}]"), unknown);
        }
    }
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    let child = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    let known = schema["properties"].as_object();
    if let Some(known) = known {
        fields.retain(|key, _| {
            let keep = known.contains_key(key);
            if !keep {
                unknown.push(child(key));
            }
            keep
        });
    }
    for (key, value) in fields {
        let schema = known.map_or(&schema["additionalProperties"], |known| &known[key]);
        prune(schema, value, &child(key), unknown);
    }
}

/// What a schema refers to, if to another one alone.
fn resolve(schema: &Value) -> &Value {
    let reference = schema["$ref"].as_str().or_else(|| {
        ["allOf", "anyOf"]
            .iter()
            .find_map(|several| schema[several][0]["$ref"].as_str())
    });
    reference
        .and_then(|reference| definitions().get(reference.rsplit('/').next()?))
        .unwrap_or(schema)
}
