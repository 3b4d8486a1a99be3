#![expect(clippy::needless_pass_by_value, reason = "reads better at every call")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::release::Release;

fn cluster() -> Arc<Cluster> {
    Cluster::for_tests(Release::default())
}

fn apply(cluster: &Cluster, yaml: &str) {
    for object in serde_saphyr::from_multiple::<Value>(yaml).unwrap() {
        cluster.put(object);
    }
}

/// `get namespace/resource/subresource.group name`, the rest empty.
fn ask(verb: &str, namespace: &str, resource: &str, name: &str) -> Attributes {
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    Attributes::about(verb, group, namespace, resource, name)
}

fn path(path: &str) -> Attributes {
    Attributes {
        verb: "get".to_owned(),
        path: path.to_owned(),
        ..Attributes::default()
    }
}

fn may(cluster: &Cluster, who: &Identity, what: &Attributes) -> bool {
    decide(cluster, who, what).is_some()
}

fn alice() -> Identity {
    Identity::user("alice@example.com", vec!["people".to_owned()])
}

/// Binds a built-in ClusterRole in a namespace to somebody.
fn bind(cluster: &Cluster, namespace: &str, role: &str, subject: Value) {
    cluster.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": format!("{role}-{}", subject["name"].as_str().unwrap()), "namespace": namespace},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }));
}

fn role(namespace: &str, name: &str, rules: Value) -> Value {
    let kind = if namespace.is_empty() {
        "ClusterRole"
    } else {
        "Role"
    };
    let mut role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules,
    });
    if !namespace.is_empty() {
        role["metadata"]["namespace"] = namespace.into();
    }
    role
}

#[test]
fn a_rule_allows_what_it_names_and_nothing_else() {
    let rule = |rule: Value| -> PolicyRule { serde_json::from_value(rule).unwrap() };
    let exec =
        rule(json!({"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods/exec"]}));
    assert!(allows(&exec, &ask("get", "a", "pods/exec", "p")));
    for (verb, resource) in [
        ("delete", "pods/exec"),
        ("get", "pods"),
        ("get", "pods/attach"),
        ("get", "pods.x/exec"),
    ] {
        assert!(
            !allows(&exec, &ask(verb, "a", resource, "p")),
            "{verb} {resource}"
        );
    }
    let any = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/exec"]}));
    assert!(allows(&any, &ask("get", "a", "pods/exec", "p")));
    assert!(!allows(&any, &ask("get", "a", "pods/notexec", "p")));
    assert!(!allows(&any, &ask("get", "a", "exec", "p")));
    let named = rule(
        json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]}),
    );
    assert!(allows(&named, &ask("get", "a", "pods", "p")));
    assert!(!allows(&named, &ask("get", "a", "pods", "q")));
    assert!(!allows(&named, &ask("get", "a", "pods", "")));
    let urls = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
    assert!(allows(&urls, &path("/healthz")) && allows(&urls, &path("/api/v1")));
    assert!(!allows(&urls, &path("/healthz/x")) && !allows(&urls, &path("/apis")));
    assert!(!allows(&urls, &ask("get", "", "pods", "")));
}

#[test]
fn the_masters_may_everything_and_nobody_else_anything_without_a_binding() {
    let cluster = cluster();
    let exec = ask("get", "a", "pods/exec", "p");
    assert!(may(&cluster, &Identity::sandbox("system:apiserver"), &exec));
    assert!(!may(&cluster, &alice(), &exec));
    assert!(may(&cluster, &alice(), &path("/apis/apps/v1")));
    let anonymous = Identity {
        username: super::super::ANONYMOUS.to_owned(),
        groups: vec![super::super::UNAUTHENTICATED.to_owned()],
        ..Identity::default()
    };
    assert!(may(&cluster, &anonymous, &path("/version")));
    assert!(!may(&cluster, &anonymous, &path("/apis")));
}

#[test]
fn a_binding_reaches_its_subjects_in_its_namespace() {
    let cluster = cluster();
    let account = Identity::account("a", "deployer", "");
    bind(
        &cluster,
        "a",
        "view",
        json!({"kind": "ServiceAccount", "name": "deployer"}),
    );
    bind(
        &cluster,
        "b",
        "view",
        json!({"kind": "Group", "name": "people"}),
    );
    bind(
        &cluster,
        "c",
        "view",
        json!({"kind": "User", "name": "alice@example.com"}),
    );
    let pods = |namespace| ask("list", namespace, "pods", "");
    assert!(may(&cluster, &account, &pods("a")));
    assert!(!may(&cluster, &account, &pods("b")));
    assert!(!may(&cluster, &account, &pods("")));
    assert!(!may(
        &cluster,
        &Identity::account("b", "deployer", ""),
        &pods("a")
    ));
    assert!(may(&cluster, &alice(), &pods("b")) && may(&cluster, &alice(), &pods("c")));
    assert!(!may(&cluster, &alice(), &pods("a")));
    assert_eq!(
        decide(&cluster, &account, &pods("a")).unwrap(),
        r#"RBAC: allowed by RoleBinding "view-deployer/a" of ClusterRole "view""#
    );
    assert_eq!(
        decide(&cluster, &alice(), &path("/api")).unwrap(),
        r#"RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery""#
    );
}

