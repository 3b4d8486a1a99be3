#![expect(clippy::needless_pass_by_value, reason = "reads better at every call")]

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::auth::Identity;
use crate::release::Release;

/// A webhook that answers as it is told and keeps what it was asked.
struct Webhook {
    port: u16,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    /// `answer` makes the response to a request; its `uid` is added unless it has one. `Null` for none, ever.
    async fn start(
        cluster: &Cluster,
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let issued = cluster.pki.server(&["localhost", "hook.n.svc"]).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(
            rustls::crypto::aws_lc_rs::default_provider().into(),
        )
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
        )
        .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        let tls = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, seen, answer) = (tls.clone(), Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(|request: Request<Incoming>| {
                        let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                        async move {
                            assert_eq!(request.uri().path(), "/check");
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&body).unwrap();
                            let response = respond(&review, answer(&review["request"]));
                            seen.lock().unwrap().push(review);
                            if response.is_null() {
                                std::future::pending::<()>().await;
                            }
                            let body = Bytes::from(response.to_string());
                            Ok::<_, Infallible>(Response::new(Full::new(body)))
                        }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, asked }
    }

    fn url(&self) -> Value {
        json!({"url": format!("https://localhost:{}/check", self.port)})
    }

    fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn respond(review: &Value, mut response: Value) -> Value {
    if response.is_null() || response.get("apiVersion").is_some() {
        return response;
    }
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn patch(operations: Value) -> Value {
    let patch = STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"})
}

/// Stores a configuration of one webhook for pods; `more` is added to it.
fn configure(cluster: &Cluster, kind: &str, name: &str, client: Value, more: Value) {
    let mut hook = json!({
        "name": format!("{name}.example.com"),
        "clientConfig": client,
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods", "pods/exec"]}],
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 30,
    });
    hook["clientConfig"]["caBundle"] = STANDARD.encode(&cluster.pki.authority).into();
    for (key, value) in more.as_object().unwrap() {
        hook[key] = value.clone();
    }
    cluster.put(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": name}, "webhooks": [hook],
    }));
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "labels": {"app": "web"}},
    })
}

/// Alice's request for the pod.
fn call(cluster: &Cluster, query: &str) -> Call {
    let kind = cluster.kinds.of("v1", "Pod").unwrap();
    let who = Identity::user("alice@example.com", Vec::new());
    Call::new(who, &kind, "n", "p", query)
}

fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::for_tests(Release::default());
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"team": "shop"}},
    }));
    cluster
}

async fn validated(cluster: &Cluster) -> Result<Vec<String>, Failure> {
    let call = call(cluster, "");
    let admitted = admit(cluster, Stage::Validating, &call, None, pod()).await;
    admitted.map(|(_, warnings)| warnings)
}

#[tokio::test]
async fn a_webhook_is_told_all_about_a_write() {
    let cluster = cluster();
    let hook = Webhook::start(
        &cluster,
        |_| json!({"allowed": true, "warnings": ["careful"]}),
    )
    .await;
    configure(&cluster, "Validating", "a", hook.url(), json!({}));
    let (call, before) = (call(&cluster, "fieldManager=me"), pod());
    let admitted = admit(&cluster, Stage::Validating, &call, Some(&before), pod()).await;
    assert_eq!(admitted.unwrap().1, ["careful"]);
    let mut review = hook.asked.lock().unwrap().remove(0);
    let request = review["request"].as_object_mut().unwrap();
    assert!(request.remove("uid").unwrap().is_string());
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    assert_eq!(
        review["request"],
        json!({
            "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
            "name": "p", "namespace": "n", "operation": "UPDATE",
            "userInfo": {"username": "alice@example.com", "groups": ["system:authenticated"]},
            "subResource": "", "requestSubResource": "", "object": pod(), "oldObject": pod(), "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "UpdateOptions", "fieldManager": "me"},
        })
    );
}

#[tokio::test]
async fn a_denial_has_the_webhooks_words() {
    for (status, code, message) in [
        (
            json!({"code": 403, "message": "no", "reason": "Forbidden"}),
            403,
            r#"admission webhook "a.example.com" denied the request: no"#,
        ),
        (
            json!(null),
            400,
            r#"admission webhook "a.example.com" denied the request without explanation"#,
        ),
        (
            json!({"code": 200, "reason": "x"}),
            400,
            r#"admission webhook "a.example.com" denied the request: x"#,
        ),
    ] {
        let cluster = cluster();
        let answer = move |_: &Value| json!({"allowed": false, "status": status});
        let hook = Webhook::start(&cluster, answer).await;
        // A denial counts whatever the policy for failures.
        let more = json!({"failurePolicy": "Ignore"});
        configure(&cluster, "Validating", "a", hook.url(), more);
        let failure = validated(&cluster).await.unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (code, message));
    }
}

