//! Requests that are turned away: what they are told, and what they do not cause.

use tokio::io::AsyncReadExt;

use super::*;

#[expect(clippy::too_many_lines, reason = "one table")]
#[tokio::test(start_paused = true)] // the token of a session that is gone is waited for
async fn a_request_that_is_not_granted_is_refused_with_its_code_and_nothing_is_dialled() {
    let world = World::new().await;
    let item = format!(
        "base64url.bearer.authorization.k8s.io.{}",
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, good())
    );
    let without = |text: String| text.replace(&format!("Authorization: Bearer {}\r\n", good()), "");
    let with = |token: &str| websocket(EXEC, "v4.channel.k8s.io", "").replace(&good(), token);
    let other = |from: &str, to: &str| websocket(&EXEC.replace(from, to), "v4.channel.k8s.io", "");
    for (what, text, code) in [
        (
            "no token",
            without(websocket(EXEC, "v4.channel.k8s.io", "")),
            401,
        ),
        ("garbage", with("garbage"), 401),
        ("a forged token", with(&jwt("6f1c", "forged")), 401),
        ("a session that is gone", with(&jwt("gone", "good")), 401),
        (
            "two bearer items",
            without(websocket(
                EXEC,
                &format!("{item}, {item}, v4.channel.k8s.io"),
                "",
            )),
            401,
        ),
        (
            "a bearer item alone",
            without(websocket(EXEC, &item, "")),
            401,
        ),
        (
            "a cookie is no credential",
            without(websocket(EXEC, "v4.channel.k8s.io", "Cookie: token=x\r\n")),
            401,
        ),
        ("another namespace", other("shop", "prod"), 403),
        ("another pod", other("web", "db"), 403),
        (
            "another container",
            other("tty=true", "tty=true&container=proxy"),
            403,
        ),
        ("attach", other("/exec", "/attach"), 403),
        ("a port-forward", other("/exec", "/portforward"), 403),
        (
            "a foreign page",
            websocket(
                EXEC,
                "v4.channel.k8s.io",
                "Origin: https://evil.example\r\n",
            ),
            403,
        ),
        (
            "a page without origin",
            websocket(EXEC, "v4.channel.k8s.io", "Origin: null\r\n"),
            403,
        ),
        (
            "no subprotocol we know",
            websocket(EXEC, "v3.channel.k8s.io", ""),
            403,
        ),
        (
            "v5.base64",
            websocket(EXEC, "v5.base64.channel.k8s.io", ""),
            403,
        ),
        ("no upgrade", plain("GET", EXEC), 400),
        (
            "version 8",
            websocket(EXEC, "v4.channel.k8s.io", "").replace("Version: 13", "Version: 8"),
            400,
        ),
        ("no streams", other("&stdout=true&stdin=true", ""), 400),
        (
            "too many subprotocols",
            websocket(EXEC, &"x,".repeat(100), ""),
            400,
        ),
        (
            "a long query",
            other("command=sh", &format!("command={}", "x".repeat(50_000))),
            414,
        ),
        ("POST", plain("POST", &EXEC.replace("=sh", "=ls")), 405),
        (
            "POST for another pod",
            plain("POST", &EXEC.replace("web", "db")),
            403,
        ),
        ("POST without a token", without(plain("POST", EXEC)), 401),
        (
            "discovery without a token",
            without(plain("GET", "/api")),
            401,
        ),
        (
            "another session's console",
            websocket("/sessions/shop/other/console", "v4.channel.k8s.io", ""),
            403,
        ),
        (
            "another session's summary",
            plain("GET", "/sessions/prod/fix-cart"),
            403,
        ),
        (
            "another pod's object",
            plain("GET", "/api/v1/namespaces/shop/pods/db"),
            403,
        ),
        (
            "secrets",
            plain("GET", "/api/v1/namespaces/shop/secrets"),
            403,
        ),
    ] {
        let (told, message) = world.message(&text).await;
        assert_eq!(told, code, "{what}: {message}");
        assert!(
            !message.contains(&good()[..24]),
            "{what}: the token is repeated"
        );
    }
    assert_eq!(world.dialled(), 0);
    assert!(
        world.asked.lock().expect("not poisoned").is_empty(),
        "the API server was asked nothing"
    );
    assert_eq!(world.gate().metrics.open.get(), 0);
}

