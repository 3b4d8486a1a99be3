//! The fake server: an HTTP/1.1 front, shared by its API half and its exec half.

mod exec;

pub(crate) use exec::CHUNK;

use std::{io::ErrorKind, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::{
    net::{Stream, read_head, server_tls},
    world::{self, Terms},
};

/// Longest request body, in bytes. A TokenReview is about 1 KiB.
const MAX_BODY: usize = 64 * 1024;

/// A watch that asks for no end is ended after this long: what the gateway's client asks for is shorter.
const WATCH: Duration = Duration::from_mins(30);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Plain HTTP address.
    #[arg(long, default_value = "127.0.0.1:0")]
    plain: SocketAddr,
    /// HTTPS address; needs `--cert` and `--key`.
    #[arg(long, requires = "cert", requires = "key")]
    tls: Option<SocketAddr>,
    /// PEM file of the server's certificate.
    #[arg(long)]
    cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long)]
    key: Option<PathBuf>,
    /// `ConsoleSession`s to list.
    #[arg(long, default_value_t = world::SESSIONS)]
    sessions: usize,
    /// Connections each of them admits at a time.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// They must be recorded.
    #[arg(long)]
    recorded: bool,
}

/// What every connection is answered from.
struct Documents {
    /// All sessions.
    list: String,
    /// The key that recordings are signed with, and its public half.
    signing: [String; 2],
    terms: Terms,
}

/// Serves until killed. Prints `{"plain": "address", "tls": "address"}` once it listens.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        plain,
        tls,
        cert,
        key,
        sessions,
        connections,
        recorded,
    } = args;
    for address in [Some(plain), tls].into_iter().flatten() {
        ensure!(
            address.ip().is_loopback(),
            "{address} is not a loopback address; this server lets everybody in"
        );
    }
    let terms = Terms {
        connections,
        recorded,
    };
    let documents = Arc::new(Documents {
        list: world::sessions(sessions, terms)?.to_string(),
        signing: world::signing()?.map(|document| document.to_string()),
        terms,
    });
    let plain = TcpListener::bind(plain).await?;
    let secure = match (tls, cert, key) {
        (Some(address), Some(cert), Some(key)) => Some((
            TcpListener::bind(address).await?,
            TlsAcceptor::from(server_tls(&cert, &key)?),
        )),
        _ => None,
    };
    let tls = secure
        .as_ref()
        .map(|(listener, _)| listener.local_addr())
        .transpose()?;
    println!("{}", json!({ "plain": plain.local_addr()?, "tls": tls }));

    if let Some((listener, acceptor)) = secure {
        tokio::spawn(accept(listener, Some(acceptor), documents.clone()));
    }
    accept(plain, None, documents).await
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    documents: Arc<Documents>,
) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let (tls, documents) = (tls.clone(), documents.clone());
        tokio::spawn(async move {
            // A candidate that hangs up in the middle is the load's to notice; here it is worth one line.
            match serve(stream, tls, &documents).await {
                Err(error) if !hung_up(&error) => eprintln!("fake-server: {error:#}"),
                _ => {}
            }
        });
    }
}

/// Whether the peer just went away, as whoever is ended does.
fn hung_up(error: &anyhow::Error) -> bool {
    let kind = error
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    matches!(
        kind,
        Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
    )
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    documents: &Documents,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => Stream::Tls(Box::new(TlsStream::Server(tls.accept(stream).await?))),
    };
    let mut buf = Vec::with_capacity(4096);
    while let Some(head) = read_head(&mut stream, &mut buf).await? {
        let request = Request::parse(&buf[..head])?;
        if request.path.ends_with("/exec") {
            return exec::run(stream, &request, &buf[head..]).await;
        }
        while buf.len() < head + request.length {
            ensure!(
                stream.read_buf(&mut buf).await? > 0,
                "the peer hung up inside a body"
            );
        }
        answer(
            &mut stream,
            &request,
            &buf[head..head + request.length],
            documents,
        )
        .await?;
        buf.drain(..head + request.length);
    }
    Ok(())
}

