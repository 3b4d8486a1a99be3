//! A WebSocket client of exec and attach that speaks any subprotocol, written from the protocol alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, handshake::derive_accept_key};

use crate::checks::text;
use crate::connection::{Answer, Connection, Request};
use crate::drawbridge::Gateway;
use crate::end::End;
use crate::session::Session;
use crate::wait::soon;

/// Every subprotocol a client may speak; the empty one is spoken by offering none.
pub const PROTOCOLS: [&str; 6] = [
    "",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v5.channel.k8s.io",
];

/// Longest wait for the next thing a test expects.
const LIMIT: Duration = Duration::from_secs(20);

/// Longest wait for a console to end.
const WHOLE: Duration = Duration::from_mins(2);

/// How a console is to be opened.
#[derive(Clone, Debug)]
pub struct Opening {
    path: String,
    query: Vec<(String, String)>,
    /// The handshake, for changes by hand. The query is added when it is sent.
    headers: Vec<(String, String)>,
    token: String,
    protocol: String,
}

/// An open console.
#[derive(Debug)]
pub struct Console {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    protocol: String,
    /// The answer to the handshake.
    pub answer: Answer,
}

/// The gateway's answer when it was no 101.
#[derive(Debug, thiserror::Error)]
#[error("refused with {}: {}", .0.code, text(&.0.body))]
pub struct Refused(pub Answer);

/// Something a console received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The empty message that says the process has been started.
    Connected,
    /// Bytes of standard output.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// Channel 3, decoded.
    Status(Vec<u8>),
    /// An answer to a ping, or an unsolicited one.
    Pong(Vec<u8>),
    /// A ping, which has been answered.
    Ping,
    /// A close frame with this code; none is an empty one.
    Closed(Option<u16>),
    /// The connection is gone without a close frame.
    Gone(String),
}

impl Opening {
    /// `kubectl exec`: argv, stdout and stderr.
    #[must_use]
    pub fn exec(session: &Session, argv: &[&str]) -> Self {
        let mut opening = Self::stream(session, "exec");
        opening.query.extend(
            argv.iter()
                .map(|word| ("command".to_owned(), (*word).to_owned())),
        );
        opening
    }

    /// `kubectl attach`.
    #[must_use]
    pub fn attach(session: &Session) -> Self {
        Self::stream(session, "attach")
    }

    fn stream(session: &Session, action: &str) -> Self {
        Self {
            path: format!(
                "/api/v1/namespaces/{}/pods/{}/{action}",
                session.namespace, session.pod
            ),
            query: vec![
                ("stdout".to_owned(), "true".to_owned()),
                ("stderr".to_owned(), "true".to_owned()),
            ],
            headers: Vec::new(),
            token: session.token.clone(),
            protocol: "v4.channel.k8s.io".to_owned(),
        }
    }

    /// The native console of the session: runs its command, or `sh`, on a TTY.
    #[must_use]
    pub fn native(session: &Session) -> Self {
        Self {
            path: format!("/sessions/{}/{}/console", session.namespace, session.name),
            query: Vec::new(),
            headers: Vec::new(),
            token: session.token.clone(),
            protocol: "v4.channel.k8s.io".to_owned(),
        }
    }

    /// With standard input.
    #[must_use]
    pub fn stdin(self) -> Self {
        self.query("stdin", "true")
    }

    /// On a terminal, with standard input: output comes on stdout alone.
    #[must_use]
    pub fn tty(mut self) -> Self {
        self.query.retain(|(name, _)| name != "stderr");
        self.query("stdin", "true").query("tty", "true")
    }

