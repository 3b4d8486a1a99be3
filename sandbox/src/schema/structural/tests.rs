//! What a schema takes out of objects, fills into them and says of them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kinds::{Kind, Schema};
use crate::schema::kinds_of;

const DEFINITION: &str = include_str!("../../../../crds/yaml/consolesession.yaml");

fn sessions(release: Release) -> Kind {
    let definition: Value = serde_saphyr::from_str(DEFINITION).expect("it is YAML");
    let mut kinds = kinds_of(&definition, release).expect("it is in order");
    assert_eq!(kinds.len(), 1);
    kinds.remove(0)
}

fn structural(kind: &Kind) -> &Structural {
    match &kind.schema {
        Schema::Custom(structural) => structural,
        Schema::Builtin(_) => unreachable!("it is defined by a CustomResourceDefinition"),
    }
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

/// Each cause as a line.
fn wrong(object: &Value, before: Option<&Value>) -> Vec<String> {
    let kind = sessions(Release::V1_36);
    let mut object = object.clone();
    structural(&kind).default(&mut object);
    lines(structural(&kind).validate(&object, before))
}

fn lines(causes: Vec<Cause>) -> Vec<String> {
    causes
        .into_iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn custom(schema: &Value) -> Structural {
    Structural::compile(
        &json!({"type": "object", "properties": {"spec": schema}}),
        Release::V1_36,
    )
    .expect("it is structural")
}

fn wrong_spec(schema: &Value, spec: &Value) -> Vec<String> {
    lines(custom(schema).validate(&json!({"spec": spec}), None))
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
    structural(&kind).default(&mut object);
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
    let structural = custom(&json!({
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
        structural.default(&mut object);
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
    let unknown = structural(&kind).prune(&mut object);
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
    assert_eq!(structural(&kind).prune(&mut object), Vec::<String>::new());
}

#[test]
fn unknown_fields_stay_where_they_are_allowed() {
    let structural = custom(&json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "strict": {"type": "object", "properties": {"a": {"type": "string"}}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
            "map": {"type": "object", "additionalProperties": {"type": "object"}},
        },
    }));
    let mut object = json!({"spec": {
        "any": [{"thing": 1}], "strict": {"a": "a", "b": "b"},
        "template": {"kind": "Pod", "apiVersion": "v1", "metadata": {"x": 1}, "spec": {}},
        "map": {"k": {"y": 1}},
    }});
    assert_eq!(
        structural.prune(&mut object),
        ["spec.map.k.y", "spec.strict.b", "spec.template.spec"]
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
            &["spec: Invalid value: \"object\": notBefore must be earlier than notAfter"]
        } else {
            &[]
        };
        assert_eq!(wrong(&session(&spec), None), expected, "{spec}");
    }
}

#[test]
fn what_is_wrong_is_told_as_kubernetes_does() {
    const UNCHECKED: &str = "<nil>: Invalid value: \"null\": some validation rules were not checked because the object \
         was invalid; correct the existing errors to complete validation";
    for (spec, expected, blocking) in [
        (json!({"user": null}), "spec.user: Required value", true),
        (
            json!({"target": {"pod": {"name": null}}}),
            "spec.target.pod.name: Required value",
            true,
        ),
        (
            json!({"user": 7}),
            "spec.user: Invalid value: \"integer\": spec.user in body must be of type string: \"integer\"",
            true,
        ),
        (
            json!({"mode": "Look"}),
            "spec.mode: Unsupported value: \"Look\": supported values: \"Exec\", \"Attach\"",
            true,
        ),
        (
            json!({"user": "a".repeat(513)}),
            "spec.user: Too long: may not be more than 512 bytes",
            true,
        ),
        (
            json!({"user": ""}),
            "spec.user: Invalid value: \"\": spec.user in body should be at least 1 chars long",
            false,
        ),
        (
            json!({"command": vec!["x"; 65]}),
            "spec.command: Too many: 65: must have at most 64 items",
            true,
        ),
        (
            json!({"command": ["a", 1]}),
            "spec.command[1]: Invalid value: \"integer\": spec.command[1] in body must be of type string: \"integer\"",
            true,
        ),
        (
            json!({"maxConnections": 65}),
            "spec.maxConnections: Invalid value: 65: spec.maxConnections in body should be less than or equal to 64",
            false,
        ),
        (
            json!({"maxConnections": 0}),
            "spec.maxConnections: Invalid value: 0: spec.maxConnections in body should be greater than or equal to 1",
            false,
        ),
        (
            json!({"notAfter": "tomorrow"}),
            "spec.notAfter: Invalid value: \"tomorrow\": spec.notAfter in body must be of type date-time: \"tomorrow\"",
            true,
        ),
        (
            json!({"target": {"container": "A"}}),
            "spec.target.container: Invalid value: \"A\": spec.target.container in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'",
            false,
        ),
    ] {
        let told = wrong(&session(&spec), None);
        let mut all = vec![expected];
        all.extend(blocking.then_some(UNCHECKED));
        assert_eq!(told, all, "{spec}");
    }
}

#[test]
fn rules_are_told_with_their_message_and_the_type_of_the_value() {
    for (spec, expected) in [
        (
            json!({"duration": "25h"}),
            "spec: Invalid value: \"object\": duration must be between 1m and 24h",
        ),
        (
            json!({"user": "system:anonymous"}),
            "spec: Invalid value: \"object\": user must be somebody: system:anonymous is everybody",
        ),
    ] {
        assert_eq!(wrong(&session(&spec), None), [expected]);
    }
    let mut object = session(&json!({}));
    object["metadata"]["name"] = json!("n".repeat(64));
    assert_eq!(
        wrong(&object, None),
        ["<nil>: Invalid value: \"object\": metadata.name must be no longer than 63 characters"]
    );
}

#[test]
fn transition_rules_compare_with_what_there_was() {
    let mut before = session(&json!({"revoked": true}));
    structural(&sessions(Release::V1_36)).default(&mut before);
    assert_eq!(wrong(&before, Some(&before)), Vec::<String>::new());
    let mut after = before.clone();
    after["spec"]["user"] = json!("bob@example.com");
    after["spec"]["revoked"] = json!(false);
    assert_eq!(
        wrong(&after, Some(&before)),
        [
            "spec: Invalid value: \"object\": spec is immutable but for revoked; make a new session instead",
            "spec: Invalid value: \"object\": revoked cannot be taken back; make a new session instead",
        ]
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
    for (extra, expected) in [
        (
            json!({"message": "too many", "fieldPath": ".a"}),
            "spec.a: Invalid value: \"integer\": too many",
        ),
        (
            json!({"messageExpression": "'have ' + string(self.a)"}),
            "spec: Invalid value: \"object\": have 5",
        ),
        (
            json!({"message": "no", "reason": "FieldValueForbidden"}),
            "spec: Forbidden: no",
        ),
        (
            json!({}),
            "spec: Invalid value: \"object\": failed rule: self.a < 3",
        ),
    ] {
        assert_eq!(
            wrong_spec(&rule(extra.clone()), &json!({"a": 5})),
            [expected]
        );
        assert!(wrong_spec(&rule(extra), &json!({"a": 2})).is_empty());
    }
}

#[test]
fn an_old_release_knows_no_rules() {
    let kind = sessions(Release::V1_20);
    let mut object = session(&json!({"duration": "25h"}));
    structural(&kind).default(&mut object);
    assert!(structural(&kind).validate(&object, None).is_empty());
    assert!(!structural(&kind).schema.to_string().contains(RULES));
    let mut definition: Value = serde_saphyr::from_str(DEFINITION).expect("it is YAML");
    assert!(definition.to_string().contains(RULES));
    forget_rules(&mut definition);
    assert!(!definition.to_string().contains(RULES));
    object["spec"]["user"] = json!("a".repeat(513));
    assert_eq!(
        lines(structural(&kind).validate(&object, None)),
        ["spec.user: Too long: may not be longer than 512"]
    );
}

#[test]
fn special_types_and_formats_are_what_kubernetes_means_by_them() {
    for (schema, good, bad) in [
        (
            json!({"x-kubernetes-int-or-string": true}),
            vec![json!(1), json!("50%")],
            vec![json!(true), json!({})],
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
            json!({"type": "integer", "format": "int32"}),
            vec![json!(2_147_483_647)],
            vec![json!(2_147_483_648_u32)],
        ),
        (
            json!({"type": "string", "format": "byte"}),
            vec![json!("YQ=="), json!("")],
            vec![json!("YQ="), json!("?")],
        ),
        (
            json!({"type": "string", "format": "duration"}),
            vec![json!("1h"), json!("90s")],
            vec![json!("soon")],
        ),
        (
            json!({"type": "string", "format": "no-such-format"}),
            vec![json!("x")],
            vec![],
        ),
        (
            json!({"type": "object", "required": [], "minProperties": 1, "additionalProperties": {"type": "string"}}),
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
        ["spec[2]: Duplicate value: \"a\""]
    );
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {"type": "object", "properties": {"type": {"type": "string"}, "x": {"type": "string"}}}});
    assert_eq!(
        wrong_spec(
            &map,
            &json!([{"type": "A", "x": "1"}, {"type": "A", "x": "2"}])
        ),
        ["spec[1]: Duplicate value: {\"type\":\"A\"}"]
    );
}

#[test]
fn a_rule_may_name_only_fields_the_schema_has() {
    for (rule, undefined) in [
        ("self.a > 1 && has(self.b) && oldSelf.m.any.z == 1", ""),
        (
            "self.l.all(i, i.whatever > 1) && self.free.any.thing && self.e.metadata.name != ''",
            "",
        ),
        ("self.nothing > 1", "nothing"),
        ("has(self.b) && self.b.c == 1", "c"),
        ("[self.a, oldSelf.x].size() == {'k': 1}.size()", "x"),
        ("self.l.all(i, i == self.y)", "y"),
        ("self.metadata.name == ''", "metadata"),
    ] {
        let schema = json!({"type": "object", "properties": {"spec": {
            "type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
                "a": {"type": "integer"},
                "b": {"type": "object", "properties": {"x": {"type": "string"}}},
                "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"z": {"type": "integer"}}}},
                "l": {"type": "array", "items": {"type": "integer"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "e": {"type": "object", "x-kubernetes-embedded-resource": true},
            },
        }}});
        let causes = Structural::compile(&schema, Release::V1_36)
            .err()
            .unwrap_or_default();
        let expected: Vec<String> = (!undefined.is_empty())
            .then(|| format!(".properties[spec].x-kubernetes-validations[0].rule: Invalid value: {rule:?}: compilation failed: undefined field '{undefined}'"))
            .into_iter()
            .collect();
        assert_eq!(lines(causes), expected, "{rule}");
    }
}

#[test]
fn a_schema_that_is_not_structural_is_refused() {
    for (schema, field) in [
        (json!({}), ".properties[spec].type"),
        (json!({"type": "thing"}), ".properties[spec].type"),
        (json!({"type": "array"}), ".properties[spec].items"),
        (
            json!({"type": "array", "items": {}}),
            ".properties[spec].items.type",
        ),
        (
            json!({"type": "object", "$ref": "#/x"}),
            ".properties[spec].$ref",
        ),
        (
            json!({"type": "object", "additionalProperties": false}),
            ".properties[spec].additionalProperties",
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
            ".properties[spec].x-kubernetes-list-map-keys",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self =="}]}),
            ".properties[spec].x-kubernetes-validations[0].rule",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "true", "optionalOldSelf": true}]}),
            ".properties[spec].x-kubernetes-validations[0].rule",
        ),
        (json!({"type": "string", "pattern": "("}), ""),
    ] {
        let schema = json!({"type": "object", "properties": {"spec": schema}});
        let causes =
            Structural::compile(&schema, Release::V1_36).expect_err("it is not structural");
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, [field], "{schema}");
    }
}

