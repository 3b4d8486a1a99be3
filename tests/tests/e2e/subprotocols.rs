//! Every subprotocol of exec, through the gateway, against every upstream: the same script of events each time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_tests::{
    Event, Gateway, Needs, Opening, PROTOCOLS, Session, Test, contains, run, soon,
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);

/// What the way to the pod can do.
#[derive(Clone, Copy)]
struct Upstream {
    /// Whether a process can be told that its stdin has ended.
    stdin_end: bool,
    /// Whether its failures are told as JSON; if not, a code is read from its words.
    json: bool,
}

/// The script. Each step fails with the subprotocol it failed for.
async fn script(
    test: &Test,
    gateway: &Gateway,
    session: &Session,
    upstream: Upstream,
) -> Result<()> {
    for protocol in PROTOCOLS {
        let steps = async {
            outputs_and_codes(gateway, session, protocol, upstream)
                .await
                .context("outputs and codes")?;
            terminal(gateway, session, protocol)
                .await
                .context("a terminal")?;
            if protocol == "v5.channel.k8s.io" {
                stdin_to_its_end(gateway, session, upstream)
                    .await
                    .context("stdin to its end")
            } else {
                every_byte(gateway, session, protocol)
                    .await
                    .context("every byte")
            }
        };
        steps
            .await
            .with_context(|| format!("{protocol:?} in {}", test.namespace))?;
    }
    Ok(())
}

async fn outputs_and_codes(
    gateway: &Gateway,
    session: &Session,
    protocol: &str,
    upstream: Upstream,
) -> Result<()> {
    for (script, stdout, stderr, code) in [
        ("echo out; echo err >&2; exit 3", "out\n", "err\n", 3),
        ("printf 'one\\ntwo\\n'", "one\ntwo\n", "", 0),
        ("kill -9 $$", "", "", 137),
    ] {
        let mut console = Opening::exec(session, &["sh", "-c", script])
            .protocol(protocol)
            .open(gateway)
            .await?;
        ensure!(
            console.protocol() == protocol,
            "{:?} was chosen",
            console.protocol()
        );
        let first = console.event().await?;
        ensure!(first == Event::Connected, "{first:?} came first");
        let end = console.finish().await?;
        ensure!(
            end.stdout == stdout.as_bytes() && end.stderr == stderr.as_bytes(),
            "{script}: {end:?}"
        );
        ensure!(end.exit_code(protocol)? == code, "{script}: {end:?}");
        if !protocol.starts_with('v') {
            ensure!(
                end.status.is_some() == (code != 0),
                "before v4 success is told by silence: {end:?}"
            );
        }
    }
    // A command that cannot be run is no exit code, and not a success either.
    let console = Opening::exec(session, &["no-such-program"])
        .protocol(protocol)
        .open(gateway)
        .await?;
    let end = console.finish().await?;
    if upstream.json || !protocol.starts_with('v') {
        contains(&end.failure()?, "no-such-program")?;
    } else {
        end.failure()?;
    }
    Ok(())
}

async fn terminal(gateway: &Gateway, session: &Session, protocol: &str) -> Result<()> {
    let mut console = Opening::exec(session, &["sh"])
        .tty()
        .protocol(protocol)
        .open(gateway)
        .await?;
    console.resize(101, 41).await?;
    console
        .stdin(b"until [ \"$(stty size)\" = '41 101' ]; do :; done; echo si''ze $(stty size)\n")
        .await?;
    console.until("size 41 101").await?;
    // A size that makes no sense is not passed on, and the next good one is (rule 2).
    for bad in [
        "{\"Width\":70000,\"Height\":1}",
        "not json",
        "{}",
        "{\"Width\":-1,\"Height\":5}",
    ] {
        let message = console.message(4, bad.as_bytes());
        console.send(message).await?;
    }
    console.resize(66, 33).await?;
    console
        .stdin(b"until [ \"$(stty size)\" = '33 66' ]; do :; done; echo si''ze $(stty size)\n")
        .await?;
    console.until("size 33 66").await?;
    // What answers is in the foreground: an interrupt ends it, and not the shell between two programs.
    console
        .stdin("echo wai''ting; awk '{print \"gr\" $0 \"e\"}'\n".as_bytes())
        .await?;
    console.until("waiting").await?;
    console.stdin("üß\n".as_bytes()).await?;
    console.until("grüße").await?;
    console.stdin(b"\x03").await?;
    console.until("# ").await?; // the shell drops what is typed before it is back
    console.stdin(b"exit 7\n").await?;
    let end = console.finish().await?;
    ensure!(end.exit_code(protocol)? == 7, "{end:?}");
    Ok(())
}

/// All 256 values of a byte, there and back without a terminal.
async fn every_byte(gateway: &Gateway, session: &Session, protocol: &str) -> Result<()> {
    let all: Vec<u8> = (0..=255).collect();
    let mut console = Opening::exec(session, &["head", "-c", "1024"])
        .stdin()
        .protocol(protocol)
        .open(gateway)
        .await?;
    for _ in 0..4 {
        console.stdin(&all).await?;
    }
    let end = console.finish().await?;
    ensure!(
        end.stdout == all.repeat(4),
        "{} bytes came back: {:?}",
        end.stdout.len(),
        end.stdout.get(..300)
    );
    ensure!(end.exit_code(protocol)? == 0);
    Ok(())
}