/// What the routes below look at.
struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    /// Length of the body, in bytes.
    length: usize,
    key: Option<String>,
    /// Subprotocols offered, in order.
    protocols: Vec<String>,
}

impl Request {
    fn parse(head: &[u8]) -> anyhow::Result<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        ensure!(parsed.parse(head)?.is_complete(), "half a head");
        let target = parsed.path.context("no request target")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self {
            method: parsed.method.context("no method")?.to_owned(),
            path: path.to_owned(),
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            length: 0,
            key: None,
            protocols: Vec::new(),
        };
        for header in parsed.headers {
            let value = std::str::from_utf8(header.value)?.trim();
            match header.name.to_ascii_lowercase().as_str() {
                "content-length" => request.length = value.parse()?,
                "transfer-encoding" => bail!("a request body of unknown length"),
                "sec-websocket-key" => request.key = Some(value.to_owned()),
                "sec-websocket-protocol" => request
                    .protocols
                    .extend(value.split(',').map(|item| item.trim().to_owned())),
                _ => {}
            }
        }
        ensure!(
            request.length <= MAX_BODY,
            "a body of {} bytes",
            request.length
        );
        Ok(request)
    }

    fn params(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

async fn answer(
    stream: &mut Stream,
    request: &Request,
    body: &[u8],
    documents: &Documents,
) -> anyhow::Result<()> {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/apis/drawbridge.dev/v1alpha1/consolesessions")
            if request.params("watch").any(|value| value != "false") =>
        {
            watch(stream, request).await
        }
        ("GET", "/apis/drawbridge.dev/v1alpha1/consolesessions") => {
            respond(stream, "200 OK", &documents.list).await
        }
        ("GET", path) if path == world::pod_path() => {
            respond(stream, "200 OK", &world::pod().to_string()).await
        }
        ("GET", path)
            if let Some(which) = world::signing_paths()
                .iter()
                .position(|known| known == path) =>
        {
            respond(stream, "200 OK", &documents.signing[which]).await
        }
        // What the gateway writes into a status is its own affair: it gets the session back as it was.
        ("GET" | "PATCH", path) if let Some(number) = world::named(path) => {
            let session = world::session(number, documents.terms)?;
            respond(stream, "200 OK", &serde_json::to_string(&session)?).await
        }
        ("GET", "/version") => {
            let version = json!({ "major": "1", "minor": "33", "gitVersion": "v1.33.0" });
            respond(stream, "200 OK", &version.to_string()).await
        }
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews") => {
            respond(stream, "201 Created", &world::review(body)?.to_string()).await
        }
        ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews") => {
            respond(stream, "201 Created", &world::access(body)?.to_string()).await
        }
        (method, path) => {
            eprintln!("fake-server: {method} {path} is not served here");
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "the server could not find the requested resource", "reason": "NotFound", "code": 404,
            });
            respond(stream, "404 Not Found", &status.to_string()).await
        }
    }
}

async fn respond(stream: &mut Stream, status: &str, body: &str) -> anyhow::Result<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream.flush().await?)
}

/// A watch in which nothing happens, ended when the client asked for it or went away.
async fn watch(stream: &mut Stream, request: &Request) -> anyhow::Result<()> {
    ensure!(
        request.params("sendInitialEvents").next().is_none(),
        "streaming lists are not served here"
    );
    let limit = request
        .params("timeoutSeconds")
        .next()
        .map_or(Ok(WATCH), |s| s.parse().map(Duration::from_secs))?;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    stream.flush().await?;
    match timeout(limit, stream.read_u8()).await {
        Ok(Ok(_)) => bail!("a request on top of a watch"),
        Ok(Err(_)) => Ok(()),
        Err(_) => {
            stream.write_all(b"0\r\n\r\n").await?;
            Ok(stream.flush().await?)
        }
    }
}
