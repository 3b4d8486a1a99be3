//! What objects must look like: by the schema of a CustomResourceDefinition, or by the definition of a built-in kind with
//! what `builtin.yaml` adds to it. One engine for both. Pure.

mod builtin;
mod definition;
pub(crate) mod lists;
mod values;

use jsonschema::Validator;
use kube_cel::{CompiledSchema, compile_schema};
use serde_json::{Value, json};

use crate::kinds::{Kind, Schema};
use crate::status::{Cause, Failure};
pub use definition::kinds_of;

const RULES: &str = "x-kubernetes-validations";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
/// A CEL expression that computes a default from the object the field is in: in `builtin.yaml` only.
const COMPUTED: &str = "x-default";

/// A schema without references, compiled.
#[derive(Debug)]
pub struct Structural {
    /// As it was declared (`openAPIV3Schema`), with what every object has.
    pub schema: Value,
    values: Validator,
    rules: CompiledSchema,
}

impl Structural {
    /// The schema of a kind's objects. A built-in kind's is compiled when it is first asked for.
    #[must_use]
    pub fn of(kind: &Kind) -> &Self {
        match &kind.schema {
            Schema::Builtin(name) => builtin::structural(name),
            Schema::Custom(structural) => structural,
        }
    }

    /// Fails with what is wrong with the schema's values, e.g. a pattern. Rules that do not compile are kept as such.
    fn compile(schema: Value, with_rules: bool) -> Result<Self, String> {
        let rules = if with_rules { &schema } else { &Value::Null };
        Ok(Self {
            values: values::compile(&schema)?,
            rules: compile_schema(rules),
            schema,
        })
    }

    /// Takes out fields the schema does not name, and each `null` where there may be none. Returns the paths of the
    /// former, for `fieldValidation`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune(&self.schema, object, "", &mut unknown);
        unknown
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        default(&self.schema, object);
    }

    /// What is wrong with an object, `before` being the one it replaces. CEL rules are asked only once the values are
    /// right: they need not cope with what the schema rules out.
    #[must_use]
    pub fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let mut causes = values::check(&self.values, object);
        lists::duplicates(&self.schema, object, "", &mut causes);
        if causes.is_empty() {
            causes = values::broken_rules(&self.rules, object, before);
        }
        causes
    }
}

/// Takes out what the kind does not know; returns the paths.
///
/// # Errors
/// 400 for a value that is of another type than its field of a built-in kind.
pub fn decode(kind: &Kind, object: &mut Value) -> Result<Vec<String>, Failure> {
    let structural = Structural::of(kind);
    let unknown = structural.prune(object);
    let mut wrong = values::check(&structural.values, object).into_iter();
    let wrong = wrong.find(|cause| !kind.custom() && cause.reason == "FieldValueTypeInvalid");
    wrong.map_or(Ok(unknown), |cause| {
        let (kind, version) = (&kind.kind, &kind.version);
        let why = format!("{}: {}", cause.field, cause.message);
        Err(Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        )))
    })
}

fn cause(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Cause {
    Cause {
        reason,
        field: field.into(),
        message: message.into(),
    }
}

/// The path of a field.
fn join(path: &str, name: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{dot}{name}")
}

/// The schema of a field, if the schema of its object says anything of it.
pub(crate) fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let declared = schema["properties"].get(name);
    declared
        .or_else(|| schema.get("additionalProperties"))
        .filter(|schema| **schema != Value::Bool(false))
}

fn prune(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) if schema.is_object() => map.retain(|name, value| {
            let path = join(path, name);
            let Some(inner) = field(schema, name) else {
                let kept = schema[PRESERVE] == true;
                unknown.extend((!kept).then_some(path));
                return kept;
            };
            prune(inner, value, &path, unknown);
            !value.is_null() || inner["nullable"] == true
        }),
        Value::Array(list) => {
            for (index, item) in list.iter_mut().enumerate() {
                prune(&schema["items"], item, &format!("{path}[{index}]"), unknown);
            }
        }
        // Kubernetes takes both and stores texts.
        Value::Number(number) if schema["format"] == "quantity" => {
            *value = json!(number.to_string());
        }
        _ => {}
    }
}

fn default(schema: &Value, value: &mut Value) {
    for item in value.as_array_mut().into_iter().flatten() {
        default(&schema["items"], item);
    }
    if !value.is_object() {
        return;
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let given = value
            .get(name)
            .is_some_and(|value| !value.is_null() || inner["nullable"] == true);
        let computed = || builtin::evaluate(inner[COMPUTED].as_str()?, value);
        if !given && let Some(filled) = inner.get("default").cloned().or_else(computed) {
            value[name] = filled;
        }
    }
    for (name, value) in value.as_object_mut().into_iter().flatten() {
        if let Some(inner) = field(schema, name) {
            default(inner, value);
        }
    }
}

#[cfg(test)]
mod tests;
