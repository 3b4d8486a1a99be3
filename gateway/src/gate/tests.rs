//! Whole requests, over an in-memory connection, against a scripted exec server and API server.

mod audit;
mod recording;
mod refusals;

use std::sync::Mutex;

use drawbridge_protocol::frame::{self, Opcode};
use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::Reviewer;
use crate::auth::tests::yes;
use crate::credential::tests::jwt;
use crate::listener::Door;
use crate::lobby::Lobby;
use crate::look::proof::Keys;
use crate::people::tests::people;
use crate::pods::tests::{Asked, cluster};
use crate::session::tests::{object, object_with};
use crate::transport::Transport;
use crate::upstream::ApiServer;
use crate::upstream::tests::{Heads, Say, answer};

/// Takes tokens sealed `good`, for the session they claim.
struct Sealed;

impl Reviewer for Sealed {
    fn review<'a>(
        &'a self,
        token: &'a drawbridge_protocol::subprotocol::Bearer,
    ) -> BoxFuture<'a, Result<TokenReviewStatus, kube::Error>> {
        Box::pin(async move {
            let known = ["6f1c", "0b5e", "gone"]
                .into_iter()
                .find(|uid| token.expose() == jwt(uid, "good"));
            Ok(known.map_or_else(TokenReviewStatus::default, yes))
        })
    }
}

type Told = Arc<Mutex<Vec<drawbridge_audit::event::Event>>>;

