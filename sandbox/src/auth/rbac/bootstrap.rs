//! The roles and bindings every cluster begins with.

use std::sync::Arc;

use serde_json::{Value, json};

use super::GROUP;
use super::aggregate::collected;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const ALL: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

const HEALTH: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
const DISCOVERY: [&str; 6] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/openapi",
    "/openapi/*",
];
const ISSUER: [&str; 4] = [
    "/.well-known/openid-configuration",
    "/.well-known/openid-configuration/",
    "/openid/v1/jwks",
    "/openid/v1/jwks/",
];

/// Objects every cluster begins with: ClusterRoles `cluster-admin`, `admin`, `edit`, `view` (with aggregation),
/// `system:basic-user`, `system:discovery`, `system:public-info-viewer` and so on, and their bindings.
#[must_use]
pub fn bootstrap() -> Vec<Value> {
    let mut roles: Vec<Arc<Value>> = plain().into_iter().map(Arc::new).collect();
    // In this order, as each collects the one before.
    for (name, to) in [
        ("view", Some("edit")),
        ("edit", Some("admin")),
        ("admin", None),
    ] {
        let mut role = object("ClusterRole", name);
        if let Some(to) = to {
            role["metadata"]["labels"][label(to)] = "true".into();
        }
        role["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {(label(name)): "true"}}]});
        role["rules"] = json!(collected(&role, &roles));
        roles.push(Arc::new(role));
    }
    let mut all: Vec<Value> = roles.iter().map(|role| (**role).clone()).collect();
    all.extend(
        [
            ("cluster-admin", &["system:masters"][..]),
            ("system:basic-user", &["system:authenticated"]),
            ("system:discovery", &["system:authenticated"]),
            (
                "system:public-info-viewer",
                &["system:authenticated", "system:unauthenticated"],
            ),
            (
                "system:service-account-issuer-discovery",
                &["system:serviceaccounts"],
            ),
        ]
        .into_iter()
        .map(|(name, groups)| {
            let mut binding = object("ClusterRoleBinding", name);
            binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": name});
            binding["subjects"] = groups
                .iter()
                .map(|group| json!({"apiGroup": GROUP, "kind": "Group", "name": group}))
                .collect();
            binding
        }),
    );
    all
}

fn object(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    })
}

fn label(name: &str) -> String {
    format!("{GROUP}/aggregate-to-{name}")
}

fn role(name: &str, rules: Value) -> Value {
    let mut role = object("ClusterRole", name);
    role["rules"] = rules;
    role
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn plain() -> Vec<Value> {
    let reviews = rule(
        &["create"],
        "authorization.k8s.io",
        &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    );
    let myself = rule(
        &["create"],
        "authentication.k8s.io",
        &["selfsubjectreviews"],
    );
    let token = rule(&["create"], "authentication.k8s.io", &["tokenreviews"]);
    let access = rule(
        &["create"],
        "authorization.k8s.io",
        &["subjectaccessreviews"],
    );
    let mut roles = vec![
        role(
            "cluster-admin",
            json!([
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]),
        ),
        role("system:basic-user", json!([reviews, myself])),
        role("system:auth-delegator", json!([token, access])),
        role(
            "system:discovery",
            json!([{"verbs": ["get"], "nonResourceURLs": ([&HEALTH[..], &DISCOVERY].concat())}]),
        ),
        role(
            "system:public-info-viewer",
            json!([{"verbs": ["get"], "nonResourceURLs": HEALTH}]),
        ),
        role(
            "system:service-account-issuer-discovery",
            json!([{"verbs": ["get"], "nonResourceURLs": ISSUER}]),
        ),
    ];
    for (name, rules) in [("view", view()), ("edit", edit()), ("admin", admin())] {
        let mut role = role(&format!("system:aggregate-to-{name}"), json!(rules));
        role["metadata"]["labels"][label(name)] = "true".into();
        roles.push(role);
    }
    roles
}

/// What may be seen: no Secrets, as they would give away other people's rights.
fn view() -> Vec<Value> {
    vec![
        rule(
            READ,
            "",
            &[
                "configmaps",
                "endpoints",
                "persistentvolumeclaims",
                "persistentvolumeclaims/status",
                "pods",
                "replicationcontrollers",
                "replicationcontrollers/scale",
                "serviceaccounts",
                "services",
                "services/status",
            ],
        ),
        rule(
            READ,
            "",
            &[
                "bindings",
                "events",
                "limitranges",
                "namespaces/status",
                "pods/log",
                "pods/status",
                "replicationcontrollers/status",
                "resourcequotas",
                "resourcequotas/status",
            ],
        ),
        // Within a namespace: that namespace.
        rule(READ, "", &["namespaces"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(
            READ,
            "apps",
            &[
                "controllerrevisions",
                "daemonsets",
                "daemonsets/status",
                "deployments",
                "deployments/scale",
                "deployments/status",
                "replicasets",
                "replicasets/scale",
                "replicasets/status",
                "statefulsets",
                "statefulsets/scale",
                "statefulsets/status",
            ],
        ),
        rule(
            READ,
            "batch",
            &["cronjobs", "cronjobs/status", "jobs", "jobs/status"],
        ),
    ]
}

/// What may be changed in a namespace: among it everything that leads to every ServiceAccount of the namespace.
fn edit() -> Vec<Value> {
    vec![
        rule(
            READ,
            "",
            &[
                "pods/attach",
                "pods/exec",
                "pods/portforward",
                "pods/proxy",
                "secrets",
                "services/proxy",
            ],
        ),
        rule(&["impersonate"], "", &["serviceaccounts"]),
        rule(
            WRITE,
            "",
            &[
                "pods",
                "pods/attach",
                "pods/exec",
                "pods/portforward",
                "pods/proxy",
            ],
        ),
        rule(&["create"], "", &["pods/eviction"]),
        rule(
            WRITE,
            "",
            &[
                "configmaps",
                "events",
                "persistentvolumeclaims",
                "replicationcontrollers",
                "replicationcontrollers/scale",
                "secrets",
                "serviceaccounts",
                "services",
                "services/proxy",
            ],
        ),
        rule(&["create"], "", &["serviceaccounts/token"]),
        rule(
            WRITE,
            "apps",
            &[
                "daemonsets",
                "deployments",
                "deployments/rollback",
                "deployments/scale",
                "replicasets",
                "replicasets/scale",
                "statefulsets",
                "statefulsets/scale",
            ],
        ),
        rule(WRITE, "batch", &["cronjobs", "jobs"]),
        rule(ALL, "coordination.k8s.io", &["leases"]),
    ]
}

/// What its owner may do in a namespace: give others rights in it.
fn admin() -> Vec<Value> {
    vec![
        rule(
            &["create"],
            "authorization.k8s.io",
            &["localsubjectaccessreviews"],
        ),
        rule(ALL, GROUP, &["roles", "rolebindings"]),
    ]
}
