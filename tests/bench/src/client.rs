//! One exec client: connects, upgrades, checks the answer, waits for the first message.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{
    net::{Stream, read_head},
    ws::{self, BINARY, CLOSE, CLOSE_NORMAL, MASK, PING, PONG, Socket},
};

/// Longest frame a client has to read: 32 KiB of data, its channel byte, its header.
pub(crate) const OUTPUT: usize = 64 * 1024;
/// Reading buffer of a client that types.
pub(crate) const KEYSTROKES: usize = 4096;

/// How long connecting may take, from the TCP connect to the first message.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest document read, in bytes.
const MAX_DOCUMENT: u64 = 64 * 1024;

/// How much is kept of the end of a long answer, in bytes.
const MAX_END: usize = 4096;

/// Where to connect, and how.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Value of the `Host` header.
    pub(crate) host: String,
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// `v4.channel.k8s.io` or `v5.channel.k8s.io`.
    pub(crate) protocol: &'static str,
}

impl Endpoint {
    /// Opens one exec session; `path` is path and query, `size` the largest frame to be read.
    ///
    /// # Errors
    /// Anything but a 101 with the right headers, followed by the initial message; or none of it within 30 s.
    pub(crate) async fn open(
        &self,
        token: Option<&str>,
        path: &str,
        size: usize,
    ) -> anyhow::Result<Socket> {
        timeout(PATIENCE, self.try_open(token, path, size))
            .await
            .with_context(|| format!("{} took over {PATIENCE:?}", self.address))?
            .with_context(|| format!("cannot open an exec session at {}", self.address))
    }

    async fn dial(&self) -> anyhow::Result<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Stream::Plain(stream),
            Some((config, name)) => {
                let tls = TlsConnector::from(config.clone())
                    .connect(name.clone(), stream)
                    .await?;
                Stream::Tls(Box::new(TlsStream::Client(tls)))
            }
        })
    }

    /// Asks for `path`: the stream, what was read of it, and where the body begins in that.
    async fn ask(
        &self,
        token: Option<&str>,
        path: &str,
    ) -> anyhow::Result<(Stream, Vec<u8>, usize)> {
        let mut stream = self.dial().await?;
        let (host, bearer) = (&self.host, authorization(token));
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{bearer}\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut buf = Vec::new();
        let head = read_head(&mut stream, &mut buf)
            .await?
            .context("hung up without an answer")?;
        Ok((stream, buf, head))
    }

    /// Reads a long answer to its end: how many bytes came, and the last of them.
    ///
    /// # Errors
    /// Anything but a 200.
    pub(crate) async fn read_all(
        &self,
        token: Option<&str>,
        path: &str,
    ) -> anyhow::Result<(u64, Vec<u8>)> {
        let (mut stream, mut buf, head) = self.ask(token, path).await?;
        let first = String::from_utf8_lossy(&buf[..head.min(64)]).into_owned();
        ensure!(first.starts_with("HTTP/1.1 200 "), "answered {first:?}");
        buf.drain(..head);
        let mut bytes = buf.len() as u64;
        loop {
            let kept = buf.len().saturating_sub(MAX_END);
            buf.drain(..kept);
            match stream.read_buf(&mut buf).await? {
                0 => return Ok((bytes, buf)),
                read => bytes += read as u64,
            }
        }
    }

    /// The body of a short JSON document, or why there is none.
    pub(crate) async fn get(
        &self,
        token: Option<&str>,
        path: &str,
    ) -> anyhow::Result<serde_json::Value> {
        let (mut stream, mut buf, head) = self.ask(token, path).await?;
        (&mut stream)
            .take(MAX_DOCUMENT)
            .read_to_end(&mut buf)
            .await?;
        serde_json::from_slice(&buf[head..]).with_context(|| format!("{path} is no JSON document"))
    }

    async fn try_open(
        &self,
        token: Option<&str>,
        path: &str,
        size: usize,
    ) -> anyhow::Result<Socket> {
        let Self { host, protocol, .. } = self;
        let mut stream = self.dial().await?;
        let bearer = authorization(token);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n{bearer}\r\n",
            key = ws::KEY,
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;

        let mut buf = Vec::with_capacity(1024);
        let head = read_head(&mut stream, &mut buf)
            .await?
            .context("hung up without an answer")?;
        check(&buf, head, protocol)?;
        let mut socket = Socket::new(stream, &buf[head..], size, Some(MASK));
        greet(&mut socket).await?;
        Ok(socket)
    }
}

