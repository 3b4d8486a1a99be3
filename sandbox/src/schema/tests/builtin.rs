//! Built-in kinds.

use super::*;

/// What is wrong; the object with its defaults.
fn checked(
    api_version: &str,
    kind: &str,
    object: &Value,
    before: Option<&Value>,
) -> (Value, Vec<String>) {
    let kinds = Kinds::builtin(Release::default());
    let kind = kinds.of(api_version, kind).expect("it is built in");
    let mut object = object.clone();
    decode(&kind, &mut object).expect("it can be decoded");
    Structural::of(&kind).default(&mut object);
    let causes = Structural::of(&kind).validate(&object, before);
    (object, lines(causes))
}

fn wrong(api_version: &str, kind: &str, object: &Value) -> Vec<String> {
    checked(api_version, kind, object, None).1
}

fn pod(spec: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": "web-0"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json_patch::merge(&mut pod["spec"], spec);
    pod
}

const RBAC: &str = "rbac.authorization.k8s.io/v1";

#[test]
fn every_built_in_kind_can_be_checked_whatever_is_in_it() {
    for kind in Kinds::builtin(Release::default()).all().iter() {
        for mut object in [
            json!({}),
            json!({"metadata": null, "spec": null, "webhooks": null, "subjects": null}),
            json!({"spec": "text", "metadata": [], "data": 1, "roleRef": "x", "webhooks": [1], "subjects": ["x"]}),
            json!({"spec": {"containers": ["x"], "template": 1, "ports": [1], "volumes": [[]], "names": "x"}}),
            json!("text"),
        ] {
            let before = object.clone();
            let _ = decode(kind, &mut object);
            Structural::of(kind).default(&mut object);
            let _ = Structural::of(kind).validate(&object, Some(&before));
        }
    }
}

#[test]
fn a_value_of_another_type_than_its_field_is_a_bad_request() {
    let kinds = Kinds::builtin(Release::default());
    let kind = kinds.of("v1", "Pod").expect("it is built in");
    for (spec, good) in [
        (json!({"priority": 1}), true),
        (json!({"priority": "high"}), false),
        (json!({"containers": {"name": "c"}}), false),
    ] {
        let mut object = pod(&spec);
        let decoded = decode(&kind, &mut object);
        assert_eq!(decoded.is_ok(), good, "{spec}");
        if let Err(failure) = decoded {
            assert_eq!(failure.code, 400);
            let start = "Pod in version \"v1\" cannot be handled as a Pod: spec.";
            assert!(failure.message.starts_with(start), "{failure}");
        }
    }
    let secret = kinds.of("v1", "Secret").expect("it is built in");
    let mut object = json!({"metadata": {"name": "s"}, "data": {"a": "not base64"}});
    assert_eq!(
        decode(&secret, &mut object)
            .expect_err("it is not base64")
            .code,
        400
    );
}

#[test]
fn a_quantity_may_be_a_number() {
    let resources = json!({"limits": {"cpu": 1, "memory": "1Gi"}});
    let object = pod(&json!({"containers": [{"name": "c", "image": "i", "resources": resources}]}));
    let (object, wrong) = checked("v1", "Pod", &object, None);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(
        object["spec"]["containers"][0]["resources"]["limits"],
        json!({"cpu": "1", "memory": "1Gi"})
    );
}

