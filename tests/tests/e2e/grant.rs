//! A declared session becomes access, tells its story, heals itself and cleans up after itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, EndReason, Phase};
use drawbridge_tests::{Opening, Session, Test, Timings, contains, run, soon, wait_for};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use serde_json::json;

/// Generous beside what is measured: only for what has no bound of its own.
const LIMIT: Duration = Duration::from_secs(30);

fn phase(object: Option<&ConsoleSession>) -> Option<Phase> {
    object?.status.as_ref()?.phase
}

/// Runs a command through the session as its user would, and returns what it prints.
async fn works(test: &Test, session: &Session) -> Result<()> {
    let console = Opening::exec(session, &["echo", "hello"])
        .open(&test.gateway())
        .await?;
    let end = console.finish().await?;
    ensure!(
        end.stdout == b"hello\n" && end.exit_code("v4.channel.k8s.io")? == 0,
        "{end:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_ready_in_under_two_seconds() {
    run(async |test| {
        test.pod("web").await?;
        let mut timings = Timings::default();
        for _ in 0..10 {
            let name = test.name("fix-cart");
            let ready = await_condition(test.api(), &name, |object: Option<&ConsoleSession>| {
                phase(object) == Some(Phase::Ready)
            });
            let begin = Instant::now();
            let (applied, ready) = tokio::join!(
                test.apply_session(&name, "web", json!({})),
                soon("it is Ready", LIMIT, Box::pin(ready))
            );
            timings.add(begin.elapsed());
            applied?;
            ready??;
            works(test, &test.granted(&name).await?).await?;
        }
        timings.must_stay_within("apply to Ready", Duration::from_secs(2));
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_declared_ahead_is_scheduled_until_its_window_opens_and_ends_with_it() {
    run(async |test| {
        test.pod("web").await?;
        // Kubernetes keeps whole seconds.
        let from = Timestamp::from_second(Timestamp::now().as_second() + 6)?;
        let until = from + SignedDuration::from_secs(5);
        test.apply_session(
            "ahead",
            "web",
            json!({"notBefore": from, "notAfter": until}),
        )
        .await?;
        let waiting = test.phase("ahead", Phase::Scheduled).await?;
        ensure!(
            Timestamp::now() < from,
            "Scheduled was seen too late to prove anything"
        );
        ensure!(
            waiting
                .status
                .is_some_and(|status| status.credential.is_none()),
            "nobody has a token before its time"
        );
        let session = test.granted("ahead").await?;
        ensure!(Timestamp::now() >= from, "it was granted before notBefore");
        ensure!(
            session.expires_at()? == until,
            "notAfter comes before the duration: {}",
            session.expires_at()?
        );
        works(test, &session).await?;
        let ended = test.phase("ahead", Phase::Expired).await?;
        let status = ended.status.context("it has one")?;
        ensure!(status.end_reason == Some(EndReason::Expired), "{status:?}");
        ensure!(
            status.ended_at.is_some_and(|at| at.0 >= until),
            "it ended before its time"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_closed_before_the_pod_came_was_missed() {
    run(async |test| {
        let until = Timestamp::from_second(Timestamp::now().as_second() + 10)?;
        test.apply_session("late", "never", json!({"notAfter": until}))
            .await?;
        test.phase("late", Phase::Pending).await?;
        let ended = test.phase("late", Phase::Expired).await?;
        ensure!(ended.status.and_then(|status| status.end_reason) == Some(EndReason::WindowMissed));
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_waits_for_its_pod() {
    run(async |test| {
        test.apply_session("early", "web", json!({})).await?;
        test.phase("early", Phase::Pending).await?;
        test.pod("web").await?;
        works(test, &test.granted("early").await?).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_for_the_container_it_names_else_for_any_and_one_that_is_not_there_fails_it() {
    run(async |test| {
        test.create_pod(
            "pair",
            vec![
                json!({}),
                json!({"env": [{"name": "WHICH", "value": "second"}]}),
            ],
        )
        .await?;
        test.running("pair").await?;
        let first = test.session("pair", json!({})).await?;
        let target = first
            .object
            .status
            .clone()
            .and_then(|status| status.target)
            .context("resolved")?;
        ensure!(target.container == "main", "{target:?}");
        ensure!(target.containers == ["main", "extra-1"], "{target:?}");
        for (container, prints) in [
            (None, "\n"),
            (Some("main"), "\n"),
            (Some("extra-1"), "second\n"),
        ] {
            let mut opening = Opening::exec(&first, &["sh", "-c", "echo $WHICH"]);
            if let Some(container) = container {
                opening = opening.query("container", container);
            }
            let end = opening.open(&test.gateway()).await?.finish().await?;
            ensure!(end.stdout == prints.as_bytes(), "{container:?}: {end:?}");
        }
        let second = test
            .session(
                "pair",
                json!({"target": {"pod": {"name": "pair"}, "container": "extra-1"}}),
            )
            .await?;
        let console = Opening::exec(&second, &["sh", "-c", "echo $WHICH"])
            .open(&test.gateway())
            .await?;
        ensure!(console.finish().await?.stdout == b"second\n");
        test.apply_session(
            "wrong",
            "pair",
            json!({"target": {"pod": {"name": "pair"}, "container": "none"}}),
        )
        .await?;
        let failed = test.phase("wrong", Phase::Failed).await?;
        ensure!(
            failed.status.and_then(|status| status.end_reason)
                == Some(EndReason::ContainerNotFound)
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_deleted_after_its_ttl() {
    run(async |test| {
        test.pod("web").await?;
        let session = test
            .session("web", json!({"ttlAfterFinished": "2s"}))
            .await?;
        test.revoke(&session.name).await?;
        let ended = test
            .phase(&session.name, Phase::Revoked)
            .await?
            .status
            .and_then(|status| status.ended_at);
        let gone = await_condition(
            test.api::<ConsoleSession>(),
            &session.name,
            |object: Option<&ConsoleSession>| object.is_none(),
        );
        soon("the session is deleted", LIMIT, Box::pin(gone)).await??;
        let lived = Timestamp::now().duration_since(ended.context("it ended")?.0);
        ensure!(
            lived >= SignedDuration::from_secs(2),
            "deleted {lived:?} after it ended"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_taken_from_a_grant_or_added_to_it_is_put_right() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let grant = names::grant(&session.object).context("a stored object has a UID")?;
        let account = names::account(&session.uid);
        let (roles, bindings, secrets) = (
            test.api::<Role>(),
            test.api::<RoleBinding>(),
            test.api::<Secret>(),
        );
        let accounts = Api::<ServiceAccount>::namespaced(
            test.cluster.client.clone(),
            names::SESSIONS_NAMESPACE,
        );
        let narrow = roles.get(&grant).await?.rules;
        let members = bindings.get(&grant).await?.subjects;

        test.delete::<Role>(&grant).await?;
        wait_for("a deleted Role is back", LIMIT, async || {
            Ok((roles.get(&grant).await?.rules == narrow).then_some(()))
        })
        .await?;
        test.delete::<RoleBinding>(&grant).await?;
        wait_for("a deleted RoleBinding is back", LIMIT, async || {
            Ok((bindings.get(&grant).await?.subjects == members).then_some(()))
        })
        .await?;
        let widened = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
        roles
            .patch(&grant, &PatchParams::default(), &Patch::Merge(&widened))
            .await?;
        wait_for("a widened Role is narrow again", LIMIT, async || {
            Ok((roles.get(&grant).await?.rules == narrow).then_some(()))
        })
        .await?;
        works(test, &session)
            .await
            .context("the grant works as before")?;

        test.delete::<Secret>(
            &session
                .object
                .status
                .clone()
                .and_then(|status| status.credential)
                .context("one")?
                .secret,
        )
        .await?;
        wait_for("a deleted Secret is back", LIMIT, async || {
            Ok(Some(secrets.get(&grant).await?))
        })
        .await?;
        works(test, &test.granted(&session.name).await?)
            .await
            .context("the new token works")?;

        let before = accounts.get(&account).await?.metadata.uid;
        accounts.delete(&account, &DeleteParams::default()).await?;
        wait_for(
            "a deleted account is back, with a token that works",
            LIMIT,
            async || {
                ensure!(
                    accounts.get(&account).await?.metadata.uid != before,
                    "the old account"
                );
                let renewed = test.granted(&session.name).await?;
                ensure!(renewed.token != session.token, "the old token");
                works(test, &renewed).await.map(Some)
            },
        )
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_named_user_and_nobody_else_may_read_the_credential_and_watch_the_session() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let secret = format!(
            "secrets/{}",
            names::grant(&session.object).context("a stored object has a UID")?
        );
        let own = format!("consolesessions.drawbridge.dev/{}", session.name);
        for (user, verb, what, allowed) in [
            ("alice@example.com", "get", secret.as_str(), true),
            ("alice@example.com", "get", &own, true),
            ("alice@example.com", "watch", &own, true),
            ("alice@example.com", "update", &own, false),
            ("alice@example.com", "delete", &secret, false),
            ("alice@example.com", "list", "secrets", false),
            ("alice@example.com", "create", "pods:exec", false),
            ("alice@example.co", "get", &secret, false),
            ("system:anonymous", "get", &secret, false),
        ] {
            let answer = test.cluster.can(user, &test.namespace, verb, what).await?;
            ensure!(answer == allowed, "{user} {verb} {what}: {answer}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_breaks_a_rule_is_refused_with_what_to_change() {
    run(async |test| {
        test.pod("web").await?;
        // Every API server enforces the schema.
        for (more, says) in [
            (json!({"user": ""}), "spec.user"),
            (json!({"user": null}), "spec.user"),
            (json!({"mode": "Peek"}), "spec.mode"),
            (json!({"maxConnections": 0}), "spec.maxConnections"),
            (
                json!({"target": {"pod": {"name": "Not_A_Name"}}}),
                "spec.target.pod.name",
            ),
            (json!({"target": {}}), "spec.target.pod"),
            (json!({"reason": "x".repeat(1025)}), "spec.reason"),
            (json!({"notBefore": "tomorrow"}), "spec.notBefore"),
        ] {
            let refused = test.apply_session("wrong", "web", more.clone()).await;
            let error = format!(
                "{:#}",
                refused.err().with_context(|| format!("{more} was taken"))?
            );
            contains(&error, says).with_context(|| more.to_string())?;
        }
        // From 1.25 on the API server enforces these as well; before, the operator does.
        let times =
            json!({"notBefore": "2030-01-02T00:00:00Z", "notAfter": "2030-01-01T00:00:00Z"});
        for (name, more, says) in [
            (
                "short",
                json!({"duration": "59s"}),
                "duration must be between 1m and 24h",
            ),
            (
                "long",
                json!({"duration": "25h"}),
                "duration must be between 1m and 24h",
            ),
            (
                "idle",
                json!({"idleTimeout": "1s"}),
                "idleTimeout must be between 10s and 24h",
            ),
            (
                "backwards",
                times,
                "notBefore must be earlier than notAfter",
            ),
            (
                "anybody",
                json!({"user": "system:anonymous"}),
                "system:anonymous is everybody",
            ),
            (
                "both",
                json!({"mode": "Attach", "command": ["sh"]}),
                "command has no meaning with mode Attach",
            ),
        ] {
            refused_or_failed(test, name, &more, says).await?;
        }
        Ok(())
    })
    .await;
}

async fn refused_or_failed(
    test: &Test,
    name: &str,
    more: &serde_json::Value,
    says: &str,
) -> Result<()> {
    if let Err(error) = test.apply_session(name, "web", more.clone()).await {
        return contains(&format!("{error:#}"), says);
    }
    ensure!(
        test.cluster.version < (1, 25),
        "an API server with CEL took {more}"
    );
    let failed = test.phase(name, Phase::Failed).await?;
    let status = failed.status.context("it has one")?;
    ensure!(
        status.end_reason == Some(EndReason::InvalidSpec),
        "{status:?}"
    );
    let stalled = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Stalled")
        .context("it is Stalled")?;
    contains(&stalled.message, says)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_session_cannot_be_made_to_mean_something_else() {
    run(async |test| {
        test.pod("web").await?;
        test.pod("db").await?;
        let session = test.session("web", json!({})).await?;
        let moved = Patch::Merge(json!({"spec": {"target": {"pod": {"name": "db"}}}}));
        if let Err(error) = test
            .api::<ConsoleSession>()
            .patch(&session.name, &PatchParams::default(), &moved)
            .await
        {
            contains(&error.to_string(), "spec is immutable but for revoked")?;
        } else {
            ensure!(
                test.cluster.version < (1, 25),
                "an API server with CEL took it"
            );
            test.phase(&session.name, Phase::Failed).await?;
        }
        let other = Opening::exec(&session, &["true"]).path(&format!(
            "/api/v1/namespaces/{}/pods/db/exec",
            test.namespace
        ));
        let answer = other.refused(&test.gateway()).await?;
        ensure!(matches!(answer.code, 401 | 403), "{answer:?}");
        Ok(())
    })
    .await;
}
