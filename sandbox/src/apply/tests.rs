//! What apply and other writes make of objects and of who manages them.

use serde_json::{Value, json};

use super::*;
use crate::auth::Identity;
use crate::kinds::Kind;

/// Who writes, and when.
#[derive(Clone, Copy)]
struct Writer<'a> {
    manager: &'a str,
    subresource: &'a str,
    now: Timestamp,
}

fn call(kind: &std::sync::Arc<Kind>, writer: Writer<'_>, force: bool) -> Call {
    let query = format!("fieldManager={}&force={force}", writer.manager);
    let mut call = Call::new(Identity::default(), kind, "", "", &query);
    call.subresource = writer.subresource.to_owned();
    call
}

fn apply(
    live: Option<&Value>,
    config: &Value,
    kind: &std::sync::Arc<Kind>,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Failure> {
    super::apply(live, config, &call(kind, writer, force), writer.now)
}

fn builtin() -> std::sync::Arc<Kind> {
    let kinds = crate::kinds::Kinds::builtin(crate::Release::default());
    kinds.of("v1", "Pod").expect("it is built in")
}

fn by(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        now: Timestamp::UNIX_EPOCH,
    }
}

fn later(writer: Writer<'_>) -> Writer<'_> {
    Writer {
        now: writer.now + jiff::SignedDuration::from_secs(60),
        ..writer
    }
}

fn pod(fields: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0"}});
    json_patch::merge(&mut pod, fields);
    pod
}

fn applied(live: Option<&Value>, config: &Value, writer: Writer<'_>) -> Value {
    apply(live, config, &builtin(), writer, false).expect("no conflict")
}

fn updated(live: Option<&Value>, object: &Value, writer: Writer<'_>) -> Value {
    let mut object = object.clone();
    record(
        live,
        &mut object,
        &call(&builtin(), writer, false),
        writer.now,
    );
    object
}

fn fields(object: &Value, manager: &str) -> Value {
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["manager"] == manager)
        .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[test]
fn what_is_applied_first_is_there_and_its_fields_are_the_managers() {
    let config = pod(&json!({
        "metadata": {"labels": {"app": "web"}, "finalizers": ["a/b"]},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}],
                 "nodeSelector": {"x": "y"}},
        "status": {"phase": "Running"},
    }));
    let object = applied(None, &config, by("me"));
    assert_eq!(object["spec"], config["spec"]);
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "me", "operation": "Apply", "apiVersion": "v1", "time": "1970-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"a/b\"": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"c\"}": {
                        ".": {}, "f:name": {}, "f:image": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }},
                    "f:nodeSelector": {},
                },
            },
        }])
    );
}

#[test]
fn the_same_again_changes_nothing_not_even_the_time() {
    let config = pod(&json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let once = applied(None, &config, by("me"));
    assert_eq!(applied(Some(&once), &config, later(by("me"))), once);
    let other = pod(&json!({"spec": {"containers": [{"name": "c", "image": "j"}]}}));
    let changed = applied(Some(&once), &other, later(by("me")));
    assert_eq!(
        changed["metadata"]["managedFields"][0]["time"],
        "1970-01-01T00:01:00Z"
    );
}

#[test]
fn another_manager_may_agree_but_not_change() {
    let mine = pod(&json!({"spec": {"priority": 1, "containers": [{"name": "c", "image": "i"}]}}));
    let live = applied(None, &mine, by("me"));
    let agreed = applied(Some(&live), &mine, by("you"));
    assert_eq!(fields(&agreed, "you"), fields(&agreed, "me"));

    let theirs =
        pod(&json!({"spec": {"priority": 2, "containers": [{"name": "c", "image": "j"}]}}));
    let failure = apply(Some(&live), &theirs, &builtin(), by("you"), false)
        .expect_err("somebody else manages it");
    assert_eq!(failure.code, 409);
    assert!(
        failure
            .message
            .starts_with("Apply failed with 2 conflicts: ")
    );
    assert_eq!(
        failure.details["causes"][1],
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"me\"", "field": ".spec.priority"})
    );

    let forced =
        apply(Some(&live), &theirs, &builtin(), by("you"), true).expect("force takes them");
    assert_eq!(forced["spec"], theirs["spec"]);
    assert_eq!(
        fields(&forced, "me"),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}}}}})
    );
}

