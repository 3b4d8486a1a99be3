//! Whoever may not is told so, with the code and the words that help, and nothing reaches the cluster for it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use drawbridge_tests::{Needs, Nothing, Opening, Session, contains, run_alone, soon, wait_for};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::json;

use crate::{exec, granted};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_missing_or_not_a_sessions_is_refused_with_401() {
    run_alone(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        wait_for("the namespace has its ServiceAccount", LIMIT, async || {
            Ok(Some(test.api::<ServiceAccount>().get("default").await?))
        })
        .await?;
        let ns = test.namespace.as_str();
        let api_server = test.cluster.token(ns, "default", None, 3600).await?;
        let stranger = test
            .cluster
            .token(ns, "default", Some(names::TOKEN_AUDIENCE), 3600)
            .await?;
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
    run_alone(async |test| {
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
    run_alone(async |test| {
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
        let token = test
            .cluster
            .token(
                names::SESSIONS_NAMESPACE,
                &account,
                Some(names::TOKEN_AUDIENCE),
                3600,
            )
            .await;
        let session = Session {
            namespace: test.namespace.clone(),
            name: "ahead".to_owned(),
            uid,
            pod: "web".to_owned(),
            token: token.as_deref().unwrap_or_default().to_owned(),
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
    run_alone(async |test| {
        test.create_pod("web", vec![json!({}), json!({})]).await?;
        test.running("web").await?;
        let session = test
            .session(
                "web",
                json!({"command": ["echo", "allowed"], "target": {"pod": {"name": "web"}, "container": "main"}}),
            )
            .await?;
        let other = test.session("web", json!({})).await?;
        let attach = test.session("web", json!({"mode": "Attach"})).await?;
        let (ns, gateway) = (&test.namespace, test.gateway());
        let allowed = || Opening::exec(&session, &["echo", "allowed"]);
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
                Opening::exec(&session, &["echo", "allowed", ""]),
                "one command only",
            ),
            (
                Opening::exec(&session, &["echo allowed"]),
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
        ensure!(end.stdout == b"allowed\n", "what is allowed is: {end:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_refused_with_429_until_another_ends() {
    run_alone(async |test| {
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
async fn identity_headers_of_a_client_change_nothing() {
    run_alone(async |test| {
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
