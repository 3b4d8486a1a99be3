#![expect(clippy::needless_pass_by_value, reason = "reads better at every call")]

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;
use crate::release::Release;

fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::for_tests(Release::default());
    object(&cluster, "ServiceAccount", "shell");
    object(&cluster, "Secret", "anchor");
    cluster
}

fn object(cluster: &Cluster, kind: &str, name: &str) -> String {
    let namespace = if kind == "Node" { "" } else { "n" };
    cluster.put(json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"namespace": namespace, "name": name},
        "spec": {"serviceAccountName": "shell", "nodeName": "sandbox"},
    }))
}

fn issue(cluster: &Cluster, spec: Value) -> String {
    let answer = request(cluster, "n", "shell", json!({"spec": spec})).unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn refused(cluster: &Cluster, spec: Value) -> (u16, String) {
    let failure = request(cluster, "n", "shell", json!({"spec": spec})).unwrap_err();
    (failure.code, failure.message)
}

fn bound(kind: &str, name: &str, uid: &str) -> Value {
    json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}})
}

fn why(cluster: &Cluster, token: &str) -> String {
    verify(cluster, token, &[]).unwrap_err()
}

fn later(cluster: &Cluster, seconds: i64) {
    cluster.clock.advance(SignedDuration::from_secs(seconds));
}

#[test]
fn a_token_names_its_account_and_is_for_the_api_server_unless_asked_otherwise() {
    let cluster = cluster();
    let token = issue(&cluster, json!({"audiences": null}));
    let verified = verify(&cluster, &token, &[]).unwrap();
    assert_eq!(verified.0.username, "system:serviceaccount:n:shell");
    assert_eq!(
        verified.0.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:n",
            "system:authenticated"
        ]
    );
    assert_eq!(verified.1, [ISSUER]);
    let credential = &verified.0.extra["authentication.kubernetes.io/credential-id"];
    assert!(credential[0].starts_with("JTI="));

    let token = issue(&cluster, json!({"audiences": ["gateway", "other"]}));
    assert!(why(&cluster, &token).contains("other audiences"));
    let gateway = ["gateway".to_owned()];
    assert_eq!(verify(&cluster, &token, &gateway).unwrap().1, gateway);
}

#[test]
fn a_request_is_answered_with_what_it_left_out() {
    let cluster = cluster();
    let answer = request(&cluster, "n", "shell", json!({"metadata": {}})).unwrap();
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["metadata"]["name"], "shell");
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    let expires: jiff::Timestamp = answer["status"]["expirationTimestamp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let left = expires.duration_since(cluster.clock.now()).as_secs();
    assert!((3595..=3600).contains(&left), "{left}");
}

#[test]
fn a_token_cannot_be_shorter_than_ten_minutes() {
    let cluster = cluster();
    issue(&cluster, json!({"expirationSeconds": 600}));
    assert_eq!(refused(&cluster, json!({"expirationSeconds": 599})).0, 422);
    assert_eq!(
        refused(&cluster, json!({"expirationSeconds": 4_294_967_297_i64})).0,
        422
    );
    assert_eq!(refused(&cluster, json!({"expirationSeconds": "x"})).0, 400);
}

#[test]
fn what_a_token_is_bound_to_must_be_there_as_named() {
    let cluster = cluster();
    assert_eq!(
        refused(&cluster, bound("Secret", "none", "")),
        (404, "secrets \"none\" not found".to_owned())
    );
    assert_eq!(
        refused(&cluster, bound("Secret", "anchor", "another")).0,
        409
    );
    assert_eq!(
        refused(&cluster, bound("ConfigMap", "x", "")),
        (
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap".to_owned()
        )
    );
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "n", "name": "other"},
        "spec": {"serviceAccountName": "default"},
    }));
    assert_eq!(refused(&cluster, bound("Pod", "other", "")).0, 400);
    let failure = request(&cluster, "n", "nobody", json!({})).unwrap_err();
    assert_eq!(failure.message, "serviceaccounts \"nobody\" not found");
}

#[test]
fn a_token_says_which_pod_or_node_it_is_bound_to() {
    let cluster = cluster();
    for (kind, name, field) in [("Pod", "p", "pod"), ("Node", "sandbox", "node")] {
        let uid = object(&cluster, kind, name);
        let token = issue(&cluster, bound(kind, name, &uid));
        let extra = verify(&cluster, &token, &[]).unwrap().0.extra;
        let told = |what| extra[&format!("authentication.kubernetes.io/{field}-{what}")].clone();
        assert_eq!(
            (told("name"), told("uid")),
            (vec![name.to_owned()], vec![uid])
        );
    }
}

#[test]
fn deleting_the_anchor_revokes_a_token() {
    let cluster = cluster();
    let token = issue(&cluster, bound("Secret", "anchor", ""));
    verify(&cluster, &token, &[]).unwrap();
    cluster.remove("Secret", "n", "anchor");
    assert!(why(&cluster, &token).contains("has been invalidated"));
    // One of the same name is another one.
    object(&cluster, "Secret", "anchor");
    assert!(why(&cluster, &token).contains("has been invalidated"));
}

#[test]
fn a_token_ends_with_its_account_and_with_that_account_alone() {
    let cluster = cluster();
    let token = issue(&cluster, json!({}));
    cluster.remove("ServiceAccount", "n", "shell");
    assert!(why(&cluster, &token).contains("has been invalidated"));
    object(&cluster, "ServiceAccount", "shell");
    assert!(why(&cluster, &token).contains("has been invalidated"));
}

#[test]
fn a_token_ends_a_minute_after_its_time() {
    let cluster = cluster();
    let token = issue(&cluster, json!({"expirationSeconds": 600}));
    later(&cluster, 658);
    verify(&cluster, &token, &[]).unwrap();
    later(&cluster, 10);
    assert!(why(&cluster, &token).contains("has expired"));
    later(&cluster, -3600);
    assert!(why(&cluster, &token).contains("is not valid yet"));
}

#[test]
fn what_this_key_did_not_sign_is_refused() {
    let (cluster, other) = (cluster(), cluster());
    let foreign = issue(&other, json!({}));
    assert!(why(&cluster, &foreign).contains("InvalidSignature"));
    let good = issue(&cluster, json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let (_, signature) = foreign.rsplit_once('.').unwrap();
    verify(&cluster, &format!("{signed}.{signature}"), &[]).unwrap_err();
    for junk in ["", "x", "a.b.c", "..", &good[1..]] {
        verify(&cluster, junk, &[]).unwrap_err();
    }
}
