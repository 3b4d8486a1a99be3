//! A session as its author sees it: applied, listed and described by kubectl.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use drawbridge_tests::{Timings, contains, run, soon, wait_for};
use kube::runtime::wait::await_condition;
use serde_json::json;

/// Generous beside what is measured: only for what has no bound of its own.
const LIMIT: Duration = Duration::from_secs(30);

fn phase(object: Option<&ConsoleSession>) -> Option<Phase> {
    object?.status.as_ref()?.phase
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_lines_applied_by_kubectl_are_ready_in_under_two_seconds() {
    run(async |test| {
        test.pod("web").await?;
        let kubectl = test.cluster.kubectl().await?;
        let mut timings = Timings::default();
        for _ in 0..10 {
            let name = test.name("fix-cart");
            let yaml = format!(
                "apiVersion: drawbridge.dev/v1alpha1\n\
                 kind: ConsoleSession\n\
                 metadata:\n  name: {name}\n  namespace: {}\n\
                 spec:\n  user: alice@example.com\n  target:\n    pod:\n      name: web\n",
                test.namespace
            );
            assert_eq!(yaml.lines().count(), 10);
            let ready = await_condition(test.api(), &name, |object: Option<&ConsoleSession>| {
                phase(object) == Some(Phase::Ready)
            });
            let begin = Instant::now();
            let (applied, ready) = tokio::join!(
                kubectl.apply(&yaml),
                soon("it is Ready", LIMIT, Box::pin(ready))
            );
            timings.add(begin.elapsed());
            applied?;
            ready??;
            let user = test.granted(&name).await?.kubectl(&test.cluster).await?;
            ensure!(user.ok(&["exec", "web", "--", "echo", "hello"]).await? == "hello\n");
        }
        timings.must_stay_within(
            "kubectl apply to Ready, kubectl's own start included",
            Duration::from_secs(2),
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_who_what_and_until_when_and_describe_tells_the_story() {
    run(async |test| {
        test.pod("web").await?;
        let session = test
            .session("web", json!({"reason": "carts are stuck"}))
            .await?;
        let (kubectl, ns) = (test.cluster.kubectl().await?, test.namespace.as_str());
        let table = kubectl.ok(&["-n", ns, "get", "cons"]).await?;
        let (head, row) = table.split_once('\n').context("two lines")?;
        for column in ["NAME", "USER", "POD", "PHASE", "EXPIRES", "AGE"] {
            contains(head, column)?;
        }
        for value in [
            &session.name,
            "alice@example.com",
            "web",
            "Ready",
            &session.expires_at()?.to_string(),
        ] {
            contains(row, value)?;
        }
        test.revoke(&session.name).await?;
        test.phase(&session.name, Phase::Revoked).await?;
        let story = wait_for("both Events are told", LIMIT, async || {
            let story = kubectl
                .ok(&["-n", ns, "describe", "cons", &session.name])
                .await?;
            let events = story.split("Events:").nth(1).context("no Events")?;
            contains(events, "Granted")?;
            contains(events, "Revoked")?;
            Ok(Some(story))
        });
        contains(&story.await?, "carts are stuck")?;
        let table = kubectl
            .ok(&["-n", ns, "get", "consolesession", &session.name])
            .await?;
        contains(&table, "Revoked")
    })
    .await;
}
