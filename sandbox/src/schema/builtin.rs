//! The schemas of built-in kinds: their definitions with references put in, and what `builtin.yaml` adds.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use kube_cel::KubeCelExt as _;
use kube_cel::cel::{self, Context, Program};
use serde_json::{Map, Value, json};

use super::Structural;
use crate::kinds::definitions;

/// The compiled schema of a built-in kind by its name among the [`definitions`].
///
/// # Panics
/// If there is no such definition, or `builtin.yaml` is wrong: tests compile all of them.
pub(super) fn structural(name: &str) -> &'static Structural {
    static ALL: LazyLock<HashMap<&str, OnceLock<Structural>>> = LazyLock::new(|| {
        let names = definitions().keys();
        names.map(|name| (name.as_str(), OnceLock::new())).collect()
    });
    ALL[name]
        .get_or_init(|| Structural::compile(resolve(name), true).expect("definitions are in order"))
}

/// A schema declared for a custom kind with what every object has.
pub(super) fn with_metadata(declared: &Value) -> Value {
    let text = json!({"type": "string"});
    let metadata = resolve("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let properties = json!({"apiVersion": text, "kind": text, "metadata": metadata});
    let mut schema = json!({"properties": properties});
    json_patch::merge(&mut schema, declared);
    schema
}

/// A definition with what is added to it and all it refers to in it.
fn resolve(name: &str) -> Value {
    static ADDED: LazyLock<Map<String, Value>> =
        LazyLock::new(|| serde_saphyr::from_str(include_str!("builtin.yaml")).expect("it is YAML"));
    let mut schema = definitions()[name].clone();
    // `core.v1.Pod` of `io.k8s.api.core.v1.Pod`
    let last = name.rmatch_indices('.').nth(2);
    if let Some(added) = last.and_then(|(at, _)| ADDED.get(&name[at + 1..])) {
        json_patch::merge(&mut schema, added);
    }
    inline(schema)
}

fn inline(schema: Value) -> Value {
    match schema {
        Value::Object(mut fields) => {
            // What stands beside a reference has it wrapped.
            let wrapped = fields.get("allOf").and_then(|all| all[0].get("$ref"));
            let reference = wrapped.or_else(|| fields.get("$ref"));
            let name = reference.and_then(|to| to.as_str()?.strip_prefix("#/components/schemas/"));
            let mut inlined = json!({});
            if let Some(name) = name {
                inlined = resolve(name);
                fields.remove("allOf");
                fields.remove("$ref");
            }
            for (name, value) in fields {
                json_patch::merge(&mut inlined[name], &inline(value));
            }
            inlined
        }
        Value::Array(list) => list.into_iter().map(inline).collect(),
        other => other,
    }
}

/// What a schema fills in where there is nothing: `default`, or, in `builtin.yaml` only, what the CEL expression `x-default`
/// makes of the object the field is in.
pub(super) fn default_of(schema: &Value, object: &Value) -> Option<Value> {
    let Some(expression) = schema["x-default"].as_str() else {
        return schema.get("default").cloned();
    };
    let mut context = Context::default().with_all();
    context.add_variable("self", object).ok()?;
    match Program::compile(expression).ok()?.execute(&context).ok()? {
        cel::Value::String(text) => Some(json!(*text)),
        cel::Value::Int(number) => Some(json!(number)),
        _ => None,
    }
}
