//! TLS and HTTP/1.1 for the API server and the kubelet: accept, limits, reset by order.

mod answer;
mod audit;
mod body;
mod protobuf;
mod resource;
mod watch;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::{net::TcpListener, net::TcpStream, time::sleep, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

pub(crate) use body::{JSON, TEXT, choose, text, typed};

/// Body of an answer.
pub(crate) type Body = http_body_util::combinators::BoxBody<bytes::Bytes, Infallible>;

/// A request as it comes in.
type Asked = Request<Incoming>;

/// A TLS handshake, and a request's head, must be done within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest request head, in bytes: a token of 12 KiB in a subprotocol and a query of 48 KiB fit.
const MAX_HEAD: usize = 64 * 1024;
/// Pause after a failed `accept`: it fails when file descriptors run out, and would spin otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Address.
    pub address: SocketAddr,
    /// Certificate the client proved by TLS, in DER.
    pub certificate: Option<CertificateDer<'static>>,
    /// Cancelled to end the connection by a TCP reset, now.
    pub reset: CancellationToken,
}

/// What an upgraded connection can be downcast to, in hyper's `TokioIo`.
pub(crate) type Io = TlsStream<TcpStream>;

/// Serves the API until the sandbox stops.
pub(crate) async fn serve(cluster: Arc<Cluster>, listener: TcpListener) {
    let shared = Arc::clone(&cluster);
    let answer = move |request, peer| answer::answer(Arc::clone(&shared), request, peer);
    listen(&cluster, listener, cluster.stop.clone(), answer).await;
}

/// Accepts connections and answers their requests until `stop` is cancelled; one task for each connection, among the
/// cluster's.
pub(crate) async fn listen<A, F>(
    cluster: &Arc<Cluster>,
    listener: TcpListener,
    stop: CancellationToken,
    answer: A,
) where
    A: Fn(Asked, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::clone(&cluster.tls));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, address)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true); // slower without, no worse
        let (handshake, answer) = (acceptor.accept(stream), answer.clone());
        let connection = async move {
            if let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, handshake).await {
                serve_one(stream, address, answer).await;
            }
        };
        let stop = stop.clone();
        cluster
            .tasks
            .spawn(stop.run_until_cancelled_owned(connection));
    }
}

async fn serve_one<F: Future<Output = Response<Body>>>(
    stream: Io,
    address: SocketAddr,
    answer: impl Fn(Asked, Peer) -> F,
) {
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = Peer {
        address,
        certificate: certificates.and_then(<[_]>::first).cloned(),
        reset: CancellationToken::new(),
    };
    let service = service_fn(|request| answer(request, peer.clone()).map(Ok::<_, Infallible>));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new()) // without it the header timeout does nothing
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let ended = peer.reset.run_until_cancelled(&mut connection).await;
    if let Some(parts) = connection.into_parts().filter(|_| ended.is_none()) {
        let _ = parts.io.inner().get_ref().0.set_zero_linger(); // then it is closed, which is near enough
    }
}
