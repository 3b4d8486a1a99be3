//! What fake server and load agree on without a word: which sessions exist, and their tokens.

use anyhow::Context;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
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

/// The token of somebody who may look at recordings.
pub(crate) const AUDITOR: &str = "auditor";

/// Name of the session with this number.
pub(crate) fn name(session: usize) -> String {
    format!("bench-{session}")
}

/// The answer to a `SubjectAccessReview`: only [`AUDITOR`] is ever asked about, and may.
///
/// # Errors
/// The body is none.
pub(crate) fn access(body: &[u8]) -> anyhow::Result<Value> {
    let mut review: Value =
        serde_json::from_slice(body).context("a SubjectAccessReview that is no JSON")?;
    let allowed = review["spec"]["resourceAttributes"]["subresource"] == "recordings";
    review["status"] = json!({ "allowed": allowed });
    Ok(review)
}

/// The answer to a TokenReview.
///
/// # Errors
/// The body is no TokenReview. A token that is neither [`token`]'s nor [`AUDITOR`] is answered, as unauthenticated.
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
    if token == AUDITOR && wanted.is_empty() {
        let groups = ["system:authenticated"];
        let user = json!({ "username": "alice@example.com", "groups": groups });
        review["status"] = json!({ "authenticated": true, "user": user });
        return Ok(review);
    }
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

/// What the sessions grant, beside the shell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Connections each session admits at a time.
    pub(crate) connections: usize,
    /// Whether they must be recorded.
    pub(crate) recorded: bool,
}

/// The Secret with the key that recordings are signed with, a new one, and the ConfigMap with its public half.
pub(crate) fn signing() -> anyhow::Result<[Value; 2]> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": names::SIGNING_SECRET, "namespace": names::SYSTEM_NAMESPACE, "resourceVersion": "1" },
        "data": { names::SIGNING_KEY: BASE64_STANDARD.encode(key.serialize_pem()) },
    });
    let keys = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": names::SIGNING_KEYS, "namespace": names::SYSTEM_NAMESPACE, "resourceVersion": "1" },
        "data": { "bench.pem": key.public_key_pem() },
    });
    Ok([secret, keys])
}

/// Where that Secret is, and that ConfigMap.
pub(crate) fn signing_paths() -> [String; 2] {
    [
        ("secrets", names::SIGNING_SECRET),
        ("configmaps", names::SIGNING_KEYS),
    ]
    .map(|(kind, name)| {
        format!(
            "/api/v1/namespaces/{}/{kind}/{name}",
            names::SYSTEM_NAMESPACE
        )
    })
}

/// Number of the session that a path below `consolesessions` names, alone or with its status.
pub(crate) fn named(path: &str) -> Option<usize> {
    let name = path.strip_prefix(&format!(
        "/apis/drawbridge.dev/v1alpha1/namespaces/{NAMESPACE}/consolesessions/"
    ))?;
    let name = name.strip_suffix("/status").unwrap_or(name);
    name.strip_prefix("bench-")?.parse().ok()
}

/// Every session, as a list in JSON. Each is Ready.
pub(crate) fn sessions(count: usize, terms: Terms) -> anyhow::Result<Value> {
    let items = (0..count)
        .map(|number| session(number, terms))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(json!({
        "apiVersion": "drawbridge.dev/v1alpha1",
        "kind": "ConsoleSessionList",
        "metadata": { "resourceVersion": "1000" },
        "items": items,
    }))
}

/// Goes through the API types, so that a field renamed there is a failure here and not a session the gateway ignores.
pub(crate) fn session(number: usize, terms: Terms) -> anyhow::Result<ConsoleSession> {
    let now = Timestamp::now();
    let expires = now + LIFETIME;
    let spec: ConsoleSessionSpec = serde_json::from_value(json!({
        "user": "alice@example.com",
        "target": { "pod": { "name": POD }, "container": CONTAINER },
        "duration": "12h",
        "idleTimeout": "12h",
        "maxConnections": terms.connections,
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
        // Beside other proxies, which record nothing, the bridge is measured alone.
        "recording": { "level": if terms.recorded { "Required" } else { "Off" } },
    }))?;
    let mut session = ConsoleSession::new(&name(number), spec);
    session.metadata.namespace = Some(NAMESPACE.to_owned());
    session.metadata.uid = Some(uid(number));
    session.metadata.resource_version = Some("1000".to_owned());
    session.metadata.generation = Some(1);
    session.metadata.creation_timestamp = Some(serde_json::from_value(json!(now))?);
    session.status = Some(status);
    Ok(session)
}

/// Path and query of an exec with these `command` parameters, as `kubectl exec -i` sends it, with `tty` as `-it` does.
pub(crate) fn exec_path(command: &[&str], tty: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(command.iter().map(|arg| ("command", arg)));
    query.extend_pairs([
        ("container", CONTAINER),
        ("stdin", "true"),
        ("stdout", "true"),
    ]);
    if tty {
        query.append_pair("tty", "true");
    }
    format!("{}/exec?{}", pod_path(), query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        connections: 4,
        recorded: false,
    };

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
        let list = sessions(3, TERMS).expect("sessions");
        let items: Vec<ConsoleSession> =
            serde_json::from_value(list["items"].clone()).expect("of the API's type");
        assert_eq!(items.len(), 3);
        for (number, item) in items.iter().enumerate() {
            assert_eq!(item.metadata.uid.as_deref(), Some(&*uid(number)));
            assert_eq!(item.spec.max_connections, 4);
        }
    }

    #[test]
    fn a_session_is_found_by_its_path_and_by_that_of_its_status() {
        let base = "/apis/drawbridge.dev/v1alpha1/namespaces/bench/consolesessions";
        assert_eq!(named(&format!("{base}/bench-17")), Some(17));
        assert_eq!(named(&format!("{base}/bench-17/status")), Some(17));
        assert_eq!(named(base), None);
        assert_eq!(named(&format!("{base}/other")), None);
    }
}
