//! The client's half of the handshake, against scripted servers.

use std::sync::{Arc, Mutex};

use drawbridge_protocol::subprotocol::UpstreamOffer;
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::dial::Handshake;
use super::*;
use crate::refusal::Refusal;

/// What a scripted server says to a request for an upgrade.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// 101 with this subprotocol, then these bytes.
    Upgrade(&'static str, Vec<u8>),
    /// These bytes; `{accept}` stands for the right `Sec-WebSocket-Accept`.
    Raw(String),
    /// Nothing, ever.
    Nothing,
}

/// Requests a scripted server has seen, head only.
pub(crate) type Heads = Arc<Mutex<Vec<String>>>;

/// Reads one request and answers it; returns the stream for what follows.
pub(crate) async fn answer<S>(mut io: S, say: Say, heads: Heads) -> S
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return io,
        }
    }
    let head = String::from_utf8(head).expect("text");
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "))
        .unwrap_or_default();
    let accept = derive_accept_key(key.as_bytes());
    heads.lock().expect("not poisoned").push(head);
    let text = match say {
        Say::Upgrade(protocol, more) => {
            let mut bytes = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
            )
            .into_bytes();
            bytes.extend(more);
            bytes
        }
        Say::Raw(text) => text.replace("{accept}", &accept).into_bytes(),
        Say::Nothing => std::future::pending().await,
    };
    let _ = io.write_all(&text).await; // the gateway may have hung up
    io
}

async fn shake(say: Say) -> (Result<Leg<Transport>, DialError>, String) {
    let (ours, theirs) = duplex(64 * 1024);
    let heads = Heads::default();
    let log = Arc::clone(&heads);
    // Answers, then hangs up: some answers end with the connection.
    let server = tokio::spawn(async move { drop(answer(theirs, say, log).await) });
    let handshake = Handshake {
        target: "/exec?command=sh".into(),
        authority: "api.example.com:443".into(),
        authorization: Some(HeaderValue::from_static("Bearer own")),
        impersonate: Some("system:serviceaccount:drawbridge-sessions:cs-6f1c".into()),
        connection: "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
        offer: &UpstreamOffer::default(),
    };
    let leg = handshake.upgrade(Transport::Memory(ours)).await;
    server.await.expect("served");
    let head = heads.lock().expect("not poisoned").pop().expect("asked");
    (leg, head)
}

fn upgrade(headers: &str) -> Say {
    Say::Raw(format!(
        "HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n\r\n"
    ))
}

#[tokio::test]
async fn an_upgrade_gives_the_raw_stream_and_what_came_behind_the_handshake() {
    let (leg, head) = shake(Say::Upgrade("v4.channel.k8s.io", vec![0x82, 1, 1])).await;
    let mut leg = leg.expect("upgraded");
    assert_eq!(leg.subprotocol, Subprotocol::V4);
    let mut rest = Vec::new();
    leg.io.read_to_end(&mut rest).await.expect("reads");
    assert_eq!([&leg.read[..], &rest].concat(), [0x82, 1, 1]);
    let lines: Vec<_> = head
        .lines()
        .filter(|line| !line.starts_with("sec-websocket-key: "))
        .collect();
    assert_eq!(
        lines,
        [
            "GET /exec?command=sh HTTP/1.1",
            "host: api.example.com:443",
            "upgrade: websocket",
            "connection: Upgrade",
            "sec-websocket-version: 13",
            "sec-websocket-protocol: v5.channel.k8s.io, v4.channel.k8s.io",
            concat!("user-agent: drawbridge-gateway/", env!("CARGO_PKG_VERSION")),
            "audit-id: 1b4e28ba-2fa1-41d2-883f-0016d3cca427",
            "authorization: Bearer own",
            "impersonate-user: system:serviceaccount:drawbridge-sessions:cs-6f1c",
            "",
        ],
        "these headers and no others"
    );
}

#[tokio::test]
async fn a_101_that_does_not_answer_our_request_is_not_taken() {
    let right = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}";
    for headers in [
        right.to_owned(),                                             // no subprotocol
        format!("{right}\r\nSec-WebSocket-Protocol: "),               // Go's way to say none
        format!("{right}\r\nSec-WebSocket-Protocol: channel.k8s.io"), // not offered
        format!("{right}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io"),
        format!(
            "{right}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\nSec-WebSocket-Protocol: v5.channel.k8s.io"
        ),
        format!("{right}x\r\nSec-WebSocket-Protocol: v4.channel.k8s.io"), // wrong accept
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: v4.channel.k8s.io"
            .to_owned(),
        "Upgrade: SPDY/3.1\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}".to_owned(),
    ] {
        let (leg, _) = shake(upgrade(&headers)).await;
        let error = leg.expect_err(&headers);
        assert_eq!(Refusal::from(error).code(), 502, "{headers}");
    }
}

#[tokio::test]
async fn other_answers_are_read_whole_and_told() {
    for (raw, code, text) in [
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            502,
            "the upstream speaks none of the subprotocols it was offered, or none at all",
        ),
        (
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 27\r\n\r\ncontainer not found (\"app\")",
            500,
            "container not found (\"app\")",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n19\r\n{\"status\":\"Failure\",\"mess\r\n9\r\nage\":\"x\"}\r\n0\r\n\r\n",
            404,
            "x",
        ),
        (
            "garbage\r\n\r\n",
            502,
            "the upstream did not answer as an exec server does",
        ),
        (
            "",
            502,
            "the upstream did not answer as an exec server does",
        ),
    ] {
        let (leg, _) = shake(Say::Raw(raw.to_owned())).await;
        let refusal = Refusal::from(leg.expect_err(raw));
        assert_eq!((refusal.code(), refusal.public()), (code, text), "{raw}");
    }
}

#[tokio::test]
async fn an_answer_that_never_ends_is_not_kept_in_memory() {
    let endless = format!(
        "HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n{}",
        "x".repeat(200_000)
    );
    let (leg, _) = shake(Say::Raw(endless)).await;
    let refusal = Refusal::from(leg.expect_err("refused"));
    assert_eq!(
        (refusal.code(), refusal.public()),
        (500, "the upstream answered 500 without a word")
    );
    let (leg, _) = shake(Say::Raw(format!(
        "HTTP/1.1 101 Ok\r\nx: {}\r\n\r\n",
        "x".repeat(100_000)
    )))
    .await;
    assert!(matches!(leg, Err(DialError::Http(_))), "{leg:?}");
}
