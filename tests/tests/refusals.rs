//! Whoever may not is told so, with the code and the words that help, and nothing reaches the cluster for it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use drawbridge_tests::{
    Connection, Event, Mark, Needs, Opening, Request, Session, Test, contains, frame, run, soon,
    wait_for,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::json;
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test while no other here runs: the gateway counts its dials for everybody, so whoever counts them must be the
/// only one who causes any.
async fn run_counted(body: impl AsyncFnOnce(&Test) -> Result<()>) {
    static COUNTING: Mutex<()> = Mutex::const_new(());
    let _counting = COUNTING.lock().await;
    run(body).await;
}

/// Proves that nothing was opened towards the cluster since it was made.
struct Nothing<'a> {
    test: &'a Test,
    dials: f64,
    mark: Option<Mark>,
}

impl<'a> Nothing<'a> {
    async fn yet(test: &'a Test) -> Result<Self> {
        let mark = if test.cluster.offers(Needs::AuditLog)? {
            Some(test.cluster.audit()?.mark()?)
        } else {
            None
        };
        Ok(Self {
            test,
            dials: test.gateway().dials().await?,
            mark,
        })
    }

    /// By the gateway's own count, and by what the API server saw.
    async fn reached_the_cluster(self) -> Result<()> {
        let dials = self.test.gateway().dials().await?;
        ensure!(
            (dials - self.dials).abs() < 0.5,
            "the gateway dialled {} times",
            dials - self.dials
        );
        if let Some(mark) = self.mark {
            let seen = self
                .test
                .cluster
                .audit()?
                .since(mark, |seen| seen.is_stream_in(&self.test.namespace))?;
            ensure!(seen.is_empty(), "the API server saw {seen:?}");
        }
        Ok(())
    }
}

fn exec(session: &Session) -> Opening {
    Opening::exec(session, &["true"])
}

async fn granted(test: &Test) -> Result<Session> {
    test.pod("web").await?;
    test.session("web", json!({})).await
}

