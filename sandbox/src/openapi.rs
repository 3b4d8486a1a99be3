//! `/openapi/v2` and `/openapi/v3`: what `kubectl explain`, `apply` and `--validate` read. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::discovery::git_version;
use crate::kinds::{Kind, Schema, definitions};
use crate::release::Release;

const REFERENCE: &str = "#/components/schemas/";
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The document at `/openapi/v2`, `/openapi/v3` or `/openapi/v3/{api|apis/group}/version`; `None` if there is none. JSON
/// only: who asks for protobuf alone gets 406 by the caller.
///
/// Version 3 is served whatever the release, although Kubernetes has it since 1.24 only: `kubectl` reads version 2 as
/// protobuf and nothing else, so that it could not apply anything otherwise.
#[must_use]
pub fn document(kinds: &[Arc<Kind>], release: Release, path: &str) -> Option<Value> {
    let path = path.trim_matches('/').strip_prefix("openapi/")?;
    if path == "v2" {
        return Some(version_2(kinds, release));
    }
    let mut groups: BTreeMap<String, Vec<&Kind>> = BTreeMap::new();
    for kind in kinds {
        groups.entry(root(kind)).or_default().push(kind);
    }
    match path.strip_prefix("v3")?.trim_start_matches('/') {
        "" => {
            let paths: Map<String, Value> = groups
                .into_keys()
                .map(|root| {
                    let url = format!("/openapi/v3/{root}");
                    (root, json!({"serverRelativeURL": url}))
                })
                .collect();
            Some(json!({"paths": paths}))
        }
        root => groups.get(root).map(|kinds| {
            json!({
                "openapi": "3.0.0", "info": info(release), "paths": paths(kinds),
                "components": {"schemas": schemas(kinds.iter().copied())},
            })
        }),
    }
}

fn version_2(kinds: &[Arc<Kind>], release: Release) -> Value {
    let mut definitions = Value::Object(schemas(kinds.iter().map(Arc::as_ref)));
    refer(&mut definitions);
    json!({"swagger": "2.0", "info": info(release), "paths": {}, "definitions": definitions})
}

/// Makes references those of version 2.
fn refer(schema: &mut Value) {
    match schema {
        Value::Object(fields) => fields.iter_mut().for_each(|(field, value)| match value {
            Value::String(to) if field == "$ref" => *to = to.replace(REFERENCE, "#/definitions/"),
            other => refer(other),
        }),
        Value::Array(items) => items.iter_mut().for_each(refer),
        _ => {}
    }
}

fn info(release: Release) -> Value {
    json!({"title": "Kubernetes", "version": git_version(release)})
}

/// `api/v1`, or `apis/apps/v1`
fn root(kind: &Kind) -> String {
    let prefix = if kind.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", kind.api_version())
}

/// The name of a kind's schema: `io.k8s.api.core.v1.Pod`, or `dev.drawbridge.v1alpha1.ConsoleSession`.
fn schema_name(kind: &Kind) -> String {
    match &kind.schema {
        Schema::Builtin(name) => name.clone().into_owned(),
        Schema::Custom(_) => {
            let mut parts: Vec<&str> = kind.group.split('.').rev().collect();
            parts.extend([kind.version.as_str(), kind.kind.as_str()]);
            parts.join(".")
        }
    }
}

/// The schemas of some kinds and all that they refer to.
fn schemas<'a>(kinds: impl Iterator<Item = &'a Kind>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut wanted = Vec::new();
    for kind in kinds {
        let name = schema_name(kind);
        if let Schema::Custom(structural) = &kind.schema {
            wanted.push(METADATA.to_owned());
            found.insert(name, custom(kind, &structural.schema));
        } else {
            wanted.push(name);
        }
    }
    while let Some(name) = wanted.pop() {
        if let Some(schema) = definitions()
            .get(&name)
            .filter(|_| !found.contains_key(&name))
        {
            references(schema, &mut wanted);
            found.insert(name, schema.clone());
        }
    }
    found
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let to = fields.get("$ref").and_then(Value::as_str);
            found.extend(
                to.and_then(|to| to.strip_prefix(REFERENCE))
                    .map(str::to_owned),
            );
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// A CustomResourceDefinition's schema with the fields every object has, told as for any other kind.
fn custom(kind: &Kind, declared: &Value) -> Value {
    let mut schema = declared.clone();
    let of_all = &definitions()["io.k8s.api.core.v1.ConfigMap"]["properties"];
    for field in ["apiVersion", "kind", "metadata"] {
        schema["properties"][field] = of_all[field].clone();
    }
    schema["x-kubernetes-group-version-kind"] = json!([of(kind)]);
    schema
}

/// `x-kubernetes-group-version-kind` of an operation.
fn of(kind: &Kind) -> Value {
    json!({"group": kind.group, "kind": kind.kind, "version": kind.version})
}