#[tokio::test]
async fn a_webhook_that_fails_fails_the_write_unless_it_may_be_ignored() {
    let unbound = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let cluster = cluster();
    let silent = Webhook::start(&cluster, |_| Value::Null).await;
    let other = Webhook::start(&cluster, |_| json!({"allowed": true, "uid": "other"})).await;
    let old = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"});
    let old = Webhook::start(&cluster, move |_| old.clone()).await;
    let large = "x".repeat(3 << 20);
    let large = Webhook::start(&cluster, move |_| json!({"allowed": true, "x": large})).await;
    for (client, why) in [
        (
            json!({"url": format!("https://localhost:{unbound}/check")}),
            "Connection refused",
        ),
        (
            json!({"url": "https://example.com/check"}),
            "no loopback host",
        ),
        (
            json!({"url": "http://localhost/check"}),
            "unsupported scheme http",
        ),
        (
            json!({"service": {"namespace": "n", "name": "none"}}),
            "by url only",
        ),
        (silent.url(), "did not answer within 1 s"),
        (other.url(), "it answered another request"),
        (old.url(), "is not of admission.k8s.io/v1"),
        (large.url(), "length limit exceeded"),
    ] {
        for (policy, fails) in [("Fail", true), ("Ignore", false)] {
            let seconds = if why.contains("within 1 s") { 1 } else { 30 };
            let more = json!({"failurePolicy": policy, "timeoutSeconds": seconds});
            configure(&cluster, "Validating", "a", client.clone(), more);
            let answer = validated(&cluster).await;
            unconfigure(&cluster, "Validating", "a");
            assert_eq!(answer.is_err(), fails, "{client} {policy}");
            if let Err(failure) = answer {
                let begin = "Internal error occurred: failed calling webhook \"a.example.com\": ";
                assert_eq!(failure.code, 500);
                assert!(failure.message.starts_with(begin), "{failure}");
                assert!(failure.message.contains(why), "{failure}");
            }
        }
    }
}

#[tokio::test]
async fn only_the_authority_of_the_configuration_is_trusted() {
    let cluster = cluster();
    let hook = Webhook::start(
        &Cluster::for_tests(Release::default()),
        |_| json!({"allowed": true}),
    )
    .await;
    configure(&cluster, "Validating", "a", hook.url(), json!({}));
    let failure = validated(&cluster).await.unwrap_err();
    assert!(failure.message.contains("certificate"), "{failure}");
    assert_eq!(hook.calls(), 0);
}

#[tokio::test]
async fn a_webhook_sees_what_it_asked_for() {
    let cluster = cluster();
    let hook = Webhook::start(&cluster, |_| json!({"allowed": true})).await;
    let rule = |change: Value| {
        let mut rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        for (key, value) in change.as_object().unwrap() {
            rule[key] = value.clone();
        }
        json!({"rules": [rule]})
    };
    let labels = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    for (more, wanted) in [
        (rule(json!({})), true),
        (rule(json!({"operations": ["DELETE", "CREATE"]})), true),
        (rule(json!({"operations": ["DELETE"]})), false),
        (rule(json!({"apiGroups": ["apps"]})), false),
        (rule(json!({"apiVersions": ["v2"]})), false),
        (rule(json!({"resources": ["pods/exec"]})), false),
        (rule(json!({"resources": ["pods/*"]})), true),
        (rule(json!({"resources": ["*/*"]})), true),
        (rule(json!({"scope": "Namespaced"})), true),
        (rule(json!({"scope": "Cluster"})), false),
        (json!({"namespaceSelector": labels("team", "shop")}), true),
        (json!({"namespaceSelector": labels("team", "x")}), false),
        (json!({"objectSelector": labels("app", "web")}), true),
        (json!({"objectSelector": labels("app", "x")}), false),
    ] {
        let before = hook.calls();
        configure(&cluster, "Validating", "a", hook.url(), more.clone());
        validated(&cluster).await.unwrap();
        unconfigure(&cluster, "Validating", "a");
        assert_eq!(hook.calls() > before, wanted, "{more}");
    }
}

#[tokio::test]
async fn mutating_webhooks_go_by_name_and_see_what_the_one_before_made() {
    let cluster = cluster();
    let append = |text: &'static str| {
        move |request: &Value| {
            let now = request["object"]["metadata"]["labels"]["app"].as_str();
            let next = format!("{}{text}", now.unwrap());
            patch(json!([{"op": "replace", "path": "/metadata/labels/app", "value": next}]))
        }
    };
    let first = Webhook::start(&cluster, append("1")).await;
    let second = Webhook::start(&cluster, append("2")).await;
    configure(&cluster, "Mutating", "b", second.url(), json!({}));
    configure(&cluster, "Mutating", "a", first.url(), json!({}));
    let call = call(&cluster, "");
    let admitted = admit(&cluster, Stage::Mutating, &call, None, pod()).await;
    let (object, _) = admitted.unwrap();
    assert_eq!(object["metadata"]["labels"]["app"], "web12");
}

#[tokio::test]
async fn a_patch_must_fit_and_nothing_deleted_is_patched() {
    let cluster = cluster();
    let answer = |_: &Value| patch(json!([{"op": "remove", "path": "/none"}]));
    let hook = Webhook::start(&cluster, answer).await;
    configure(&cluster, "Mutating", "a", hook.url(), json!({}));
    let (call, live) = (call(&cluster, ""), pod());
    for (before, object) in [(None, pod()), (Some(&live), Value::Null)] {
        let failure = admit(&cluster, Stage::Mutating, &call, before, object).await;
        assert_eq!(failure.unwrap_err().code, 500, "{before:?}");
    }
}

fn unconfigure(cluster: &Cluster, kind: &str, name: &str) {
    let key = cluster.key(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": name},
    }));
    let live = cluster.store.get(&key).unwrap();
    cluster.store.write(&key, Some(&live), None).unwrap();
}