/// A gateway with one session (`session::tests::object`), its cluster and its exec server.
pub(crate) struct World {
    pub(crate) door: Door,
    heads: Heads,
    asked: Asked,
    /// What the audit log was told.
    pub(crate) told: Told,
    /// Whether auditors may look.
    pub(crate) auditors: Arc<std::sync::atomic::AtomicBool>,
    say: Arc<Mutex<Say>>,
    /// The exec server's ends of upgraded connections.
    pub(crate) pod: tokio::sync::mpsc::Receiver<tokio::net::TcpStream>,
    /// The recorder's directories.
    _kept: crate::record::tests::World,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(None).await
    }

    /// The same, with recordings.
    pub(crate) async fn with(library: Option<Library>) -> Self {
        let (log, mut emitted) = Log::for_tests(1024);
        let told = Told::default();
        let list = Arc::clone(&told);
        tokio::spawn(async move {
            while let Some(event) = emitted.next().await {
                list.lock().expect("not poisoned").push(event);
            }
        });
        let metrics = Arc::new(Metrics::unregistered());
        let open = Arc::new(Open::new(Arc::clone(&metrics)));
        let sessions = Arc::new(Sessions::new(Arc::clone(&open), Arc::clone(&metrics)));
        let exec = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let server = format!("http://{}", exec.local_addr().expect("bound"));
        let (heads, say) = (
            Heads::default(),
            Arc::new(Mutex::new(Say::Upgrade("v4.channel.k8s.io", Vec::new()))),
        );
        let (tx, pod) = tokio::sync::mpsc::channel(16);
        {
            let (heads, say) = (Arc::clone(&heads), Arc::clone(&say));
            tokio::spawn(async move {
                while let Ok((io, _)) = exec.accept().await {
                    let (heads, say, tx) = (
                        Arc::clone(&heads),
                        say.lock().expect("not poisoned").clone(),
                        tx.clone(),
                    );
                    tokio::spawn(async move { tx.send(answer(io, say, heads).await).await });
                }
            });
        }
        let (client, asked) = cluster();
        let mut config = kube::Config::new(server.parse().expect("a URI"));
        config.auth_info.token = Some("gateway-own".to_owned().into());
        let pods = Pods::new(client.clone());
        let namespace = names::SESSIONS_NAMESPACE.to_owned();
        let upstream = ApiServer::new(&config, pods.clone(), namespace.clone())
            .expect("an upstream")
            .into();
        let auth = Auth::new(
            Sealed,
            names::TOKEN_AUDIENCE.into(),
            namespace.clone(),
            Arc::clone(&metrics),
        );
        let (recorder, kept) =
            crate::record::tests::recorder(Arc::clone(&metrics), log.clone(), 1 << 30);
        let (people, _, auditors) = people();
        let gate = Arc::new(Gate {
            auth: Arc::new(auth),
            sessions,
            open,
            upstream,
            people,
            library: library
                .unwrap_or_else(|| Library::new(recorder.store().clone(), Keys::Here(None))),
            pods,
            cluster: client,
            recall: Recall::default(),
            recorder,
            log,
            metrics,
            clock: Clock::following_tokio("2030-01-01T00:00:00Z".parse().expect("a time")),
            bridges: TaskTracker::new(),
            fetches: Gate::fetches(),
            rules: Rules {
                path_prefix: "/c/prod".into(),
                allow_origin: Vec::new(),
                sessions_namespace: namespace,
                max_consoles: 100,
                limits: Limits::default(),
            },
        });
        let door = Door {
            tls: None,
            gate,
            lobby: Arc::new(Lobby::new(64)),
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let world = Self {
            door,
            heads,
            asked,
            told,
            auditors,
            say,
            pod,
            _kept: kept,
        };
        world.synced(true);
        world.set(object());
        world
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.door.gate
    }

    pub(crate) fn set(&self, object: drawbridge_crds::v1alpha1::ConsoleSession) {
        self.gate()
            .sessions
            .take(Event::Apply(DeserializeGuard(Ok(object))));
    }

    fn synced(&self, synced: bool) {
        self.gate().sessions.set_synced(synced);
    }

    fn say(&self, say: Say) {
        *self.say.lock().expect("not poisoned") = say;
    }

    /// One connection, and what is written on it first.
    pub(crate) async fn connect(&self, text: &str) -> DuplexStream {
        let (mut client, ours) = tokio::io::duplex(256 * 1024);
        let door = self.door.clone();
        self.door.connections.spawn(async move {
            let peer = door.peer("198.51.100.9:4711".parse().expect("an address"));
            door.http(Transport::Memory(ours), peer).await;
        });
        client.write_all(text.as_bytes()).await.expect("writes");
        client
    }

    /// The code and body of the answer to one request.
    pub(crate) async fn ask(&self, text: &str) -> (u16, String) {
        let mut client = self.connect(text).await;
        let (code, length, _) = head(&mut client).await;
        let mut body = vec![0; length];
        client.read_exact(&mut body).await.expect("reads");
        (code, String::from_utf8(body).expect("text"))
    }

    /// The head of the answer to one request and its body, which comes in chunks.
    pub(crate) async fn whole(&self, text: &str) -> (String, Vec<u8>) {
        let (head, body, whole) = self.chunks(text).await;
        assert!(whole, "it broke off: {head}");
        (head, body)
    }

    /// The same, of an answer that breaks off; both are empty if it does so before its head was sent.
    pub(crate) async fn broken(&self, text: &str) -> (String, Vec<u8>) {
        let (head, body, whole) = self.chunks(text).await;
        assert!(!whole, "it is whole: {head}");
        (head, body)
    }

    /// Head, body, and whether its end came.
    async fn chunks(&self, text: &str) -> (String, Vec<u8>, bool) {
        let mut client = self.connect(text).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match client.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return (String::new(), Vec::new(), false),
            }
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                match client.read_u8().await {
                    Ok(byte) => line.push(byte),
                    Err(_) => return (head, body, false),
                }
            }
            let line = String::from_utf8(line).expect("text");
            let length = usize::from_str_radix(line.trim_end(), 16).expect("a length");
            let mut chunk = vec![0; length + 2];
            if client.read_exact(&mut chunk).await.is_err() {
                return (head, body, false);
            }
            if length == 0 {
                return (head, body, true);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    pub(crate) async fn message(&self, text: &str) -> (u16, String) {
        let (code, body) = self.ask(text).await;
        let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (&status["kind"], &status["code"]),
            (&"Status".into(), &code.into()),
            "{body}"
        );
        (code, status["message"].as_str().expect("text").to_owned())
    }

    fn dialled(&self) -> usize {
        self.heads.lock().expect("not poisoned").len()
    }

    /// Waits until nothing is open.
    async fn emptied(&self) {
        while self.gate().metrics.open.get() != 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Reads an answer's head: code, length of the body, and the lines.
pub(crate) async fn head(client: &mut DuplexStream) -> (u16, usize, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).expect("text");
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a code");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    (code, length, head)
}

