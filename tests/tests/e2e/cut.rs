//! Access ends on time, whoever ends it, and the person at the shell is told why.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drawbridge_crds::v1alpha1::ConsoleSession;
use drawbridge_tests::{
    End, Opening, Session, Test, Timings, contains, note, run, run_alone, soon,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::shell;

const RUNS: usize = 20;
/// From the moment before the API is asked until the client has its Status.
const CUT: Duration = Duration::from_secs(1);
/// After `expiresAt`.
const EXPIRY: Duration = Duration::from_millis(250);
const LIMIT: Duration = Duration::from_secs(20);

/// A shell, and a task that notes when it ends.
async fn ending(test: &Test, session: &Session) -> Result<JoinHandle<Result<End>>> {
    Ok(tokio::spawn(shell(test, session).await?.finish()))
}

/// How long after `asked` the shell was cut, which must be with `says`.
async fn cut(ended: JoinHandle<Result<End>>, asked: Instant, says: &str) -> Result<Duration> {
    let end = soon("the shell is cut", LIMIT, ended).await???;
    contains(&end.failure()?, says)?;
    Ok(end.at.saturating_duration_since(asked))
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_session_ends_its_shell_within_a_second() {
    run(async |test| {
        test.pod("web").await?;
        let says = "the session was revoked";
        let mut timings = Timings::default();
        for _ in 0..RUNS {
            let session = test.session("web", json!({})).await?;
            let ended = ending(test, &session).await?;
            let asked = Instant::now();
            test.revoke(&session.name).await?;
            timings.add(cut(ended, asked, says).await?);
        }
        timings.must_stay_within("revoked: true, to the client's Status", CUT);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_session_ends_its_shell_within_a_second() {
    run(async |test| {
        test.pod("web").await?;
        let says = "the session was deleted";
        let mut timings = Timings::default();
        for _ in 0..RUNS {
            let session = test.session("web", json!({})).await?;
            let ended = ending(test, &session).await?;
            let asked = Instant::now();
            test.delete::<ConsoleSession>(&session.name).await?;
            timings.add(cut(ended, asked, says).await?);
        }
        timings.must_stay_within("the session deleted, to the client's Status", CUT);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_pod_ends_its_shells_within_a_second() {
    run(async |test| {
        let says = "the pod was deleted";
        let mut timings = Timings::default();
        // Its process ignores SIGTERM, so the pod lasts for as long as the deletion allows: the cut is not its death.
        let slowly = DeleteParams {
            grace_period_seconds: Some(10),
            ..Default::default()
        };
        let pods: Api<Pod> = test.api();
        for run in 0..RUNS {
            let name = format!("web-{run}");
            test.pod(&name).await?;
            let session = test.session(&name, json!({})).await?;
            let ended = ending(test, &session).await?;
            let asked = Instant::now();
            pods.delete(&name, &slowly).await?;
            timings.add(cut(ended, asked, says).await?);
        }
        timings.must_stay_within("the pod deleted, to the client's Status", CUT);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_namespace_ends_its_shells_within_a_second() {
    run_alone(async |first| {
        let mut timings = Timings::default();
        for _ in 0..RUNS {
            // Each test has a namespace of its own.
            let test = first.beside().await?;
            timings.add(one_namespace(&test).await?);
        }
        timings.must_stay_within("the namespace deleted, to the client's Status", CUT);
        Ok(())
    })
    .await;
}

async fn one_namespace(test: &Test) -> Result<Duration> {
    test.pod("web").await?;
    let session = test.session("web", json!({})).await?;
    let ended = ending(test, &session).await?;
    let asked = Instant::now();
    let namespaces = Api::<Namespace>::all(test.cluster.client.clone());
    namespaces
        .delete(&test.namespace, &DeleteParams::default())
        .await?;
    let end = soon("the shell is cut", LIMIT, ended).await???;
    // The namespace's end deletes the session, and kills the pod without grace; whichever is seen first is told.
    let failure = end.failure()?;
    let told = ["deleted", "exit code 137"]
        .iter()
        .any(|says| failure.contains(says));
    ensure!(told, "{failure}");
    Ok(end.at.saturating_duration_since(asked))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_ends_within_a_quarter_of_a_second_of_its_expiry_and_not_before() {
    run(async |test| {
        test.pod("web").await?;
        let says = "the session expired";
        // Far enough ahead for all to be open, and a second apart so that they do not queue behind each other.
        let first = Timestamp::from_second(Timestamp::now().as_second() + 25)?;
        let mut open = Vec::new();
        for run in 0..RUNS {
            let until = first + SignedDuration::from_secs(i64::try_from(run)?);
            let session = test.session("web", json!({"notAfter": until})).await?;
            ensure!(session.expires_at()? == until, "{}", session.expires_at()?);
            let ended = ending(test, &session).await?;
            ensure!(
                Timestamp::now() < until,
                "it was not open in time to prove anything"
            );
            open.push((until, ended));
        }
        let mut timings = Timings::default();
        for (until, ended) in open {
            let end = soon("the shell is cut", Duration::from_mins(1), ended).await???;
            contains(&end.failure()?, says)?;
            let at = Timestamp::now() - SignedDuration::try_from(end.at.elapsed())?;
            let late = at.duration_since(until);
            ensure!(!late.is_negative(), "it was cut {late:?} before its time");
            timings.add(Duration::try_from(late)?);
        }
        timings.must_stay_within("expiresAt, to the client's Status", EXPIRY);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_replaced_by_another_of_its_name_is_not_the_one_granted() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let ended = ending(test, &session).await?;
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            ..Default::default()
        };
        test.api::<Pod>().delete("web", &now).await?;
        let end = soon("the shell ends", LIMIT, ended).await???;
        ensure!(end.close == Some(1000), "{end:?}");
        end.failure().context("death of the pod is no success")?;
        test.pod("web").await?;
        let refused = Opening::exec(&session, &["true"])
            .refused(&test.gateway())
            .await?;
        note(format!("a replaced pod: {}", refused.refusal(401)?));
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_byte_of_data_is_ended_after_the_idle_timeout_and_pings_do_not_count()
 {
    use tokio_tungstenite::tungstenite::Message;
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({"idleTimeout": "10s"})).await?;
        let mut console = Opening::exec(&session, &["sleep", "1000"])
            .tty()
            .open(&test.gateway())
            .await?;
        let begin = Instant::now();
        console.send(Message::Ping("awake".into())).await?;
        let end = console.finish().await?;
        let lived = end.at.duration_since(begin);
        contains(&end.failure()?, "idleTimeout")?;
        ensure!(
            lived >= Duration::from_millis(9_900) && lived < Duration::from_secs(13),
            "it lived {lived:?}"
        );
        Ok(())
    })
    .await;
}
