//! Nobody can do with a part of the product what the whole does not allow.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use drawbridge_tests::{Opening, SYSTEM_NAMESPACE, Session, Test, run, run_alone, wait_for};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// Checks a table of namespace (empty: all), verb, what as in `Cluster::can` and the answer.
async fn may(test: &Test, user: &str, table: &[(&str, &str, &str, bool)]) -> Result<()> {
    for (namespace, verb, what, allowed) in table {
        let answer = test.cluster.can(user, namespace, verb, what).await?;
        ensure!(
            answer == *allowed,
            "{user} {verb} {what} in {namespace:?}: {answer}"
        );
    }
    Ok(())
}

async fn granted(test: &Test) -> Result<Session> {
    test.pod("web").await?;
    test.session("web", json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_token_is_worth_nothing_at_the_api_server() {
    run(async |test| {
        let session = granted(test).await?;
        let client = test.cluster.client_with_token(&session.token).await?;
        match Api::<Pod>::namespaced(client, &test.namespace)
            .get("web")
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 401 => {}
            other => bail!("not 401: {other:?}"),
        }
        // It is the audience that the API server refuses, not the token.
        let reviews = Api::<TokenReview>::all(test.cluster.client.clone());
        let review =
            json!({"spec": {"token": session.token, "audiences": [names::TOKEN_AUDIENCE]}});
        let review = reviews
            .create(&PostParams::default(), &serde_json::from_value(review)?)
            .await?;
        let status = review.status.context("it was reviewed")?;
        ensure!(status.authenticated == Some(true), "{status:?}");
        ensure!(
            status.user.and_then(|user| user.username)
                == Some(names::account_username(
                    names::SESSIONS_NAMESPACE,
                    &session.uid
                ))
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_account_cannot_exec_and_can_be_nobody_but_sessions() {
    run(async |test| {
        granted(test).await?;
        let (ns, sessions) = (test.namespace.as_str(), names::SESSIONS_NAMESPACE);
        let gateway = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:drawbridge-gateway");
        may(
            test,
            &gateway,
            &[
                (sessions, "impersonate", "serviceaccounts", true),
                ("", "impersonate", "serviceaccounts", false),
                (ns, "impersonate", "serviceaccounts", false),
                ("kube-system", "impersonate", "serviceaccounts", false),
                (SYSTEM_NAMESPACE, "impersonate", "serviceaccounts", false),
                ("", "impersonate", "users", false),
                ("", "impersonate", "groups", false),
                ("", "impersonate", "userextras.authentication.k8s.io", false),
                ("", "watch", "consolesessions.drawbridge.dev", true),
                ("", "patch", "consolesessions.drawbridge.dev", false),
                ("", "update", "consolesessions.drawbridge.dev:status", false),
                ("", "patch", "consolesessions.drawbridge.dev:status", true),
                (SYSTEM_NAMESPACE, "get", "secrets/drawbridge-signing", true),
                (
                    SYSTEM_NAMESPACE,
                    "list",
                    "secrets/drawbridge-signing",
                    false,
                ),
                (
                    SYSTEM_NAMESPACE,
                    "patch",
                    "secrets/drawbridge-signing",
                    false,
                ),
                (SYSTEM_NAMESPACE, "get", "secrets", false),
                (
                    SYSTEM_NAMESPACE,
                    "get",
                    "configmaps/drawbridge-signing-keys",
                    true,
                ),
                (
                    SYSTEM_NAMESPACE,
                    "patch",
                    "configmaps/drawbridge-signing-keys",
                    false,
                ),
                (SYSTEM_NAMESPACE, "get", "configmaps", false),
                ("", "create", "tokenreviews.authentication.k8s.io", true),
                (
                    "",
                    "create",
                    "subjectaccessreviews.authorization.k8s.io",
                    true,
                ),
                (sessions, "create", "serviceaccounts:token", false),
                (sessions, "get", "secrets", false),
                (sessions, "create", "serviceaccounts", false),
                (ns, "get", "pods:exec", false),
                (ns, "create", "pods:exec", false),
                (ns, "create", "pods:attach", false),
                (ns, "get", "pods", false),
                (ns, "get", "secrets", false),
                ("", "get", "nodes:proxy", false),
                (
                    "",
                    "escalate",
                    "clusterroles.rbac.authorization.k8s.io",
                    false,
                ),
                ("", "bind", "clusterroles.rbac.authorization.k8s.io", false),
            ],
        )
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_can_impersonate_nobody_and_give_nothing_it_does_not_hold() {
    run(async |test| {
        let operator = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:drawbridge-operator");
        may(
            test,
            &operator,
            &[
                ("", "impersonate", "serviceaccounts", false),
                (
                    names::SESSIONS_NAMESPACE,
                    "impersonate",
                    "serviceaccounts",
                    false,
                ),
                ("", "impersonate", "users", false),
                ("", "impersonate", "groups", false),
                ("", "bind", "clusterroles.rbac.authorization.k8s.io", false),
                ("", "bind", "roles.rbac.authorization.k8s.io", false),
                ("", "escalate", "roles.rbac.authorization.k8s.io", false),
                (
                    "",
                    "escalate",
                    "clusterroles.rbac.authorization.k8s.io",
                    false,
                ),
                (
                    "",
                    "create",
                    "clusterroles.rbac.authorization.k8s.io",
                    false,
                ),
                (
                    "",
                    "create",
                    "clusterrolebindings.rbac.authorization.k8s.io",
                    false,
                ),
                ("", "get", "nodes:proxy", false),
                ("kube-system", "create", "serviceaccounts:token", false),
                ("", "delete", "pods", false),
                ("", "create", "pods", false),
                (
                    names::SESSIONS_NAMESPACE,
                    "create",
                    "serviceaccounts:token",
                    true,
                ),
            ],
        )
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_is_left_once_it_has_ended() {
    run(async |test| {
        let session = granted(test).await?;
        let account = names::account(&session.uid);
        let client = || test.cluster.client.clone();
        let accounts = Api::<ServiceAccount>::namespaced(client(), names::SESSIONS_NAMESPACE);
        let anchors = Api::<Secret>::namespaced(client(), names::SESSIONS_NAMESPACE);
        ensure!(
            accounts.get_opt(&account).await?.is_some()
                && anchors.get_opt(&account).await?.is_some()
        );
        test.revoke(&session.name).await?;
        test.phase(&session.name, Phase::Revoked).await?;
        let label =
            ListParams::default().labels(&format!("{}={}", names::SESSION_UID_LABEL, session.uid));
        wait_for(
            "everything made for the session is gone",
            LIMIT,
            async || {
                ensure!(
                    accounts.get_opt(&account).await?.is_none(),
                    "its account is there"
                );
                ensure!(
                    anchors.get_opt(&account).await?.is_none(),
                    "its anchor is there"
                );
                ensure!(
                    test.api::<Role>().list(&label).await?.items.is_empty(),
                    "a Role is there"
                );
                ensure!(
                    test.api::<RoleBinding>()
                        .list(&label)
                        .await?
                        .items
                        .is_empty(),
                    "a RoleBinding is there"
                );
                ensure!(
                    test.api::<Secret>().list(&label).await?.items.is_empty(),
                    "a Secret is there"
                );
                Ok(Some(()))
            },
        )
        .await?;
        let reviews = Api::<TokenReview>::all(client());
        wait_for(
            "the API server no longer knows the token (it remembers answers for 10 s)",
            LIMIT,
            async || {
                let review =
                    json!({"spec": {"token": session.token, "audiences": [names::TOKEN_AUDIENCE]}});
                let review = reviews
                    .create(&PostParams::default(), &serde_json::from_value(review)?)
                    .await?;
                Ok(
                    (review.status.and_then(|status| status.authenticated) != Some(true))
                        .then_some(()),
                )
            },
        )
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_of_the_targets_namespace_cannot_become_a_session() {
    run(async |test| {
        let session = granted(test).await?;
        let (ns, account) = (test.namespace.as_str(), names::account(&session.uid));
        let editor = "bob@example.com";
        let binding = json!({
            "metadata": {"name": "bob"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": editor}],
        });
        test.api::<RoleBinding>()
            .create(&PostParams::default(), &serde_json::from_value(binding)?)
            .await?;
        wait_for("the binding counts", LIMIT, async || {
            Ok(test
                .cluster
                .can(editor, ns, "impersonate", "serviceaccounts")
                .await?
                .then_some(()))
        })
        .await
        .context(
            "edit may impersonate in its own namespace, which is why accounts are elsewhere",
        )?;
        let (there, one) = (
            names::SESSIONS_NAMESPACE,
            format!("serviceaccounts/{account}"),
        );
        may(
            test,
            editor,
            &[
                // Part of `edit` since 1.21.
                (
                    ns,
                    "create",
                    "serviceaccounts:token",
                    test.cluster.version >= (1, 21),
                ),
                (there, "impersonate", &one, false),
                (there, "create", "serviceaccounts:token", false),
                (there, "get", "secrets", false),
                (there, "get", "serviceaccounts", false),
                (there, "create", "pods", false),
            ],
        )
        .await?;
        // And in fact, not only by the book.
        let path = format!("/api/v1/namespaces/{there}/serviceaccounts/{account}/token");
        let mint = http::Request::post(path)
            .header("impersonate-user", editor)
            .header("content-type", "application/json")
            .body(json!({"spec": {}}).to_string().into_bytes())?;
        match test.cluster.client.request_text(mint).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            other => bail!("not forbidden: {other:?}"),
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_no_byte_of_a_console_is_in_a_log_even_at_trace() {
    run_alone(async |test| {
        let gateway = test.gateway();
        let operator = test.drawbridge.operator();
        operator.process.kill().await?;
        gateway.process.kill().await?;
        test.drawbridge
            .restart_operator(&["--log-filter=trace"])
            .await?;
        let gateway = test
            .drawbridge
            .restart_gateway(&["--log-filter=trace"])
            .await?;

        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let mut console = Opening::exec(&session, &["sh"])
            .tty()
            .open(&gateway)
            .await?;
        console
            .stdin(b"echo typed-$((40000+2)) >&2; echo shown-$((50000+3)); exit 3\n")
            .await?;
        let end = console.finish().await?;
        ensure!(
            String::from_utf8_lossy(&end.stdout).contains("shown-50003"),
            "{end:?}"
        );
        let offer = format!(
            "base64url.bearer.authorization.k8s.io.{}, v4.channel.k8s.io",
            encode(&session.token)
        );
        Opening::exec(&session, &["true"])
            .token("")
            .protocol(&offer)
            .open(&gateway)
            .await?
            .finish()
            .await?;
        let stranger = "c29tZWJvZHktZWxzZXMtc2VjcmV0";
        Opening::exec(&session, &["true"])
            .token(stranger)
            .refused(&gateway)
            .await?
            .refusal(401)?;
        test.revoke(&session.name).await?;
        test.phase(&session.name, Phase::Revoked).await?;

        let own = ["drawbridge-operator", "drawbridge-gateway"]
            .map(|name| test.drawbridge.token_of(name));
        let secrets = [
            ("the session's token", session.token.clone()),
            (
                "the end of the session's token",
                session.token[session.token.len() - 40..].to_owned(),
            ),
            ("the token as a subprotocol", encode(&session.token)),
            ("a stranger's token", stranger.to_owned()),
            ("what was typed", "typed-$(".to_owned()),
            ("what was typed", "typed-40002".to_owned()),
            ("what was shown", "shown-50003".to_owned()),
            (
                "the operator's token",
                own[0]
                    .as_ref()
                    .map_err(|error| anyhow::anyhow!("{error}"))?
                    .clone(),
            ),
            (
                "the gateway's token",
                own[1]
                    .as_ref()
                    .map_err(|error| anyhow::anyhow!("{error}"))?
                    .clone(),
            ),
        ];
        for (path, log) in test.drawbridge.logs()? {
            ensure!(
                log.contains(" TRACE ") || log.contains("TRACE"),
                "{} is not at trace",
                path.display()
            );
            for (what, secret) in &secrets {
                ensure!(
                    !log.contains(secret.as_str()),
                    "{what} is in {}: {}",
                    path.display(),
                    around(&log, secret)
                );
            }
        }
        // The account exists no longer; its name may be known.
        let _: Option<ConsoleSession> = test.api().get_opt(&session.name).await?;
        Ok(())
    })
    .await;
}

fn encode(token: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token)
}

/// The line that holds `secret`, without it.
fn around(log: &str, secret: &str) -> String {
    let line = log
        .lines()
        .find(|line| line.contains(secret))
        .unwrap_or_default();
    line.replace(secret, "…").chars().take(400).collect()
}
