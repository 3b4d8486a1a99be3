//! Following a session while it runs: how far behind, who is told, and until when.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use drawbridge_crds::v1alpha1::ConsoleSession;
use drawbridge_tests::{Gateway, Opening, Request, Session, Test, Timings, run, soon};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{granted, shell};

const LIMIT: Duration = Duration::from_secs(20);

/// A granted session of mode `Observe` for `of`.
pub(crate) async fn observer(test: &Test, of: &Session) -> Result<Session> {
    let name = test.name("observer");
    let object: ConsoleSession = serde_json::from_value(json!({
        "apiVersion": "drawbridge.dev/v1alpha1", "kind": "ConsoleSession",
        "metadata": {"name": name, "namespace": test.namespace},
        "spec": {"user": "alice@example.com", "mode": "Observe", "observe": {"session": of.name}},
    }))?;
    let sessions = test.api::<ConsoleSession>();
    sessions.create(&PostParams::default(), &object).await?;
    test.granted(&name).await
}

/// A request about the recordings of `of`: the list, or `rest` below it.
pub(crate) fn about(of: &Session, rest: &str, token: &str) -> Request {
    let path = format!("/sessions/{}/{}/recordings{rest}", of.namespace, of.name);
    Request::new("GET", &path)
        .token(token)
        .header("Connection", "close")
}

/// The recordings of `of`, as the list tells them.
pub(crate) async fn list(gateway: &Gateway, of: &Session, token: &str) -> Result<Vec<Value>> {
    let mut connection = drawbridge_tests::Connection::open(gateway).await?;
    let answer = connection.ask(&about(of, "", token)).await?;
    ensure!(answer.code == 200, "{answer:?}");
    let list: Value = serde_json::from_slice(&answer.body)?;
    let recordings = list["recordings"].as_array();
    Ok(recordings.context("a list")?.clone())
}

/// A live view.
pub(crate) struct View {
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl View {
    /// Of the recording that is being made of `of`.
    pub(crate) async fn open(gateway: &Gateway, of: &Session, token: &str) -> Result<Self> {
        let recordings = list(gateway, of, token).await?;
        let live = recordings.iter().find(|item| item["live"] == true);
        let id = live.and_then(|item| item["id"].as_str());
        let id = id.with_context(|| format!("nothing is live: {recordings:?}"))?;
        let path = format!(
            "/sessions/{}/{}/recordings/{id}/live",
            of.namespace, of.name
        );
        let opening = Opening::native(of)
            .path(&path)
            .token(token)
            .protocol("live.drawbridge.dev");
        let socket = opening.open(gateway).await?.into_socket();
        Ok(Self { socket })
    }

    /// Reads until what is shown contains `part`; returns when.
    pub(crate) async fn until(&mut self, part: &str) -> Result<Instant> {
        let mut seen = String::new();
        let read = async {
            while let Some(message) = self.socket.next().await {
                match message? {
                    Message::Binary(lines) => seen.push_str(std::str::from_utf8(&lines)?),
                    Message::Ping(_) => {}
                    other => bail!("{other:?} came instead of {part:?}"),
                }
                if seen.contains(part) {
                    return Ok(Instant::now());
                }
            }
            bail!("it ended before {part:?}")
        };
        soon(&format!("{part:?} is shown"), LIMIT, read).await?
    }

    /// Reads until it is closed; returns the code and the reason.
    async fn closed(&mut self, limit: Duration) -> Result<(u16, String)> {
        let read = async {
            while let Some(message) = self.socket.next().await {
                if let Message::Close(Some(frame)) = message? {
                    return Ok((frame.code.into(), frame.reason.to_string()));
                }
            }
            bail!("it ended without a Close")
        };
        soon("the live view is closed", limit, read).await?
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_less_than_200_ms_behind_and_the_user_is_told_who_and_when_it_ends() {
    run(async |test| {
        let session = granted(test).await?;
        let (gateway, looking) = (test.gateway(), observer(test, &session).await?);
        let mut user = shell(test, &session).await?;
        let mut view = View::open(&gateway, &session, &looking.token).await?;
        view.until("ready").await?;
        user.until("alice@example.com is watching this session")
            .await?;
        let mut behind = Timings::default();
        for number in 0..20 {
            let tick = format!("tick-{number}-");
            let typed = format!("echo ti''ck-{number}-\n");
            user.stdin(typed.as_bytes()).await?;
            let there = async {
                user.until(&tick).await?;
                anyhow::Ok(Instant::now())
            };
            let (there, here) = tokio::try_join!(there, view.until(&tick))?;
            behind.add(here.saturating_duration_since(there));
        }
        behind.must_stay_within(
            "a live view, behind the user's own terminal",
            Duration::from_millis(200),
        );
        drop(view);
        user.until("alice@example.com is no longer watching this session")
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_watches_as_long_as_rbac_lets_it() {
    run(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let name = test.name("auditor");
        let make = PostParams::default();
        let metadata = json!({"name": name});
        let account = serde_json::from_value(json!({"metadata": metadata}))?;
        test.api::<ServiceAccount>().create(&make, &account).await?;
        let role = serde_json::from_value(json!({
            "metadata": metadata,
            "rules": [{
                "apiGroups": ["drawbridge.dev"], "resources": ["consolesessions/recordings"],
                "resourceNames": [session.name], "verbs": ["get"],
            }],
        }))?;
        test.api::<Role>().create(&make, &role).await?;
        let binding = serde_json::from_value(json!({
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": test.namespace}],
        }))?;
        let bindings: Api<RoleBinding> = test.api();
        bindings.create(&make, &binding).await?;
        let token = test.cluster.token(&test.namespace, &name, None, 3600);
        let token = token.await?;
        let mut user = shell(test, &session).await?;
        let mut view = View::open(&gateway, &session, &token).await?;
        user.until(&format!("{name} is watching this session"))
            .await?;
        view.until("ready").await?;
        bindings.delete(&name, &DeleteParams::default()).await?;
        // Asked every 30 s.
        let (code, why) = view.closed(Duration::from_secs(35)).await?;
        ensure!(
            code == 1008 && why.starts_with("you may not"),
            "{code} {why}"
        );
        user.until("is no longer watching this session").await?;
        user.stdin(b"echo st''ill\n").await?;
        user.until("still").await?;
        Ok(())
    })
    .await;
}
