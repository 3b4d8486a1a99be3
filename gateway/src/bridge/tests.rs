//! Two in-memory peers around a bridge, under a paused clock.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use drawbridge_crds::v1alpha1::EndReason;
use drawbridge_protocol::frame::{self, Opcode, Sender, close_payload};
use drawbridge_protocol::subprotocol::Subprotocol;
use drawbridge_protocol::transcode::{Outcome, Streams};
use drawbridge_protocol::walker::{Payload, Step, Walker};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::{Closed, Ended, Leg, Limits, Settings, Stop, bridge};
use crate::record::Tap;

mod recorded;

const SUCCESS: &[u8] = br#"{"metadata":{},"status":"Success"}"#;
const TERMINAL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: false,
    tty: true,
};
const PIPES: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

#[derive(Clone, Debug, PartialEq)]
enum Frame {
    Data(Vec<u8>),
    Control(Opcode, Vec<u8>),
}

fn data(bytes: impl AsRef<[u8]>) -> Frame {
    Frame::Data(bytes.as_ref().to_vec())
}

fn status(channel: u8, json: &[u8]) -> Vec<u8> {
    [&[channel], json].concat()
}

/// One end of a connection, on the other side of which is the bridge.
struct Peer {
    io: DuplexStream,
    key: Option<[u8; 4]>,
    walker: Walker,
    chunk: Vec<u8>,
}

impl Peer {
    fn client(io: DuplexStream) -> Self {
        Self {
            io,
            key: Some([1, 2, 3, 4]),
            walker: Walker::new(Sender::Server, 1 << 24),
            chunk: Vec::new(),
        }
    }

    fn pod(io: DuplexStream) -> Self {
        Self {
            io,
            key: None,
            walker: Walker::new(Sender::Client, 1 << 24),
            chunk: Vec::new(),
        }
    }

    async fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::write(opcode, payload, self.key, &mut bytes);
        self.io.write_all(&bytes).await.expect("the bridge reads");
    }

    async fn data(&mut self, payload: impl AsRef<[u8]>) {
        self.send(Opcode::Binary, payload.as_ref()).await;
    }

    /// The next frame, or `None` at the end of the stream.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut at = 0;
            let step = self
                .walker
                .step(&mut self.chunk, &mut at, |_, _| false)
                .expect("the bridge writes valid frames");
            let frame = match step {
                Step::Message {
                    payload: Payload::InChunk(range),
                    ..
                } => Some(data(&self.chunk[range])),
                Step::Message {
                    payload: Payload::Assembled,
                    ..
                } => Some(data(self.walker.assembled())),
                Step::Control { opcode, payload } => {
                    Some(Frame::Control(opcode, self.chunk[payload].to_vec()))
                }
                _ => None,
            };
            self.chunk.drain(..at);
            if frame.is_some() {
                return frame;
            }
            if self.io.read_buf(&mut self.chunk).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next data message; pings and pongs are left out.
    async fn next_data(&mut self) -> Vec<u8> {
        loop {
            match self.next().await.expect("not closed") {
                Frame::Data(bytes) => return bytes,
                Frame::Control(Opcode::Close, payload) => panic!("closed: {payload:?}"),
                Frame::Control(..) => {}
            }
        }
    }

    /// Everything up to the Close frame, without pings and pongs, and its code.
    async fn until_close(&mut self) -> (Vec<Vec<u8>>, Option<u16>) {
        let mut seen = Vec::new();
        loop {
            match self.next().await {
                Some(Frame::Data(bytes)) => seen.push(bytes),
                Some(Frame::Control(Opcode::Close, payload)) => {
                    return (seen, Some(u16::from_be_bytes([payload[0], payload[1]])));
                }
                Some(Frame::Control(..)) => {}
                None => return (seen, None),
            }
        }
    }
}

struct Bridged {
    client: Peer,
    pod: Peer,
    stop: Option<oneshot::Sender<Stop>>,
    notices: watch::Sender<Option<Arc<str>>>,
    ended: JoinHandle<Ended>,
}