#[test]
fn a_conflict_with_an_update_names_its_version() {
    let live = updated(
        None,
        &pod(&json!({"spec": {"replicas": 1}})),
        by("kubectl-edit"),
    );
    let config = pod(&json!({"spec": {"replicas": 2}}));
    let failure = apply(Some(&live), &config, &builtin(), by("me"), false).expect_err("conflict");
    assert_eq!(
        failure.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .spec.replicas"
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_manages_it() {
    let all = pod(&json!({
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {"x": 1, "containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]},
    }));
    let live = applied(None, &all, by("me"));
    let live = applied(
        Some(&live),
        &pod(&json!({"metadata": {"labels": {"b": "2"}}})),
        by("you"),
    );
    let mut defaulted = live.clone();
    defaulted["spec"]["containers"][1]["stdin"] = json!(false);
    let less = pod(&json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let after = applied(Some(&defaulted), &less, by("me"));
    assert_eq!(after["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(
        after["spec"],
        json!({"containers": [{"name": "c", "image": "i"}]}),
        "an item goes with what was filled into it"
    );
}

#[test]
fn what_tells_items_apart_stays_while_somebody_has_a_field_in_one() {
    let config = pod(&json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let live = applied(None, &config, by("me"));
    let mut object = live.clone();
    object["spec"]["containers"][0]["stdin"] = json!(true);
    let live = updated(Some(&live), &object, by("you"));
    let after = applied(Some(&live), &pod(&json!({})), by("me"));
    assert_eq!(
        after["spec"]["containers"],
        json!([{"name": "c", "stdin": true}])
    );
    assert_eq!(fields(&after, "me"), Value::Null);
}

#[test]
fn what_is_new_in_a_list_comes_last() {
    for (before, config, after) in [
        ("a", "b", "ab"),
        ("abc", "ca", "abc"),
        ("ab", "xb", "abx"),
        ("", "ab", "ab"),
        ("ab", "", "ab"),
    ] {
        let containers = |names: &str| {
            let names = names.chars().map(|name| json!({"name": name.to_string()}));
            pod(&json!({"spec": {"containers": names.collect::<Vec<_>>()}}))
        };
        let live = applied(None, &containers(before), by("me"));
        let live = applied(Some(&live), &containers(config), by("you"));
        assert_eq!(
            live["spec"]["containers"],
            containers(after)["spec"]["containers"],
            "{config} onto {before}"
        );
    }
}

#[test]
fn lists_and_maps_of_custom_kinds_are_what_their_schema_says() {
    let text = json!({"type": "string"});
    let parts = json!({"type": "object", "properties": {"name": text, "zone": {"type": "string", "default": "z"}, "size": text}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "parts": {"type": "array", "items": parts, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "zone"]},
        "tags": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "whole": {"type": "array", "items": text},
        "containers": {"type": "array", "items": parts},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": text}}},
        "one": {"type": "object", "properties": {"a": text}, "x-kubernetes-map-type": "atomic"},
    }}}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let definition =
        json!({"spec": {"group": "example.com", "names": {"kind": "Pod"}, "versions": [version]}});
    let kinds = crate::schema::kinds_of(&definition, crate::Release::default());
    let kind = kinds.expect("structural").remove(0).into();
    let config = pod(&json!({
        "metadata": {"finalizers": ["a/b"]},
        "spec": {
            "parts": [{"name": "p", "size": "1"}], "tags": ["x"], "whole": ["x"], "containers": [{"name": "c"}],
            "map": {"k": {"a": "1"}}, "one": {"a": "1"},
        },
    }));
    let live = apply(None, &config, &kind, by("me"), false).expect("nobody else is there");
    assert_eq!(
        fields(&live, "me"),
        json!({
            "f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}},
            "f:spec": {
                "f:parts": {"k:{\"name\":\"p\",\"zone\":\"z\"}": {".": {}, "f:name": {}, "f:size": {}}},
                "f:tags": {"v:\"x\"": {}}, "f:whole": {}, "f:containers": {},
                "f:map": {"f:k": {".": {}, "f:a": {}}}, "f:one": {},
            },
        })
    );
    let other = pod(
        &json!({"spec": {"parts": [{"name": "q"}], "tags": ["y"], "map": {"l": {}}, "one": {"a": "2"}}}),
    );
    let failure =
        apply(Some(&live), &other, &kind, by("you"), false).expect_err("it has one owner");
    assert_eq!(
        failure.message,
        "Apply failed with 1 conflict: conflict with \"me\": .spec.one"
    );
    let both = apply(Some(&live), &other, &kind, by("you"), true).expect("forced");
    assert_eq!(both["spec"]["tags"], json!(["x", "y"]));
    assert_eq!(
        both["spec"]["parts"],
        json!([{"name": "p", "size": "1"}, {"name": "q"}])
    );
    let nothing = pod(&json!({}));
    let after =
        apply(Some(&both), &nothing, &kind, by("me"), false).expect("nothing changes hands");
    assert_eq!(
        after["spec"],
        json!({"parts": [{"name": "q"}], "tags": ["y"], "map": {"l": {}}, "one": {"a": "2"}})
    );
}

#[test]
fn an_update_owns_what_it_changed_and_nobody_what_is_gone() {
    let live = updated(
        None,
        &pod(
            &json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        ),
        by("you"),
    );
    assert_eq!(
        fields(&live, "you"),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {".": {}, "f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}},
        })
    );
    let mut object = live.clone();
    object["spec"]["containers"][0]["image"] = json!("j");
    object["metadata"]["labels"] = json!({"b": "2"});
    let live = updated(Some(&live), &object, by("me"));
    assert_eq!(
        fields(&live, "me"),
        json!({
            "f:metadata": {"f:labels": {"f:b": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:image": {}}}},
        })
    );
    assert_eq!(
        fields(&live, "you"),
        json!({
            "f:metadata": {"f:labels": {}},
            "f:spec": {".": {}, "f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:name": {}}}},
        })
    );
}

#[test]
fn an_update_that_changes_nothing_keeps_the_accounts() {
    let live = updated(None, &pod(&json!({"spec": {"x": 1}})), by("me"));
    assert_eq!(updated(Some(&live), &live, later(by("me"))), live);
    assert_eq!(updated(Some(&live), &live, later(by("you"))), live);
}

#[test]
fn writes_of_status_are_accounted_for_apart() {
    let live = updated(None, &pod(&json!({"spec": {"x": 1}})), by("me"));
    let mut object = live.clone();
    object["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let status = Writer {
        subresource: "status",
        ..by("me")
    };
    let live = updated(Some(&live), &object, status);
    let entries = live["metadata"]["managedFields"]
        .as_array()
        .expect("a list");
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(
        entries[1]["fieldsV1"],
        json!({"f:status": {".": {}, "f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
    );
    // And applied: what else is in the configuration does not count.
    let config = pod(&json!({"spec": {"x": 2}, "status": {"phase": "Running"}}));
    let status = Writer {
        subresource: "status",
        ..by("you")
    };
    let after = applied(Some(&live), &config, status);
    assert_eq!(fields(&after, "you"), json!({"f:status": {"f:phase": {}}}));
}

#[test]
fn accounts_that_are_none_are_kept_as_they_were() {
    let live = updated(None, &pod(&json!({"spec": {"x": 1}})), by("me"));
    let mut object = live.clone();
    for given in [
        json!([]),
        json!([{"manager": "x", "operation": "Nonsense"}]),
    ] {
        object["metadata"]["managedFields"] = given;
        assert_eq!(updated(Some(&live), &object, by("me")), live);
    }
}

mod properties {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn configs() -> impl Strategy<Value = Value> {
        let container = (
            "[abc]",
            proptest::option::of("[ij]"),
            proptest::option::of(80..82u16),
        )
            .prop_map(|(name, image, port)| {
                let mut container = json!({"name": name});
                if let Some(image) = image {
                    container["image"] = json!(image);
                }
                if let Some(port) = port {
                    container["ports"] = json!([{"containerPort": port}]);
                }
                container
            });
        (
            proptest::collection::btree_map("[abc]", "[12]", 0..3),
            proptest::collection::vec(container, 0..3),
            proptest::collection::btree_set("[ab]/[cd]", 0..3),
            proptest::option::of(proptest::collection::vec("[xy]", 0..3)),
        )
            .prop_map(|(labels, containers, finalizers, args)| {
                let containers: BTreeMap<String, Value> = containers
                    .into_iter()
                    .map(|item| (item["name"].to_string(), item))
                    .collect();
                let containers: Vec<Value> = containers.into_values().collect();
                pod(&json!({
                    "metadata": {"labels": labels, "finalizers": finalizers},
                    "spec": {"containers": containers, "tolerations": args},
                }))
            })
    }

    fn paths(object: &Value) -> Paths {
        let kind = builtin();
        nodes(object, &Structural::of(&kind).schema)
            .into_keys()
            .collect()
    }

    proptest! {
        #[test]
        fn applying_twice_is_applying_once(one in configs(), two in configs()) {
            let live = applied(None, &one, by("you"));
            let once = apply(Some(&live), &two, &builtin(), by("me"), true).expect("forced");
            let twice = apply(Some(&once), &two, &builtin(), later(by("me")), false);
            prop_assert_eq!(twice, Ok(once));
        }

        #[test]
        fn nobody_owns_what_is_not_there(one in configs(), two in configs(), three in configs()) {
            let live = applied(None, &one, by("a"));
            let live = apply(Some(&live), &two, &builtin(), by("b"), true).expect("forced");
            let mut object = three;
            object["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
            let live = updated(Some(&live), &object, by("c"));
            for entry in entries_of(&live) {
                prop_assert!(entry.fields_v1.is_subset(&paths(&live)), "{:?} of {}", entry, live);
            }
        }

        #[test]
        fn applying_nothing_drops_just_what_was_the_managers_alone(one in configs(), two in configs()) {
            let live = applied(None, &one, by("you"));
            let both = apply(Some(&live), &two, &builtin(), by("me"), true).expect("forced");
            let after = applied(Some(&both), &pod(&json!({})), by("me"));
            prop_assert_eq!(fields(&after, "me"), Value::Null);
            // What you still manage is still there, and what is gone was mine or in what was.
            for entry in entries_of(&both) {
                if entry.manager == "you" {
                    prop_assert!(entry.fields_v1.is_subset(&paths(&after)), "{:?} of {}", entry, after);
                } else {
                    for lost in paths(&both).difference(&paths(&after)) {
                        let mine = entry.fields_v1.iter().any(|mine| mine.starts_with(lost) || lost.starts_with(mine));
                        prop_assert!(mine, "lost {:?}", lost);
                    }
                }
            }
        }

        #[test]
        fn fields_parse_back(config in configs()) {
            let live = applied(None, &config, by("me"));
            let entries = entries_of(&live);
            prop_assert_eq!(json!(entries), live["metadata"]["managedFields"].clone());
            prop_assert!(entries.iter().all(|entry| entry.fields_v1.is_subset(&paths(&config))));
        }
    }
}
