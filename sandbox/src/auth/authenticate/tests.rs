use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http::request::Parts;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::*;
use crate::auth::rbac::GROUP;
use crate::release::Release;

fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::for_tests(Release::default());
    cluster.put(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "n", "name": "shell"},
    }));
    cluster
}

/// Whom a request is for.
fn authenticate(
    cluster: &Cluster,
    certificate: Option<&[u8]>,
    parts: &mut Parts,
) -> Result<Identity, Failure> {
    let sender = credential(cluster, certificate, &mut parts.headers)?;
    let acts_as = impersonated(cluster, &sender, &parts.headers)?;
    Ok(acts_as.unwrap_or(sender))
}

fn token(cluster: &Cluster) -> String {
    let answer = tokens::request(cluster, "n", "shell", json!({})).unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn certificate(cluster: &Cluster, user: &str, groups: &[&str]) -> Vec<u8> {
    let issued = cluster.pki.client(user, groups).unwrap();
    CertificateDer::from_pem_slice(issued.certificate.as_bytes())
        .unwrap()
        .to_vec()
}

fn parts(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get("/api/v1/pods");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// A WebSocket client that offers these subprotocols, one header each.
fn websocket(lines: &[&str]) -> Parts {
    let mut headers = vec![
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
    ];
    headers.extend(lines.iter().map(|line| ("sec-websocket-protocol", *line)));
    parts(&headers)
}

fn offered(parts: &Parts) -> Vec<&str> {
    let lines = parts.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    lines.map(|line| line.to_str().unwrap()).collect()
}

fn bearer(token: &str) -> String {
    format!("{BEARER}{}", URL_SAFE_NO_PAD.encode(token))
}

const SHELL: &str = "system:serviceaccount:n:shell";

#[test]
fn a_certificate_comes_before_a_token_and_a_token_before_nothing() {
    let cluster = cluster();
    let alice = certificate(&cluster, "alice@example.com", &["people"]);
    let header = format!("Bearer {}", token(&cluster));
    let mut request = parts(&[("authorization", &header)]);
    let by_certificate = authenticate(&cluster, Some(&alice), &mut request).unwrap();
    let alice = Identity::user("alice@example.com", vec!["people".to_owned()]);
    assert_eq!(by_certificate, alice);

    let mut request = parts(&[("authorization", &header)]);
    let by_token = authenticate(&cluster, None, &mut request).unwrap();
    assert_eq!(by_token.username, SHELL);

    for headers in [
        &[][..],
        &[("authorization", "Basic YTpi")],
        &[("authorization", "Bearer ")],
    ] {
        let nobody = authenticate(&cluster, None, &mut parts(headers)).unwrap();
        assert_eq!(nobody.username, "system:anonymous");
        assert_eq!(nobody.groups, ["system:unauthenticated"]);
    }
}

#[test]
fn a_bad_token_is_unauthorized_whatever_else_is_offered() {
    let cluster = cluster();
    let good = bearer(&token(&cluster));
    let headers = [
        ("authorization", "bearer bad"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-protocol", &good),
    ];
    let failure = authenticate(&cluster, None, &mut parts(&headers)).unwrap_err();
    assert_eq!(failure, Failure::unauthorized());
}

#[test]
fn a_token_offered_as_a_subprotocol_is_taken_out() {
    let cluster = cluster();
    let bearer = bearer(&token(&cluster));
    for lines in [
        vec![format!("{bearer}, v5.channel.k8s.io,v4.channel.k8s.io")],
        vec![
            "v5.channel.k8s.io".to_owned(),
            format!("v4.channel.k8s.io, {bearer}"),
        ],
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut request = websocket(&lines);
        let who = authenticate(&cluster, None, &mut request).unwrap();
        assert_eq!(who.username, SHELL);
        assert_eq!(offered(&request), ["v5.channel.k8s.io,v4.channel.k8s.io"]);
    }
}

#[test]
fn a_subprotocol_token_must_be_the_only_one_and_not_the_only_subprotocol() {
    let cluster = cluster();
    let bearer = bearer(&token(&cluster));
    let twice = format!("{bearer}, {bearer}, v4.channel.k8s.io");
    let undecodable = format!("{BEARER}!, v4.channel.k8s.io");
    let no_text = format!(
        "{BEARER}{}, v4.channel.k8s.io",
        URL_SAFE_NO_PAD.encode([0xff])
    );
    let padded = format!("{BEARER}eA==, v4.channel.k8s.io");
    let bad = format!("{BEARER}eA, v4.channel.k8s.io");
    for line in [&bearer, &twice, &undecodable, &no_text, &padded, &bad] {
        let failure = authenticate(&cluster, None, &mut websocket(&[line])).unwrap_err();
        assert_eq!(failure.code, 401, "{line}");
    }
    // None at all, an empty one, and one in the wrong case are no credential.
    let shouted = bearer.replace("bearer", "BEARER");
    for line in ["v4.channel.k8s.io", BEARER, &shouted] {
        let mut request = websocket(&[line, "v4.channel.k8s.io"]);
        let nobody = authenticate(&cluster, None, &mut request).unwrap();
        assert_eq!(nobody.username, ANONYMOUS);
        assert_eq!(offered(&request), [line, "v4.channel.k8s.io"]);
    }
    // And on a request that opens no WebSocket it is none either.
    let line = format!("{bearer}, v4.channel.k8s.io");
    let mut request = parts(&[("sec-websocket-protocol", &line)]);
    let nobody = authenticate(&cluster, None, &mut request).unwrap();
    assert_eq!(nobody.username, ANONYMOUS);
}

#[test]
fn who_is_known_already_keeps_his_subprotocol_token() {
    let cluster = cluster();
    let token = token(&cluster);
    let line = format!("{}, v4.channel.k8s.io", bearer(&token));
    let mut request = websocket(&[&line]);
    let header = format!("Bearer {token}").parse().unwrap();
    request.headers.insert(AUTHORIZATION, header);
    authenticate(&cluster, None, &mut request).unwrap();
    assert_eq!(offered(&request), [line]);
}

/// The gateway's account may act as `shell`, as its role in the sessions' namespace says.
fn with_gateway() -> Arc<Cluster> {
    let cluster = cluster();
    let role = |rules| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"namespace": "n", "name": "gateway"}, "rules": rules,
        })
    };
    cluster.put(role(
        json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}]),
    ));
    cluster.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"namespace": "n", "name": "gateway"},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "gateway"},
        "subjects": [{"kind": "User", "name": "gateway"}],
    }));
    cluster
}

