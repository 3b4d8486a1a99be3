//! Custom kinds.

use super::*;

const DEFINITION: &str = include_str!("../../../../crds/yaml/consolesession.yaml");

fn sessions(release: Release) -> Kind {
    let mut definition: Value = serde_saphyr::from_str(DEFINITION).expect("it is YAML");
    let kinds = Kinds::builtin(release);
    let kind = kinds.of("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    Structural::of(&kind.expect("it is built in")).default(&mut definition);
    let mut kinds = kinds_of(&definition, release).expect("it is in order");
    assert_eq!(kinds.len(), 1);
    kinds.remove(0)
}

/// A kind with one schema.
fn kind_of(schema: &Value) -> Result<Kind, Vec<Cause>> {
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let definition = json!({"spec": {"group": "example.com", "names": {"kind": "Thing"}, "versions": [version]}});
    kinds_of(&definition, Release::V1_36).map(|mut kinds| kinds.remove(0))
}

fn session(spec: &Value) -> Value {
    let mut session = json!({
        "apiVersion": "drawbridge.dev/v1alpha1",
        "kind": "ConsoleSession",
        "metadata": {"name": "shell", "namespace": "shop"},
        "spec": {"user": "alice@example.com", "target": {"pod": {"name": "web-0"}}},
    });
    json_patch::merge(&mut session["spec"], spec);
    session
}

fn wrong(object: &Value, before: Option<&Value>) -> Vec<String> {
    let kind = sessions(Release::V1_36);
    let mut object = object.clone();
    Structural::of(&kind).prune(&mut object);
    Structural::of(&kind).default(&mut object);
    lines(Structural::of(&kind).validate(&object, before))
}

fn custom(schema: &Value) -> Kind {
    kind_of(&json!({"type": "object", "properties": {"spec": schema}})).expect("it is structural")
}

fn wrong_spec(schema: &Value, spec: &Value) -> Vec<String> {
    lines(Structural::of(&custom(schema)).validate(&json!({"spec": spec}), None))
}

#[test]
fn the_kind_is_what_the_definition_says() {
    let kind = sessions(Release::V1_36);
    assert_eq!(kind.resource(), "consolesessions.drawbridge.dev");
    assert_eq!(kind.api_version(), "drawbridge.dev/v1alpha1");
    assert_eq!(kind.list_kind, "ConsoleSessionList");
    assert_eq!(kind.short_names, ["cons"]);
    assert_eq!(kind.categories, ["drawbridge"]);
    assert!(kind.namespaced && kind.status && kind.generation);
    assert_eq!(kind.columns.len(), 7);
    assert_eq!(kind.columns[4].priority, 1);
}

#[test]
fn defaults_are_filled_in_and_stray_nulls_taken_out() {
    let kind = sessions(Release::V1_36);
    let mut object = session(&json!({}));
    object["spec"]["mode"] = Value::Null;
    object["spec"]["reason"] = Value::Null;
    object["spec"]["command"] = Value::Null;
    Structural::of(&kind).prune(&mut object);
    Structural::of(&kind).default(&mut object);
    assert_eq!(
        object["spec"],
        json!({
            "user": "alice@example.com", "target": {"pod": {"name": "web-0"}}, "mode": "Exec", "duration": "3600s",
            "idleTimeout": "900s", "maxConnections": 4, "revoked": false, "reason": null,
        })
    );
}

#[test]
fn defaults_are_nested() {
    let kind = custom(&json!({
        "type": "object", "default": {}, "properties": {
            "a": {"type": "object", "default": {"x": 2}, "properties": {
                "x": {"type": "integer"}, "y": {"type": "integer", "default": 1}}},
            "l": {"type": "array", "items": {"type": "object", "properties": {"z": {"type": "string", "default": "z"}}}},
            "m": {"type": "object", "additionalProperties": {
                "type": "object", "properties": {"z": {"type": "string", "default": "z"}}}},
        },
    }));
    for (before, after) in [
        (json!({}), json!({"spec": {"a": {"x": 2, "y": 1}}})),
        (
            json!({"spec": {"a": {}, "l": [{}], "m": {"k": {}}}}),
            json!({"spec": {"a": {"y": 1}, "l": [{"z": "z"}], "m": {"k": {"z": "z"}}}}),
        ),
    ] {
        let mut object = before;
        Structural::of(&kind).default(&mut object);
        assert_eq!(object, after);
    }
}

#[test]
fn unknown_fields_are_taken_out_and_named() {
    let kind = sessions(Release::V1_36);
    let mut object = session(&json!({"foo": 1, "target": {"pod": {"bar": {"baz": 1}}}}));
    object["metadata"]["annotations"] = json!({"any": "thing"});
    object["other"] = json!(1);
    object["status"] = json!({"conditions": [{"type": "Ready", "extra": 1}]});
    let unknown = Structural::of(&kind).prune(&mut object);
    assert_eq!(
        unknown,
        [
            "other",
            "spec.foo",
            "spec.target.pod.bar",
            "status.conditions[0].extra"
        ]
    );
    let mut expected = session(&json!({}));
    expected["metadata"]["annotations"] = json!({"any": "thing"});
    expected["status"] = json!({"conditions": [{"type": "Ready"}]});
    assert_eq!(object, expected);
    assert_eq!(
        Structural::of(&kind).prune(&mut object),
        Vec::<String>::new()
    );
}

#[test]
fn unknown_fields_stay_where_they_are_allowed() {
    let kind = custom(&json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "strict": {"type": "object", "properties": {"a": {"type": "string"}}},
            "map": {"type": "object", "additionalProperties": {"type": "object"}},
        },
    }));
    let mut object = json!({"spec": {
        "any": [{"thing": 1}], "strict": {"a": "a", "b": "b"},
        "map": {"k": {"y": 1}},
    }});
    assert_eq!(
        Structural::of(&kind).prune(&mut object),
        ["spec.map.k.y", "spec.strict.b"]
    );
}