fn authorization(token: Option<&str>) -> String {
    token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    })
}

/// Whether this is the 101 that was asked for.
fn check(buf: &[u8], head: usize, protocol: &str) -> anyhow::Result<()> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    answer.parse(&buf[..head])?;
    let value = |name: &str| {
        let header = answer
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        header.map_or("", |header| {
            std::str::from_utf8(header.value).unwrap_or("").trim()
        })
    };
    let code = answer.code.unwrap_or(0);
    ensure!(
        code == 101,
        "answered {code}: {}",
        String::from_utf8_lossy(&buf[head..])
    );
    ensure!(
        value("sec-websocket-accept") == ws::accept(ws::KEY),
        "a wrong Sec-WebSocket-Accept"
    );
    ensure!(
        value("sec-websocket-protocol") == protocol,
        "chose subprotocol {:?}",
        value("sec-websocket-protocol")
    );
    Ok(())
}

/// Waits for the empty message on channel 1 that says the stream is up.
async fn greet(socket: &mut Socket) -> anyhow::Result<()> {
    loop {
        let frame = socket.next().await?.context("hung up after the upgrade")?;
        match (frame.opcode, socket.payload(&frame)) {
            (BINARY, [1]) => return Ok(()),
            (PING, _) => socket.pong(&frame).await?,
            (PONG, _) => {}
            (opcode, payload) => bail!(
                "opcode {opcode} with {} bytes instead of the initial message",
                payload.len()
            ),
        }
    }
}

/// Says Close 1000 and waits for the answer.
pub(crate) async fn hang_up(mut socket: Socket) -> anyhow::Result<()> {
    socket.send(CLOSE, &CLOSE_NORMAL).await?;
    while let Some(frame) = socket.next().await? {
        if frame.opcode == CLOSE {
            break;
        }
    }
    Ok(())
}

/// Types one byte and waits until just that byte is back.
pub(crate) async fn type_byte(socket: &mut Socket, byte: u8) -> anyhow::Result<()> {
    socket.send(BINARY, &[0, byte]).await?;
    let frame = socket.data().await?;
    ensure!(
        socket.payload(&frame) == [1, byte],
        "typed {byte:#04x}, got {:02x?}",
        socket.payload(&frame)
    );
    Ok(())
}

/// Reads `expected` bytes of stdout through `check`, which is given each piece and where it begins; then a Success status, then Close 1000.
pub(crate) async fn drain(
    socket: &mut Socket,
    expected: usize,
    mut check: impl FnMut(usize, &[u8]) -> bool,
) -> anyhow::Result<()> {
    let (mut seen, mut status) = (0, None);
    loop {
        let frame = socket
            .next()
            .await?
            .with_context(|| format!("hung up after {seen} bytes, no Close"))?;
        match (frame.opcode, socket.payload(&frame)) {
            (BINARY, [1, data @ ..]) => {
                ensure!(
                    check(seen, data),
                    "other bytes than were sent, from byte {seen} on"
                );
                seen += data.len();
            }
            (BINARY, [3, body @ ..]) if status.is_none() => {
                status = Some(serde_json::from_slice::<serde_json::Value>(body)?);
            }
            (PING, _) => socket.pong(&frame).await?,
            (PONG, _) => {}
            (CLOSE, code) => {
                ensure!(code == CLOSE_NORMAL, "closed with {code:02x?}");
                socket.send(CLOSE, &CLOSE_NORMAL).await?;
                break;
            }
            (opcode, payload) => bail!(
                "opcode {opcode}, {:02x?}…",
                &payload[..payload.len().min(8)]
            ),
        }
    }
    ensure!(seen == expected, "{seen} bytes instead of {expected}");
    let status = status.context("closed without a Status")?;
    ensure!(status["status"] == "Success", "ended with {status}");
    Ok(())
}
