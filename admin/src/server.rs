//! The admin port: `/livez`, `/readyz`, `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Ready;

/// Connections served at the same time; further ones wait in the kernel's backlog. A kubelet and two Prometheus
/// servers need three.
const MAX_CONNECTIONS: usize = 32;
/// A request's head must arrive within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection lasts no longer than this, whatever its peer does; Prometheus gives up after 10 s by default.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of request head held per connection (hyper's minimum is 8 KiB).
const MAX_HEAD: usize = 8 * 1024;
/// Pause after a failed `accept`: it fails when file descriptors run out, and would spin otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The admin port, bound but not serving yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    answers: Arc<Answers>,
}

#[derive(Debug)]
struct Answers {
    ready: Ready,
    registry: Registry,
}

impl Server {
    /// Binds `addr`; port 0 picks a free one, see [`Server::local_addr`]. Metrics must be registered before.
    ///
    /// # Errors
    /// When the address cannot be bound; the message names it.
    pub async fn bind(addr: SocketAddr, ready: Ready, registry: Registry) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr)
            .await
            .with_context(|| format!("failed to listen on admin address {addr}"))?;
        Ok(Self {
            listener,
            answers: Arc::new(Answers { ready, registry }),
        })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.listener
            .local_addr()
            .context("failed to read the admin address")
    }

    /// Serves until `stop` is cancelled. Stop it last: probes should be answered while the rest drains.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { listener, answers } = self;
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept = async {
            loop {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return; // never: nobody closes the semaphore
                };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let answers = Arc::clone(&answers);
                        tokio::spawn(async move {
                            connection(stream, answers).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "admin port failed to accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(accept).await;
    }
}

async fn connection(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request| {
        let answer = answers.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new()) // without it the header timeout does nothing
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false) // an idle peer would hold its slot
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, serve).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin connection failed"),
        Err(_) => debug!("admin connection outlived its limit"),
    }
}

impl Answers {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD\n".into(),
                TEXT,
            );
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n".into(), TEXT),
            "/readyz" => self.readyz(),
            "/metrics" => self.metrics(),
            _ => text(
                StatusCode::NOT_FOUND,
                "only /livez, /readyz and /metrics live here\n".into(),
                TEXT,
            ),
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let missing = self.ready.missing();
        if missing.is_empty() {
            return text(StatusCode::OK, "ok\n".into(), TEXT);
        }
        let body = format!("not ready: {}\n", missing.join("\nnot ready: "));
        text(StatusCode::SERVICE_UNAVAILABLE, body, TEXT)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        match prometheus_client::encoding::text::encode(&mut body, &self.registry) {
            Ok(()) => text(StatusCode::OK, body, OPEN_METRICS),
            Err(error) => {
                warn!(%error, "failed to encode metrics");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("{error}\n"),
                    TEXT,
                )
            }
        }
    }
}

fn text(status: StatusCode, body: String, kind: HeaderValue) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server on a free port; it stops when the guard is dropped.
    async fn served(ready: &Ready) -> (SocketAddr, tokio_util::sync::DropGuard) {
        let mut registry = Registry::default();
        let bridges = Counter::<u64>::default();
        registry.register("bridges", "Bridges opened", bridges.clone());
        bridges.inc();
        let server = Server::bind(([127, 0, 0, 1], 0).into(), ready.clone(), registry)
            .await
            .expect("binds");
        let addr = server.local_addr().expect("bound");
        let stop = CancellationToken::new();
        tokio::spawn(server.serve(stop.clone()));
        (addr, stop.drop_guard())
    }

    async fn ask(addr: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("connects");
        stream.write_all(head.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        answer
    }

    async fn get(addr: SocketAddr, path: &str) -> String {
        ask(addr, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }

    #[tokio::test]
    async fn readyz_says_503_and_what_is_missing_until_it_is_there() {
        let ready = Ready::default();
        let condition = ready.condition("watching sessions");
        let (addr, _stop) = served(&ready).await;
        let answer = get(addr, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.ends_with("not ready: watching sessions\n"),
            "{answer}"
        );
        condition.met();
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 200 "));
        ready.withdraw();
        assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(
            get(addr, "/livez").await.starts_with("HTTP/1.1 200 "),
            "stopping is alive"
        );
    }

    #[tokio::test]
    async fn metrics_are_open_metrics_text() {
        let (addr, _stop) = served(&Ready::default()).await;
        let answer = get(addr, "/metrics").await;
        assert!(answer.contains("application/openmetrics-text"), "{answer}");
        assert!(answer.contains("bridges_total 1\n"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let (addr, _stop) = served(&Ready::default()).await;
        assert!(get(addr, "/").await.starts_with("HTTP/1.1 404 "));
        let answer = ask(
            addr,
            "POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_is_cut() {
        let (addr, _stop) = served(&Ready::default()).await;
        // Never finished; the paused clock jumps to the timeout once nothing else can happen.
        let answer = ask(addr, "GET /livez HTTP/1.1\r\nx: ").await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{answer}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silent_peers_in_every_slot_do_not_shut_out_a_probe_for_good() {
        let (addr, _stop) = served(&Ready::default()).await;
        let mut silent = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS {
            silent.push(
                TcpStream::connect(addr)
                    .await
                    .expect("the backlog takes it"),
            );
        }
        assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200 "));
    }
}
