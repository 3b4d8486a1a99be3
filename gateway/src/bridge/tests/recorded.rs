//! What the recorder hears is what both sides got, byte for byte, however it was wrapped.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drawbridge_audit::recording::Stream;

use super::*;
use crate::record::tap::{Heard, Tape, tap};

/// What is sent: text, NUL, what is no UTF-8, a character in two parts, more than passes whole, nothing of the kind.
fn pieces() -> Vec<Vec<u8>> {
    vec![
        b"hello\r\n".to_vec(),
        b"\0".to_vec(),
        (0..=255).collect(),
        "\u{20ac}".as_bytes()[..1].to_vec(),
        "\u{20ac}".as_bytes()[1..].to_vec(),
        b"x".repeat(32 * 1024),
        b"\xff\xfe".repeat(40 * 1024),
        b"\x1b]0;title\x07".to_vec(),
    ]
}

/// How a message is cut into frames.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    /// Three frames, a ping in between.
    Fragments,
    /// One frame of the other opcode than the subprotocol's own.
    OtherOpcode,
}

fn is_base64(protocol: Subprotocol) -> bool {
    protocol.name().contains("base64")
}

/// A message of one channel, as the subprotocol lays it out.
fn message(protocol: Subprotocol, channel: u8, data: &[u8]) -> Vec<u8> {
    if is_base64(protocol) {
        [vec![b'0' + channel], STANDARD.encode(data).into_bytes()].concat()
    } else {
        [&[channel][..], data].concat()
    }
}

/// The same, read back.
fn read(protocol: Subprotocol, message: &[u8]) -> (u8, Vec<u8>) {
    if is_base64(protocol) {
        (
            message[0] - b'0',
            STANDARD.decode(&message[1..]).expect("base64"),
        )
    } else {
        (message[0], message[1..].to_vec())
    }
}

/// The frames of one message.
fn frames(protocol: Subprotocol, payload: &[u8], cut: Cut, key: Option<[u8; 4]>) -> Vec<u8> {
    let own = protocol.data_opcode();
    let mut bytes = Vec::new();
    match cut {
        Cut::Whole => frame::write(own, payload, key, &mut bytes),
        Cut::OtherOpcode => {
            let other = match own {
                Opcode::Text => Opcode::Binary,
                _ => Opcode::Text,
            };
            frame::write(other, payload, key, &mut bytes);
        }
        Cut::Fragments => {
            let third = payload.len().div_ceil(3);
            let mut parts: Vec<_> = payload.chunks(third.max(1)).collect();
            parts.resize(3, &[]);
            for (number, part) in parts.into_iter().enumerate() {
                let opcode = if number == 0 {
                    own
                } else {
                    Opcode::Continuation
                };
                let start = bytes.len();
                frame::write(opcode, part, key, &mut bytes);
                if number < 2 {
                    bytes[start] &= 0x7f; // not the last
                    frame::write(Opcode::Ping, b"p", key, &mut bytes);
                }
            }
        }
    }
    bytes
}

/// What was heard, stream by stream.
fn streams(tape: &Tape) -> BTreeMap<usize, Vec<u8>> {
    let mut streams = BTreeMap::<usize, Vec<u8>>::new();
    for (_, heard) in tape.take().iter() {
        match heard {
            Heard::Data(stream, data) => streams
                .entry(stream as usize)
                .or_default()
                .extend_from_slice(data),
            other => panic!("{other:?}"),
        }
    }
    streams
}

async fn one(client: Subprotocol, upstream: Subprotocol, streams_: Streams, cut: Cut) {
    let (tap, tape) = tap(Instant::now(), false);
    let mut bridged = Setup {
        client,
        upstream,
        streams: streams_,
        buffer: 1 << 22,
        tap: Some(tap),
        ..Setup::default()
    }
    .opened()
    .await;
    let outputs: &[u8] = if streams_.tty { &[1] } else { &[1, 2] };
    let mut heard = BTreeMap::<usize, Vec<u8>>::new();
    let mut got = BTreeMap::<usize, Vec<u8>>::new();
    for piece in pieces() {
        for &channel in outputs {
            let message = message(upstream, channel, &piece);
            let bytes = frames(upstream, &message, cut, None);
            bridged.pod.io.write_all(&bytes).await.expect("taken");
            let mut left = piece.len();
            while left > 0 {
                let (channel, data) = read(client, &bridged.client.next_data().await);
                left -= data.len();
                got.entry(usize::from(channel)).or_default().extend(data);
            }
        }
        let message = message(client, 0, &piece);
        let bytes = frames(client, &message, cut, bridged.client.key);
        bridged.client.io.write_all(&bytes).await.expect("taken");
        let mut left = piece.len();
        while left > 0 {
            let (channel, data) = read(upstream, &bridged.pod.next_data().await);
            left -= data.len();
            got.entry(usize::from(channel)).or_default().extend(data);
        }
        for (stream, data) in streams(&tape) {
            heard.entry(stream).or_default().extend(data);
        }
    }
    let sent = pieces().concat();
    assert_eq!(got.len(), outputs.len() + 1);
    assert!(got.values().all(|stream| *stream == sent));
    // Numbers of channels and of streams are the same: stdin, stdout, stderr.
    assert!(heard == got, "{client:?} {upstream:?} {streams_:?} {cut:?}");
}

