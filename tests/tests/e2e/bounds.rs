//! Whoever floods, memory stays bounded and everybody else's keystrokes come back as fast as before.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drawbridge_tests::{
    Console, Event, Gateway, Opening, Session, Test, Timings, note, run_alone, soon, wait_for,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const LIMIT: Duration = Duration::from_secs(30);
/// Most one flooding connection may cost: both sockets' TLS buffers and what is under way between them are a tenth of
/// it; without a bound a flood passes it in a fraction of a second.
const COST: u64 = 8 << 20;
/// Most a keystroke's way there and back may take while others flood, beside what it took before: the machine's two
/// cores also run the flood itself.
const SLOWER: Duration = Duration::from_millis(150);

/// A bystander's shell: `cat` on a terminal echoes what it is sent.
struct Bystander {
    console: Console,
}

impl Bystander {
    async fn new(session: &Session, gateway: &Gateway) -> Result<Self> {
        let mut console = Opening::exec(
            session,
            &["sh", "-c", "stty raw -echo; echo ready; exec cat"],
        )
        .tty()
        .open(gateway)
        .await?;
        console.until("ready").await?;
        Ok(Self { console })
    }

    /// Keystrokes there and back.
    async fn echoes(&mut self) -> Result<Timings> {
        let mut timings = Timings::default();
        for n in 0..50_u8 {
            let key = char::from(b'a' + n % 26).to_string();
            let begin = Instant::now();
            self.console.stdin(key.as_bytes()).await?;
            self.console.until(&key).await?;
            timings.add(begin.elapsed());
        }
        Ok(timings)
    }

    async fn as_fast_as(&mut self, before: &Timings, what: &str) -> Result<()> {
        let now = self.echoes().await?;
        note(format!(
            "{what}: a bystander's echo p50 {:.1?}, before {:.1?}",
            now.p50(),
            before.p50()
        ));
        ensure!(
            now.p50() < before.p50() + SLOWER,
            "{what}: p50 {:?}, before {:?}",
            now.p50(),
            before.p50()
        );
        Ok(())
    }
}

/// What one flood has to be measured against.
struct Calm {
    session: Session,
    bystander: Bystander,
    echo: Timings,
    rss: u64,
}

impl Calm {
    async fn new(test: &Test) -> Result<Self> {
        test.pod("web").await?;
        let session = test.session("web", json!({"maxConnections": 16})).await?;
        let mut bystander = Bystander::new(&session, &test.gateway()).await?;
        let echo = bystander.echoes().await?;
        Ok(Self {
            session,
            bystander,
            echo,
            rss: test.gateway().process.rss()?,
        })
    }

    /// Bounded now, and at the end of ten looks while the flood goes on.
    async fn stays(&mut self, test: &Test, what: &str) -> Result<()> {
        let mut most = 0;
        for _ in 0..10 {
            self.bystander.console.stdin(b"x").await?;
            self.bystander.console.until("x").await?;
            most = most.max(test.gateway().process.rss()?.saturating_sub(self.rss));
        }
        self.bystander.as_fast_as(&self.echo, what).await?;
        most = most.max(test.gateway().process.rss()?.saturating_sub(self.rss));
        note(format!("{what}: the gateway grew by {} KiB", most / 1024));
        ensure!(most < COST, "{what}: the gateway grew by {most} bytes");
        Ok(())
    }

    /// Runs a command of its own in the pod.
    async fn exec(&self, test: &Test, script: &str) -> Result<String> {
        let console = Opening::exec(&self.session, &["sh", "-c", script])
            .open(&test.gateway())
            .await?;
        let end = console.finish().await?;
        ensure!(
            end.exit_code("v4.channel.k8s.io")? == 0,
            "{script}: {end:?}"
        );
        Ok(String::from_utf8(end.stdout)?.trim().to_owned())
    }