#[test]
fn the_built_in_roles_grant_what_matters_to_security() {
    let cluster = cluster();
    for (name, role) in [("v", "view"), ("e", "edit"), ("a", "admin")] {
        bind(&cluster, "n", role, json!({"kind": "User", "name": name}));
    }
    for (verb, resource, by) in [
        ("get", "pods", "vea"),
        ("get", "pods/log", "vea"),
        ("get", "secrets", "ea"),
        ("create", "pods/exec", "ea"),
        ("get", "pods/exec", "ea"),
        ("get", "pods/attach", "ea"),
        ("impersonate", "serviceaccounts", "ea"),
        ("create", "serviceaccounts/token", "ea"),
        ("create", "rolebindings.rbac.authorization.k8s.io", "a"),
        ("update", "pods/ephemeralcontainers", ""),
        ("bind", "clusterroles.rbac.authorization.k8s.io", ""),
    ] {
        for name in ["v", "e", "a"] {
            let who = Identity::user(name, Vec::new());
            assert_eq!(
                may(&cluster, &who, &ask(verb, "n", resource, "x")),
                by.contains(name),
                "{name}: {verb} {resource}"
            );
        }
    }
}

#[test]
fn a_refusal_has_the_words_of_the_api_server() {
    let cluster = cluster();
    for (what, message) in [
        (
            ask("get", "z", "pods", "x"),
            r#"pods "x" is forbidden: User "alice@example.com" cannot get resource "pods" in API group "" in the namespace "z""#,
        ),
        (
            ask("create", "z", "pods/exec", "x"),
            r#"pods "x" is forbidden: User "alice@example.com" cannot create resource "pods/exec" in API group "" in the namespace "z""#,
        ),
        (
            ask("list", "", "roles.rbac.authorization.k8s.io", ""),
            r#"roles.rbac.authorization.k8s.io is forbidden: User "alice@example.com" cannot list resource "roles" in API group "rbac.authorization.k8s.io" at the cluster scope"#,
        ),
        (
            path("/metrics"),
            r#"forbidden: User "alice@example.com" cannot get path "/metrics""#,
        ),
    ] {
        let failure = require(&cluster, &alice(), &what).unwrap_err();
        assert_eq!(failure.message, message);
        assert_eq!((failure.code, &*failure.reason), (403, "Forbidden"));
    }
}

#[test]
fn a_binding_to_a_role_that_is_not_there_grants_nothing() {
    let cluster = cluster();
    let alice = json!({"kind": "User", "name": "alice@example.com"});
    bind(&cluster, "z", "gone", alice);
    assert!(!may(
        &cluster,
        &self::alice(),
        &ask("get", "z", "pods", "x")
    ));
}

#[test]
fn nobody_writes_a_role_with_rights_he_does_not_hold() {
    let cluster = cluster();
    bind(
        &cluster,
        "z",
        "view",
        json!({"kind": "User", "name": "alice@example.com"}),
    );
    let check = |rules| check_escalation(&cluster, &alice(), &role("z", "r", rules));
    let held = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]}]);
    assert_eq!(check(held), Ok(()));
    let failure = check(json!([
        {"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods", "pods/exec"]},
        {"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]},
    ]))
    .unwrap_err();
    assert!(
        failure.message.ends_with(r#"get pods/exec """#),
        "{failure}"
    );
    assert_eq!(failure.code, 403);
    let masters = Identity::sandbox("system:apiserver");
    let all = role(
        "",
        "all",
        json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]),
    );
    assert_eq!(check_escalation(&cluster, &masters, &all), Ok(()));
    // In another namespace Alice holds nothing.
    let there = role(
        "y",
        "r",
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]),
    );
    assert!(check_escalation(&cluster, &alice(), &there).is_err());
}

#[test]
fn who_may_escalate_or_bind_need_not_hold_it() {
    let cluster = cluster();
    let secrets = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
    let wanted = role("z", "wanted", secrets);
    cluster.put(wanted.clone());
    let mut binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "b", "namespace": "z"},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "wanted"},
        "subjects": [{"kind": "User", "name": "alice@example.com"}],
    });
    let check = |object: &Value| check_escalation(&cluster, &alice(), object);
    let refused = check(&binding).unwrap_err();
    assert!(refused.message.starts_with(
        "rolebindings.rbac.authorization.k8s.io \"b\" is forbidden: user \"alice@example.com\" is attempting"
    ));
    assert!(check(&wanted).is_err());
    cluster.put(role(
        "z",
        "may",
        json!([
            {"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["roles"], "resourceNames": ["wanted"]},
            {"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["roles"]},
        ]),
    ));
    cluster.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "may", "namespace": "z"},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "may"},
        "subjects": [{"kind": "Group", "name": "people"}],
    }));
    assert_eq!(check(&binding), Ok(()));
    assert_eq!(check(&wanted), Ok(()));
    binding["roleRef"]["name"] = "gone".into();
    let failure = check(&binding).unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (404, r#"roles.rbac.authorization.k8s.io "gone" not found"#)
    );
}

