//! The port clients connect to: accept, TLS, HTTP/1.1, and limits on whoever has not shown a credential.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::gate::{Gate, Peer};
use crate::lobby::Lobby;
use crate::transport::{Transport, canonical, prepare};

/// A TLS handshake must be done within this time.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head must be there within this time; a connection without a request is closed after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest request head, in bytes: a token (12 KiB) in a subprotocol and a query of 48 KiB fit. hyper answers 431 beyond,
/// and takes no more than 100 headers.
const MAX_HEAD: usize = 64 * 1024;
/// Pause after a failed `accept`: it fails when file descriptors run out, and would spin otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The answer to HTTP/2 without TLS, which hyper has none for.
const NO_HTTP2: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The clients' port, bound but not serving yet.
pub struct Listener {
    tcp: TcpListener,
    door: Door,
}

/// What every connection passes.
#[derive(Clone)]
pub struct Door {
    /// `None`: plain HTTP, behind something that speaks TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// What answers requests.
    pub gate: Arc<Gate>,
    /// Where connections wait until they have shown a credential.
    pub lobby: Arc<Lobby>,
    /// Cancelled when no further request is to be taken.
    pub stop: CancellationToken,
    /// The tasks of connections.
    pub connections: TaskTracker,
}

impl Listener {
    /// Binds `addr`; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address cannot be bound; the message names it.
    pub async fn bind(addr: SocketAddr, door: Door) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind(addr)
            .await
            .with_context(|| format!("failed to listen on {addr}"))?;
        Ok(Self { tcp, door })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.tcp
            .local_addr()
            .context("failed to read the listening address")
    }

    /// Accepts until the door's `stop` is cancelled. One task per connection: no client is waited for here.
    pub async fn serve(self) {
        let Self { tcp, door } = self;
        let accept = async {
            loop {
                match tcp.accept().await {
                    Ok((stream, addr)) => {
                        door.connections
                            .spawn(door.clone().tcp(stream, canonical(addr)));
                    }
                    Err(error) => {
                        warn!(%error, "failed to accept a connection; are file descriptors running out?");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        door.stop.run_until_cancelled(accept).await;
    }
}

impl Door {
    async fn tcp(self, stream: TcpStream, addr: SocketAddr) {
        let peer = self.peer(addr);
        let served = async {
            if let Err(error) = prepare(&stream) {
                return debug!(client = %addr, %error, "the connection was gone at once");
            }
            let transport = match &self.tls {
                None => Transport::Plain(stream),
                Some(config) => {
                    let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
                    match tokio::time::timeout(TLS_TIMEOUT, handshake).await {
                        Ok(Ok(stream)) => Transport::Tls(Box::new(stream.into())),
                        Ok(Err(error)) => return debug!(client = %addr, %error, "no TLS session"),
                        Err(_) => return debug!(client = %addr, "no TLS session in time"),
                    }
                }
            };
            self.http(transport, Arc::clone(&peer)).await;
        };
        tokio::select! {
            biased;
            () = peer.place.shown_out() => {
                self.gate.metrics.shown_out.inc();
            }
            () = served => {}
        }
    }

    pub(crate) fn peer(&self, addr: SocketAddr) -> Arc<Peer> {
        Arc::new(Peer {
            addr,
            place: self.lobby.place(),
        })
    }

    /// Serves requests until the connection is closed or upgraded.
    pub(crate) async fn http(&self, transport: Transport, peer: Arc<Peer>) {
        let addr = peer.addr;
        let service = service_fn(|request: Request<Incoming>| {
            let (gate, peer) = (Arc::clone(&self.gate), Arc::clone(&peer));
            let answer: std::pin::Pin<Box<dyn Future<Output = _> + Send>> =
                Box::pin(async move { Ok::<_, Infallible>(gate.serve(request, peer).await) });
            answer
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new()) // without it the header timeout does nothing
            .header_read_timeout(HEAD_TIMEOUT)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(transport), service)
            .with_upgrades();
        let mut stopping = pin!(self.stop.cancelled());
        let mut told = false;
        let served = loop {
            tokio::select! {
                served = &mut connection => break served,
                () = &mut stopping, if !told => {
                    told = true;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        if let Err(error) = served {
            debug!(client = %addr, %error, "connection failed");
            if error.is_parse_version_h2()
                && let Some(parts) = connection.into_parts()
            {
                let mut io = parts.io.into_inner();
                let refuse = async {
                    io.write_all(NO_HTTP2).await?;
                    io.shutdown().await
                };
                let _ = tokio::time::timeout(HEAD_TIMEOUT, refuse).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
