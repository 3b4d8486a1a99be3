//! An idle console stays open: pings go out by themselves, and nothing that keeps it awake disturbs it.
//!
//! That four hours pass this way is proved on a paused clock, in the gateway's own tests of its bridge.

use std::time::{Duration, Instant};

use anyhow::ensure;
use drawbridge_tests::{Event, Opening, PROTOCOLS, note, run, soon, wait_for};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_console_is_pinged_every_fifteen_seconds_and_stays_usable() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let mut console = Opening::exec(&session, &["cat"])
            .tty()
            .open(&test.gateway())
            .await?;
        let mut last = Instant::now();
        for _ in 0..3 {
            let ping = async {
                while console.event().await? != Event::Ping {}
                anyhow::Ok(())
            };
            soon("a ping of the gateway", Duration::from_secs(20), ping).await??;
            note(format!("a ping after {:.1?}", last.elapsed()));
            last = Instant::now();
        }
        console.stdin(b"still here\n").await?;
        console.until("still here").await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_of_every_kind_pass_without_a_trace() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({"maxConnections": 8})).await?;
        for protocol in PROTOCOLS {
            let script = ["sh", "-c", "stty raw -echo; echo ready; head -c 4"];
            let mut console = Opening::exec(&session, &script)
                .tty()
                .protocol(protocol)
                .open(&test.gateway())
                .await?;
            console.until("ready").await?;
            for n in 0..50_u32 {
                console
                    .send(Message::Ping(n.to_be_bytes().to_vec().into()))
                    .await?;
                console.send(Message::Pong("unsolicited".into())).await?;
                let empty = console.message(0, b"");
                console.send(empty).await?; // what OpenShift's and Cockpit's consoles send every 30 s
            }
            console.stdin(b"done").await?;
            let end = console.finish().await?;
            ensure!(
                end.stdout.ends_with(b"done") && end.exit_code(protocol)? == 0,
                "{protocol:?}: {end:?}"
            );
        }
        Ok(())
    })
    .await;
}

/// A client that vanishes without a word (its machine lost power) is noticed by its silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_no_ping_is_let_go_after_a_minute() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({"maxConnections": 1})).await?;
        let gateway = test.gateway();
        let console = Opening::exec(&session, &["cat"])
            .tty()
            .open(&gateway)
            .await?;
        let begin = Instant::now();
        // Held, but never read: no pong goes out.
        let socket = console.into_socket();
        let line = wait_for(
            "the gateway lets the client go",
            Duration::from_secs(100),
            async || {
                let log = gateway.process.log()?;
                let mut ended = log.lines().filter(|line| {
                    line.contains(&test.namespace) && line.contains("console ended")
                });
                Ok(ended.next().map(str::to_owned))
            },
        );
        let line = line.await?;
        ensure!(line.contains("client_lost"), "{line}");
        let took = begin.elapsed();
        note(format!("a silent client was let go after {took:.1?}"));
        ensure!(took >= Duration::from_secs(55), "after only {took:?}");
        drop(socket);
        Ok(())
    })
    .await;
}
