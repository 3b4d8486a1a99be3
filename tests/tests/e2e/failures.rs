//! Each part may die: shells stay where they can, end on time all the same, and nothing broken looks like success.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use drawbridge_crds::v1alpha1::Phase;
use drawbridge_tests::{Event, Needs, Opening, Timings, contains, note, run_alone, soon, wait_for};
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::json;

use crate::{echo, shell};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_shells_stay_and_still_end_on_time() {
    run_alone(async |test| {
        test.pod("web").await?;
        let until = Timestamp::from_second(Timestamp::now().as_second() + 15)?;
        let (kept, expiring, revoked) = (
            test.session("web", json!({})).await?,
            test.session("web", json!({"notAfter": until})).await?,
            test.session("web", json!({})).await?,
        );
        let (mut kept, expiring, to_revoke) = (
            shell(test, &kept).await?,
            shell(test, &expiring).await?,
            shell(test, &revoked).await?,
        );
        test.drawbridge.operator().process.kill().await?;

        echo(&mut kept, "sti''ll", "still")
            .await
            .context("a shell stays")?;
        // New connections too: the gateway needs no operator.
        let asked = Instant::now();
        test.revoke(&revoked.name).await?;
        let end = to_revoke.finish().await?;
        contains(&end.failure()?, "revoked")?;
        ensure!(
            end.at.duration_since(asked) < Duration::from_secs(1),
            "revocation took {:?}",
            end.at.duration_since(asked)
        );
        let end = soon("expiry", LIMIT, expiring.finish()).await??;
        contains(&end.failure()?, "expired")?;
        let late =
            (Timestamp::now() - SignedDuration::try_from(end.at.elapsed())?).duration_since(until);
        ensure!(
            !late.is_negative() && late < SignedDuration::from_millis(250),
            "cut {late:?} after its time"
        );

        // The next operator waits for the Lease of the dead one to run out, then takes up what happened meanwhile.
        let begin = Instant::now();
        test.drawbridge.restart_operator(&[]).await?;
        test.phase(&revoked.name, Phase::Revoked).await?;
        note(format!(
            "a new operator has caught up {:.1?} after its start",
            begin.elapsed()
        ));
        let session = test.session("web", json!({})).await?;
        shell(test, &session).await?;
        echo(&mut kept, "aft''er", "after").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_is_an_error_and_the_next_one_serves_at_once() {
    run_alone(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let console = shell(test, &session).await?;
        test.gateway().process.kill().await?;
        let end = console.finish().await?;
        ensure!(
            end.status.is_none() && end.close.is_none(),
            "a broken connection, and nothing invented: {end:?}"
        );
        let begin = Instant::now();
        test.drawbridge.restart_gateway(&[]).await?;
        shell(test, &session).await?;
        note(format!(
            "a new gateway has served {:.1?} after its start",
            begin.elapsed()
        ));
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_api_server_restarts_both_recover_by_themselves() {
    run_alone(async |test| {
        if !test.cluster.offers(Needs::Restart)? {
            return Ok(());
        }
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let console = shell(test, &session).await?;
        let (operator, gateway) = (test.drawbridge.operator(), test.gateway());
        let (restarted, end) = tokio::join!(test.cluster.restart_apiserver(), console.finish());
        restarted?;
        // The stream went through the API server, so it ended with it; not as a success.
        let end = end?;
        if end.status.is_some() {
            end.failure()?;
        } else {
            ensure!(end.close != Some(1000), "kubectl would exit 0: {end:?}");
        }
        let begin = Instant::now();
        // A leader that could not renew its Lease for its duration ends itself, and its Deployment starts the next;
        // there is none here.
        if operator.process.ended().is_some() {
            contains(&operator.process.log()?, "the lease was lost")?;
            note("the operator gave up its Lease and ended, as it must; another is started");
            test.drawbridge.restart_operator(&[]).await?;
        }
        let old = wait_for("the old session works again", LIMIT, async || {
            Ok(Some(shell(test, &session).await?))
        });
        old.await?;
        let again = begin.elapsed();
        let new = wait_for("new sessions work again", LIMIT, async || {
            let session = test.session("web", json!({})).await?;
            shell(test, &session).await?;
            Ok(Some(session))
        });
        let new = new.await?;
        note(format!(
            "after the API server's return: the old session {again:.1?}, a new one {:.1?}",
            begin.elapsed()
        ));
        // The watch has recovered, too: a revocation is seen at once.
        let console = shell(test, &new).await?;
        let asked = Instant::now();
        test.revoke(&new.name).await?;
        let end = console.finish().await?;
        contains(&end.failure()?, "revoked")?;
        let mut timings = Timings::default();
        timings.add(end.at.duration_since(asked));
        timings.must_stay_within(
            "revocation after an API server's restart",
            Duration::from_secs(1),
        );
        gateway.process.must_run()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_asked_to_stop_says_so_and_lets_shells_finish() {
    run_alone(async |test| {
        let gateway = test.gateway();
        gateway.process.kill().await?;
        let gateway = test
            .drawbridge
            .restart_gateway(&["--drain-pause=1s", "--drain=60s"])
            .await?;
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let mut console = shell(test, &session).await?;
        gateway.process.signal(Signal::TERM);
        let notice = console.until("rawbridge").await?;
        note(format!("the notice: {}", notice.trim()));
        // It goes on.
        echo(&mut console, "go''ing", "going").await?;
        wait_for("no new connections", LIMIT, async || {
            Ok(Opening::exec(&session, &["true"])
                .open(&gateway)
                .await
                .is_err()
                .then_some(()))
        })
        .await?;
        gateway.process.must_run()?;
        // And finishes as it would have.
        console.stdin(b"exit 6\n").await?;
        let end = console.finish().await?;
        ensure!(end.exit_code("v4.channel.k8s.io")? == 6, "{end:?}");
        let status = gateway
            .process
            .exit(Duration::from_secs(10))
            .await
            .context("nobody is left to wait for")?;
        ensure!(status.success(), "{status}");
        test.drawbridge.restart_gateway(&[]).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_does_not_finish_while_the_gateway_drains_is_cut_and_told() {
    run_alone(async |test| {
        let gateway = test.gateway();
        gateway.process.kill().await?;
        let gateway = test
            .drawbridge
            .restart_gateway(&["--drain-pause=0s", "--drain=3s"])
            .await?;
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let console = shell(test, &session).await?;
        gateway.process.signal(Signal::TERM);
        let end = console.finish().await?;
        contains(&end.failure()?, "restarting")?;
        let status = gateway.process.exit(Duration::from_secs(10)).await?;
        ensure!(status.success(), "{status}");
        test.drawbridge.restart_gateway(&[]).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_without_dropping_a_shell() {
    run_alone(async |test| {
        let gateway = test.gateway();
        gateway.process.kill().await?;
        let gateway = test
            .drawbridge
            .restart_gateway(&["--tls-reload=1s"])
            .await?;
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let mut console = shell(test, &session).await?;
        let before = test.drawbridge.pki().shown_by(gateway.addr).await?;
        test.drawbridge.pki().renew()?;
        wait_for("the new certificate is served", LIMIT, async || {
            Ok((test.drawbridge.pki().shown_by(gateway.addr).await? != before).then_some(()))
        })
        .await?;
        echo(&mut console, "sti''ll", "still").await?;
        shell(test, &session).await?;
        console.stdin(b"exit\n").await?;
        while !matches!(console.event().await?, Event::Closed(Some(1000))) {}
        Ok(())
    })
    .await;
}