#[expect(clippy::too_many_lines, reason = "one table")]
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_missing_or_not_a_sessions_is_refused_with_401() {
    run_counted(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        wait_for("the namespace has its ServiceAccount", LIMIT, async || {
            Ok(Some(test.api::<ServiceAccount>().get("default").await?))
        })
        .await?;
        let token = |args: &'static [&'static str]| async move {
            let all: Vec<&str> = ["-n", &test.namespace, "create", "token", "default"]
                .into_iter()
                .chain(args.iter().copied())
                .collect();
            anyhow::Ok(test.cluster.kubectl.ok(&all).await?.trim().to_owned())
        };
        let api_server = token(&[]).await?;
        let audience = format!("--audience={}", names::TOKEN_AUDIENCE);
        let args = [
            "-n",
            &test.namespace,
            "create",
            "token",
            "default",
            &audience,
        ];
        let stranger = test.cluster.kubectl.ok(&args).await?.trim().to_owned();
        let mut parts = session.token.split('.');
        let (header, claims) = (
            parts.next().context("a JWT")?,
            parts.next().context("a JWT")?,
        );
        let forged = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([7; 256]));
        let cut = &session.token[..session.token.len() - 40];
        let bearer = |token: &str| {
            format!(
                "base64url.bearer.authorization.k8s.io.{}",
                URL_SAFE_NO_PAD.encode(token)
            )
        };
        let own = bearer(&session.token);

        let nothing = Nothing::yet(test).await?;
        let open = || exec(&session).token("");
        for (what, opening) in [
            ("none", open()),
            ("garbage", exec(&session).token("garbage")),
            (
                "a token for the API server",
                exec(&session).token(&api_server),
            ),
            (
                "a token of our audience, but of no session",
                exec(&session).token(&stranger),
            ),
            (
                "a session's claims with another signature",
                exec(&session).token(&forged),
            ),
            ("a truncated one", exec(&session).token(cut)),
            ("an empty bearer", open().header("Authorization", "Bearer ")),
            (
                "another scheme",
                open().header("Authorization", "Basic YWxpY2U6c2VjcmV0"),
            ),
            (
                "two of them",
                exec(&session).header("Authorization", &format!("Bearer {}", session.token)),
            ),
            (
                "a cookie",
                open().header("Cookie", &format!("token={}", session.token)),
            ),
            (
                "in the query",
                open()
                    .query("token", &session.token)
                    .query("access_token", &session.token),
            ),
            (
                "garbage among the subprotocols",
                open().protocol(&format!("{}, v4.channel.k8s.io", bearer("garbage"))),
            ),
            (
                "two bearer items",
                open().protocol(&format!("{own}, {own}, v4.channel.k8s.io")),
            ),
            ("a bearer item alone", open().protocol(&own)),
            (
                "a padded bearer item",
                open().protocol(&format!("{own}==, v4.channel.k8s.io")),
            ),
            (
                "an empty bearer item",
                open().protocol("base64url.bearer.authorization.k8s.io., v4.channel.k8s.io"),
            ),
        ] {
            let answer = opening
                .refused(&gateway)
                .await
                .with_context(|| what.to_owned())?;
            let said = answer.refusal(401).with_context(|| what.to_owned())?;
            ensure!(
                !said.is_empty() && !said.contains(&session.token),
                "{what}: {said}"
            );
            ensure!(
                answer.header("www-authenticate").is_some(),
                "{what}: {answer:?}"
            );
        }
        nothing.reached_the_cluster().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_session_that_has_ended_is_refused_with_401() {
    run_counted(async |test| {
        test.pod("web").await?;
        let until = Timestamp::from_second(Timestamp::now().as_second() + 4)?;
        let expired = test.session("web", json!({"notAfter": until})).await?;
        let revoked = test.session("web", json!({})).await?;
        let deleted = test.session("web", json!({})).await?;
        // Used once, so that a remembered answer of the API server would be there to be misused.
        for session in [&revoked, &deleted] {
            exec(session).open(&test.gateway()).await?.finish().await?;
        }
        test.revoke(&revoked.name).await?;
        test.delete::<ConsoleSession>(&deleted.name).await?;
        let gone = await_condition(
            test.api::<ConsoleSession>(),
            &deleted.name,
            |object: Option<&ConsoleSession>| object.is_none(),
        );
        soon("the session is gone", LIMIT, Box::pin(gone)).await??;
        test.phase(&revoked.name, Phase::Revoked).await?;
        test.phase(&expired.name, Phase::Expired).await?;
        let nothing = Nothing::yet(test).await?;
        for session in [&expired, &revoked, &deleted] {
            for path in [
                "",
                "/api",
                "/version",
                &format!("/api/v1/namespaces/{}/pods/web", test.namespace),
            ] {
                let opening = if path.is_empty() {
                    exec(session)
                } else {
                    exec(session).path(path)
                };
                let answer = opening.refused(&test.gateway()).await?;
                answer
                    .refusal(401)
                    .with_context(|| format!("{} {path}", session.name))?;
            }
        }
        nothing.reached_the_cluster().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_before_its_time_is_refused_with_403_until_then() {
    run_counted(async |test| {
        test.pod("web").await?;
        let from = Timestamp::now() + SignedDuration::from_hours(1);
        test.apply_session("ahead", "web", json!({"notBefore": from}))
            .await?;
        let waiting = test.phase("ahead", Phase::Scheduled).await?;
        let uid = waiting
            .metadata
            .uid
            .clone()
            .context("a stored object has a UID")?;
        // The operator makes no account before the time; an administrator who does gains nothing by it.
        let account = names::account(&uid);
        let accounts = Api::<ServiceAccount>::namespaced(
            test.cluster.client.clone(),
            names::SESSIONS_NAMESPACE,
        );
        let object = serde_json::from_value(json!({"metadata": {"name": account}}))?;
        accounts.create(&PostParams::default(), &object).await?;
        let audience = format!("--audience={}", names::TOKEN_AUDIENCE);
        let args = [
            "-n",
            names::SESSIONS_NAMESPACE,
            "create",
            "token",
            &account,
            &audience,
        ];
        let token = test.cluster.kubectl.ok(&args).await;
        let session = Session {
            namespace: test.namespace.clone(),
            name: "ahead".to_owned(),
            uid,
            pod: "web".to_owned(),
            token: token.as_deref().unwrap_or_default().trim().to_owned(),
            kubeconfig: std::path::PathBuf::new(),
            object: waiting,
        };
        let nothing = Nothing::yet(test).await?;
        let answer = exec(&session).refused(&test.gateway()).await;
        accounts.delete(&account, &DeleteParams::default()).await?;
        token?;
        contains(&answer?.refusal(403)?, "this session may be used from")?;
        nothing.reached_the_cluster().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_used_for_something_else_is_refused_with_403() {
    run_counted(async |test| {
        test.create_pod("web", vec![json!({}), json!({})]).await?;
        test.running("web").await?;
        let session = test
            .session("web", json!({"command": ["cat", "/etc/hostname"]}))
            .await?;
        let other = test.session("web", json!({})).await?;
        let attach = test.session("web", json!({"mode": "Attach"})).await?;
        let (ns, gateway) = (&test.namespace, test.gateway());
        let allowed = || Opening::exec(&session, &["cat", "/etc/hostname"]);
        let pods =
            |namespace: &str, pod: &str| format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        let nothing = Nothing::yet(test).await?;
        for (opening, says) in [
            (
                allowed().path(&format!("{}/exec", pods(ns, "db"))),
                "not \"db\"",
            ),
            (
                allowed().path(&format!("{}/exec", pods("kube-system", "web"))),
                "not \"kube-system\"",
            ),
            (
                allowed().path(&format!("{}/attach", pods(ns, "web"))),
                "allows exec, not attach",
            ),
            (allowed().query("container", "extra-1"), "not \"extra-1\""),
            (Opening::exec(&session, &["sh"]), "one command only"),
            (
                Opening::exec(&session, &["cat", "/etc/hostname", ""]),
                "one command only",
            ),
            (
                Opening::exec(&session, &["cat /etc/hostname"]),
                "one command only",
            ),
            (Opening::exec(&attach, &["sh"]), "allows attach, not exec"),
            (Opening::native(&session).token(&other.token), "not \""),
            (allowed().path(&pods("kube-system", "web")), "kube-system"),
            (allowed().path(&pods(ns, "db")), "not \"db\""),
            (
                allowed().path(&format!("{}/portforward", pods(ns, "web"))),
                "not an API server",
            ),
            (
                allowed().path(&format!("{}/log", pods(ns, "web"))),
                "not an API server",
            ),
            (
                allowed().path(&format!("/api/v1/namespaces/{ns}/pods")),
                "not an API server",
            ),
            (
                allowed().path(&format!("/api/v1/namespaces/{ns}/secrets")),
                "not an API server",
            ),
            (
                allowed().path(&format!("{}/../../secrets", pods(ns, "web"))),
                "not an API server",
            ),
            (allowed().path("/metrics"), "not an API server"),
            (
                allowed().header("Origin", "https://evil.example.com"),
                "origin",
            ),
            (allowed().header("Origin", "null"), "origin"),
        ] {
            let answer = opening.refused(&gateway).await?;
            let said = answer
                .refusal(403)
                .with_context(|| format!("{opening:?}"))?;
            contains(&said.to_lowercase(), &says.to_lowercase())?;
        }
        nothing.reached_the_cluster().await?;
        let end = allowed().open(&gateway).await?.finish().await?;
        ensure!(end.stdout == b"web\n", "what is allowed is: {end:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_refused_with_429_until_another_ends() {
    run_counted(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({"maxConnections": 2})).await?;
        let gateway = test.gateway();
        let mut first = Opening::exec(&session, &["cat"])
            .tty()
            .open(&gateway)
            .await?;
        let _second = Opening::exec(&session, &["cat"])
            .tty()
            .open(&gateway)
            .await?;
        let nothing = Nothing::yet(test).await?;
        for _ in 0..3 {
            let said = exec(&session).refused(&gateway).await?.refusal(429)?;
            contains(&said, "2 connections open")?;
        }
        nothing.reached_the_cluster().await?;
        first.stdin(b"\x04").await?;
        first.finish().await?;
        wait_for("the place is free", LIMIT, async || {
            Ok(Some(exec(&session).open(&gateway).await?))
        })
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_not_one_is_refused_and_says_why() {
    run_counted(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let whole = exec(&session).request();
        let offer = |line: &str| exec(&session).protocol(line).request();
        // A POST is told what a WebSocket request for the same was told just before; these come without one.
        let post = |n: &str| exec(&session).query("n", n).request().method("POST");
        let nothing = Nothing::yet(test).await?;
        let v8 = whole
            .clone()
            .without("Sec-WebSocket-Version")
            .header("Sec-WebSocket-Version", "8");
        for (request, code, says) in [
            (offer("v3.channel.k8s.io"), 403, "v5.channel.k8s.io"),
            (offer("v5.base64.channel.k8s.io"), 403, "v5.channel.k8s.io"),
            (
                offer("chat, SPDY/3.1+portforward.k8s.io"),
                403,
                "v5.channel.k8s.io",
            ),
            (v8.clone(), 400, "version 13"),
            (
                whole.clone().without("Sec-WebSocket-Version"),
                400,
                "version 13",
            ),
            (
                whole.clone().without("Upgrade").without("Connection"),
                400,
                "Upgrade request required",
            ),
            (
                whole.clone().without("Sec-WebSocket-Key"),
                400,
                "Sec-WebSocket-Key",
            ),
            (
                whole.clone().without("Upgrade").header("Upgrade", "h2c"),
                400,
                "Upgrade request required",
            ),
            (post("1"), 405, "WebSocket"),
            (
                post("2").without("Upgrade").header("Upgrade", "SPDY/3.1"),
                405,
                "WebSocket",
            ),
            (whole.clone().method("PUT"), 405, "GET"),
            (whole.clone().method("DELETE"), 405, "GET"),
            (
                Opening::exec(&session, &[]).request(),
                400,
                "at least one command",
            ),
        ] {
            let answer = Connection::open(&gateway).await?.ask(&request).await?;
            let said = answer
                .refusal(code)
                .with_context(|| format!("{request:?}"))?;
            contains(&said, says).with_context(|| format!("{request:?}"))?;
        }
        let streams = format!(
            "/api/v1/namespaces/{}/pods/web/exec?command=true",
            test.namespace
        );
        let none = Request::upgrade(&streams)
            .token(&session.token)
            .offer("v4.channel.k8s.io");
        contains(
            &Connection::open(&gateway)
                .await?
                .ask(&none)
                .await?
                .refusal(400)?,
            "at least 1 of stdin, stdout, stderr",
        )?;
        let answer = Connection::open(&gateway).await?.ask(&v8).await?;
        ensure!(
            answer.header("sec-websocket-version") == Some("13"),
            "{answer:?}"
        );
        nothing.reached_the_cluster().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_turned_away_without_a_hang() {
    run_counted(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let nothing = Nothing::yet(test).await?;
        // Prior knowledge: the preface of RFC 9113, section 3.4, and an empty SETTINGS frame.
        let mut connection = Connection::open_with(&gateway, &[]).await?;
        ensure!(connection.alpn().is_none());
        connection
            .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await?;
        let said = connection.until_closed(LIMIT).await?;
        ensure!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 400"),
            "{}",
            drawbridge_tests::text(&said)
        );
        // ALPN: whoever speaks both gets HTTP/1.1; whoever insists gets no connection (RFC 7301, section 3.2).
        ensure!(
            Connection::open_with(&gateway, &["h2", "http/1.1"])
                .await?
                .alpn()
                .as_deref()
                == Some("http/1.1")
        );
        ensure!(
            Connection::open_with(&gateway, &["h2"]).await.is_err(),
            "h2 was agreed on"
        );
        nothing.reached_the_cluster().await?;
        // No ALPN at all is how kubectl dials.
        let mut connection = Connection::open_with(&gateway, &[]).await?;
        ensure!(connection.ask(&exec(&session).request()).await?.code == 101);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_costs_no_memory() {
    run_counted(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let before = gateway.process.rss()?;
        let nothing = Nothing::yet(test).await?;
        let long = "x".repeat(60 * 1024);
        let query = exec(&session).query("command", &long).request();
        Connection::open(&gateway)
            .await?
            .ask(&query)
            .await?
            .refusal(414)?;
        let huge = "x".repeat(4 << 20);
        let many = (0..2000).fold(exec(&session).request(), |request, n| {
            request.header(&format!("x-{n}"), "y")
        });
        for (what, request) in [
            (
                "one header of 4 MiB",
                exec(&session).request().header("X-Long", &huge),
            ),
            (
                "a query of 4 MiB",
                exec(&session).query("command", &huge).request(),
            ),
            (
                "a path of 4 MiB",
                exec(&session).path(&format!("/{huge}")).request(),
            ),
            ("a token of 4 MiB", exec(&session).token(&huge).request()),
            ("2000 headers", many),
        ] {
            let mut connection = Connection::open(&gateway).await?;
            // It may hang up while we are still writing; that is an answer, too.
            let answer = match connection.ask(&request).await {
                Ok(answer) => answer.code,
                Err(_) => 431,
            };
            ensure!(matches!(answer, 400 | 401 | 414 | 431), "{what}: {answer}");
        }
        let many = "v9.channel.k8s.io,".repeat(500);
        Connection::open(&gateway)
            .await?
            .ask(&exec(&session).protocol(&many).request())
            .await?
            .refusal(400)?;
        nothing.reached_the_cluster().await?;
        let grown = gateway.process.rss()?.saturating_sub(before);
        ensure!(grown < 16 << 20, "it grew by {grown} bytes");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_four_mebibytes_ends_the_connection_with_1009() {
    run_counted(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let before = gateway.process.rss()?;
        let (head, part) = (
            [0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0],
            vec![0; 1 << 16],
        );
        let opening = Opening::exec(&session, &["sleep", "1000"]).tty();
        let mut connection = Connection::open(&gateway).await?;
        ensure!(connection.ask(&opening.request()).await?.code == 101);
        connection.send(&head).await?; // 1 GiB is announced
        let flood = async { while connection.send(&part).await.is_ok() {} };
        let _ = soon("the gateway stops reading", Duration::from_secs(2), flood).await; // it may also just not read
        let said = connection.until_closed(LIMIT).await?;
        ensure!(
            said.windows(4)
                .any(|bytes| bytes[..2] == [0x88, said_len(&said)]
                    && bytes[2..] == 1009_u16.to_be_bytes()),
            "{said:?}"
        );
        // Fragments add up to one message.
        let mut console = opening.open(&gateway).await?;
        let parts = async {
            console.send_raw(frame(0x02, &vec![0; 1 << 20])).await?;
            for _ in 0..8 {
                console.send_raw(frame(0x00, &vec![0; 1 << 20])).await?;
            }
            anyhow::Ok(())
        };
        let _ = parts.await; // it may hang up while we are still writing
        let close = loop {
            match console.event().await? {
                Event::Closed(code) => break code,
                Event::Gone(_) => break None,
                _ => {}
            }
        };
        ensure!(close.is_none_or(|code| code == 1009), "{close:?}");
        let grown = gateway.process.rss()?.saturating_sub(before);
        ensure!(grown < 16 << 20, "it grew by {grown} bytes");
        Ok(())
    })
    .await;
}

/// Length of the close frame's payload in `said`: of the last frame.
fn said_len(said: &[u8]) -> u8 {
    let at = said
        .iter()
        .rposition(|byte| *byte == 0x88)
        .unwrap_or_default();
    said.get(at + 1).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_protocol_end_the_connection_with_their_code() {
    run_counted(async |test| {
        let session = granted(test).await?;
        let opening = Opening::exec(&session, &["cat"]).tty();
        for (what, bytes, code) in [
            ("an unmasked frame", &[0x82, 0x01, 0x00][..], 1002),
            ("a reserved bit", &[0xc2, 0x81, 0, 0, 0, 0, 0], 1002),
            ("an unknown opcode", &[0x83, 0x81, 0, 0, 0, 0, 0], 1002),
            ("a fragmented ping", &[0x09, 0x80, 0, 0, 0, 0], 1002),
            (
                "a ping of 126 bytes",
                &[0x89, 0xfe, 0, 126, 0, 0, 0, 0],
                1002,
            ),
            (
                "a continuation of nothing",
                &[0x80, 0x81, 0, 0, 0, 0, 0],
                1002,
            ),
        ] {
            let mut console = opening.open(&test.gateway()).await?;
            console.send_raw(bytes.to_vec().into()).await?;
            let close = loop {
                match console.event().await? {
                    Event::Closed(code) => break code,
                    Event::Gone(why) => anyhow::bail!("{what}: gone without a code: {why}"),
                    _ => {}
                }
            };
            ensure!(close == Some(code), "{what}: {close:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_come_drop_by_drop_are_not_waited_for() {
    run_counted(async |test| {
        let session = granted(test).await?;
        let nothing = Nothing::yet(test).await?;
        let begin = Instant::now();
        let mut connection = Connection::open(&test.gateway()).await?;
        let bytes = exec(&session).request().bytes();
        let (most, _) = bytes.split_at(bytes.len() - 2);
        connection.send(most).await?;
        let said = connection.until_closed(LIMIT).await?;
        ensure!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 408"),
            "{}",
            drawbridge_tests::text(&said)
        );
        ensure!(
            begin.elapsed() < Duration::from_secs(15),
            "held for {:?}",
            begin.elapsed()
        );
        nothing.reached_the_cluster().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_of_a_client_change_nothing() {
    run_counted(async |test| {
        if !test.cluster.offers(Needs::AuditLog)? {
            return Ok(());
        }
        let session = granted(test).await?;
        let mark = test.cluster.audit()?.mark()?;
        let opening = Opening::exec(&session, &["echo", "hello"])
            .header("Impersonate-User", "system:admin")
            .header("Impersonate-Group", "system:masters")
            .header("Impersonate-Uid", "0")
            .header("Impersonate-Extra-Scopes", "all")
            .header("X-Remote-User", "system:admin")
            .header("X-Remote-Group", "system:masters")
            .header("X-Forwarded-For", "198.51.100.77");
        let end = opening.open(&test.gateway()).await?.finish().await?;
        ensure!(end.stdout == b"hello\n", "{end:?}");
        let account = names::account_username(names::SESSIONS_NAMESPACE, &session.uid);
        let seen = wait_for("the API server has logged it", LIMIT, async || {
            let seen = test
                .cluster
                .audit()?
                .since(mark, |seen| seen.is_stream_in(&test.namespace))?;
            Ok(seen
                .iter()
                .any(|seen| seen.stage == "ResponseComplete")
                .then_some(seen))
        });
        // Who it is for is known once it is authorized.
        for seen in seen
            .await?
            .into_iter()
            .filter(|seen| seen.stage != "RequestReceived")
        {
            let who = seen.impersonated_user.clone().unwrap_or_default();
            ensure!(who.username == account, "{seen:?}");
            ensure!(
                !who.groups.iter().any(|group| group == "system:masters"),
                "{seen:?}"
            );
            ensure!(
                seen.user.username == "system:serviceaccount:drawbridge-system:drawbridge-gateway",
                "{seen:?}"
            );
            ensure!(
                !seen
                    .user
                    .groups
                    .iter()
                    .any(|group| group == "system:masters"),
                "{seen:?}"
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_message_that_is_not_utf8_never_ends_anybody_elses_console() {
    run_counted(async |test| {
        let session = granted(test).await?;
        let mut bystander = Opening::exec(&session, &["cat"])
            .tty()
            .open(&test.gateway())
            .await?;
        let mut console = Opening::exec(&session, &["cat"])
            .tty()
            .open(&test.gateway())
            .await?;
        console.send_raw(frame(0x81, b"\0\xff\xfe")).await?;
        console.send(Message::Close(None)).await?;
        loop {
            if matches!(console.event().await?, Event::Closed(_) | Event::Gone(_)) {
                break;
            }
        }
        bystander.stdin(b"still here\n").await?;
        bystander.until("still here").await?;
        Ok(())
    })
    .await;
}