impl Bridged {
    /// How it ended. Both peers are given up first, so that nothing waits for them.
    async fn ended(self) -> Ended {
        drop((self.client, self.pod));
        self.ended.await.expect("the bridge does not panic")
    }
}

struct Setup {
    client: Subprotocol,
    upstream: Subprotocol,
    streams: Streams,
    idle: Duration,
    limits: Limits,
    buffer: usize,
    tap: Option<Tap>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            client: Subprotocol::V5,
            upstream: Subprotocol::V5,
            streams: TERMINAL,
            idle: Duration::from_hours(365 * 24),
            limits: Limits::default(),
            buffer: 1 << 20,
            tap: None,
        }
    }
}

impl Setup {
    fn start(self) -> Bridged {
        self.start_over(|io| io)
    }

    /// Started, with something between the bridge and the pod's end.
    fn start_over<U>(self, over: impl FnOnce(DuplexStream) -> U) -> Bridged
    where
        U: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (client, client_io) = duplex(self.buffer);
        let (pod, pod_io) = duplex(self.buffer);
        let (stop, stopped) = oneshot::channel();
        let (notices, notice) = watch::channel(None);
        let client_leg = Leg {
            io: client_io,
            read: Bytes::new(),
            subprotocol: self.client,
        };
        let pod_leg = Leg {
            io: over(pod_io),
            read: Bytes::new(),
            subprotocol: self.upstream,
        };
        let settings = Settings {
            streams: self.streams,
            idle: self.idle,
            hang_up: true,
            limits: self.limits,
        };
        let stop_signal = async move {
            match stopped.await {
                Ok(stop) => stop,
                Err(_) => pending().await,
            }
        };
        let running = bridge(client_leg, pod_leg, settings, self.tap, stop_signal, notice);
        let ended = tokio::spawn(running);
        Bridged {
            client: Peer::client(client),
            pod: Peer::pod(pod),
            stop: Some(stop),
            notices,
            ended,
        }
    }

    /// Started, and the client told that it is connected.
    async fn opened(self) -> Bridged {
        let base64 = self.upstream.name().contains("base64");
        let client_base64 = self.client.name().contains("base64");
        let mut bridged = self.start();
        bridged.pod.data(if base64 { b"1" } else { b"\x01" }).await;
        let first = bridged.client.next_data().await;
        assert_eq!(first, if client_base64 { b"1" } else { b"\x01" });
        bridged
    }
}

#[tokio::test(start_paused = true)]
async fn keystrokes_and_output_go_through_and_the_status_comes_last() {
    let mut bridged = Setup::default().opened().await;
    bridged.client.data(b"\x00ls\n").await;
    assert_eq!(bridged.pod.next_data().await, b"\x00ls\n");
    bridged.pod.data(status(3, SUCCESS)).await;
    bridged.pod.data(b"\x01late output").await;
    bridged
        .pod
        .send(Opcode::Close, &close_payload(1000, ""))
        .await;
    let (seen, code) = bridged.client.until_close().await;
    assert_eq!(seen, [b"\x01late output".to_vec(), status(3, SUCCESS)]);
    assert_eq!(code, Some(1000));
    let ended = bridged.ended().await;
    assert_eq!(
        (ended.closed, ended.outcome),
        (Closed::ByPod, Some(Outcome::Success))
    );
    assert_eq!((ended.tally.bytes_in, ended.tally.bytes_out), (3, 11));
}