#[test]
fn a_good_session_has_nothing_wrong_with_it() {
    for spec in [
        json!({}),
        json!({"mode": "Attach", "duration": "1.5h", "reason": null}),
        json!({"command": ["sh", "-c", "date"], "maxConnections": 64}),
        json!({"notBefore": "2026-01-02T03:04:05Z", "notAfter": "2026-01-02T03:04:05.5+02:00"}),
    ] {
        let expected: &[&str] = if spec.get("notBefore").is_some() {
            &["spec: Invalid"]
        } else {
            &[]
        };
        assert_eq!(wrong(&session(&spec), None), expected, "{spec}");
    }
}

#[test]
fn what_is_wrong_has_a_reason_and_a_field() {
    for (spec, expected) in [
        (json!({"user": null}), "spec.user: Required"),
        (
            json!({"target": {"pod": {"name": null}}}),
            "spec.target.pod.name: Required",
        ),
        (json!({"user": 7}), "spec.user: TypeInvalid"),
        (json!({"mode": "Look"}), "spec.mode: NotSupported"),
        (json!({"user": "a".repeat(513)}), "spec.user: TooLong"),
        (json!({"user": ""}), "spec.user: Invalid"),
        (json!({"command": vec!["x"; 65]}), "spec.command: TooMany"),
        (json!({"command": ["a", 1]}), "spec.command[1]: TypeInvalid"),
        (
            json!({"maxConnections": 65}),
            "spec.maxConnections: Invalid",
        ),
        (
            json!({"notAfter": "tomorrow"}),
            "spec.notAfter: TypeInvalid",
        ),
        (
            json!({"target": {"container": "A"}}),
            "spec.target.container: Invalid",
        ),
        (json!({"duration": "25h"}), "spec: Invalid"),
        (json!({"user": "system:anonymous"}), "spec: Invalid"),
    ] {
        assert_eq!(wrong(&session(&spec), None), [expected], "{spec}");
    }
    let mut object = session(&json!({}));
    object["metadata"]["name"] = json!("n".repeat(64));
    assert_eq!(wrong(&object, None), ["<nil>: Invalid"]);
    object["metadata"] = json!({"name": "A", "labels": {"a b": "c"}});
    assert_eq!(
        wrong(&object, None),
        ["metadata.labels: Invalid", "metadata.name: Invalid"]
    );
}

#[test]
fn transition_rules_compare_with_what_there_was() {
    let mut before = session(&json!({"revoked": true}));
    Structural::of(&sessions(Release::V1_36)).default(&mut before);
    assert_eq!(wrong(&before, Some(&before)), Vec::<String>::new());
    let mut after = before.clone();
    after["spec"]["user"] = json!("bob@example.com");
    after["spec"]["revoked"] = json!(false);
    let told = Structural::of(&sessions(Release::V1_36)).validate(&after, Some(&before));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0]
            .message
            .contains("spec is immutable but for revoked"),
        "{told:?}"
    );
    assert_eq!(wrong(&after, None), Vec::<String>::new());
}

#[test]
fn rules_have_reasons_paths_and_messages_of_their_own() {
    let rule = |extra: Value| {
        let mut rule = json!({"rule": "self.a < 3"});
        json_patch::merge(&mut rule, &extra);
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [rule]})
    };
    for (extra, field, expected) in [
        (
            json!({"message": "too many", "fieldPath": ".a"}),
            "spec.a",
            "Invalid value: too many",
        ),
        (
            json!({"messageExpression": "'have ' + string(self.a)"}),
            "spec",
            "Invalid value: have 5",
        ),
        (
            json!({"message": "no", "reason": "FieldValueForbidden"}),
            "spec",
            "Forbidden: no",
        ),
        (json!({}), "spec", "Invalid value: failed rule: self.a < 3"),
    ] {
        let kind = custom(&rule(extra.clone()));
        let told = Structural::of(&kind).validate(&json!({"spec": {"a": 5}}), None);
        assert_eq!(
            (told[0].field.as_str(), told[0].message.as_str()),
            (field, expected)
        );
        assert!(wrong_spec(&rule(extra), &json!({"a": 2})).is_empty());
    }
}

