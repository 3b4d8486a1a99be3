use serde_json::{Value, json};

use super::*;

fn session(mode: &str) -> ConsoleSession {
    serde_json::from_value(json!({
        "metadata": {"name": "shell", "namespace": "shop", "uid": "6f1c0000-1"},
        "spec": {"user": "alice@example.com", "target": {"pod": {"name": "web-0"}}, "mode": mode},
    }))
    .expect("a session")
}

fn gateway() -> Gateway {
    Gateway {
        url: "https://gate.example.com".into(),
        ca: Some(b"pem".to_vec()),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn bound() -> Bound {
    Bound {
        account_uid: "account".into(),
        anchor_uid: "anchor".into(),
        until: at(10_000),
    }
}

/// As the operator keeps it.
fn secret(expires: i64) -> Secret {
    digested(
        credential(&session("Exec"), &gateway(), &bound(), "t0ken", at(expires)).expect("stored"),
    )
}

fn value(object: impl serde::Serialize) -> Value {
    serde_json::to_value(object).expect("serialises")
}

#[test]
fn the_account_may_enter_one_pod_in_one_way_and_nothing_else() {
    for (mode, resource) in [("Exec", "pods/exec"), ("Attach", "pods/attach")] {
        let grant = grant(&session(mode), "drawbridge-sessions").expect("stored");
        let PodAccess { role, binding } = grant.pod.expect("a pod to open");
        assert_eq!(
            value(&role)["rules"],
            json!([
                {"apiGroups": [""], "resources": [resource], "resourceNames": ["web-0"], "verbs": ["get", "create"]},
                {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["web-0"], "verbs": ["get"]},
            ])
        );
        assert_eq!(
            value(&binding)["subjects"],
            json!([{"kind": "ServiceAccount", "name": "cs-6f1c0000-1", "namespace": "drawbridge-sessions"}])
        );
        assert_eq!(value(&binding)["roleRef"]["name"], role.name_any());
    }
}

#[test]
fn the_account_of_one_who_looks_may_do_nothing_in_the_cluster() {
    let mut session = session("Observe");
    // Even with a pod, as an API server without CEL would store it.
    for target in [session.spec.target.clone(), None] {
        session.spec.target = target;
        let grant = grant(&session, "drawbridge-sessions").expect("stored");
        assert!(grant.pod.is_none());
    }
}

#[test]
fn the_user_may_read_his_token_and_his_session_and_nothing_else() {
    let grant = grant(&session("Exec"), "drawbridge-sessions").expect("stored");
    assert_eq!(
        value(&grant.user_role)["rules"],
        json!([
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["shell-6f1c0000"], "verbs": ["get"]},
            {"apiGroups": ["drawbridge.dev"], "resources": ["consolesessions"], "resourceNames": ["shell"],
                "verbs": ["get", "watch"]},
        ])
    );
    assert_eq!(
        value(&grant.user_binding)["subjects"],
        json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice@example.com"}])
    );
    assert_eq!(
        value(&grant.user_binding)["roleRef"]["name"],
        grant.user_role.name_any()
    );
}

#[test]
fn everything_is_labelled_and_what_is_beside_the_session_is_owned_by_it() {
    let grant = grant(&session("Exec"), "drawbridge-sessions").expect("stored");
    let pod = grant.pod.as_ref().expect("a pod to open");
    let apart = [value(&grant.account), value(&grant.anchor)];
    let beside = [
        value(&pod.role),
        value(&pod.binding),
        value(&grant.user_role),
        value(&grant.user_binding),
        value(secret(20_000)),
    ];
    for object in apart.iter().chain(&beside) {
        let labels = json!({
            "drawbridge.dev/session-uid": "6f1c0000-1",
            "drawbridge.dev/session": "shell",
            "drawbridge.dev/session-namespace": "shop",
        });
        assert_eq!(object["metadata"]["labels"], labels, "{object}");
    }
    for object in &apart {
        assert_eq!(object["metadata"]["namespace"], "drawbridge-sessions");
        assert_eq!(object["metadata"]["name"], "cs-6f1c0000-1");
        assert!(
            object["metadata"]["ownerReferences"].is_null(),
            "no owner reaches across namespaces"
        );
    }
    for object in &beside {
        assert_eq!(object["metadata"]["namespace"], "shop");
        assert_eq!(
            object["metadata"]["ownerReferences"][0]["uid"],
            "6f1c0000-1"
        );
        assert_eq!(
            object["metadata"]["ownerReferences"][0]["kind"],
            "ConsoleSession"
        );
    }
    assert_eq!(grant.account.automount_service_account_token, Some(false));
}

#[test]
fn a_token_is_for_the_gateway_bound_to_the_anchor_and_lives_as_long_as_the_grant() {
    for (left, asked) in [(3600, 3600), (600, 600), (1, 600)] {
        let request = token_request("cs-1", &bound(), at(10_000 - left));
        assert_eq!(
            value(request.spec),
            json!({
                "audiences": ["drawbridge-gateway"],
                "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "cs-1", "uid": "anchor"},
                "expirationSeconds": asked,
            })
        );
    }
    let request = token_request("cs-1", &bound(), Timestamp::new(6399, 1).expect("in range"));
    assert_eq!(
        request.spec.expiration_seconds,
        Some(3601),
        "never shorter than the grant"
    );
}

#[test]
fn the_kubeconfig_needs_nothing_else() {
    let secret =
        credential(&session("Exec"), &gateway(), &bound(), "t0ken", at(20_000)).expect("stored");
    let data = secret.data.expect("has data");
    assert_eq!(data[TOKEN_KEY].0, b"t0ken");
    let config: Value = serde_json::from_slice(&data[KUBECONFIG_KEY].0).expect("JSON");
    assert_eq!(
        config["clusters"][0]["cluster"],
        json!({"server": "https://gate.example.com", "certificate-authority-data": "cGVt"})
    );
    assert_eq!(config["users"][0]["user"], json!({"token": "t0ken"}));
    assert_eq!(config["contexts"][0]["context"]["namespace"], "shop");
    assert_eq!(config["current-context"], config["contexts"][0]["name"]);
    let text = String::from_utf8(data[KUBECONFIG_KEY].0.clone()).expect("text");
    kube::config::Kubeconfig::from_yaml(&text).expect("a kubeconfig");
}

#[test]
fn a_token_is_kept_while_everything_it_is_bound_to_is_the_same() {
    let now = at(5_000);
    assert_eq!(
        token_expiry(&secret(10_000), &bound(), &gateway(), now),
        Some(at(10_000))
    );
    let others = [
        Bound {
            account_uid: "another".into(),
            ..bound()
        },
        Bound {
            anchor_uid: "another".into(),
            ..bound()
        },
        Bound {
            until: at(10_001),
            ..bound()
        },
    ];
    for other in others {
        assert_eq!(
            token_expiry(&secret(10_000), &other, &gateway(), now),
            None,
            "{other:?}"
        );
    }
    let elsewhere = Gateway {
        url: "https://other.example.com".into(),
        ..gateway()
    };
    assert_eq!(
        token_expiry(&secret(10_000), &bound(), &elsewhere, now),
        None
    );
    let distrusted = Gateway {
        ca: None,
        ..gateway()
    };
    assert_eq!(
        token_expiry(&secret(10_000), &bound(), &distrusted, now),
        None
    );
}

#[test]
fn an_edited_secret_is_noticed_but_for_keys_that_are_not_ours() {
    let edit = |key: &str| {
        let mut secret = secret(10_000);
        let data = secret.data.as_mut().expect("has data");
        data.insert(key.into(), ByteString(b"x".to_vec()));
        token_expiry(&secret, &bound(), &gateway(), at(5_000))
    };
    assert_eq!(edit(TOKEN_KEY), None);
    assert_eq!(edit(KUBECONFIG_KEY), None);
    assert_eq!(edit("note"), Some(at(10_000)));
    let mut emptied = secret(10_000);
    emptied.data = None;
    assert_eq!(
        token_expiry(&emptied, &bound(), &gateway(), at(5_000)),
        None
    );
}

#[test]
fn a_token_that_dies_before_the_grant_is_renewed_in_time() {
    // The API server was told to issue no token longer than an hour: 3600 of 10000 s.
    let expires = 3_600;
    assert_eq!(renew_at(at(expires), at(10_000)), Some(at(expires - 120)));
    let kept = |now| token_expiry(&secret(expires), &bound(), &gateway(), at(now)).is_some();
    assert!(kept(expires - 121));
    assert!(!kept(expires - 120));
    assert_eq!(
        renew_at(at(10_000), at(10_000)),
        None,
        "it lives as long as the grant"
    );
}

#[test]
fn no_token_is_kept_in_memory() {
    let text = format!("{:?}", secret(10_000));
    assert!(
        !text.contains("t0ken") && !text.contains(&format!("{:?}", b"t0ken")),
        "{text}"
    );
}
