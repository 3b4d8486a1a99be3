//! The CRD's CEL rules and `rules::check` say the same about the same object.

use drawbridge_crds::definitions;
use drawbridge_crds::rules;
use drawbridge_crds::v1alpha1::ConsoleSession;
use kube_cel::Validator;
use serde_json::{Value, json};

/// A session that breaks no rule, as the API server stores it: defaults filled in.
fn session(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "drawbridge.dev/v1alpha1",
        "kind": "ConsoleSession",
        "metadata": {"name": "shell", "namespace": "shop", "uid": "6f1c", "generation": 1},
        "spec": {
            "user": "alice@example.com",
            "target": {"pod": {"name": "web-0"}},
            "mode": "Exec",
            "duration": "3600s",
            "idleTimeout": "900s",
            "maxConnections": 4,
            "revoked": false,
        },
    });
    change(&mut object);
    object
}

/// The same of `mode: Observe`, then changed.
fn observe(change: impl FnOnce(&mut Value)) -> Value {
    session(|object| {
        let spec = object["spec"].as_object_mut().expect("an object");
        spec.remove("target");
        spec.insert("mode".into(), json!("Observe"));
        spec.insert("observe".into(), json!({"session": "fix-cart"}));
        change(object);
    })
}

fn set(path: &str, value: Value) -> Value {
    session(|object| match path.rsplit_once('/') {
        Some((parent, key)) => object.pointer_mut(parent).expect("parent exists")[key] = value,
        None => unreachable!("paths are absolute"),
    })
}

/// Messages of the CEL rules the object breaks; of the transition rules, too, if there is an older one.
fn cel(object: &Value, old: Option<&Value>) -> Vec<String> {
    let (_, definition) = definitions().remove(0);
    let schema = &definition.spec.versions[0]
        .schema
        .as_ref()
        .expect("has a schema")
        .open_api_v3_schema;
    let schema = serde_json::to_value(schema).expect("serialises");
    match Validator::new().validate(&schema, object, old) {
        Ok(()) => Vec::new(),
        Err(broken) => broken
            .into_iter()
            .map(|rule| rule.message.clone())
            .collect(),
    }
}

fn function(object: &Value) -> Option<String> {
    let session: ConsoleSession = serde_json::from_value(object.clone()).expect("parses");
    rules::check(&session)
        .err()
        .map(|broken| broken.to_string())
}

#[test]
fn every_cel_rule_and_the_function_agree() {
    let ok = [
        session(|_| ()),
        set("/metadata/name", json!("n".repeat(63))),
        set("/spec/duration", json!("1m")),
        set("/spec/duration", json!("24h")),
        set("/spec/duration", json!("1.5h")),
        set("/spec/idleTimeout", json!("10s")),
        set("/spec/idleTimeout", json!("24h")),
        set("/spec/command", json!(["sh", ""])),
        set("/spec/command", json!([])),
        set("/spec/mode", json!("Attach")),
        observe(|_| ()),
        set("/spec/notAfter", json!("2026-01-01T00:00:00Z")),
        set("/spec/ttlAfterFinished", json!("0s")),
        set("/spec/ttlAfterFinished", json!("720h")),
        session(|object| {
            object["spec"]["notBefore"] = json!("2026-01-01T00:00:00Z");
            object["spec"]["notAfter"] = json!("2026-01-01T01:00:01+01:00");
        }),
    ];
    for object in ok {
        assert_eq!(cel(&object, None), Vec::<String>::new(), "{object}");
        assert_eq!(function(&object), None, "{object}");
    }
    let broken = [
        set("/metadata/name", json!("n".repeat(64))),
        set("/spec/user", json!("system:anonymous")),
        set("/spec/duration", json!("59.999s")),
        set("/spec/duration", json!("24h1s")),
        set("/spec/idleTimeout", json!("9s")),
        set("/spec/idleTimeout", json!("1441m")),
        set("/spec/command", json!([""])),
        set("/spec/ttlAfterFinished", json!("720h1s")),
        session(|object| {
            object["spec"]["mode"] = json!("Attach");
            object["spec"]["command"] = json!(["sh"]);
        }),
        session(|object| {
            let spec = object["spec"].as_object_mut().expect("an object");
            spec.remove("target");
        }),
        observe(|object| object["spec"]["target"] = json!({"pod": {"name": "web-0"}})),
        set("/spec/observe", json!({"session": "fix-cart"})),
        session(|object| {
            object["spec"]["notBefore"] = json!("2026-01-01T00:00:00Z");
            object["spec"]["notAfter"] = json!("2026-01-01T01:00:00+01:00");
        }),
    ];
    let mut seen = Vec::new();
    for object in broken {
        let says = cel(&object, None);
        assert_eq!(says.len(), 1, "{object}: {says:?}");
        assert_eq!(function(&object).as_ref(), says.first(), "{object}");
        seen.extend(says);
    }
    let (_, definition) = definitions().remove(0);
    let text = serde_json::to_string(&definition).expect("serialises");
    seen.dedup();
    assert_eq!(
        text.matches("\"rule\":").count(),
        seen.len() + 2,
        "every rule but the two about changes was broken once: {seen:?}"
    );
}

#[test]
fn a_changed_spec_is_refused_by_cel_and_told_by_the_generation() {
    let changes = [
        ("/spec/user", json!("bob@example.com")),
        ("/spec/target", json!({"pod": {"name": "db-0"}})),
        ("/spec/mode", json!("Attach")),
        ("/spec/command", json!(["sh"])),
        ("/spec/reason", json!("because")),
        ("/spec/duration", json!("2h")),
        ("/spec/idleTimeout", json!("20m")),
        ("/spec/maxConnections", json!(5)),
        ("/spec/notBefore", json!("2026-01-01T00:00:00Z")),
        ("/spec/notAfter", json!("2026-01-01T00:00:00Z")),
        ("/spec/ttlAfterFinished", json!("1h")),
    ];
    let fields = serde_json::to_value(definitions().remove(0).1).expect("serialises");
    let fields = fields
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .and_then(Value::as_object)
        .expect("the spec has fields");
    assert_eq!(
        fields.len(),
        changes.len() + 2,
        "every field but revoked is tried, observe below: {fields:?}"
    );
    let exec = session(|_| ());
    let (to, from) = (json!({"session": "other"}), observe(|_| ()));
    let other = observe(|object| object["spec"]["observe"] = to);
    let cases = changes
        .into_iter()
        .map(|(path, value)| (path, set(path, value), &exec))
        .chain([("/spec/observe", other, &from)]);
    for (path, mut new, old) in cases {
        // What the API server does on every change of the spec.
        new["metadata"]["generation"] = json!(2);
        let says = cel(&new, Some(old));
        assert_eq!(says.len(), 1, "{path}: {says:?}");
        assert_eq!(function(&new).as_ref(), says.first(), "{path}");
    }
}

#[test]
fn a_session_can_be_revoked_once_and_never_given_back() {
    let old = session(|_| ());
    let mut revoked = set("/spec/revoked", json!(true));
    revoked["metadata"]["generation"] = json!(2);
    assert_eq!(cel(&revoked, Some(&old)), Vec::<String>::new());
    assert_eq!(function(&revoked), None);
    let mut back = session(|_| ());
    back["metadata"]["generation"] = json!(3);
    assert_eq!(cel(&back, Some(&revoked)).len(), 1);
    assert!(function(&back).is_some(), "the generation gives it away");
}