#[tokio::test(start_paused = true)]
async fn every_pair_of_subprotocols_carries_the_same_session() {
    use Subprotocol::{Base64, Channel, Unnamed, V4, V4Base64, V5};
    let text = |protocol: Subprotocol, channel: u8, bytes: &[u8]| {
        if matches!(protocol, Base64 | V4Base64) {
            use base64::prelude::{BASE64_STANDARD, Engine};
            format!("{channel}{}", BASE64_STANDARD.encode(bytes)).into_bytes()
        } else {
            [&[channel], bytes].concat()
        }
    };
    for client in [Unnamed, Channel, Base64, V4, V4Base64, V5] {
        for upstream in [Unnamed, Channel, Base64, V4, V4Base64, V5] {
            let mut bridged = Setup {
                client,
                upstream,
                ..Setup::default()
            }
            .opened()
            .await;
            let all: Vec<u8> = (0..=255).collect();
            bridged.client.data(text(client, 0, &all)).await;
            assert_eq!(
                bridged.pod.next_data().await,
                text(upstream, 0, &all),
                "{client:?} to {upstream:?}"
            );
            bridged
                .client
                .data(text(client, 4, br#"{"height":25,"width":81}"#))
                .await;
            let size = text(upstream, 4, br#"{"Width":81,"Height":25}"#);
            assert_eq!(
                bridged.pod.next_data().await,
                size,
                "{client:?} to {upstream:?}"
            );
            bridged.pod.data(text(upstream, 1, &all)).await;
            assert_eq!(
                bridged.client.next_data().await,
                text(client, 1, &all),
                "{client:?} to {upstream:?}"
            );
            drop(bridged.pod);
            let (seen, code) = bridged.client.until_close().await;
            assert_eq!(
                (seen.len(), code),
                (1, Some(1000)),
                "a loss is told: {client:?} to {upstream:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_tells_why_and_lets_nothing_more_through() {
    for (stop, words) in [
        (Stop::Expired, "expired"),
        (Stop::Revoked, "revoked"),
        (Stop::SessionDeleted, "session was deleted"),
        (Stop::SessionEnded(EndReason::PodDeleted), "pod was deleted"),
        (Stop::SessionEnded(EndReason::NamespaceDeleted), "namespace"),
        (Stop::Draining, "run the same command again"),
    ] {
        let mut bridged = Setup::default().opened().await;
        bridged
            .stop
            .take()
            .expect("once")
            .send(stop)
            .expect("the bridge listens");
        bridged.pod.data(b"\x01too late").await;
        bridged.client.data(b"\x00too late").await;
        let (seen, code) = bridged.client.until_close().await;
        let [told] = &seen[..] else {
            panic!("{seen:?}")
        };
        let told = String::from_utf8(told[1..].to_vec()).expect("JSON");
        assert!(
            told.contains(words) && told.contains("Failure"),
            "{stop:?}: {told}"
        );
        assert_eq!(code, Some(1000));
        let (seen, code) = bridged.pod.until_close().await;
        assert_eq!(
            seen,
            [b"\x00\x04"],
            "a terminal gets Ctrl-D, and no keystroke"
        );
        assert_eq!(code, Some(1000));
        assert_eq!(bridged.ended().await.closed, Closed::Stopped(stop));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_dies_is_never_told_as_success() {
    for upstream in [Subprotocol::V4, Subprotocol::V5] {
        for close in [None, Some(1000), Some(1001)] {
            let mut bridged = Setup {
                upstream,
                ..Setup::default()
            }
            .opened()
            .await;
            if let Some(code) = close {
                bridged
                    .pod
                    .send(Opcode::Close, &close_payload(code, ""))
                    .await;
            } else {
                // Half a frame, then nothing.
                bridged
                    .pod
                    .io
                    .write_all(b"\x82\x7e\x10\x00\x01half")
                    .await
                    .expect("open");
                bridged.pod.io.shutdown().await.expect("open");
            }
            let (seen, code) = bridged.client.until_close().await;
            assert_eq!(code, Some(1000));
            let told = String::from_utf8_lossy(seen.last().expect("a status")).into_owned();
            assert!(told.contains(r#""status":"Failure""#), "{told}");
            assert_eq!(bridged.ended().await.closed, Closed::UpstreamLost);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fragments_are_put_together_and_no_empty_message_reaches_the_client() {
    let mut bridged = Setup::default().opened().await;
    let mut bytes = Vec::new();
    let key = Some([9; 4]);
    for (fin, opcode, part) in [
        (false, Opcode::Binary, &b"\x00ab"[..]),
        (true, Opcode::Continuation, b"cd"),
    ] {
        let header = frame::Header {
            fin,
            opcode,
            mask: key,
            len: part.len() as u64,
        };
        header.write(&mut bytes);
        bytes.extend(part.iter().map(|byte| byte ^ 9));
    }
    bridged.client.io.write_all(&bytes).await.expect("open");
    assert_eq!(bridged.pod.next_data().await, b"\x00abcd");
    bridged.pod.data(b"").await;
    bridged.pod.data(b"\x01after").await;
    assert_eq!(bridged.client.next_data().await, b"\x01after");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_the_protocol_is_told_so_and_the_upstream_closed() {
    for (bytes, code) in [
        (&b"\x82\x03\x00hi"[..], 1002),
        (b"\xc2\x81\x00\x00\x00\x00a", 1002),
        (b"\x83\x81\x00\x00\x00\x00a", 1002),
        (b"\x89\xfe\x00\x7e\x00\x00\x00\x00", 1002),
        (b"\x82\x81\x00\x00\x00\x00\xff", 1002),
        (b"\x88\x81\x00\x00\x00\x00\x03", 1002),
        (
            b"\x82\xff\x00\x00\x00\x00\x00\x50\x00\x00\x00\x00\x00\x00\x04",
            1009,
        ),
    ] {
        let mut bridged = Setup::default().opened().await;
        bridged.client.io.write_all(bytes).await.expect("open");
        assert_eq!(
            bridged.client.until_close().await.1,
            Some(code),
            "{bytes:?}"
        );
        assert_eq!(bridged.pod.until_close().await.1, Some(1000), "{bytes:?}");
        assert_eq!(bridged.ended().await.closed, Closed::Violation);
    }
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_data_flows_and_a_flood_gets_one_answer_per_chunk() {
    let mut bridged = Setup::default().opened().await;
    bridged.client.send(Opcode::Ping, b"one").await;
    assert_eq!(
        bridged.client.next().await,
        Some(Frame::Control(Opcode::Pong, b"one".to_vec()))
    );
    let mut flood = Vec::new();
    for number in 0..1000_u32 {
        frame::write(
            Opcode::Ping,
            &number.to_be_bytes(),
            bridged.client.key,
            &mut flood,
        );
    }
    bridged.client.io.write_all(&flood).await.expect("open");
    let mut answers = 0;
    loop {
        answers += 1;
        let Some(Frame::Control(Opcode::Pong, payload)) = bridged.client.next().await else {
            panic!("a pong")
        };
        if payload == 999_u32.to_be_bytes() {
            break;
        }
    }
    assert!(answers < 10, "{answers}");
}

#[tokio::test(start_paused = true)]
async fn a_flooding_pod_stalls_when_the_client_does_not_read_and_the_gateway_holds_one_chunk() {
    let mut bridged = Setup {
        buffer: 1024,
        ..Setup::default()
    }
    .opened()
    .await;
    let frame = [vec![1], vec![b'x'; 32 * 1024]].concat();
    let mut written = 0;
    // The bridge takes until it holds a chunk; then the write waits for as long as the client sleeps.
    while timeout(Duration::from_secs(1), bridged.pod.data(&frame))
        .await
        .is_ok()
    {
        written += frame.len();
        assert!(written < 512 * 1024, "back-pressure");
    }
    // The other direction is not stalled by it.
    bridged.client.data(b"\x00x").await;
    assert_eq!(bridged.pod.next_data().await, b"\x00x");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_every_byte_and_the_status() {
    let mut bridged = Setup {
        buffer: 512,
        ..Setup::default()
    }
    .opened()
    .await;
    let mut pod = bridged.pod;
    let writer = tokio::spawn(async move {
        for number in 0..200_u32 {
            pod.data([&[1][..], &number.to_be_bytes().repeat(1000)].concat())
                .await;
        }
        pod.data(status(3, SUCCESS)).await;
        pod.send(Opcode::Close, &close_payload(1000, "")).await;
        pod.until_close().await
    });
    let mut seen = Vec::new();
    let (messages, code) = bridged.client.until_close().await;
    for message in &messages[..messages.len() - 1] {
        assert_eq!(message[0], 1);
        seen.extend_from_slice(&message[1..]);
    }
    let whole: Vec<u8> = (0..200_u32)
        .flat_map(|number| number.to_be_bytes().repeat(1000))
        .collect();
    assert!(seen == whole, "byte for byte");
    assert_eq!(messages.last(), Some(&status(3, SUCCESS)));
    assert_eq!(code, Some(1000));
    assert_eq!(writer.await.expect("no panic").1, Some(1000));
}

#[tokio::test(start_paused = true)]
async fn while_nobody_takes_stdin_the_client_still_gets_pongs() {
    let setup = || Setup {
        buffer: 1024,
        streams: PIPES,
        ..Setup::default()
    };
    gets_pongs(setup().start()).await;
    // A TLS stream takes more than its socket does.
    gets_pongs(setup().start_over(|io| Buffered(io, Vec::new()))).await;
}

async fn gets_pongs(mut bridged: Bridged) {
    let frame = [vec![0], vec![b'x'; 30_000]].concat();
    while timeout(Duration::from_secs(1), bridged.client.data(&frame))
        .await
        .is_ok()
    {}
    let blocked = Instant::now();
    let mut pongs = 0;
    while blocked.elapsed() < Duration::from_mins(2) {
        match bridged.client.next().await.expect("open") {
            Frame::Control(Opcode::Pong, payload) => {
                assert!(payload.is_empty());
                pongs += 1;
            }
            Frame::Control(Opcode::Ping, _) => {}
            other @ (Frame::Data(_) | Frame::Control(..)) => panic!("{other:?}"),
        }
    }
    assert!(pongs >= 6, "one every 20 s at least: {pongs}");
}

#[tokio::test(start_paused = true)]
async fn four_quiet_hours_are_survived_by_pings_and_an_empty_message_now_and_then() {
    let Bridged {
        mut client,
        mut pod,
        stop,
        notices,
        ended,
    } = Setup::default().opened().await;
    let begin = Instant::now();
    let five_hours = Duration::from_hours(5);
    // A client that only answers pings, as a browser does.
    let client = tokio::spawn(async move {
        let mut pings = 0;
        while begin.elapsed() < five_hours {
            match client.next().await.expect("open") {
                Frame::Control(Opcode::Ping, payload) => {
                    pings += 1;
                    client.send(Opcode::Pong, &payload).await;
                }
                other => panic!("{other:?}"),
            }
        }
        (client, pings)
    });
    let mut last = begin;
    let mut longest = Duration::ZERO;
    while begin.elapsed() < five_hours {
        match pod.next().await.expect("open") {
            // Only data resets the servers' timer.
            Frame::Data(bytes) => {
                assert!(bytes.is_empty());
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            Frame::Control(Opcode::Ping, _) => {}
            other @ Frame::Control(..) => panic!("{other:?}"),
        }
    }
    let (mut client, pings) = client.await.expect("no panic");
    assert!(longest <= Duration::from_hours(1), "{longest:?}");
    assert!(pings >= 5 * 180, "every 20 s at least: {pings}");
    client.data(b"\x00still here\n").await;
    while pod.next_data().await != b"\x00still here\n" {}
    drop((client, pod, stop, notices));
    ended.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn no_data_for_the_idle_timeout_ends_it_and_pings_do_not_count() {
    let mut bridged = Setup {
        idle: Duration::from_secs(90),
        ..Setup::default()
    }
    .opened()
    .await;
    let begin = Instant::now();
    let told = loop {
        match bridged.client.next().await.expect("told") {
            Frame::Control(Opcode::Ping, payload) => {
                bridged.client.send(Opcode::Pong, &payload).await;
            }
            Frame::Control(..) => {}
            Frame::Data(bytes) => break String::from_utf8_lossy(&bytes).into_owned(),
        }
    };
    assert!(told.contains("idleTimeout"), "{told}");
    assert_eq!(begin.elapsed().as_secs(), 90);
    assert_eq!(bridged.ended().await.closed, Closed::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_falls_silent_is_given_up_after_a_minute() {
    let bridged = Setup::default().opened().await;
    let begin = Instant::now();
    let Bridged {
        client, mut pod, ..
    } = bridged;
    let (_, code) = pod.until_close().await;
    assert_eq!(code, Some(1000));
    assert!(
        (60..=75).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_resizes_a_second_become_twenty_and_the_last_one_arrives() {
    let mut bridged = Setup::default().opened().await;
    let begin = Instant::now();
    let mut flood = Vec::new();
    for width in 1..=10_000 {
        let size = format!("\x04{{\"Width\":{width},\"Height\":24}}");
        frame::write(
            Opcode::Binary,
            size.as_bytes(),
            bridged.client.key,
            &mut flood,
        );
    }
    let (half, rest) = flood.split_at(flood.len() / 2);
    bridged.client.io.write_all(half).await.expect("open");
    assert!(bridged.pod.next_data().await.starts_with(b"\x04"));
    bridged.client.io.write_all(rest).await.expect("open");
    let mut sizes = 1;
    loop {
        sizes += 1;
        if bridged.pod.next_data().await == b"\x04{\"Width\":10000,\"Height\":24}" {
            break;
        }
    }
    let most = 1 + begin.elapsed().as_millis() / 50;
    assert!(sizes <= most, "{sizes} in {:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn resizes_without_a_terminal_reach_nobody_and_stdin_goes_on() {
    let mut bridged = Setup {
        streams: PIPES,
        ..Setup::default()
    }
    .opened()
    .await;
    for _ in 0..3 {
        bridged
            .client
            .data(br#"_{"Width":80,"Height":24}"#.map(|byte| if byte == b'_' { 4 } else { byte }))
            .await;
    }
    bridged.client.data(b"\x00x").await;
    assert_eq!(bridged.pod.next_data().await, b"\x00x");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_the_process_input_and_waits_a_little_for_it() {
    let mut bridged = Setup {
        streams: PIPES,
        ..Setup::default()
    }
    .opened()
    .await;
    bridged
        .client
        .send(Opcode::Close, &close_payload(1001, "page left"))
        .await;
    assert_eq!(bridged.client.until_close().await, (vec![], Some(1001)));
    assert_eq!(
        bridged.pod.next_data().await,
        b"\xff\x00",
        "the end of stdin"
    );
    let begin = Instant::now();
    assert_eq!(bridged.pod.until_close().await.1, Some(1000));
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert_eq!(bridged.ended().await.closed, Closed::ByClient);
}

#[tokio::test(start_paused = true)]
async fn a_notice_shows_on_the_terminal_and_the_session_goes_on() {
    let mut bridged = Setup::default().opened().await;
    bridged
        .notices
        .send(Some("drawbridge: 25 s left".into()))
        .expect("the bridge listens");
    assert_eq!(
        bridged.client.next_data().await,
        b"\x01\r\ndrawbridge: 25 s left\r\n"
    );
    bridged.client.data(b"\x00x").await;
    assert_eq!(bridged.pod.next_data().await, b"\x00x");
}

#[tokio::test(start_paused = true)]
async fn an_expiry_cuts_even_while_the_last_output_waits_for_a_slow_client() {
    let mut bridged = Setup {
        buffer: 64,
        ..Setup::default()
    }
    .opened()
    .await;
    bridged.pod.data([vec![1], vec![b'x'; 2000]].concat()).await;
    bridged.pod.data(status(3, SUCCESS)).await;
    bridged
        .pod
        .send(Opcode::Close, &close_payload(1000, ""))
        .await;
    bridged
        .stop
        .take()
        .expect("once")
        .send(Stop::Expired)
        .expect("the bridge listens");
    let ended = bridged.ended.await.expect("no panic");
    assert_eq!(ended.closed, Closed::Stopped(Stop::Expired));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_came_with_the_handshakes_are_not_lost() {
    let (client, client_io) = duplex(4096);
    let (pod, pod_io) = duplex(4096);
    let (_notices, notice) = watch::channel(None);
    let mut early = Vec::new();
    frame::write(Opcode::Binary, b"\x00early", Some([1; 4]), &mut early);
    let client_leg = Leg {
        io: client_io,
        read: early.into(),
        subprotocol: Subprotocol::V5,
    };
    let pod_leg = Leg {
        io: pod_io,
        read: Bytes::from_static(b"\x82\x01\x01\x82\x03\x01"),
        subprotocol: Subprotocol::V5,
    };
    let settings = Settings {
        streams: TERMINAL,
        idle: Duration::from_mins(15),
        hang_up: true,
        limits: Limits::default(),
    };
    let running = tokio::spawn(bridge(
        client_leg,
        pod_leg,
        settings,
        None,
        pending(),
        notice,
    ));
    let (mut client, mut pod) = (Peer::client(client), Peer::pod(pod));
    assert_eq!(pod.next_data().await, b"\x00early");
    pod.io.write_all(b"hi").await.expect("open");
    assert_eq!(client.next_data().await, b"\x01");
    assert_eq!(client.next_data().await, b"\x01hi");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn an_exit_code_that_is_already_here_survives_a_failed_write_upstream() {
    let (client, client_io) = duplex(1 << 20);
    let (mut pod, pod_io) = duplex(1 << 20);
    let mut last = Vec::new();
    frame::write(Opcode::Binary, b"\x01", None, &mut last);
    let exit = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    let exit = status(3, exit);
    frame::write(Opcode::Binary, &exit, None, &mut last);
    frame::write(Opcode::Close, &close_payload(1000, ""), None, &mut last);
    let mut client = Peer::client(client);
    client.data(b"\x00too late").await;
    pod.write_all(&last).await.expect("open");
    let (_notices, notice) = watch::channel(None);
    let client_leg = Leg {
        io: client_io,
        read: Bytes::new(),
        subprotocol: Subprotocol::V5,
    };
    let pod_leg = Leg {
        io: Deaf(pod_io, false),
        read: Bytes::new(),
        subprotocol: Subprotocol::V5,
    };
    let settings = Settings {
        streams: TERMINAL,
        idle: Duration::from_mins(15),
        hang_up: true,
        limits: Limits::default(),
    };
    let ended = bridge(client_leg, pod_leg, settings, None, pending(), notice);
    let (ended, (seen, code)) = tokio::join!(ended, async {
        let seen = client.until_close().await;
        drop(client);
        seen
    });
    assert_eq!(ended.outcome, Some(Outcome::Exit(3)));
    assert_eq!((seen.last(), code), (Some(&exit), Some(1000)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_all_output_of_an_upstream_that_takes_no_more_input() {
    let setup = Setup {
        buffer: 512,
        ..Setup::default()
    };
    let mut bridged = setup.start_over(|io| Deaf(io, false));
    bridged.client.data(b"\x00too late").await;
    let mut pod = bridged.pod;
    let writer = tokio::spawn(async move {
        for _ in 0..20 {
            pod.data([vec![1], vec![b'x'; 30_000]].concat()).await;
        }
        pod.data(status(3, SUCCESS)).await;
        pod.send(Opcode::Close, &close_payload(1000, "")).await;
        pod
    });
    // Longer than the grace of a far side that should be gone.
    let nap = timeout(Duration::from_secs(30), pending::<()>()).await;
    assert!(nap.is_err());
    let (seen, code) = bridged.client.until_close().await;
    let bytes: usize = seen
        .iter()
        .filter(|message| message[0] == 1)
        .map(|message| message.len() - 1)
        .sum();
    assert_eq!(bytes, 600_000);
    assert_eq!((seen.last(), code), (Some(&status(3, SUCCESS)), Some(1000)));
    writer.await.expect("no panic");
}

/// A socket that refuses every write, and whose bytes arrive at every second look only.
struct Deaf(DuplexStream, bool);

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Takes up to 64 KiB that its socket does not, as rustls does.
struct Buffered(DuplexStream, Vec<u8>);

impl AsyncRead for Buffered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(64 * 1024 - self.1.len());
        self.1.extend_from_slice(&bytes[..taken]);
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        ready!(self.poll_flush(cx))?;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self(io, held) = &mut *self;
        while !held.is_empty() {
            let taken = ready!(Pin::new(&mut *io).poll_write(cx, held))?;
            held.drain(..taken);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