#[test]
fn an_old_release_knows_no_rules() {
    let object = session(&json!({"duration": "25h"}));
    for (release, wrong) in [(Release::V1_20, false), (Release::V1_36, true)] {
        let kind = sessions(release);
        let causes = Structural::of(&kind).validate(&object, None);
        assert_eq!(!causes.is_empty(), wrong);
    }
}

#[test]
fn special_types_and_formats_are_what_kubernetes_means_by_them() {
    for (schema, good, bad) in [
        (
            json!({"x-kubernetes-int-or-string": true}),
            vec![json!(1), json!("50%")],
            vec![],
        ),
        (
            json!({"type": "integer", "nullable": true}),
            vec![json!(1), Value::Null],
            vec![json!("1"), json!(1.5)],
        ),
        (
            json!({"type": "string", "nullable": true, "enum": ["a"]}),
            vec![json!("a"), Value::Null],
            vec![json!("b")],
        ),
        (
            json!({"x-kubernetes-preserve-unknown-fields": true}),
            vec![json!(1), json!({"a": []})],
            vec![],
        ),
        (
            json!({"type": "string", "format": "byte"}),
            vec![json!("YQ=="), json!("")],
            vec![json!("YQ="), json!("?")],
        ),
        (
            json!({"type": "string", "format": "no-such-format"}),
            vec![json!("x")],
            vec![],
        ),
        (
            json!({"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}),
            vec![json!({"a": "b"})],
            vec![json!({}), json!({"a": 1})],
        ),
        (
            json!({"type": "integer", "minimum": 1.0, "exclusiveMinimum": true}),
            vec![json!(2)],
            vec![json!(1)],
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            vec![json!({"a": 1}), json!({"b": 1})],
            vec![json!({}), json!({"a": 1, "b": 1})],
        ),
    ] {
        for value in good {
            assert_eq!(
                wrong_spec(&schema, &value),
                Vec::<String>::new(),
                "{schema} {value}"
            );
        }
        for value in bad {
            assert_eq!(wrong_spec(&schema, &value).len(), 1, "{schema} {value}");
        }
    }
}

#[test]
fn sets_and_maps_have_no_item_twice() {
    let set =
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    assert_eq!(
        wrong_spec(&set, &json!(["a", "b", "a"])),
        ["spec[2]: Duplicate"]
    );
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {"type": "object", "properties": {"type": {"type": "string"}, "x": {"type": "string"}}}});
    assert_eq!(
        wrong_spec(
            &map,
            &json!([{"type": "A", "x": "1"}, {"type": "A", "x": "2"}])
        ),
        ["spec[1]: Duplicate"]
    );
}

#[test]
fn a_rule_or_pattern_that_does_not_compile_is_refused() {
    for (schema, field) in [
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self =="}]}),
            "",
        ),
        (json!({"type": "string", "pattern": "("}), ""),
    ] {
        let schema = json!({"type": "object", "properties": {"spec": schema}});
        let causes = kind_of(&schema).expect_err("it does not compile");
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(
            fields,
            [format!("spec.versions[0].schema.openAPIV3Schema{field}")],
            "{schema}"
        );
    }
}

#[test]
fn a_version_that_is_not_served_is_no_kind() {
    let mut definition: Value = serde_saphyr::from_str(DEFINITION).expect("it is YAML");
    definition["spec"]["versions"][0]["served"] = json!(false);
    assert!(kinds_of(&definition, Release::V1_36).is_ok_and(|kinds| kinds.is_empty()));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "object|array|string|map|set|[a-c(]".prop_map(Value::from),
    ];
    let key = "a|b|type|properties|items|additionalProperties|required|enum|default|nullable|pattern|not|anyOf|\
               x-kubernetes-list-type|x-kubernetes-list-map-keys|x-kubernetes-validations|rule|maxItems|\
               x-kubernetes-preserve-unknown-fields|spec|metadata|versions|schema|openAPIV3Schema|names";
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_schema_and_no_object_is_a_reason_to_panic(mut schema in any_json(), object in any_json()) {
        let _ = kinds_of(&schema, Release::V1_36);
        if schema.is_object() {
            schema["type"] = json!("object");
        }
        if let Ok(kind) = kind_of(&schema) {
            let structural = Structural::of(&kind);
            let mut object = object;
            structural.prune(&mut object);
            prop_assert!(structural.prune(&mut object).is_empty(), "what is pruned is pruned");
            structural.default(&mut object);
            let once = object.clone();
            structural.default(&mut object);
            prop_assert_eq!(&object, &once);
            let _ = structural.validate(&object, Some(&once));
        }
    }
}
