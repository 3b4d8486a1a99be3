//! The WebSocket of exec and attach, from the client's side, message by message.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{
    Error as WsError, Message,
    protocol::{CloseFrame, Role},
};

use drawbridge_tests::{soon, text};

use crate::compare::{differences, like};
use crate::fact::{Send, Stream};

/// Longest wait for the next message.
const LIMIT: Duration = Duration::from_secs(20);

/// What came.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    first: Option<Vec<u8>>,
    /// By channel.
    channels: [Vec<u8>; 5],
    /// Messages on channel 3 that were not empty.
    statuses: usize,
    over: bool,
    close: Option<u16>,
}

struct Socket {
    inner: WebSocketStream<TokioIo<Upgraded>>,
    base64: bool,
    seen: Seen,
}

/// Does what a fact says on an upgraded connection; returns what came, and how that differs from what must.
pub(crate) async fn converse(
    response: Response<Incoming>,
    stream: &Stream,
) -> Result<(Seen, Vec<String>)> {
    let protocol = response.headers().get("sec-websocket-protocol");
    let base64 = protocol
        .and_then(|name| name.to_str().ok())
        .is_some_and(|name| name.contains("base64"));
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await?);
    let mut socket = Socket {
        inner: WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await,
        base64,
        seen: Seen::default(),
    };
    for send in &stream.send {
        socket.send(send).await?;
    }
    while !socket.seen.over {
        socket.receive().await?;
    }
    let found = socket.seen.differences(stream);
    Ok((socket.seen, found))
}

impl Socket {
    async fn send(&mut self, what: &Send) -> Result<()> {
        let message = match what {
            Send::Stdin(data) => self.message(0, data.as_bytes()),
            Send::Resize(columns, rows) => self.message(
                4,
                format!("{{\"Width\":{columns},\"Height\":{rows}}}").as_bytes(),
            ),
            Send::Hex(hex) => Message::binary(hex::decode(hex)?),
            Send::Text(text) => Message::text(text.clone()),
            Send::Close(code) => Message::Close(Some(CloseFrame {
                code: (*code).into(),
                reason: "".into(),
            })),
            Send::Await(part) => {
                while !text(&self.seen.channels[1]).contains(part.as_str()) {
                    ensure!(
                        !self.seen.over,
                        "the end came before {part:?}: {}",
                        self.seen
                    );
                    self.receive().await?;
                }
                return Ok(());
            }
        };
        soon("a message is sent", LIMIT, self.inner.send(message)).await??;
        Ok(())
    }

    fn message(&self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", STANDARD.encode(data)));
        }
        let mut bytes = vec![channel];
        bytes.extend_from_slice(data);
        Message::binary(bytes)
    }

    async fn receive(&mut self) -> Result<()> {
        let next = soon("the next message", LIMIT, self.inner.next());
        let next = next.await.with_context(|| format!("after {}", self.seen))?;
        let message: Bytes = match next {
            None
            | Some(Err(
                WsError::ConnectionClosed
                | WsError::AlreadyClosed
                | WsError::Io(_)
                | WsError::Protocol(_),
            )) => {
                self.seen.over = true;
                return Ok(());
            }
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(Message::Close(frame))) => {
                self.seen.close = Some(frame.map_or(1005, |frame| frame.code.into()));
                self.seen.over = true;
                return Ok(());
            }
            Some(Ok(Message::Binary(data))) if !self.base64 => data,
            Some(Ok(Message::Text(data))) if self.base64 => data.into(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(()),
            Some(Ok(other)) => bail!("a message of the wrong type: {other:?}"),
        };
        self.seen.first.get_or_insert_with(|| message.to_vec());
        let (&channel, data) = message.split_first().context("a message of no bytes")?;
        let (channel, data) = if self.base64 {
            (channel.wrapping_sub(b'0'), STANDARD.decode(data)?)
        } else {
            (channel, data.to_vec())
        };
        let into = self.seen.channels.get_mut(usize::from(channel));
        into.with_context(|| format!("channel {channel}"))?
            .extend(&data);
        if channel == 3 && !data.is_empty() {
            self.seen.statuses += 1;
        }
        Ok(())
    }
}

impl Seen {
    fn differences(&self, stream: &Stream) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(want) = &stream.first {
            let have = self.first.as_deref().map(hex::encode);
            if have.as_ref() != Some(want) {
                found.push(format!("the first message must be {want}, is {have:?}"));
            }
        }
        let outputs = [(1, &stream.stdout), (2, &stream.stderr)];
        for (channel, want) in outputs {
            let have = text(&self.channels[channel]);
            if let Some(want) = want
                && !like(want, &have)
            {
                found.push(format!("channel {channel} must be {want:?}, is {have:?}"));
            }
        }
        match &stream.status {
            None => {}
            Some(Value::String(want)) if self.channels[3].first() != Some(&b'{') => {
                let have = text(&self.channels[3]);
                if !like(want, &have) {
                    found.push(format!("the status must be {want:?}, is {have:?}"));
                }
            }
            Some(want) => {
                let have: Option<Value> = serde_json::from_slice(&self.channels[3]).ok();
                let differ = differences(want, have.as_ref());
                found.extend(differ.into_iter().map(|line| format!("status: {line}")));
                if self.statuses > 1 {
                    found.push(format!("one status must come, {} did", self.statuses));
                }
            }
        }
        if let Some(want) = stream.close
            && self.close.unwrap_or(0) != want
        {
            found.push(format!("must be closed with {want}, is {:?}", self.close));
        }
        found
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "first {:?}, stdout {:?}, stderr {:?}, status {:?}, close {:?}",
            self.first.as_deref().map(hex::encode),
            text(&self.channels[1]),
            text(&self.channels[2]),
            text(&self.channels[3]),
            self.close
        )
    }
}
