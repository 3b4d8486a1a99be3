//! TLS and HTTP/1.1 for the API server and the kubelet: accept, limits, reset by order.

mod answer;
mod audit;
mod body;
mod negotiate;
mod protobuf;
mod resource;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::cluster::Cluster;

pub use audit::Audit;

/// Body of an answer.
pub type Body = http_body_util::combinators::BoxBody<bytes::Bytes, Infallible>;

/// A TLS handshake, and a request's head, must be done within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest request head, in bytes: a token of 12 KiB in a subprotocol and a query of 48 KiB fit.
const MAX_HEAD: usize = 64 * 1024;
/// Pause after a failed `accept`: it fails when file descriptors run out, and would spin otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address.
    pub address: SocketAddr,
    /// Certificate the client proved by TLS, in DER.
    pub certificate: Option<Arc<[u8]>>,
    /// Cancelled to end the connection by a TCP reset, now.
    pub reset: CancellationToken,
    /// Cancelled when the connection is over, upgraded or not.
    pub gone: CancellationToken,
}

/// What an upgraded connection can be downcast to, in hyper's `TokioIo`.
#[derive(Debug)]
pub struct Io {
    stream: TlsStream<TcpStream>,
    gone: CancellationToken,
}

impl Io {
    /// Makes the end of the connection a TCP reset.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn reset_when_dropped(&self) -> std::io::Result<()> {
        self.stream.get_ref().0.set_zero_linger()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// Serves the API until the sandbox stops.
pub async fn serve(cluster: Arc<Cluster>, listener: TcpListener) {
    let shared = Arc::clone(&cluster);
    listen(
        &cluster,
        listener,
        cluster.stop.clone(),
        move |request, peer| {
            let cluster = Arc::clone(&shared);
            async move { answer::answer(&cluster, request, &peer).await }
        },
    )
    .await;
}

/// Accepts connections and answers their requests until `stop` is cancelled; one task for each connection, among the
/// cluster's.
pub async fn listen<A, F>(
    cluster: &Arc<Cluster>,
    listener: TcpListener,
    stop: CancellationToken,
    answer: A,
) where
    A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(cluster.pki.server_config());
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let (acceptor, stop, answer) = (acceptor.clone(), stop.clone(), answer.clone());
                    cluster.tasks.spawn(async move {
                        let handshake = acceptor.accept(stream);
                        let served =
                            stop.run_until_cancelled(tokio::time::timeout(HEAD_TIMEOUT, handshake));
                        if let Some(Ok(Ok(stream))) = served.await {
                            connection(stream, address, &stop, answer).await;
                        } else {
                            debug!(client = %address, "no TLS session");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection; are file descriptors running out?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn connection<A, F>(
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    stop: &CancellationToken,
    answer: A,
) where
    A: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (tcp, tls) = stream.get_ref();
    let _ = tcp.set_nodelay(true); // slower without, no worse
    let certificate = tls.peer_certificates().and_then(<[_]>::first);
    let peer = Peer {
        address,
        certificate: certificate.map(|certificate| certificate.as_ref().into()),
        reset: CancellationToken::new(),
        gone: CancellationToken::new(),
    };
    let io = Io {
        stream,
        gone: peer.gone.clone(),
    };
    let service = service_fn(|request| {
        let answered = answer(request, peer.clone());
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new()) // without it the header timeout does nothing
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut stopping = pin!(stop.cancelled());
    let mut told = false;
    loop {
        tokio::select! {
            served = &mut connection => {
                if let Err(error) = served {
                    debug!(client = %address, %error, "connection failed");
                }
                return;
            }
            () = &mut stopping, if !told => {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = peer.reset.cancelled() => {
                if let Some(parts) = connection.into_parts() {
                    let _ = parts.io.inner().reset_when_dropped(); // then it is closed, which is near enough
                }
                return;
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