/// The rules Drawbridge is deployed with.
fn deployed() -> Arc<Cluster> {
    let cluster = cluster();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for file in ["operator-rbac.yaml", "gateway-rbac.yaml"] {
        apply(&cluster, &fs::read_to_string(deploy.join(file)).unwrap());
    }
    cluster
}

#[test]
fn the_gateway_acts_as_accounts_of_sessions_and_cannot_enter_pods_itself() {
    let cluster = deployed();
    let gateway = Identity::account("drawbridge-system", "drawbridge-gateway", "");
    let ask =
        |verb, namespace, resource| may(&cluster, &gateway, &ask(verb, namespace, resource, "x"));
    assert!(ask("impersonate", "drawbridge-sessions", "serviceaccounts"));
    assert!(ask("create", "", "tokenreviews.authentication.k8s.io"));
    assert!(ask("watch", "", "consolesessions.drawbridge.dev"));
    for (verb, namespace, resource) in [
        ("impersonate", "default", "serviceaccounts"),
        ("impersonate", "", "users"),
        ("impersonate", "", "groups"),
        ("get", "default", "pods/exec"),
        ("create", "drawbridge-sessions", "serviceaccounts/token"),
        ("get", "drawbridge-sessions", "secrets"),
        ("get", "", "nodes/proxy"),
        ("patch", "default", "consolesessions.drawbridge.dev/status"),
    ] {
        assert!(
            !ask(verb, namespace, resource),
            "{verb} {resource} in {namespace:?}"
        );
    }
}

#[test]
fn the_operator_can_give_away_entering_a_pod_and_nothing_it_does_not_hold() {
    let cluster = deployed();
    let operator = Identity::account("drawbridge-system", "drawbridge-operator", "");
    let give = |verbs: Value, resource: &str| {
        let rules = json!([{"verbs": verbs, "apiGroups": [""], "resources": [resource], "resourceNames": ["p"]}]);
        check_escalation(&cluster, &operator, &role("default", "r", rules)).is_ok()
    };
    assert!(give(json!(["get", "create"]), "pods/exec"));
    assert!(give(json!(["get", "create"]), "pods/attach"));
    assert!(!give(json!(["create"]), "pods/portforward"));
    assert!(!give(json!(["update"]), "pods/ephemeralcontainers"));
    assert!(!give(json!(["*"]), "pods/exec"));
    assert!(!give(json!(["update"]), "secrets"));
    for (verb, namespace, resource) in [
        ("impersonate", "drawbridge-sessions", "serviceaccounts"),
        ("create", "default", "serviceaccounts/token"),
        ("escalate", "default", "roles.rbac.authorization.k8s.io"),
        ("bind", "default", "roles.rbac.authorization.k8s.io"),
    ] {
        let what = ask(verb, namespace, resource, "x");
        assert!(!may(&cluster, &operator, &what), "{verb} {resource}");
    }
}

fn list(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(proptest::sample::select(of).prop_map(str::to_owned), 0..3)
}

prop_compose! {
    fn some_rule()(
        verbs in list(&["get", "create", "*"]),
        api_groups in list(&["", "x", "*"]),
        resources in list(&["pods", "pods/exec", "*/exec", "*"]),
        resource_names in list(&["a", "b"]),
        non_resource_urls in list(&["/a", "/a/*", "*"]),
    ) -> PolicyRule {
        PolicyRule {
            verbs,
            api_groups: Some(api_groups),
            resources: Some(resources),
            resource_names: Some(resource_names),
            non_resource_urls: Some(non_resource_urls),
        }
    }
}

proptest! {
    #[test]
    fn what_a_covered_rule_allows_its_cover_allows(held in some_rule(), granted in some_rule()) {
        if atoms(&granted).iter().all(|atom| allows(&held, atom)) {
            for verb in ["get", "create", "delete"] {
                for resource in ["pods", "pods/exec", "nodes", "things.x/exec"] {
                    for name in ["a", "b", ""] {
                        let what = ask(verb, "n", resource, name);
                        prop_assert!(!allows(&granted, &what) || allows(&held, &what), "{what:?}");
                    }
                }
                for url in ["/a", "/a/b", "/b"] {
                    let what = Attributes { verb: verb.to_owned(), ..path(url) };
                    prop_assert!(!allows(&granted, &what) || allows(&held, &what), "{what:?}");
                }
            }
        }
    }
}