#[tokio::test]
async fn a_session_that_cannot_be_used_says_why() {
    let world = World::new().await;
    for (path, value, code, text) in [
        (
            "/spec/revoked",
            true.into(),
            401,
            "this session was revoked",
        ),
        (
            "/metadata/deletionTimestamp",
            "2029-01-01T00:00:00Z".into(),
            401,
            "this session was deleted",
        ),
        (
            "/status/phase",
            "Expired".into(),
            401,
            "this session has expired",
        ),
        (
            "/status/expiresAt",
            "2029-01-01T00:00:00Z".into(),
            401,
            "this session has expired",
        ),
        (
            "/spec/notBefore",
            "2030-01-01T00:30:00Z".into(),
            403,
            "this session may be used from 2030-01-01T00:30:00Z",
        ),
        (
            "/spec/command",
            serde_json::json!(["ls"]),
            403,
            "this session allows one command only, and this is another; see its spec.command",
        ),
    ] {
        world.set(object_with(path, value));
        for request in [
            websocket(EXEC, "v4.channel.k8s.io", ""),
            plain("POST", EXEC),
        ] {
            assert_eq!(
                world.message(&request).await,
                (code, text.to_owned()),
                "{path}"
            );
        }
        if code == 401 {
            for target in ["/api", "/version", "/sessions/shop/fix-cart"] {
                assert_eq!(
                    world.message(&plain("GET", target)).await.0,
                    401,
                    "{path} {target}"
                );
            }
        }
    }
    assert_eq!(world.dialled(), 0);
}

#[tokio::test]
async fn a_refused_websocket_and_the_post_after_it_are_told_the_same() {
    let world = World::new().await;
    world.say(Say::Raw(
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 27\r\n\r\ncontainer not found (\"app\")".to_owned(),
    ));
    let told = (500, "container not found (\"app\")".to_owned());
    assert_eq!(
        world
            .message(&websocket(EXEC, "v5.channel.k8s.io", ""))
            .await,
        told
    );
    assert_eq!(world.message(&plain("POST", EXEC)).await, told);
    let (code, message) = world.message(&plain("POST", EXEC)).await;
    assert_eq!(code, 405, "{message}");
    assert!(message.contains("WebSocket only"), "{message}");
}

#[tokio::test]
async fn stdin_without_an_end_is_refused_before_anything_runs_and_the_post_after_it_says_why() {
    let mut world = World::new().await;
    for (protocols, target, code) in [
        ("v5.channel.k8s.io", PIPED, 400),
        ("v5.channel.k8s.io, v4.channel.k8s.io", PIPED, 101),
        ("v5.channel.k8s.io", EXEC, 101),
        (
            "v5.channel.k8s.io",
            "/api/v1/namespaces/shop/pods/web/exec?command=ls&stdout=true",
            101,
        ),
    ] {
        let mut client = world.connect(&websocket(target, protocols, "")).await;
        let (told, _, head) = head(&mut client).await;
        assert_eq!(told, code, "{protocols} {target}");
        assert_eq!(
            head.contains("sec-websocket-protocol: v4.channel.k8s.io"),
            protocols.len() > 20 && code == 101,
            "{head}"
        );
        if code == 400 {
            let mut pod = world.pod.recv().await.expect("was dialled");
            let mut rest = Vec::new();
            pod.read_to_end(&mut rest).await.expect("closed at once");
            assert!(rest.is_empty());
        }
    }
    for _ in 0..2 {
        let (code, message) = world.message(&plain("POST", PIPED)).await;
        assert_eq!(code, 400);
        assert!(
            message.contains("stdin") && message.contains("v5.channel.k8s.io"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_refused_until_another_ends() {
    let world = World::new().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = world
            .connect(&websocket(EXEC, "v4.channel.k8s.io", ""))
            .await;
        assert_eq!(head(&mut client).await.0, 101);
        open.push(client);
    }
    for request in [
        websocket(EXEC, "v4.channel.k8s.io", ""),
        plain("POST", EXEC),
        plain("POST", EXEC),
    ] {
        assert_eq!(world.message(&request).await.0, 429);
    }
    assert_eq!(world.dialled(), 4);
    open.pop();
    while world.gate().metrics.open.get() == 4 {
        tokio::task::yield_now().await;
    }
    let mut client = world
        .connect(&websocket(EXEC, "v4.channel.k8s.io", ""))
        .await;
    assert_eq!(head(&mut client).await.0, 101);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_has_not_seen_the_sessions_yet_does_not_call_a_token_bad() {
    let world = World::new().await;
    let gone = plain("GET", "/api").replace(&good(), &jwt("gone", "good"));
    assert_eq!(world.message(&gone).await.0, 401);
    world.synced(false);
    assert_eq!(world.message(&gone).await.0, 503);
    assert_eq!(world.ask(&plain("GET", "/api")).await.0, 200);
}
