//! The WebSocket as Go's `golang.org/x/net/websocket` serves it: frames, not messages; and the handshake.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::clock::Clock;
use crate::faults::StreamFault;
use crate::server::Body;

/// Longest frame that is taken, in bytes: `DefaultMaxPayloadBytes`.
const MAX_FRAME: u64 = 32 << 20;
/// Longest payload of a control frame that is echoed.
const MAX_CONTROL: usize = 125;

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Close codes.
pub(super) const NORMAL: u16 = 1000;
pub(super) const PROTOCOL_ERROR: u16 = 1002;

/// Whether this asks for a WebSocket, as the servers see it.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains(wanted))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// The answer to a handshake, and the subprotocol if it was accepted: `choose` gets what the first header line offers.
pub(super) fn handshake<P>(
    method: &Method,
    headers: &HeaderMap,
    choose: impl FnOnce(&[&str]) -> Option<(P, &'static str)>,
) -> (Response<Body>, Option<P>) {
    let refuse = |status| {
        let mut response = empty(status);
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        (response, None)
    };
    if method != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED);
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        let (mut response, none) = refuse(StatusCode::BAD_REQUEST);
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return (response, none);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return refuse(StatusCode::BAD_REQUEST);
    };
    let offer = offered(headers);
    let Some((chosen, name)) = choose(&offer) else {
        return refuse(StatusCode::FORBIDDEN);
    };
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    // Empty if nothing was offered. Clients that keep to RFC 6455 refuse that, and the real servers do it.
    answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    (response, Some(chosen))
}

/// What the first header line offers; nothing is an offer of `""`.
pub(super) fn offered(headers: &HeaderMap) -> Vec<&str> {
    let line = headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|line| line.to_str().ok())
        .unwrap_or_default();
    line.split(',').map(str::trim).collect()
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status;
    response
}

/// When data last moved, in seconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct Idle(Arc<AtomicI64>);

impl Idle {
    pub(super) fn new(clock: &Clock) -> Self {
        Self(Arc::new(AtomicI64::new(clock.now().as_second())))
    }

    fn touch(&self, clock: &Clock) {
        self.0.store(clock.now().as_second(), Ordering::Relaxed);
    }

    /// Waits until nothing has moved for `limit` seconds.
    pub(super) async fn expired(&self, clock: &Clock, limit: i64) {
        loop {
            let end = self.0.load(Ordering::Relaxed) + limit;
            if clock.now().as_second() >= end {
                return;
            }
            let end = jiff::Timestamp::from_second(end).unwrap_or(jiff::Timestamp::MAX);
            clock.sleep_until(end).await;
        }
    }
}

/// What a client sent.
pub(super) enum Received {
    /// One frame, whatever its opcode; a continuation is one too.
    Data(Vec<u8>),
    /// To be echoed.
    Ping(Vec<u8>),
    /// Nothing to be done about it.
    Nothing,
    /// The end: a Close, the end of the connection, a frame too long.
    End,
    /// The end: a frame without a mask.
    Unmasked,
}

/// Reads frames.
pub(super) struct Reader<R> {
    from: BufReader<R>,
    idle: Idle,
    clock: Clock,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R, idle: Idle, clock: Clock) -> Self {
        Self {
            from: BufReader::with_capacity(64 << 10, from),
            idle,
            clock,
        }
    }

    /// The next frame. Reserved bits are not looked at.
    pub(super) async fn next(&mut self) -> Received {
        self.read().await.unwrap_or(Received::End)
    }

    async fn read(&mut self) -> io::Result<Received> {
        let mut head = [0; 2];
        self.from.read_exact(&mut head).await?;
        let length = match head[1] & 0x7f {
            126 => u64::from(self.from.read_u16().await?),
            127 => self.from.read_u64().await?,
            short => u64::from(short),
        };
        if head[1] & 0x80 == 0 {
            return Ok(Received::Unmasked);
        }
        let mut mask = [0; 4];
        self.from.read_exact(&mut mask).await?;
        if length > MAX_FRAME {
            return Ok(Received::End);
        }
        let mut payload = Vec::new();
        (&mut self.from)
            .take(length)
            .read_to_end(&mut payload)
            .await?;
        if payload.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Ok(match head[0] & 0x0f {
            CLOSE => Received::End,
            PING => {
                payload.truncate(MAX_CONTROL);
                Received::Ping(payload)
            }
            PONG => Received::Nothing,
            _ => {
                self.idle.touch(&self.clock);
                Received::Data(payload)
            }
        })
    }
}

/// Writes frames, each whole and in one piece; and does to them what a test ordered.
pub(super) struct Writer<W> {
    to: W,
    faults: watch::Receiver<StreamFault>,
    idle: Idle,
    clock: Clock,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(
        to: W,
        faults: watch::Receiver<StreamFault>,
        idle: Idle,
        clock: Clock,
    ) -> Self {
        Self {
            to,
            faults,
            idle,
            clock,
            buffer: Vec::new(),
        }
    }

    /// Sends data.
    pub(super) async fn data(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.idle.touch(&self.clock);
        self.frame(opcode, payload).await
    }

    pub(super) async fn pong(&mut self, payload: &[u8]) -> io::Result<()> {
        self.frame(PONG, payload).await
    }

    pub(super) async fn close(&mut self, code: u16) -> io::Result<()> {
        self.frame(CLOSE, &code.to_be_bytes()).await
    }

    /// Ends the connection in order: TLS and TCP are told.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.to.shutdown().await
    }

    async fn frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.push(0x80 | opcode);
        let length = payload.len();
        if let Ok(short @ 0..126) = u8::try_from(length) {
            self.buffer.push(short);
        } else if let Ok(length) = u16::try_from(length) {
            self.buffer.push(126);
            self.buffer.extend_from_slice(&length.to_be_bytes());
        } else {
            self.buffer.push(127);
            self.buffer
                .extend_from_slice(&(length as u64).to_be_bytes());
        }
        self.buffer.extend_from_slice(payload);
        let fault = *self.faults.borrow();
        let cut = match fault {
            StreamFault::None => self.buffer.len(),
            StreamFault::CutMidFrame | StreamFault::StallMidFrame => self.buffer.len() / 2,
            StreamFault::Reset => 0,
        };
        self.to.write_all(&self.buffer[..cut]).await?;
        self.to.flush().await?;
        match fault {
            StreamFault::None => Ok(()),
            StreamFault::StallMidFrame => std::future::pending().await,
            StreamFault::CutMidFrame | StreamFault::Reset => {
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}
