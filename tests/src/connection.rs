//! Bytes over TLS: for requests no honest client sends, and answers to the letter.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::checks::text;
use crate::drawbridge::Gateway;
use crate::wait::soon;

/// Longest wait for an answer. The gateway has none that takes half of it.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest answer kept, in bytes: a `Status` has 1024, discovery a few thousand.
const MAX_ANSWER: usize = 1 << 20;

/// One TLS connection to a gateway.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    /// Read, but not yet used.
    buffer: Vec<u8>,
}

/// A request to be written as bytes.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

/// An HTTP/1.1 answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body; empty after a 101.
    pub body: Vec<u8>,
}

impl Request {
    /// A plain request.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        let host = ("Host".to_owned(), "localhost".to_owned());
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: vec![host],
        }
    }

    /// A WebSocket handshake (RFC 6455 §4.1) without a subprotocol.
    #[must_use]
    pub fn upgrade(path: &str) -> Self {
        Self::new("GET", path)
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", "13")
            .header(
                "Sec-WebSocket-Key",
                &tokio_tungstenite::tungstenite::handshake::client::generate_key(),
            )
    }

    /// Adds a header; the same name twice is two lines.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds `Authorization: Bearer`.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Adds a line of subprotocols.
    #[must_use]
    pub fn offer(self, protocols: &str) -> Self {
        self.header("Sec-WebSocket-Protocol", protocols)
    }

    /// Leaves out every header of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        self
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// The value of the first header of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The request as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n"); // writing to a String cannot fail
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

impl Connection {
    /// Connects and shakes hands as an HTTP/1.1 client.
    ///
    /// # Errors
    /// When either fails.
    pub async fn open(gateway: &Gateway) -> Result<Self> {
        Self::open_with(gateway, &["http/1.1"]).await
    }

    /// The same with other ALPN names; none is what kubectl sends when it dials a WebSocket.
    ///
    /// # Errors
    /// When connecting or the TLS handshake fails.
    pub async fn open_with(gateway: &Gateway, alpn: &[&str]) -> Result<Self> {
        let connector = TlsConnector::from(gateway.pki.client(alpn)?);
        let name = ServerName::try_from("localhost")?;
        let shake = async {
            let stream = TcpStream::connect(gateway.addr).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await
        };
        let stream = soon("a TLS connection", LIMIT, shake)
            .await?
            .context("failed to connect")?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// The protocol ALPN settled on.
    #[must_use]
    pub fn alpn(&self) -> Option<String> {
        self.stream.get_ref().1.alpn_protocol().map(text)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When the peer has hung up.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Writes a request and reads its answer.
    ///
    /// # Errors
    /// As [`Connection::send`] and [`Connection::answer`].
    pub async fn ask(&mut self, request: &Request) -> Result<Answer> {
        self.send(&request.bytes()).await?;
        self.answer().await
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// When the peer hangs up first, is silent for 20 s, or does not speak HTTP/1.1.
    pub async fn answer(&mut self) -> Result<Answer> {
        soon("an HTTP answer", LIMIT, self.read_answer()).await?
    }

    async fn read_answer(&mut self) -> Result<Answer> {
        let end = loop {
            if let Some(at) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break at;
            }
            if !self.more().await? {
                bail!(
                    "the gateway hung up without an answer; it sent {:?}",
                    text(&self.buffer)
                );
            }
        };
        let head = text(&self.buffer[..end]);
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let code = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok());
        let code = code.with_context(|| format!("not an HTTP/1.1 answer: {first:?}"))?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer {
            code,
            headers,
            body: Vec::new(),
        };
        if code != 101 {
            answer.body = self.body(&answer).await?;
        }
        Ok(answer)
    }

    async fn body(&mut self, answer: &Answer) -> Result<Vec<u8>> {
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse()?;
            while self.buffer.len() < length {
                if !self.more().await? {
                    bail!(
                        "the body ends early, after {} of {length} bytes",
                        self.buffer.len()
                    );
                }
            }
            return Ok(self.buffer.drain(..length).collect());
        }
        while self.more().await? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    async fn more(&mut self) -> Result<bool> {
        if self.buffer.len() > MAX_ANSWER {
            bail!("an answer over {MAX_ANSWER} bytes");
        }
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(count) => Ok(count > 0),
            // Hanging up without TLS's goodbye is hanging up.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads until the peer hangs up; returns what it still sent.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub async fn until_closed(&mut self, limit: Duration) -> Result<Vec<u8>> {
        let drain = async {
            while self.more().await? {}
            anyhow::Ok(())
        };
        soon("the gateway hangs up", limit, drain).await??;
        Ok(std::mem::take(&mut self.buffer))
    }

    /// The stream, and what was read past the last answer.
    #[must_use]
    pub fn into_parts(self) -> (TlsStream<TcpStream>, Vec<u8>) {
        (self.stream, self.buffer)
    }
}

impl Answer {
    /// The first header of that name, which is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as a Kubernetes `Status` of this very code, as every refusal must be: Failure, and at most 1024 bytes,
    /// which is all kubectl reads of it. Returns the message.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn refusal(&self, code: u16) -> Result<String> {
        let shown = || format!("{} {:?} {}", self.code, self.headers, text(&self.body));
        let status: serde_json::Value = serde_json::from_slice(&self.body).with_context(shown)?;
        let json = self
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/json"));
        let whole = status["kind"] == "Status"
            && status["apiVersion"] == "v1"
            && status["status"] == "Failure"
            && status["code"] == code;
        if self.code != code || !whole || !json || self.body.len() > 1024 {
            bail!("not a Status of code {code} in 1024 bytes: {}", shown());
        }
        Ok(status["message"].as_str().unwrap_or_default().to_owned())
    }
}
