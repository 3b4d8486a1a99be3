//! The byte stream under a connection, ours or the upstream's: TCP, with TLS or without.
//!
//! One type for both legs keeps one copy of the relay in the binary, and lets hyper's `Upgraded` be taken apart again.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// How long a peer may be silent before TCP asks whether it is there; its answers need no help from the program there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// Pause between two of TCP's questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Questions without an answer before TCP gives the peer up: a minute after its last sign.
const KEEPALIVE_TRIES: u32 = 3;

/// A connected byte stream.
#[derive(Debug)]
pub enum Transport {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over TCP. Boxed: its state is a kilobyte, and it is moved a few times.
    Tls(Box<TlsStream<TcpStream>>),
    /// Two ends in one process.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// Sets what every TCP connection here needs: no delay for keystrokes, and a question to peers that vanished.
///
/// # Errors
/// When the socket is no longer connected.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Whom a connection comes from, as logs show it.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    // An IPv4 peer of an IPv6 socket is the same peer.
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The same call on whichever stream it is.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Plain($stream) => $call,
            Transport::Tls($stream) => $call,
            #[cfg(test)]
            Transport::Memory($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            Transport::Memory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
