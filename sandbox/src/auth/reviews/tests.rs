#![expect(clippy::needless_pass_by_value, reason = "reads better at every call")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::release::Release;

fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::for_tests(Release::default());
    cluster.put(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "n", "name": "shell"},
    }));
    cluster.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"namespace": "n", "name": "alice"},
        "roleRef": {"apiGroup": rbac::GROUP, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "alice@example.com"}],
    }));
    cluster
}

fn ask(cluster: &Cluster, kind: &str, spec: Value) -> Result<Value, Failure> {
    let alice = Identity::user("alice@example.com", Vec::new());
    let group = if kind.starts_with("Token") || kind == "SelfSubjectReview" {
        "authentication.k8s.io"
    } else {
        "authorization.k8s.io"
    };
    // As the path says it; what is sent need not.
    let kind = cluster.kinds.of(&format!("{group}/v1"), kind).unwrap();
    review(cluster, &alice, &kind, json!({"spec": spec})).map(|object| object["status"].clone())
}

#[test]
fn a_token_review_says_whose_a_token_is_and_for_whom() {
    let cluster = cluster();
    let request = json!({"spec": {"audiences": ["gateway", "x"]}});
    let token = tokens::request(&cluster, "n", "shell", request).unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    let spec = json!({"token": token, "audiences": ["gateway", "y"]});
    let status = ask(&cluster, "TokenReview", spec).unwrap();
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["gateway"]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:n:shell");
    assert!(status["user"]["uid"].is_string());

    let status = ask(&cluster, "TokenReview", json!({"token": token})).unwrap();
    assert_eq!(status["authenticated"], Value::Null);
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("other audiences"));
    assert_eq!(
        ask(&cluster, "TokenReview", json!({})).unwrap_err().code,
        400
    );
}

#[test]
fn access_reviews_ask_for_oneself_or_for_others() {
    let cluster = cluster();
    let pods = json!({"namespace": "n", "verb": "get", "resource": "pods", "name": "p"});
    let exec = json!({"namespace": "n", "verb": "get", "resource": "pods", "subresource": "exec"});
    for (asked, allowed) in [(&pods, true), (&exec, false)] {
        let own = json!({"resourceAttributes": asked});
        let status = ask(&cluster, "SelfSubjectAccessReview", own.clone()).unwrap();
        assert_eq!(status["allowed"], allowed);
        let mut other = own;
        other["user"] = "alice@example.com".into();
        let status = ask(&cluster, "SubjectAccessReview", other.clone()).unwrap();
        assert_eq!(status["allowed"], allowed);
        other["user"] = "somebody".into();
        let status = ask(&cluster, "SubjectAccessReview", other).unwrap();
        assert_eq!(status, json!({"allowed": false}));
    }
    let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/version"}});
    let status = ask(&cluster, "SelfSubjectAccessReview", path).unwrap();
    assert_eq!(status["allowed"], true);
    // Who is asked about is in no group that is not named.
    let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/apis"}, "user": "x"});
    let status = ask(&cluster, "SubjectAccessReview", path).unwrap();
    assert_eq!(status["allowed"], false);
}

#[test]
fn a_review_of_nobody_is_refused() {
    let cluster = cluster();
    let pods = json!({"namespace": "other", "verb": "get", "resource": "pods"});
    let spec = json!({"resourceAttributes": pods});
    let failure = ask(&cluster, "SubjectAccessReview", spec).unwrap_err();
    assert_eq!(failure.code, 422, "{failure}");
    let status = ask(&cluster, "SubjectAccessReview", json!({"user": "x"})).unwrap();
    assert_eq!(status, json!({"allowed": false}), "of nothing");
}

#[test]
fn somebody_can_ask_who_he_is() {
    let cluster = cluster();
    let status = ask(&cluster, "SelfSubjectReview", Value::Null).unwrap();
    assert_eq!(
        status,
        json!({"userInfo": {"username": "alice@example.com", "groups": ["system:authenticated"]}})
    );
}
