//! However a shell ends, kubectl says so: the person reads why, and a script sees that it was no success.

use std::time::Duration;

use anyhow::{Result, ensure};
use drawbridge_crds::v1alpha1::ConsoleSession;
use drawbridge_tests::{Session, Terminal, Test, contains, note, run, run_alone, wait_for};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::DeleteParams;
use rustix::process::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// A session with these fields, and a shell of kubectl's at its prompt.
async fn shell(test: &Test, more: Value) -> Result<(Session, Terminal)> {
    test.pod("web").await?;
    let session = test.session("web", more).await?;
    let kubectl = session.kubectl(&test.cluster).await?;
    let args = ["exec", "-it", "web", "--", "sh"];
    let mut terminal = Terminal::start(&kubectl, &args, 24, 120)?;
    terminal.prompt().await?;
    Ok((session, terminal))
}

async fn told(terminal: &mut Terminal, says: &str) -> Result<()> {
    let status = terminal.exit(LIMIT).await?;
    ensure!(
        status.code().is_some_and(|code| code != 0),
        "kubectl exited {status}"
    );
    contains(&terminal.screen(), says)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_is_told() {
    run(async |test| {
        let (session, mut terminal) = shell(test, json!({})).await?;
        test.revoke(&session.name).await?;
        told(&mut terminal, "the session was revoked").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_session_is_told() {
    run(async |test| {
        let (session, mut terminal) = shell(test, json!({})).await?;
        test.delete::<ConsoleSession>(&session.name).await?;
        told(&mut terminal, "the session was deleted").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_told() {
    run(async |test| {
        let (_, mut terminal) = shell(test, json!({})).await?;
        let slowly = DeleteParams {
            grace_period_seconds: Some(10),
            ..Default::default()
        };
        test.api::<Pod>().delete("web", &slowly).await?;
        told(&mut terminal, "the pod was deleted").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_is_told() {
    run(async |test| {
        let (_, mut terminal) = shell(test, json!({})).await?;
        Api::<Namespace>::all(test.cluster.client.clone())
            .delete(&test.namespace, &DeleteParams::default())
            .await?;
        // The session goes with it; whichever is seen first is told.
        told(&mut terminal, "deleted").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_is_told() {
    run(async |test| {
        let until = Timestamp::from_second(Timestamp::now().as_second() + 15)?;
        let (_, mut terminal) = shell(test, json!({"notAfter": until})).await?;
        told(&mut terminal, "the session expired").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_is_an_error_and_the_next_one_serves_kubectl_at_once() {
    run_alone(async |test| {
        let (session, mut terminal) = shell(test, json!({})).await?;
        let kubectl = session.kubectl(&test.cluster).await?;
        test.gateway().process.kill().await?;
        told(&mut terminal, "").await?;
        let refused = kubectl.run(&["exec", "web", "--", "true"]).await?;
        ensure!(refused.code != Some(0), "{refused:?}");
        test.drawbridge.restart_gateway(&[]).await?;
        let again = kubectl.ok(&["exec", "web", "--", "echo", "again"]).await?;
        ensure!(again == "again\n");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_is_announced_on_the_screen_and_waits_for_the_shell() {
    run_alone(async |test| {
        let gateway = test.gateway();
        gateway.process.kill().await?;
        let flags = ["--drain-pause=1s", "--drain=60s"];
        let gateway = test.drawbridge.restart_gateway(&flags).await?;
        let (_, mut terminal) = shell(test, json!({})).await?;
        gateway.process.signal(Signal::TERM);
        terminal
            .until("a notice of the gateway", |screen| {
                screen.to_lowercase().contains("drawbridge")
            })
            .await?;
        let screen = terminal.screen();
        let notice = screen.lines().find(|line| line.contains("rawbridge"));
        note(format!("the notice: {}", notice.unwrap_or_default().trim()));
        terminal.type_text("echo go''ing on\n").await?;
        terminal.shows("going on").await?;
        terminal.type_text("exit 5\n").await?;
        let status = terminal.exit(LIMIT).await?;
        ensure!(status.code() == Some(5), "{status}");
        wait_for("the gateway is done", LIMIT, async || {
            Ok(gateway.process.ended())
        })
        .await?;
        test.drawbridge.restart_gateway(&[]).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_outlasts_the_drain_is_told() {
    run_alone(async |test| {
        let gateway = test.gateway();
        gateway.process.kill().await?;
        let flags = ["--drain-pause=0s", "--drain=3s"];
        let gateway = test.drawbridge.restart_gateway(&flags).await?;
        let (_, mut terminal) = shell(test, json!({})).await?;
        gateway.process.signal(Signal::TERM);
        told(&mut terminal, "restarting").await?;
        gateway.process.exit(LIMIT).await?;
        test.drawbridge.restart_gateway(&[]).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_that_idles_for_longer_than_its_own_patience_is_still_connected() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let kubectl = session.kubectl(&test.cluster).await?;
        let mut terminal = Terminal::start(&kubectl, &["exec", "-it", "web", "--", "sh"], 24, 80)?;
        terminal.prompt().await?;
        // kubectl gives up 61 s after the last pong. Nothing is sent or shown meanwhile.
        let early = terminal.exit(Duration::from_secs(64)).await;
        ensure!(early.is_err(), "kubectl ended by itself: {early:?}");
        terminal.type_text("echo sti''ll here\n").await?;
        terminal.shows("still here").await
    })
    .await;
}
