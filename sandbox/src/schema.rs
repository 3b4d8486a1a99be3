//! What objects must look like: by the schema of a CustomResourceDefinition, or by the definition of a built-in kind with
//! what `builtin.yaml` adds to it. One engine for both. Pure.

mod builtin;
mod definition;
pub(crate) mod lists;
mod values;

use jsonschema::Validator;
use kube_cel::{CompiledSchema, compile_schema};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::status::{Cause, Failure};
pub(crate) use definition::kinds_of;

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

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
    pub fn of(kind: &Kind) -> &Self {
        match &kind.structural {
            Some(structural) => structural,
            None => builtin::structural(&kind.definition),
        }
    }

    /// Fails with what does not compile: patterns and rules.
    fn compile(schema: Value, with_rules: bool) -> Result<Self, Vec<String>> {
        let values = values::compile(&schema).map_err(|why| vec![why])?;
        let rules = compile_schema(if with_rules { &schema } else { &Value::Null });
        let wrong = values::wrong_rules(&rules);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            schema,
            values,
            rules,
        })
    }

    /// Takes out fields the schema does not name, and each `null` where there may be none. Returns the paths of the
    /// former, for `fieldValidation`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        walk(
            &self.schema,
            object,
            "",
            &mut |schema, value, path| match value {
                Value::Object(map) => map.retain(|name, value| {
                    let inner = field(schema, name);
                    if inner.is_null() && schema[PRESERVE] != true {
                        unknown.push(join(path, name));
                        return false;
                    }
                    inner.is_null() || !value.is_null() || inner["nullable"] == true
                }),
                // Kubernetes takes both and stores texts.
                Value::Number(number) if schema["format"] == "quantity" => {
                    *value = json!(number.to_string());
                }
                _ => {}
            },
        );
        unknown
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        walk(&self.schema, object, "", &mut |schema, value, _| {
            let fields = schema["properties"].as_object();
            for (name, inner) in fields.filter(|_| value.is_object()).into_iter().flatten() {
                let may_be = |value: &Value| !value.is_null() || inner["nullable"] == true;
                let given = value.get(name).is_some_and(may_be);
                if !given && let Some(filled) = builtin::default_of(inner, value) {
                    value[name] = filled;
                }
            }
        });
    }

    /// What is wrong with an object, `before` being the one it replaces. CEL rules are asked only once the values are
    /// right: they need not cope with what the schema rules out.
    pub fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let mut given = object.clone();
        walk(&self.schema, &mut given, "", &mut |schema, value, path| {
            lists::duplicates(schema, value, path, &mut causes);
            // What is null and was not taken out may be.
            if let Value::Object(map) = value {
                map.retain(|_, value| !value.is_null());
            }
        });
        causes.extend(values::check(&self.values, &given));
        if causes.is_empty() {
            causes = values::broken_rules(&self.rules, object, before);
        }
        causes
    }
}

/// What is done with a value by its schema; its path comes last.
type Visit<'a> = &'a mut dyn FnMut(&Value, &mut Value, &str);

/// Takes out what the kind does not know; returns the paths.
///
/// # Errors
/// 400 for a value that is of another type than its field of a built-in kind.
pub(crate) fn decode(kind: &Kind, object: &mut Value) -> Result<Vec<String>, Failure> {
    let structural = Structural::of(kind);
    let unknown = structural.prune(object);
    let mut wrong = values::check(&structural.values, object).into_iter();
    let wrong = wrong.find(|cause| !kind.custom() && cause.reason == "FieldValueTypeInvalid");
    wrong.map_or(Ok(unknown), |Cause { field, message, .. }| {
        let (kind, version) = (&kind.kind, &kind.version);
        Err(Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {field}: {message}"
        )))
    })
}

/// The path of a field.
fn join(path: &str, name: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{dot}{name}")
}

/// The schema of a field; `Null` if the schema of its object says nothing of it.
pub(crate) fn field<'a>(schema: &'a Value, name: &str) -> &'a Value {
    let declared = schema["properties"].get(name);
    match declared.unwrap_or(&schema["additionalProperties"]) {
        Value::Bool(false) => &Value::Null,
        inner => inner,
    }
}

/// Shows each value of an object that has a schema, with that and its path, from the outside in.
fn walk(schema: &Value, value: &mut Value, path: &str, visit: Visit<'_>) {
    if !schema.is_object() {
        return;
    }
    visit(schema, value, path);
    for (name, value) in value.as_object_mut().into_iter().flatten() {
        walk(field(schema, name), value, &join(path, name), visit);
    }
    let items = value.as_array_mut().into_iter().flatten();
    for (index, item) in items.enumerate() {
        walk(&schema["items"], item, &format!("{path}[{index}]"), visit);
    }
}

#[cfg(test)]
mod tests;
