//! What the documents hold for those who read them.

use super::*;
use crate::kinds::Kinds;

fn get(path: &str) -> Option<Value> {
    document(
        &Kinds::builtin(Release::V1_36).all(),
        Release::V1_36,
        path.strip_prefix("/openapi/")?,
    )
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
    for name in definitions().keys() {
        let schema = json!({
            "$ref": format!("{REFERENCE}{name}"), "components": {"schemas": definitions()},
        });
        let compiled = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft4)
            .build(&schema);
        compiled.unwrap_or_else(|error| panic!("{name}: {error}"));
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
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let spec = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(
        spec["securityContext"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.core.v1.PodSecurityContext"
    );
    let list = &core["paths"]["/api/v1/nodes"]["get"];
    assert_eq!(list["x-kubernetes-group-version-kind"]["kind"], "Node");
}
