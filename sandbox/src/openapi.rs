//! `/openapi/v2` and `/openapi/v3`: what `kubectl explain`, `apply` and `--validate` read. Pure.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{discovery::git_version, kinds::Kind, kinds::definitions, release::Release};

const REFERENCE: &str = "#/components/schemas/";
const GVK: &str = "x-kubernetes-group-version-kind";

/// The document at `/openapi/` and `v2`, `v3` or `v3/{api|apis/group}/version`; `None` if there is none. JSON only: who
/// asks for protobuf alone gets 406 by the caller.
///
/// Version 3 is served whatever the release, although Kubernetes has it since 1.24 only: `kubectl` reads version 2 as
/// protobuf and nothing else, so that it could not apply anything otherwise.
pub(crate) fn document(kinds: &[Arc<Kind>], release: Release, path: &str) -> Option<Value> {
    let info = json!({"title": "Kubernetes", "version": git_version(release)});
    if path == "v3" {
        let index = |root: String| {
            let url = format!("/openapi/v3/{root}");
            (root, json!({"serverRelativeURL": url}))
        };
        let paths: Map<_, _> = kinds.iter().map(|kind| index(root(kind))).collect();
        return Some(json!({"paths": paths}));
    }
    let wanted = path.strip_prefix("v3/");
    let (mut paths, mut schemas) = (Map::new(), definitions().clone());
    let is = |kind: &&Arc<Kind>| wanted.is_none_or(|wanted| root(kind) == wanted);
    for kind in kinds.iter().filter(is) {
        paths.extend(paths_of(kind));
        if let Some(structural) = &kind.structural {
            let mut name: Vec<&str> = kind.group.split('.').rev().collect();
            name.extend([kind.version.as_str(), kind.kind.as_str()]);
            let mut schema = structural.schema.clone();
            schema[GVK] = json!([of(kind)]);
            schemas.insert(name.join("."), schema);
        }
    }
    match wanted {
        None if path == "v2" => {
            let mut document = json!({"swagger": "2.0", "info": info, "paths": {}});
            document["definitions"] = schemas.into();
            let text = document.to_string().replace(REFERENCE, "#/definitions/");
            serde_json::from_str(&text).ok()
        }
        Some(_) if !paths.is_empty() => Some(json!({
            "openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas},
        })),
        _ => None,
    }
}

/// `api/v1`, or `apis/apps/v1`
fn root(kind: &Kind) -> String {
    let prefix = if kind.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", kind.api_version())
}

fn of(kind: &Kind) -> Value {
    json!({"group": kind.group, "kind": kind.kind, "version": kind.version})
}

/// What `kubectl` looks up of a kind's paths: `explain` any operation on all objects, `apply` the parameters of a
/// patch of one, and whether it may be a strategic one.
fn paths_of(kind: &Kind) -> [(String, Value); 2] {
    let namespace = ["", "namespaces/{namespace}/"][usize::from(kind.namespaced)];
    let all = format!("/{}/{namespace}{}", root(kind), kind.plural);
    let one = format!("{all}/{{name}}");
    let method = if kind.virtual_only { "post" } else { "get" };
    let form = ["strategic-merge", "merge"][usize::from(kind.custom())];
    let content = json!({format!("application/{form}-patch+json"): {}});
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let parameters = ["dryRun", "fieldManager", "fieldValidation"].map(query);
    let patch = json!({
        GVK: of(kind), "x-kubernetes-action": "patch", "parameters": parameters, "requestBody": {"content": content},
    });
    [
        (all, json!({method: {GVK: of(kind)}})),
        (one, json!({"patch": patch})),
    ]
}

#[cfg(test)]
mod tests;