    /// Waits until a number the script prints no longer changes, and returns it.
    async fn settled(&self, test: &Test, what: &str, script: &str) -> Result<u64> {
        let mut last = None;
        wait_for(what, LIMIT, async || {
            let now: u64 = self.exec(test, script).await?.parse()?;
            let same = last.replace(now) == Some(now) && now > 0;
            Ok(same.then_some(now))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_floods_a_client_that_does_not_read_stalls_and_costs_little() {
    run_alone(async |test| {
        let mut calm = Calm::new(test).await?;
        let script = "echo $$ >flood; exec cat /dev/zero";
        let mut flooded = Vec::new();
        for protocol in ["v4.channel.k8s.io", "base64.channel.k8s.io"] {
            flooded.push(
                Opening::exec(&calm.session, &["sh", "-c", script])
                    .protocol(protocol)
                    .open(&test.gateway())
                    .await?,
            );
        }
        // Nobody reads; the writer must come to a standstill, all the way back to the process.
        let written = "sed -n 's/^wchar: //p' /proc/$(cat flood)/io";
        let bytes = calm
            .settled(test, "the flooding process stands still", written)
            .await?;
        note(format!(
            "the process stands still after {} KiB",
            bytes / 1024
        ));
        calm.stays(test, "a client that does not read").await?;
        drop(flooded);
        wait_for(
            "the flooding process is gone or still stands",
            LIMIT,
            async || {
                let open = test
                    .gateway()
                    .metrics()
                    .await?
                    .get("drawbridge_gateway_connections_open");
                Ok((open == Some(1.0)).then_some(()))
            },
        )
        .await
        .context("connections whose client has gone are let go")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_floods_stdin_nobody_reads_is_stalled_and_still_gets_pongs() {
    run_alone(async |test| {
        let mut calm = Calm::new(test).await?;
        let opening = Opening::exec(&calm.session, &["sleep", "1000"]).stdin();
        let (mut sink, mut stream) = opening.open(&test.gateway()).await?.into_socket().split();
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = std::sync::Arc::clone(&sent);
        let flood = tokio::spawn(async move {
            let piece = [vec![0], vec![b'x'; 32 * 1024]].concat();
            while sink.send(Message::binary(piece.clone())).await.is_ok() {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let mut last = None;
        let pieces = wait_for("the client can send no more", LIMIT, async || {
            // Ten keystrokes of a bystander are time enough for a flood that is not stalled to go on.
            calm.bystander.echoes().await?;
            let now = sent.load(std::sync::atomic::Ordering::Relaxed);
            Ok((last.replace(now) == Some(now) && now > 0).then_some(now))
        });
        note(format!(
            "the client was stalled after {} KiB",
            pieces.await? * 32
        ));
        calm.stays(test, "stdin nobody reads").await?;
        // kubectl gives up after 61 s without a pong, and cannot send a ping now.
        let pong = async {
            loop {
                if let Message::Pong(_) = stream.next().await.context("the connection ended")?? {
                    return anyhow::Ok(());
                }
            }
        };
        soon("an unsolicited pong", Duration::from_secs(25), pong).await??;
        flood.abort();
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_resizes_end_in_the_last_size_and_stdin_goes_on() {
    run_alone(async |test| {
        let mut calm = Calm::new(test).await?;
        let mut console = Opening::exec(&calm.session, &["sh"])
            .tty()
            .open(&test.gateway())
            .await?;
        let begin = Instant::now();
        for n in 0..10_000_u16 {
            console.resize(100 + n % 50, 30 + n % 20).await?;
        }
        console.resize(77, 33).await?;
        note(format!("10,001 resizes sent in {:.1?}", begin.elapsed()));
        console
            .stdin(b"until [ \"$(stty size)\" = '33 77' ]; do :; done; echo si''ze $(stty size)\n")
            .await?;
        console.until("size 33 77").await?;
        calm.stays(test, "10,000 resizes").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_is_answered_or_stalled_but_not_stored() {
    run_alone(async |test| {
        let mut calm = Calm::new(test).await?;
        // Answered: whoever reads gets an answer to the last ping.
        let mut console = Opening::exec(&calm.session, &["cat"])
            .tty()
            .open(&test.gateway())
            .await?;
        for n in 0..20_000_u32 {
            console
                .send(Message::Ping(n.to_be_bytes().to_vec().into()))
                .await?;
        }
        console.send(Message::Ping("last".into())).await?;
        let last = async {
            while console.event().await? != Event::Pong(b"last".to_vec()) {}
            anyhow::Ok(())
        };
        soon("the last pong", LIMIT, last).await??;
        console.stdin(b"still\r").await?;
        console.until("still").await?;
        // Not stored: whoever does not read can send only so many.
        let (mut sink, stream) = Opening::exec(&calm.session, &["cat"])
            .tty()
            .open(&test.gateway())
            .await?
            .into_socket()
            .split();
        let flood = tokio::spawn(async move {
            while sink.send(Message::Ping(vec![7; 125].into())).await.is_ok() {}
        });
        calm.stays(test, "pings without end").await?;
        flood.abort();
        drop(stream);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_half_open_handshakes_keep_nobody_out() {
    run_alone(async |test| {
        more_files(3000)?;
        let mut calm = Calm::new(test).await?;
        let gateway = test.gateway();
        let (rss, mut open) = (gateway.process.rss()?, Vec::new());
        for n in 0..1000_u32 {
            let stream = TcpStream::connect(gateway.addr).await?;
            if n % 2 == 0 {
                // The beginning of a TLS ClientHello that does not go on (RFC 8446, section 5.1).
                stream.writable().await?;
                stream.try_write(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00])?;
            }
            open.push(stream);
        }
        let begin = Instant::now();
        ensure!(calm.exec(test, "echo let in").await? == "let in");
        note(format!(
            "beside 1,000 half-open handshakes a console was opened and done in {:.1?}",
            begin.elapsed()
        ));
        calm.bystander
            .as_fast_as(&calm.echo, "1,000 half-open handshakes")
            .await?;
        let grown = gateway.process.rss()?.saturating_sub(rss);
        note(format!(
            "1,000 half-open handshakes: the gateway grew by {} KiB",
            grown / 1024
        ));
        ensure!(grown < 64 << 20, "the gateway grew by {grown} bytes");
        // They are not kept: each is shown out by a newer one or by its time.
        let mut byte = [0];
        for stream in &open {
            let closed = wait_for("a half-open connection is closed", LIMIT, async || {
                stream.readable().await?;
                match stream.try_read(&mut byte) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
                    _ => Ok(Some(())), // the end, an alert or a reset
                }
            });
            closed.await?;
        }
        Ok(())
    })
    .await;
}

/// Raises this process's limit of open files to at least `count`.
fn more_files(count: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let current = Some(limit.maximum.map_or(count, |most| most.min(count)));
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current,
                maximum: limit.maximum,
            },
        )
        .context("`ulimit -n 3000` is needed")?;
    }
    Ok(())
}