pub(crate) fn good() -> String {
    jwt("6f1c", "good")
}

/// A WebSocket request with a good token; `more` are further header lines.
pub(crate) fn websocket(target: &str, protocols: &str, more: &str) -> String {
    let protocols = if protocols.is_empty() {
        String::new()
    } else {
        format!("Sec-WebSocket-Protocol: {protocols}\r\n")
    };
    format!(
        "GET {target} HTTP/1.1\r\nHost: gw.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {}\r\n{protocols}{more}\r\n",
        good()
    )
}

fn plain(method: &str, target: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: gw.example.com\r\nAuthorization: Bearer {}\r\n\r\n",
        good()
    )
}

const EXEC: &str =
    "/api/v1/namespaces/shop/pods/web/exec?command=sh&stdout=true&stdin=true&tty=true";
const PIPED: &str = "/api/v1/namespaces/shop/pods/web/exec?command=cat&stdout=true&stdin=true";

#[tokio::test]
async fn a_console_opens_as_the_sessions_account_and_no_client_header_reaches_the_upstream() {
    let mut world = World::new().await;
    let mut output = Vec::new();
    frame::write(Opcode::Binary, b"\x01", None, &mut output);
    frame::write(Opcode::Binary, b"\x01hello", None, &mut output);
    frame::write(
        Opcode::Binary,
        br#"_{"metadata":{},"status":"Success"}"#,
        None,
        &mut output,
    );
    let status = output.len() - br#"_{"metadata":{},"status":"Success"}"#.len();
    output[status] = 3;
    world.say(Say::Upgrade("v5.channel.k8s.io", output));
    let hostile = "Impersonate-User: system:admin\r\nImpersonate-Group: system:masters\r\nX-Remote-User: root\r\n\
        Cookie: a=b\r\nX-Forwarded-For: 10.0.0.1\r\nUser-Agent: kubectl\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut client = world
        .connect(&websocket(
            EXEC,
            "v4.channel.k8s.io, v5.channel.k8s.io",
            hostile,
        ))
        .await;
    let (code, _, head) = head(&mut client).await;
    assert_eq!(code, 101, "{head}");
    assert!(
        head.contains("sec-websocket-protocol: v4.channel.k8s.io\r\n"),
        "the client's first choice: {head}"
    );
    assert!(
        head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    drop(world.pod.recv().await); // the pod's side ends after its status

    let mut received = Vec::new();
    while !received.ends_with(&[0x88, 2, 0x03, 0xe8]) {
        received.push(client.read_u8().await.expect("frames"));
    }
    assert!(
        received.windows(6).any(|bytes| bytes == b"\x01hello"),
        "{received:?}"
    );
    assert!(
        received.windows(9).any(|bytes| bytes == b"\"Success\""),
        "{received:?}"
    );
    drop(client);
    world.emptied().await;

    let heads = world.heads.lock().expect("not poisoned");
    let lower = heads[0].to_lowercase();
    assert!(
        lower.contains("impersonate-user: system:serviceaccount:drawbridge-sessions:cs-6f1c\r\n"),
        "{lower}"
    );
    assert!(
        lower.contains("authorization: bearer gateway-own\r\n"),
        "{lower}"
    );
    for foreign in [
        "system:admin",
        "system:masters",
        "x-remote",
        "cookie",
        "x-forwarded",
        "kubectl",
        "extensions",
        "good",
    ] {
        assert!(
            !lower.contains(foreign),
            "{foreign} reached the upstream: {lower}"
        );
    }
    assert!(heads[0].starts_with("GET /api/v1/namespaces/shop/pods/web/exec?command=sh&container=app&stdin=1&stdout=1&tty=1 HTTP/1.1\r\n"));
    assert_eq!(
        world.asked.lock().expect("not poisoned")[..],
        ["system:serviceaccount:drawbridge-sessions:cs-6f1c GET /api/v1/namespaces/shop/pods/web"],
        "the pod's UID was compared"
    );
}

#[tokio::test]
async fn what_kubectl_reads_first_is_served() {
    let world = World::new().await;
    for (target, text) in [
        ("/api?timeout=32s", r#""versions":["v1"]"#),
        ("/c/prod/apis?timeout=32s", "APIGroupList"),
        ("/api/v1?timeout=32s", "pods/exec"),
        ("/version", "v1.33.0"),
        ("/api/v1/namespaces/shop/pods/web", r#""uid":"p-1""#),
        (
            "/sessions/shop/fix-cart",
            r#""expiresAt":"2030-01-01T01:00:00Z""#,
        ),
    ] {
        let (code, body) = world.ask(&plain("GET", target)).await;
        assert_eq!(code, 200, "{target}: {body}");
        assert!(body.contains(text), "{target}: {body}");
    }
    let asked = world.asked.lock().expect("not poisoned");
    assert_eq!(
        asked[..],
        [
            "- GET /version",
            "system:serviceaccount:drawbridge-sessions:cs-6f1c GET /api/v1/namespaces/shop/pods/web"
        ]
    );
}

#[tokio::test]
async fn the_summary_counts_connections_and_holds_nothing_secret() {
    let world = World::new().await;
    let mut client = world
        .connect(&websocket(
            "/sessions/shop/fix-cart/console",
            "v4.channel.k8s.io",
            "",
        ))
        .await;
    assert_eq!(head(&mut client).await.0, 101);
    let (_, body) = world.ask(&plain("GET", "/sessions/shop/fix-cart")).await;
    let mut summary: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let now = summary["now"].take();
    assert!(
        now.as_str()
            .expect("a time")
            .starts_with("2030-01-01T00:00:0"),
        "{now}"
    );
    assert_eq!(
        summary,
        serde_json::json!({
            "namespace": "shop", "name": "fix-cart", "user": "alice@example.com", "reason": null, "mode": "Exec", "command": [],
            "target": {"pod": "web", "container": "app", "containers": ["app"]}, "observed": null,
            "phase": "Ready", "notBefore": null,
            "expiresAt": "2030-01-01T01:00:00Z", "idleTimeoutSeconds": 900, "maxConnections": 4, "connectionsHere": 1,
            "recorded": true, "now": null,
        })
    );
    let heads = world.heads.lock().expect("not poisoned");
    assert!(heads[0].starts_with(
        "GET /api/v1/namespaces/shop/pods/web/exec?command=sh&container=app&stdin=1&stdout=1&tty=1 "
    ));
}

#[tokio::test]
async fn the_page_is_served_to_anybody_and_asks_nobody_who_they_are() {
    let world = World::new().await;
    world.synced(false);
    for head in ["GET /ui/", "GET /c/prod/ui/", "GET /ui/index.html"] {
        let (code, body) = world
            .ask(&format!(
                "{head} HTTP/1.1\r\nhost: gw\r\norigin: https://elsewhere.example.com\r\n\r\n"
            ))
            .await;
        assert_eq!(code, 200, "{head}: {body}");
        assert!(body.starts_with("<!doctype html>"), "{head}: {body}");
    }
    let mut client = world
        .connect("HEAD /ui/ HTTP/1.1\r\nhost: gw\r\n\r\nGET /ui/x HTTP/1.1\r\nhost: gw\r\n\r\n")
        .await;
    let (code, length, _) = head(&mut client).await;
    assert!(code == 200 && length > 0, "{code} {length}");
    let (code, _, _) = head(&mut client).await; // at once: the answer to HEAD had no body
    assert_eq!(code, 404);
    assert!(world.asked.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn a_browser_is_told_by_post_why_its_websocket_was_refused() {
    let world = World::new().await;
    let console = "/sessions/shop/fix-cart/console?container=other";
    let (code, message) = world
        .message(&websocket(console, "v4.channel.k8s.io", ""))
        .await;
    assert_eq!(code, 403, "{message}");
    let (again, told) = world.message(&plain("POST", console)).await;
    assert_eq!((again, told), (code, message));
    let other = "/sessions/shop/fix-cart/console";
    let (code, message) = world.message(&plain("POST", other)).await;
    assert_eq!(code, 405, "{message}");
    assert_eq!(world.dialled(), 0);
}

#[tokio::test]
async fn a_container_is_chosen_among_those_granted() {
    let world = World::new().await;
    world.set(object_with(
        "/status/target/containers",
        serde_json::json!(["app", "log"]),
    ));
    let (_, body) = world.ask(&plain("GET", "/sessions/shop/fix-cart")).await;
    assert!(body.contains(r#""containers":["app","log"]"#), "{body}");
    let ask = |container| {
        let console = format!("/sessions/shop/fix-cart/console?container={container}");
        websocket(&console, "v4.channel.k8s.io", "")
    };
    let mut client = world.connect(&ask("log")).await;
    assert_eq!(head(&mut client).await.0, 101);
    let (code, message) = world.message(&ask("proxy")).await;
    assert_eq!(code, 403, "{message}");
    let heads = world.heads.lock().expect("not poisoned");
    assert_eq!(heads.len(), 1);
    assert!(heads[0].contains("&container=log&"), "{}", heads[0]);
}

#[tokio::test]
async fn a_pod_that_took_the_name_of_the_granted_one_is_not_entered() {
    let world = World::new().await;
    let mut session = object();
    session
        .status
        .as_mut()
        .and_then(|status| status.target.as_mut())
        .expect("granted")
        .pod_uid = "p-0".into();
    world.set(session);
    let (code, message) = world
        .message(&websocket(EXEC, "v4.channel.k8s.io", ""))
        .await;
    assert_eq!(code, 403, "{message}");
    assert_eq!(world.dialled(), 0);
    world.emptied().await;
}

#[tokio::test]
async fn a_revocation_cuts_an_open_console_with_a_status_and_closes_both_sides() {
    let mut world = World::new().await;
    let mut client = world
        .connect(&websocket(EXEC, "v4.channel.k8s.io", ""))
        .await;
    assert_eq!(head(&mut client).await.0, 101);
    world.set(object_with("/spec/revoked", true.into()));
    let mut received = Vec::new();
    while !received.ends_with(&[0x88, 2, 0x03, 0xe8]) {
        received.push(client.read_u8().await.expect("frames"));
    }
    assert!(String::from_utf8_lossy(&received).contains("revoked"));
    drop(client);
    let mut pod = world.pod.recv().await.expect("was dialled");
    pod.read_to_end(&mut Vec::new()).await.expect("closed");
    drop(pod);
    world.emptied().await;
    assert_eq!(world.gate().open.count("6f1c"), 0);
}

#[tokio::test]
async fn a_revocation_while_the_upstream_is_being_dialled_is_not_lost() {
    let world = World::new().await;
    world.say(Say::Nothing);
    let mut client = world
        .connect(&websocket(EXEC, "v4.channel.k8s.io", ""))
        .await;
    while world.dialled() == 0 {
        tokio::task::yield_now().await;
    }
    world.set(object_with("/spec/revoked", true.into()));
    assert_eq!(head(&mut client).await.0, 401);
    world.emptied().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_while_the_upstream_is_being_dialled_frees_its_place() {
    let world = World::new().await;
    world.say(Say::Nothing);
    let client = world
        .connect(&websocket(EXEC, "v4.channel.k8s.io", ""))
        .await;
    while world.dialled() == 0 {
        tokio::task::yield_now().await;
    }
    drop(client);
    world.emptied().await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_a_bad_gateway() {
    let mut world = World::new().await;
    // A port that was free a moment ago.
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("binds")
        .local_addr()
        .expect("bound");
    let config = kube::Config::new(format!("http://{closed}").parse().expect("a URI"));
    let gate = Arc::get_mut(&mut world.door.gate).expect("not shared yet");
    gate.upstream = ApiServer::new(&config, gate.pods.clone(), names::SESSIONS_NAMESPACE.into())
        .expect("an upstream")
        .into();
    let (code, message) = world
        .message(&websocket(EXEC, "v4.channel.k8s.io", ""))
        .await;
    assert_eq!(
        (code, message.as_str()),
        (502, "the upstream cannot be reached")
    );
}