#[test]
fn a_pod_gets_the_defaults_kubernetes_gives_it() {
    let (object, wrong) = checked(
        "v1",
        "Pod",
        &pod(
            &json!({"terminationGracePeriodSeconds": 0, "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]}),
        ),
        None,
    );
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(
        object["spec"],
        json!({
            "containers": [{
                "name": "c", "image": "i", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "dnsPolicy": "ClusterFirst",
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true, "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority", "nodeName": "sandbox", "serviceAccountName": "default",
            "serviceAccount": "default",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}}],
        })
    );
    for (image, policy) in [
        ("i:latest", "Always"),
        ("host:5000/i", "Always"),
        ("host:5000/i:1", "IfNotPresent"),
        ("i@sha256:0", "IfNotPresent"),
    ] {
        let object = pod(&json!({"containers": [{"name": "c", "image": image}]}));
        let (object, _) = checked("v1", "Pod", &object, None);
        assert_eq!(
            object["spec"]["containers"][0]["imagePullPolicy"], policy,
            "{image}"
        );
    }
}

#[test]
fn a_pod_that_cannot_run_is_refused() {
    let c = |extra: &Value| {
        let mut container = json!({"name": "c", "image": "i"});
        json_patch::merge(&mut container, extra);
        json!({"containers": [container]})
    };
    for (spec, expected) in [
        (json!({"containers": null}), "spec.containers: Required"),
        (json!({"containers": []}), "spec.containers: Invalid"),
        (
            c(&json!({"name": null})),
            "spec.containers[0].name: Required",
        ),
        (
            c(&json!({"image": ""})),
            "spec.containers[0].image: Invalid",
        ),
        (
            json!({"initContainers": [{"name": "c", "image": "i"}]}),
            "spec.initContainers: Duplicate",
        ),
        (
            json!({"restartPolicy": "Sometimes"}),
            "spec.restartPolicy: NotSupported",
        ),
        (
            c(&json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            "spec.volumes: NotFound",
        ),
        (
            c(&json!({"ports": [{"containerPort": 70_000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid",
        ),
        (
            json!({"ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "x"}]}),
            "spec.ephemeralContainers: NotFound",
        ),
        (
            json!({"ephemeralContainers": [{"name": "e", "image": "i", "ports": [{"containerPort": 1}]}]}),
            "spec.ephemeralContainers: Forbidden",
        ),
    ] {
        assert_eq!(wrong("v1", "Pod", &pod(&spec)), [expected], "{spec}");
    }
}

#[test]
fn names_are_what_their_kind_allows() {
    for (api_version, kind, name, good) in [
        ("v1", "Pod", "web.0", true),
        ("v1", "Pod", "Web", false),
        ("v1", "Namespace", "web.0", false),
        ("v1", "Namespace", "0-web", true),
        ("v1", "Service", "0-web", false),
        ("v1", "ConfigMap", "-web", false),
        (RBAC, "ClusterRole", "system:Web_0", true),
        (RBAC, "ClusterRole", "a/b", false),
    ] {
        let object = json!({"metadata": {"name": name}, "spec": {}});
        let told = wrong(api_version, kind, &object);
        let about_name = told
            .iter()
            .any(|line| line.starts_with("metadata.name: Invalid"));
        assert_eq!(about_name, !good, "{kind} {name}: {told:?}");
    }
}

#[test]
fn labels_annotations_owners_and_finalizers_have_their_forms() {
    for (metadata, field) in [
        (
            json!({"labels": {"app.kubernetes.io/name": "Web_0.1", "x": ""}}),
            "",
        ),
        (json!({"labels": {"a b": "c"}}), "metadata.labels"),
        (json!({"labels": {"/b": "c"}}), "metadata.labels"),
        (json!({"labels": {"a": "-"}}), "metadata.labels.a"),
        (
            json!({"labels": {"a": "x".repeat(64)}}),
            "metadata.labels.a",
        ),
        (json!({"annotations": {"A/b": "anything at all"}}), ""),
        (json!({"annotations": {"a b": "c"}}), "metadata.annotations"),
        (json!({"finalizers": ["drawbridge.dev/x"]}), ""),
        (json!({"finalizers": ["a b"]}), "metadata.finalizers[0]"),
        (
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": ""}]}),
            "metadata.ownerReferences[0].uid",
        ),
    ] {
        let mut object = json!({"metadata": {"name": "x"}});
        json_patch::merge(&mut object["metadata"], &metadata);
        let told = wrong("v1", "ConfigMap", &object);
        let fields: Vec<&str> = told
            .iter()
            .filter_map(|line| line.split(": ").next())
            .collect();
        let expected: &[&str] = if field.is_empty() { &[] } else { &[field] };
        assert_eq!(fields, expected, "{metadata:.80}");
    }
}

#[test]
fn rules_of_roles_say_what_they_allow() {
    let rule = |rule: Value| json!({"metadata": {"name": "r"}, "rules": [rule]});
    let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
    assert!(wrong(RBAC, "Role", &rule(pods)).is_empty());
    let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/version"]});
    assert!(wrong(RBAC, "ClusterRole", &rule(urls.clone())).is_empty());
    for (kind, bad, expected) in [
        (
            "Role",
            json!({"apiGroups": [""], "resources": ["pods"]}),
            "rules[0].verbs: Required",
        ),
        (
            "Role",
            json!({"verbs": ["get"], "resources": ["pods"]}),
            "rules[0].apiGroups: Required",
        ),
        (
            "Role",
            json!({"verbs": ["get"], "apiGroups": [""]}),
            "rules[0].resources: Required",
        ),
        ("Role", urls, "rules: Invalid"),
    ] {
        assert_eq!(wrong(RBAC, kind, &rule(bad)), [expected]);
    }
}

#[test]
fn a_binding_names_a_role_for_good() {
    let binding = |role: &Value, subject: &Value| json!({"metadata": {"name": "b"}, "roleRef": role, "subjects": [subject]});
    let role = json!({"kind": "Role", "name": "r"});
    let user = json!({"kind": "User", "name": "alice@example.com"});
    let (good, told) = checked(RBAC, "RoleBinding", &binding(&role, &user), None);
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(good["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(good["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");

    let account = json!({"kind": "ServiceAccount", "name": "a"});
    assert_eq!(
        wrong(RBAC, "RoleBinding", &binding(&role, &account)),
        ["subjects[0].namespace: Required"]
    );
    assert_eq!(
        wrong(RBAC, "ClusterRoleBinding", &binding(&role, &user)),
        ["roleRef.kind: NotSupported"]
    );
    let other = binding(&json!({"kind": "Role", "name": "other"}), &user);
    let (_, told) = checked(RBAC, "RoleBinding", &other, Some(&good));
    assert_eq!(told.len(), 1);
    assert_eq!(told, ["roleRef: Invalid"]);
    assert!(
        checked(RBAC, "RoleBinding", &good, Some(&good))
            .1
            .is_empty()
    );
}

#[test]
fn secrets_keep_their_type_and_what_is_immutable() {
    let (good, told) = checked(
        "v1",
        "Secret",
        &json!({"metadata": {"name": "s"}, "data": {"a": "YQ=="}}),
        None,
    );
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(good["type"], "Opaque");
    for (change, expected) in [
        (json!({"data": {"a": "Yg=="}}), vec![]),
        (json!({"type": "x"}), vec!["type: Invalid"]),
    ] {
        let mut object = good.clone();
        json_patch::merge(&mut object, &change);
        assert_eq!(checked("v1", "Secret", &object, Some(&good)).1, expected);
    }
    let mut frozen = good;
    frozen["immutable"] = json!(true);
    for (change, expected) in [
        (json!({"metadata": {"labels": {"a": "b"}}}), vec![]),
        (json!({"data": {"a": "Yg=="}}), vec!["data: Forbidden"]),
        (json!({"immutable": null}), vec!["data: Forbidden"]),
    ] {
        let mut object = frozen.clone();
        json_patch::merge(&mut object, &change);
        assert_eq!(
            checked("v1", "Secret", &object, Some(&frozen)).1,
            expected,
            "{change}"
        );
    }
}

#[test]
fn data_has_good_keys() {
    let told = wrong(
        "v1",
        "ConfigMap",
        &json!({"metadata": {"name": "s"}, "data": {"a b": "", ".": "", "ok_1": ""}}),
    );
    assert_eq!(told, ["data: Invalid"]);
    assert_eq!(
        wrong(
            "v1",
            "Secret",
            &json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}})
        ),
        ["data: Required"]
    );
}

#[test]
fn workloads_select_their_own_pods() {
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let (object, told) = checked("apps/v1", "Deployment", &deployment, None);
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(object["spec"]["replicas"], 1);
    assert_eq!(
        object["spec"]["template"]["spec"]["restartPolicy"],
        "Always"
    );
    let mut other = deployment.clone();
    other["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    let told = wrong("apps/v1", "Deployment", &other);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("spec.template.metadata.labels: Invalid"),
        "{told:?}"
    );
    other["spec"]["selector"] = Value::Null;
    assert_eq!(
        wrong("apps/v1", "Deployment", &other),
        ["spec.selector: Required"]
    );
}

#[test]
fn webhooks_get_their_defaults() {
    let webhook = json!({
        "name": "sessions.drawbridge.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "n", "name": "s"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}],
    });
    let configuration = json!({"metadata": {"name": "w"}, "webhooks": [webhook, {"name": "x", "clientConfig": {}}]});
    let (object, told) = checked(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        &configuration,
        None,
    );
    assert_eq!(
        told,
        [
            "webhooks[1].admissionReviewVersions: Required",
            "webhooks[1].sideEffects: Required",
        ]
    );
    let webhook = &object["webhooks"][0];
    assert_eq!(webhook["failurePolicy"], "Fail");
    assert_eq!(webhook["timeoutSeconds"], 10);
    assert_eq!(webhook["reinvocationPolicy"], "Never");
    assert_eq!(webhook["rules"][0]["scope"], "*");
    assert_eq!(webhook["clientConfig"]["service"]["port"], 443);
}

#[test]
fn small_kinds_have_their_rules() {
    for (api_version, kind, object, expected) in [
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            vec!["spec.leaseDurationSeconds", "spec.leaseTransitions"],
        ),
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"spec": {}}),
            vec![],
        ),
        (
            "v1",
            "Event",
            json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
            vec!["involvedObject.namespace"],
        ),
        (
            "v1",
            "Event",
            json!({"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Node"}}),
            vec![],
        ),
        (
            "events.k8s.io/v1",
            "Event",
            json!({"metadata": {"namespace": "a"}, "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": "c",
                "reportingInstance": "c-0", "action": "Grant", "reason": "Granted", "type": "Normal"}),
            vec![],
        ),
        (
            "events.k8s.io/v1",
            "Event",
            json!({"metadata": {"namespace": "a"}, "eventTime": null, "type": "Odd"}),
            vec![
                "action",
                "eventTime",
                "reason",
                "reportingController",
                "reportingInstance",
                "type",
            ],
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 80}, {"port": 81, "name": "b"}]}}),
            vec!["spec.ports"],
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"clusterIP": "None"}}),
            vec![],
        ),
        ("v1", "Service", json!({"spec": {}}), vec!["spec.ports"]),
    ] {
        let mut named = object.clone();
        json_patch::merge(&mut named, &json!({"metadata": {"name": "x"}}));
        let told = wrong(api_version, kind, &named);
        let fields: Vec<&str> = told
            .iter()
            .filter_map(|line| line.split(": ").next())
            .collect();
        assert_eq!(fields, expected, "{kind} {object}");
    }
}

