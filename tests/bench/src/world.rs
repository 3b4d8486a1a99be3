//! What fake server and load agree on without a word: which sessions exist, and their tokens.

use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drawbridge_crds::{
    names,
    v1alpha1::{ConsoleSession, ConsoleSessionSpec, ConsoleSessionStatus},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Namespace of every session and of the pod.
pub(crate) const NAMESPACE: &str = "bench";
/// The one pod, and its one container.
pub(crate) const POD: &str = "bench";
pub(crate) const CONTAINER: &str = "app";

/// Sessions that exist, unless told otherwise: with four connections each, more than any load opens.
pub(crate) const SESSIONS: usize = 2000;

/// How long the sessions last: longer than any run.
const LIFETIME: SignedDuration = SignedDuration::from_hours(12);

/// UID of the session with this number.
pub(crate) fn uid(session: usize) -> String {
    format!("{session:08x}-0000-4000-8000-{session:012x}")
}

/// Where the pod is asked for.
pub(crate) fn pod_path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{POD}")
}

/// The pod as far as the gateway asks for it: it compares the UID before every exec.
pub(crate) fn pod() -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": { "name": POD, "namespace": NAMESPACE, "uid": uid(0), "resourceVersion": "1" },
    })
}

/// A token of the session with this number, shaped as the API server's: about 700 bytes in three parts. The signature is filler;
/// whoever asks learns from the TokenReview whether the token is good, never from the token.
pub(crate) fn token(session: usize) -> String {
    let uid = uid(session);
    let account = names::account(&uid);
    let claims = json!({
        "aud": [names::TOKEN_AUDIENCE],
        "exp": 4_102_444_800_u64,
        "iat": 1_760_000_000,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": uid,
        "kubernetes.io": {
            "namespace": names::SESSIONS_NAMESPACE,
            "secret": { "name": account, "uid": uid },
            "serviceaccount": { "name": account, "uid": uid },
        },
        "nbf": 1_760_000_000,
        "sub": names::account_username(names::SESSIONS_NAMESPACE, &uid),
    });
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({ "alg": "RS256", "kid": "bench" }).to_string();
    [
        part(header.as_bytes()),
        part(claims.to_string().as_bytes()),
        part(&[0x5A; 256]),
    ]
    .join(".")
}

/// The answer to a TokenReview.
///
/// # Errors
/// The body is no TokenReview. A token that is not [`token`]'s is answered, as unauthenticated.
pub(crate) fn review(body: &[u8]) -> anyhow::Result<Value> {
    let mut review: Value =
        serde_json::from_slice(body).context("a TokenReview that is no JSON")?;
    let token = review["spec"]["token"]
        .as_str()
        .context("a TokenReview without a token")?;
    let wanted: Vec<&str> = review["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok())
        .and_then(|claims| serde_json::from_slice::<Value>(&claims).ok())
        .filter(|_| wanted.contains(&names::TOKEN_AUDIENCE));
    review["status"] = match claims.as_ref().and_then(|claims| claims["sub"].as_str()) {
        None => json!({ "user": {}, "error": "invalid bearer token" }),
        Some(username) => json!({
            "authenticated": true,
            "user": {
                "username": username,
                "uid": claims.as_ref().map(|claims| &claims["kubernetes.io"]["serviceaccount"]["uid"]),
                "groups": ["system:serviceaccounts", "system:serviceaccounts:drawbridge-sessions", "system:authenticated"],
            },
            "audiences": [names::TOKEN_AUDIENCE],
        }),
    };
    Ok(review)
}

/// Every session, as a list in JSON. Each is Ready and admits `connections` at a time.
pub(crate) fn sessions(count: usize, connections: usize) -> anyhow::Result<Value> {
    let items = (0..count)
        .map(|number| session(number, connections))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(json!({
        "apiVersion": "drawbridge.dev/v1alpha1",
        "kind": "ConsoleSessionList",
        "metadata": { "resourceVersion": "1000" },
        "items": items,
    }))
}

/// Goes through the API types, so that a field renamed there is a failure here and not a session the gateway ignores.
fn session(number: usize, connections: usize) -> anyhow::Result<ConsoleSession> {
    let now = Timestamp::now();
    let expires = now + LIFETIME;
    let spec: ConsoleSessionSpec = serde_json::from_value(json!({
        "user": "alice@example.com",
        "target": { "pod": { "name": POD }, "container": CONTAINER },
        "duration": "12h",
        "idleTimeout": "12h",
        "maxConnections": connections,
    }))?;
    let status: ConsoleSessionStatus = serde_json::from_value(json!({
        "observedGeneration": 1,
        "phase": "Ready",
        "conditions": [
            { "type": "Ready", "status": "True", "reason": "Granted", "message": "Access is open", "lastTransitionTime": now },
        ],
        "target": { "pod": POD, "podUID": uid(0), "container": CONTAINER, "node": "bench" },
        "credential": { "secret": format!("bench-{number}-{number:08x}"), "expiresAt": expires },
        "grantedAt": now,
        "expiresAt": expires,
        // What is measured is the bridge alone, as the other proxies record nothing.
        "recording": { "level": "Off" },
    }))?;
    let mut session = ConsoleSession::new(&format!("bench-{number}"), spec);
    session.metadata.namespace = Some(NAMESPACE.to_owned());
    session.metadata.uid = Some(uid(number));
    session.metadata.resource_version = Some("1000".to_owned());
    session.metadata.generation = Some(1);
    session.metadata.creation_timestamp = Some(serde_json::from_value(json!(now))?);
    session.status = Some(status);
    Ok(session)
}

/// Path and query of an exec with these `command` parameters, as `kubectl exec -i` sends it.
pub(crate) fn exec_path(command: &[&str]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(command.iter().map(|arg| ("command", arg)));
    query.extend_pairs([
        ("container", CONTAINER),
        ("stdin", "true"),
        ("stdout", "true"),
    ]);
    format!("{}/exec?{}", pod_path(), query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_session_and_only_for_the_gateway() {
        let ask = |token: &str, audience: &str| {
            let body = json!({ "spec": { "token": token, "audiences": [audience] } }).to_string();
            review(body.as_bytes()).expect("a review")["status"].clone()
        };
        let good = ask(&token(7), names::TOKEN_AUDIENCE);
        let username = good["user"]["username"].as_str().expect("a name");
        assert_eq!(
            names::session_uid(names::SESSIONS_NAMESPACE, username),
            Some(&*uid(7))
        );
        assert_eq!(good["authenticated"], true);
        for bad in [
            ask(&token(7), "https://kubernetes.default.svc"),
            ask("garbage", names::TOKEN_AUDIENCE),
        ] {
            assert_eq!(bad["authenticated"], Value::Null);
        }
    }

    #[test]
    fn the_sessions_listed_are_ready_and_distinct() {
        let list = sessions(3, 4).expect("sessions");
        let items: Vec<ConsoleSession> =
            serde_json::from_value(list["items"].clone()).expect("of the API's type");
        assert_eq!(items.len(), 3);
        for (number, item) in items.iter().enumerate() {
            assert_eq!(item.metadata.uid.as_deref(), Some(&*uid(number)));
            assert_eq!(item.spec.max_connections, 4);
        }
    }
}