    /// With one more query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// On another path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another token; empty: none.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Offering exactly this subprotocol line; empty: none. Default: `v4.channel.k8s.io`.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        protocol.clone_into(&mut self.protocol);
        self
    }

    /// The handshake request.
    #[must_use]
    pub fn request(&self) -> Request {
        let query: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={}", escape(value)))
            .collect();
        let separator = if query.is_empty() { "" } else { "?" };
        let mut request = Request::upgrade(&format!("{}{separator}{}", self.path, query.join("&")));
        if !self.token.is_empty() {
            request = request.token(&self.token);
        }
        if !self.protocol.is_empty() {
            request = request.offer(&self.protocol);
        }
        self.headers.iter().fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    }

    /// Sends the handshake and returns the answer, which is expected to be a refusal.
    ///
    /// # Errors
    /// When there is no answer, or it is a 101.
    pub async fn refused(&self, gateway: &Gateway) -> Result<Answer> {
        let answer = Connection::open(gateway)
            .await?
            .ask(&self.request())
            .await?;
        ensure!(
            answer.code != 101,
            "it was let in: {} {:?}",
            self.path,
            self.query
        );
        Ok(answer)
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Refused`] when the answer is no 101; anything else when it is not a correct one (RFC 6455 §4.2.2).
    pub async fn open(&self, gateway: &Gateway) -> Result<Console> {
        self.open_with(gateway, WebSocketConfig::default()).await
    }

    async fn open_with(&self, gateway: &Gateway, config: WebSocketConfig) -> Result<Console> {
        let mut connection = Connection::open(gateway).await?;
        let request = self.request();
        let answer = connection.ask(&request).await?;
        if answer.code != 101 {
            return Err(Refused(answer).into());
        }
        let accept = derive_accept_key(
            request
                .get("Sec-WebSocket-Key")
                .unwrap_or_default()
                .as_bytes(),
        );
        ensure!(
            answer.header("sec-websocket-accept") == Some(&accept),
            "a wrong Sec-WebSocket-Accept: {answer:?}"
        );
        ensure!(
            answer.header("sec-websocket-extensions").is_none(),
            "an extension nobody offered: {answer:?}"
        );
        let chosen = answer.header("sec-websocket-protocol");
        let offered = self.protocol.split(',').map(str::trim);
        let protocol = match chosen {
            Some(name) => offered
                .into_iter()
                .find(|offer| *offer == name && !name.is_empty()),
            None => self.protocol.is_empty().then_some(""),
        };
        let protocol = protocol
            .with_context(|| format!("{chosen:?} is not one of {:?}", self.protocol))?
            .to_owned();
        let (stream, rest) = connection.into_parts();
        let socket =
            WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(config)).await;
        Ok(Console {
            socket,
            protocol,
            answer,
        })
    }
}

impl Console {
    /// The subprotocol it speaks.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    fn is_base64(&self) -> bool {
        self.protocol.contains("base64")
    }

    /// A data message of its subprotocol.
    #[must_use]
    pub fn message(&self, channel: u8, data: &[u8]) -> Message {
        if self.is_base64() {
            let mut out = char::from(b'0' + channel).to_string();
            STANDARD.encode_string(data, &mut out);
            return Message::text(out);
        }
        let mut out = vec![channel];
        out.extend_from_slice(data);
        Message::binary(out)
    }

    /// Sends a message as it is.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, message: Message) -> Result<()> {
        soon("a message is sent", LIMIT, self.socket.send(message))
            .await?
            .context("failed to send")
    }

    /// Writes bytes as they are, frame header included; see [`frame`].
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_raw(&mut self, bytes: Bytes) -> Result<()> {
        let stream = self.socket.get_mut();
        let write = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        soon("bytes are sent", LIMIT, write)
            .await?
            .context("failed to send")
    }

    /// Types: bytes for standard input.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn stdin(&mut self, data: &[u8]) -> Result<()> {
        let message = self.message(0, data);
        self.send(message).await
    }

    /// Tells the terminal's size.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        let message = self.message(
            4,
            format!("{{\"Width\":{columns},\"Height\":{rows}}}\n").as_bytes(),
        );
        self.send(message).await
    }

    /// Ends standard input, which only `v5.channel.k8s.io` can.
    ///
    /// # Errors
    /// When it speaks another, or the connection is gone.
    pub async fn end_stdin(&mut self) -> Result<()> {
        ensure!(
            self.protocol == "v5.channel.k8s.io",
            "{:?} cannot end stdin",
            self.protocol
        );
        self.send(Message::binary(vec![0xff, 0])).await
    }

    /// The next thing that comes.
    ///
    /// # Errors
    /// When nothing comes for 20 s, or what comes breaks the rules of the subprotocol.
    pub async fn event(&mut self) -> Result<Event> {
        let message = soon("something from the gateway", LIMIT, self.socket.next()).await?;
        let message = match message {
            None => return Ok(Event::Gone("end of stream".into())),
            Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => {
                return Ok(Event::Gone("closed".into()));
            }
            Some(Err(error)) => return Ok(Event::Gone(error.to_string())),
            Some(Ok(message)) => message,
        };
        match message {
            Message::Ping(_) => Ok(Event::Ping),
            Message::Pong(data) => Ok(Event::Pong(data.to_vec())),
            Message::Close(frame) => Ok(Event::Closed(frame.map(|frame| frame.code.into()))),
            Message::Binary(data) if !self.is_base64() => {
                Self::data(data.first().copied(), data.get(1..).map(<[u8]>::to_vec))
            }
            Message::Text(data) if self.is_base64() => {
                let channel = data
                    .as_bytes()
                    .first()
                    .map(|digit| digit.wrapping_sub(b'0'));
                let bytes = STANDARD
                    .decode(data.get(1..).unwrap_or_default())
                    .with_context(|| format!("bad base64: {data}"))?;
                Self::data(channel, Some(bytes))
            }
            other => bail!(
                "{:?} gets a message of the wrong type: {other:?}",
                self.protocol
            ),
        }
    }

    fn data(channel: Option<u8>, bytes: Option<Vec<u8>>) -> Result<Event> {
        let (Some(channel), Some(bytes)) = (channel, bytes) else {
            bail!("a message without a channel: clients crash on it (rule 5)");
        };
        Ok(match channel {
            _ if bytes.is_empty() => Event::Connected,
            1 => Event::Stdout(bytes),
            2 => Event::Stderr(bytes),
            3 => Event::Status(bytes),
            other => bail!("data on channel {other}, which a server never writes"),
        })
    }

    /// Reads standard output until it contains `part`; returns all of it.
    ///
    /// # Errors
    /// When the console ends or 20 s pass before it does.
    pub async fn until(&mut self, part: &str) -> Result<String> {
        let mut all = Vec::new();
        let read = async {
            loop {
                match self.event().await? {
                    Event::Stdout(bytes) => all.extend(bytes),
                    Event::Connected | Event::Ping | Event::Pong(_) => continue,
                    other => bail!("{other:?} came instead"),
                }
                let seen = text(&all);
                if seen.contains(part) {
                    return Ok(seen);
                }
            }
        };
        let found = soon(&format!("{part:?}"), LIMIT, read).await.flatten();
        found.with_context(|| format!("waiting for {part:?} after {:?}", text(&all)))
    }

    /// Reads until the console is over.
    ///
    /// # Errors
    /// When nothing comes for 20 s, it lasts for more than two minutes, or data comes after the status.
    pub async fn finish(self) -> Result<End> {
        soon("the end of a console", WHOLE, Box::pin(self.read_to_end())).await?
    }

    async fn read_to_end(mut self) -> Result<End> {
        let mut end = End {
            stdout: Vec::new(),
            stderr: Vec::new(),
            status: None,
            close: None,
            at: Instant::now(),
        };
        loop {
            let event = self
                .event()
                .await
                .with_context(|| format!("after {end:?}"))?;
            let over = end.status.is_some();
            match event {
                Event::Stdout(_) | Event::Stderr(_) if over => {
                    bail!("output after the status: {event:?}")
                }
                Event::Stdout(bytes) => end.stdout.extend(bytes),
                Event::Stderr(bytes) => end.stderr.extend(bytes),
                Event::Status(_) if over => bail!("a second status: {event:?} after {end:?}"),
                Event::Status(bytes) => {
                    end.at = Instant::now();
                    end.status = Some(bytes);
                }
                Event::Closed(code) => {
                    end.close = code;
                    end.at = if over { end.at } else { Instant::now() };
                    return Ok(end);
                }
                Event::Gone(_) => {
                    end.at = if over { end.at } else { Instant::now() };
                    return Ok(end);
                }
                Event::Connected | Event::Ping | Event::Pong(_) => {}
            }
        }
    }

    /// The WebSocket itself.
    #[must_use]
    pub fn into_socket(self) -> WebSocketStream<TlsStream<TcpStream>> {
        self.socket
    }
}

/// Percent-encodes everything but what RFC 3986 calls unreserved.
fn escape(value: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    out
}

/// `data` as a masked client frame with a mask of zeros, i.e. readable on the wire, for what no library sends.
#[must_use]
pub fn frame(first: u8, data: &[u8]) -> Bytes {
    let mut out = vec![first];
    match u16::try_from(data.len()) {
        Ok(len) if len < 126 => out.push(0x80 | u8::try_from(len).unwrap_or_default()),
        Ok(len) => {
            out.push(0x80 | 0x7e);
            out.extend(len.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 0x7f);
            out.extend((data.len() as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend_from_slice(data);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_in_a_query_is_encoded() {
        assert_eq!(escape("echo a;b&c=d é"), "echo%20a%3Bb%26c%3Dd%20%C3%A9");
    }

    #[test]
    fn frames_have_the_length_their_payload_needs() {
        for (len, head) in [(5, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            assert_eq!(frame(0x82, &vec![0; len]).len(), len + head, "{len}");
        }
    }
}