#[test]
fn a_definition_gets_its_other_names() {
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "names": {"kind": "Thing", "plural": "things"}, "scope": "Namespaced", "versions": []},
    });
    let (object, _) = checked(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        &definition,
        None,
    );
    assert_eq!(
        object["spec"]["names"],
        json!({"kind": "Thing", "plural": "things", "singular": "thing", "listKind": "ThingList"})
    );
    assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
}

#[test]
fn a_definition_that_is_not_in_order_is_refused() {
    const DEFINITION: &str = include_str!("../../../../crds/yaml/consolesession.yaml");
    let good: Value = serde_saphyr::from_str(DEFINITION).expect("it is YAML");
    let wrong = |definition: &Value| {
        wrong(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            definition,
        )
    };
    assert_eq!(wrong(&good), Vec::<String>::new());
    for (path, value, expected) in [
        ("/metadata/name", json!("other"), "metadata.name: Invalid"),
        ("/spec/scope", json!("Galaxy"), "spec.scope: NotSupported"),
        ("/spec/names/kind", json!(""), "spec.names.kind: Invalid"),
        (
            "/spec/names/singular",
            json!("A B"),
            "spec.names.singular: Invalid",
        ),
        (
            "/spec/names/shortNames",
            json!(["X"]),
            "spec.names.shortNames[0]: Invalid",
        ),
        ("/spec/versions", json!([]), "spec.versions: Invalid"),
        (
            "/spec/versions/0/storage",
            json!(false),
            "spec.versions: Invalid",
        ),
        (
            "/spec/versions/0/schema",
            json!({}),
            "spec.versions[0].schema.openAPIV3Schema: Required",
        ),
        (
            "/spec/versions/0/additionalPrinterColumns/0/type",
            json!("colour"),
            "spec.versions[0].additionalPrinterColumns[0].type: NotSupported",
        ),
    ] {
        let mut definition = good.clone();
        *definition.pointer_mut(path).expect("it is there") = value;
        assert_eq!(wrong(&definition), [expected], "{path}");
    }
    for schema in [
        json!({}),
        json!({"type": "thing"}),
        json!({"type": "array"}),
        json!({"type": "array", "items": {}}),
        json!({"type": "object", "$ref": "#/x"}),
        json!({"type": "object", "additionalProperties": false}),
        json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}),
        json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
    ] {
        let mut definition = good.clone();
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
            schema.clone();
        let told = wrong(&definition);
        assert!(
            told.iter()
                .all(|line| line.starts_with("spec.versions[0].schema.openAPIV3Schema.properties")),
            "{told:?}"
        );
        assert!(!told.is_empty(), "{schema}");
    }
}
