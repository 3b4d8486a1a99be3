//! The schemas of built-in kinds: their definitions with references put in, and what `builtin.yaml` adds.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use kube_cel::KubeCelExt as _;
use kube_cel::cel::{self, Context, Program};
use serde_json::{Map, Value, json};

use super::{PRESERVE, Structural};
use crate::kinds::definitions;

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The compiled schema of a built-in kind by its name among the [`definitions`].
///
/// # Panics
/// If there is no such definition, or `builtin.yaml` is wrong: tests compile all of them.
pub(super) fn structural(name: &str) -> &'static Structural {
    static ALL: LazyLock<HashMap<&str, OnceLock<Structural>>> = LazyLock::new(|| {
        let names = definitions().keys();
        names.map(|name| (name.as_str(), OnceLock::new())).collect()
    });
    ALL[name].get_or_init(|| {
        let schema = resolve(name, &mut Vec::new());
        Structural::compile(schema, true).expect("definitions are in order")
    })
}

/// A schema declared for a custom kind with what every object has.
pub(super) fn with_metadata(declared: &Value) -> Value {
    let text = json!({"type": "string"});
    let metadata = resolve(METADATA, &mut Vec::new());
    let mut schema =
        json!({"properties": {"apiVersion": text, "kind": text, "metadata": metadata}});
    json_patch::merge(&mut schema, declared);
    schema
}

/// A definition with all it refers to in it, but for itself.
fn resolve(name: &str, within: &mut Vec<String>) -> Value {
    static ADDED: LazyLock<Map<String, Value>> =
        LazyLock::new(|| serde_saphyr::from_str(include_str!("builtin.yaml")).expect("it is YAML"));
    let definition = definitions().get(name);
    let Some(definition) = definition.filter(|_| !within.iter().any(|one| one == name)) else {
        return json!({PRESERVE: true});
    };
    within.push(name.to_owned());
    let mut schema = inline(definition, within);
    within.pop();
    // `core.v1.Pod` of `io.k8s.api.core.v1.Pod`
    let last = name.rmatch_indices('.').nth(2);
    if let Some(added) = last.and_then(|(at, _)| ADDED.get(&name[at + 1..])) {
        json_patch::merge(&mut schema, added);
    }
    schema
}

fn inline(schema: &Value, within: &mut Vec<String>) -> Value {
    match schema {
        Value::Object(fields) => {
            let wrapped = || schema["allOf"][0]["$ref"].as_str();
            let reference = schema["$ref"].as_str().or_else(wrapped);
            let mut inlined = match reference.and_then(|to| to.rsplit('/').next()) {
                Some(name) => resolve(name, within),
                None => json!({}),
            };
            for (name, value) in fields {
                let replaced = reference.is_some() && ["$ref", "allOf"].contains(&name.as_str());
                if !(replaced || name == "description" && value.is_string()) {
                    inlined[name] = inline(value, within);
                }
            }
            inlined
        }
        Value::Array(list) => list.iter().map(|item| inline(item, within)).collect(),
        other => other.clone(),
    }
}

/// The text or number that a CEL expression makes of an object; `None` if it makes none.
pub(super) fn evaluate(expression: &str, object: &Value) -> Option<Value> {
    let mut context = Context::default().with_all();
    context.add_variable("self", object).ok()?;
    match Program::compile(expression).ok()?.execute(&context).ok()? {
        cel::Value::String(text) => Some(json!(*text)),
        cel::Value::Int(number) => Some(json!(number)),
        _ => None,
    }
}