#[tokio::test(start_paused = true)]
async fn every_subprotocol_on_either_leg_is_heard_byte_for_byte() {
    for client in Subprotocol::ALL {
        for upstream in Subprotocol::ALL {
            for streams in [TERMINAL, PIPES] {
                for cut in [Cut::Whole, Cut::Fragments, Cut::OtherOpcode] {
                    one(client, upstream, streams, cut).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn notices_and_sizes_are_heard_as_the_user_and_the_pod_got_them() {
    let (tap, tape) = tap(Instant::now(), true);
    let mut bridged = Setup {
        tap: Some(tap),
        ..Setup::default()
    }
    .opened()
    .await;
    bridged
        .notices
        .send(Some("drawbridge: 25 s left".into()))
        .expect("the bridge listens");
    let notice = bridged.client.next_data().await;
    bridged
        .client
        .data(b"\x04{\"Width\":101,\"Height\":41}")
        .await;
    assert!(bridged.pod.next_data().await.starts_with(b"\x04"));
    let batch = tape.take();
    let heard: Vec<_> = batch.iter().map(|(_, heard)| heard).collect();
    assert_eq!(
        heard,
        [
            Heard::Data(Stream::Stdout, &notice[1..]),
            Heard::Resize(101, 41)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_cannot_follow_stalls_the_pod_and_then_ends_the_connection_with_the_reason()
{
    let (tap, tape) = tap(Instant::now(), true);
    let mut bridged = Setup {
        buffer: 64 * 1024,
        tap: Some(tap),
        ..Setup::default()
    }
    .opened()
    .await;
    let begin = Instant::now();
    let frame = [vec![1], vec![b'x'; 30_000]].concat();
    let mut pod = bridged.pod;
    let writer = tokio::spawn(async move {
        for _ in 0..100 {
            let mut bytes = Vec::new();
            frame::write(Opcode::Binary, &frame, None, &mut bytes);
            if pod.io.write_all(&bytes).await.is_err() {
                break;
            }
        }
        pod
    });
    let (seen, code) = bridged.client.until_close().await;
    assert_eq!(begin.elapsed().as_secs(), 5);
    let (last, data) = seen.split_last().expect("something came");
    let bytes: usize = data.iter().map(|message| message.len() - 1).sum();
    // No byte was told that is not on record.
    let heard: usize = streams(&tape).values().map(Vec::len).sum();
    assert_eq!(bytes, heard);
    assert!(bytes < 600_000, "{bytes}");
    let told = String::from_utf8_lossy(last);
    assert!(told.contains("must be recorded"), "{told}");
    assert_eq!(code, Some(1000));
    writer.abort();
    let ended = bridged.ended.await.expect("no panic");
    assert_eq!(ended.closed, Closed::Unrecorded);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_fails_ends_an_idle_connection_at_once() {
    let (tap, tape) = tap(Instant::now(), true);
    let mut bridged = Setup {
        tap: Some(tap),
        ..Setup::default()
    }
    .opened()
    .await;
    tape.lose();
    let (seen, _) = bridged.client.until_close().await;
    let told = String::from_utf8_lossy(seen.last().expect("told")).into_owned();
    assert!(told.contains("must be recorded"), "{told}");
    assert_eq!(bridged.ended().await.closed, Closed::Unrecorded);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_need_not_follow_holds_nobody_up() {
    let (tap, tape) = tap(Instant::now(), false);
    let mut bridged = Setup {
        buffer: 1 << 21,
        tap: Some(tap),
        ..Setup::default()
    }
    .opened()
    .await;
    for _ in 0..30 {
        bridged
            .pod
            .data([vec![1], vec![b'x'; 30_000]].concat())
            .await;
    }
    for _ in 0..30 {
        bridged.client.next_data().await;
    }
    tape.lose();
    bridged.pod.data(b"\x01on").await;
    assert_eq!(bridged.client.next_data().await, b"\x01on");
}