#[test]
fn a_definition_that_is_not_in_order_is_refused() {
    let good: Value = serde_saphyr::from_str(DEFINITION).expect("it is YAML");
    for (path, value, field) in [
        ("/metadata/name", json!("other"), "metadata.name"),
        ("/spec/scope", json!("Galaxy"), "spec.scope"),
        ("/spec/names/kind", json!(""), "spec.names.kind"),
        ("/spec/names/singular", json!("A B"), "spec.names.singular"),
        (
            "/spec/names/shortNames",
            json!(["X"]),
            "spec.names.shortNames[0]",
        ),
        ("/spec/versions", json!([]), "spec.versions"),
        ("/spec/versions/0/storage", json!(false), "spec.versions"),
        (
            "/spec/versions/0/schema",
            json!({}),
            "spec.versions[0].schema.openAPIV3Schema",
        ),
        (
            "/spec/versions/0/additionalPrinterColumns/0/type",
            json!("colour"),
            "spec.versions[0].additionalPrinterColumns[0].type",
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/type",
            json!(""),
            "spec.validation.openAPIV3Schema.properties[spec].type",
        ),
    ] {
        let mut definition = good.clone();
        *definition.pointer_mut(path).expect("it is there") = value;
        let causes = kinds_of(&definition, Release::V1_36).expect_err("it is not in order");
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, [field], "{path}");
    }
    let mut unserved = good;
    unserved["spec"]["versions"][0]["served"] = json!(false);
    assert!(kinds_of(&unserved, Release::V1_36).is_ok_and(|kinds| kinds.is_empty()));
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
        if let Ok(structural) = Structural::compile(&schema, Release::V1_36) {
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