async fn stdin_to_its_end(gateway: &Gateway, session: &Session, upstream: Upstream) -> Result<()> {
    let opening = Opening::exec(session, &["sha256sum"])
        .stdin()
        .protocol("v5.channel.k8s.io");
    if !upstream.stdin_end {
        let says = opening.refused(gateway).await?.refusal(400)?;
        contains(&says, "reads stdin to its end")?;
        // A client that also speaks v4 gets v4, which promises no end of stdin.
        let console = opening
            .protocol("v5.channel.k8s.io, v4.channel.k8s.io")
            .open(gateway)
            .await?;
        ensure!(
            console.protocol() == "v4.channel.k8s.io",
            "{:?}",
            console.protocol()
        );
        return Ok(());
    }
    let mut console = opening.open(gateway).await?;
    console.stdin(b"drawbridge\n").await?;
    console.end_stdin().await?;
    let end = console.finish().await?;
    contains(
        &String::from_utf8_lossy(&end.stdout),
        "f7b91f7af5df509546c56e8acafce2e139dae662ccc99d30398fa440e07ac687",
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subprotocol_runs_the_same_script_through_the_api_server() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let upstream = Upstream {
            stdin_end: test.cluster.has_v5(),
            json: true,
        };
        script(test, &test.gateway(), &session, upstream).await
    })
    .await;
}

/// The same against the kubelet directly, speaking `offer` to it.
async fn kubelet_direct(offer: &str, json: bool) {
    run(async |test| {
        if !test.cluster.offers(Needs::Kubelet)? {
            return Ok(());
        }
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let ca = test
            .cluster
            .kubelet_authority()
            .context("whoever offers a kubelet says whom to trust")?;
        let flags = [
            &*format!("--kubelet-ca={}", ca.display()),
            &format!("--kubelet-subprotocol={offer}"),
        ];
        let gateway = test
            .drawbridge
            .kubelet_gateway(&test.cluster, &flags)
            .await?;
        let upstream = Upstream {
            stdin_end: test.cluster.version >= (1, 36) && offer.contains("v5"),
            json,
        };
        script(test, &gateway, &session, upstream).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subprotocol_runs_the_same_script_against_the_kubelet() {
    kubelet_direct("v5.channel.k8s.io,v4.channel.k8s.io", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subprotocol_runs_the_same_script_with_base64_towards_the_kubelet() {
    kubelet_direct("v4.base64.channel.k8s.io", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subprotocol_runs_the_same_script_with_base64_and_words_for_status_towards_the_kubelet()
 {
    kubelet_direct("base64.channel.k8s.io", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subprotocol_runs_the_same_script_with_no_subprotocol_towards_the_kubelet() {
    kubelet_direct("", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_may_send_the_token_as_a_subprotocol_and_is_not_answered_with_it() {
    use base64::Engine as _;
    run(async |test| {
        test.pod("web").await?;
        let session = test
            .session("web", json!({"command": ["echo", "hello"]}))
            .await?;
        let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&session.token);
        let offer = format!("base64url.bearer.authorization.k8s.io.{token}, v4.channel.k8s.io");
        let console = Opening::native(&session)
            .query("tty", "false")
            .token("")
            .protocol(&offer)
            .open(&test.gateway())
            .await?;
        ensure!(
            console.answer.header("sec-websocket-protocol") == Some("v4.channel.k8s.io"),
            "{:?}",
            console.answer
        );
        let end = console.finish().await?;
        ensure!(end.stdout == b"hello\n", "{end:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_heartbeats_and_frames_that_mean_nothing_do_not_disturb() {
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let mut console = Opening::exec(&session, &["head", "-c", "6"])
            .stdin()
            .open(&test.gateway())
            .await?;
        for message in [
            vec![],
            vec![0],
            vec![9, b'x'],
            vec![1, b'x'],
            vec![3, b'{', b'}'],
            vec![255, 0],
        ] {
            console.send(Message::binary(message)).await?;
        }
        console.send(Message::text("\0ab")).await?; // the Python client's way
        let part = |data: &'static [u8], opcode, last| {
            Message::Frame(Frame::message(data, OpCode::Data(opcode), last))
        };
        console.send(part(b"\0c", Data::Binary, false)).await?;
        console.send(Message::Ping("between".into())).await?;
        console.send(part(b"d", Data::Continue, false)).await?;
        console.send(part(b"ef", Data::Continue, true)).await?;
        let pong = async {
            loop {
                if console.event().await? == Event::Pong(b"between".to_vec()) {
                    return anyhow::Ok(());
                }
            }
        };
        soon("the pong", LIMIT, pong).await??;
        let end = console.finish().await?;
        ensure!(end.stdout == b"abcdef", "{end:?}");
        Ok(())
    })
    .await;
}