#[test]
fn who_acts_as_an_account_has_its_groups_and_not_his_own() {
    let cluster = with_gateway();
    let gateway = certificate(&cluster, "gateway", &["gateways"]);
    let mut request = parts(&[("impersonate-user", SHELL)]);
    let who = authenticate(&cluster, Some(&gateway), &mut request).unwrap();
    assert_eq!(who, Identity::account("n", "shell", ""));
    // A kubelet does not know these headers.
    let mut request = parts(&[("impersonate-user", SHELL)]);
    let who = credential(&cluster, Some(&gateway), &mut request.headers).unwrap();
    assert_eq!(who.username, "gateway");
}

#[test]
fn every_part_of_an_impersonation_must_be_allowed() {
    let cluster = with_gateway();
    let gateway = certificate(&cluster, "gateway", &[]);
    for (headers, message) in [
        (
            vec![("impersonate-user", "system:serviceaccount:other:shell")],
            r#"serviceaccounts "shell" is forbidden: User "gateway" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "other""#,
        ),
        (
            vec![("impersonate-user", "alice@example.com")],
            r#"users "alice@example.com" is forbidden: User "gateway" cannot impersonate resource "users" in API group "" at the cluster scope"#,
        ),
        (
            vec![
                ("impersonate-user", SHELL),
                ("impersonate-group", "system:masters"),
            ],
            r#"groups "system:masters" is forbidden: User "gateway" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
        ),
    ] {
        let failure = authenticate(&cluster, Some(&gateway), &mut parts(&headers)).unwrap_err();
        assert_eq!(failure.message, message);
        assert_eq!(failure.code, 403);
    }
}

#[test]
fn who_may_everything_acts_as_anybody() {
    let cluster = cluster();
    let admin = certificate(&cluster, "admin", &["system:masters"]);
    let mut request = parts(&[
        ("impersonate-user", "alice@example.com"),
        ("impersonate-group", "a"),
        ("impersonate-group", "b"),
    ]);
    let who = authenticate(&cluster, Some(&admin), &mut request).unwrap();
    let groups = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(who, Identity::user("alice@example.com", groups));
    let mut request = parts(&[("impersonate-user", ANONYMOUS)]);
    let who = authenticate(&cluster, Some(&admin), &mut request).unwrap();
    assert_eq!(who.groups, ["system:unauthenticated"]);
}

#[test]
fn an_impersonation_names_a_user_and_nothing_but_groups_beside_him() {
    let cluster = cluster();
    let admin = certificate(&cluster, "admin", &["system:masters"]);
    let mut request = parts(&[("impersonate-group", "a")]);
    let failure = authenticate(&cluster, Some(&admin), &mut request).unwrap_err();
    assert_eq!(failure.code, 400);
    for other in ["impersonate-uid", "impersonate-extra-a%2fb"] {
        let mut request = parts(&[("impersonate-user", SHELL), (other, "v")]);
        let failure = authenticate(&cluster, Some(&admin), &mut request).unwrap_err();
        assert_eq!(failure.message, OTHERS);
    }
}