/// The operations on objects of some kinds, and on their status.
fn paths(kinds: &[&Kind]) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let namespace = if kind.namespaced {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let all = format!("/{}/{namespace}{}", root(kind), kind.plural);
        let one = format!("{all}/{{name}}");
        let item = &["get", "put", "patch", "delete"][..];
        let mut places = vec![
            (all, &["get", "post", "delete"][..], true),
            (one.clone(), item, false),
        ];
        if kind.status {
            places.push((format!("{one}/status"), &item[..3], false));
        }
        for (path, methods, collection) in places {
            let operations: Map<String, Value> = methods
                .iter()
                .filter_map(|method| {
                    let action = match *method {
                        "get" if collection => "list",
                        "delete" if collection => "deletecollection",
                        "post" => "create",
                        "put" => "update",
                        method => method,
                    };
                    let served = kind.verbs().contains(&action);
                    served.then(|| ((*method).to_owned(), operation(kind, method, action)))
                })
                .collect();
            if !operations.is_empty() {
                paths.insert(path, operations.into());
            }
        }
    }
    paths
}

fn operation(kind: &Kind, method: &str, action: &str) -> Value {
    const JSON: &str = "application/json";
    let schema = json!({"schema": {"$ref": format!("{REFERENCE}{}", schema_name(kind))}});
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let mut operation = json!({
        "x-kubernetes-action": match action { "update" => "put", "create" => "post", action => action },
        "x-kubernetes-group-version-kind": of(kind),
        "responses": {"200": {"description": "OK"}},
    });
    if !matches!(action, "list" | "delete" | "deletecollection") {
        operation["responses"]["200"]["content"][JSON] = schema.clone();
    }
    if matches!(method, "post" | "put" | "patch") {
        operation["parameters"] = ["dryRun", "fieldManager", "fieldValidation"]
            .map(query)
            .to_vec()
            .into();
        let types: &[&str] = match method {
            "patch" if kind.custom() => &PATCHES[1..],
            "patch" => PATCHES,
            _ => &[JSON],
        };
        let content: Map<String, Value> = types
            .iter()
            .map(|media| {
                let of = if method == "patch" {
                    json!({"schema": {"type": "object"}})
                } else {
                    schema.clone()
                };
                ((*media).to_owned(), of)
            })
            .collect();
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

/// Forms of patches. Custom kinds have no strategic merge, which `kubectl apply` looks up here.
const PATCHES: &[&str] = &[
    "application/strategic-merge-patch+json",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn get(path: &str) -> Option<Value> {
        document(&Kinds::builtin(Release::V1_36).all(), Release::V1_36, path)
    }

    #[test]
    fn the_index_leads_to_every_group() {
        let index = get("/openapi/v3").expect("an index");
        let paths = index["paths"].as_object().expect("paths");
        assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
        for entry in paths.values() {
            let url = entry["serverRelativeURL"].as_str().expect("a URL");
            assert_eq!(get(url).expect("a document")["openapi"], "3.0.0");
        }
        for path in [
            "/openapi/v3/apis/none/v1",
            "/openapi/v4",
            "/openapi",
            "/openapi/v3/api",
        ] {
            assert_eq!(get(path), None, "{path}");
        }
    }

    #[test]
    fn references_lead_to_schemas_of_the_same_document() {
        fn check(schema: &Value, document: &Value) {
            match schema {
                Value::Object(fields) => {
                    if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                        let to = to
                            .strip_prefix('#')
                            .expect("a reference within the document");
                        assert!(document.pointer(to).is_some(), "{to}");
                    }
                    fields.values().for_each(|field| check(field, document));
                }
                Value::Array(items) => items.iter().for_each(|item| check(item, document)),
                _ => {}
            }
        }
        for path in [
            "/openapi/v2",
            "/openapi/v3/api/v1",
            "/openapi/v3/apis/apps/v1",
        ] {
            let document = get(path).expect("a document");
            check(&document, &document);
        }
    }

    #[test]
    fn every_schema_is_one() {
        for kind in Kinds::builtin(Release::V1_36).all().iter() {
            let schema = json!({
                "$ref": format!("{REFERENCE}{}", schema_name(kind)),
                "components": {"schemas": schemas(std::iter::once(&**kind))},
            });
            let compiled = jsonschema::options()
                .with_draft(jsonschema::Draft::Draft4)
                .build(&schema);
            let compiled = compiled.unwrap_or_else(|error| panic!("{}: {error}", kind.kind));
            for error in compiled.iter_errors(&json!({"kind": "x"})) {
                assert!(
                    error.to_string().contains("required"),
                    "{}: {error}",
                    kind.kind
                );
            }
            assert!(!compiled.is_valid(&json!({"kind": 1})), "{}", kind.kind);
        }
    }

    #[test]
    fn kubectl_finds_what_it_looks_up() {
        let core = get("/openapi/v3/api/v1").expect("a document");
        let pods = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"];
        let patch = &pods["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "", "kind": "Pod", "version": "v1"})
        );
        assert_eq!(patch["x-kubernetes-action"], "patch");
        let parameters = patch["parameters"].as_array().expect("parameters");
        assert!(parameters.iter().any(|it| it["name"] == "fieldValidation"));
        assert!(
            patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object()
        );
        let spec = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
        assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(
            spec["securityContext"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.PodSecurityContext"
        );
        let list = &core["paths"]["/api/v1/nodes"];
        assert_eq!(list["get"]["x-kubernetes-action"], "list");
        assert!(core["paths"]["/api/v1/namespaces"]["delete"].is_null());
    }
}
