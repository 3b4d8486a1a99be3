//! alice@example.com's sessions: asked for, granted, revoked.

use anyhow::{Context as _, Result};
use drawbridge_crds::v1alpha1::{ConsoleSession, ConsoleSessionStatus, Phase, Recorded};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};

/// Who is let in.
pub(crate) const USER: &str = "alice@example.com";
/// Where.
pub(crate) const NAMESPACE: &str = "demo";
/// The pod.
pub(crate) const POD: &str = "web";
/// The session that opens the pod.
pub(crate) const SHELL: &str = "shell";
/// The session that looks at it.
pub(crate) const LOOK: &str = "look";

/// What a granted session gave its user.
pub(crate) struct Granted {
    /// For the browser.
    pub(crate) token: String,
    /// For kubectl.
    pub(crate) kubeconfig: String,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
}

/// Asks for a shell in the pod.
pub(crate) async fn ask_shell(alice: &Client) -> Result<Granted> {
    let target = json!({"target": {"pod": {"name": POD}}});
    ask(alice, SHELL, target).await
}

/// Asks for a look at what is recorded of that.
pub(crate) async fn ask_look(alice: &Client) -> Result<Granted> {
    let observe = json!({"mode": "Observe", "observe": {"session": SHELL}});
    ask(alice, LOOK, observe).await
}

/// Asks for a session as its user, waits until it is granted, and reads what was given; all with her own rights.
async fn ask(alice: &Client, name: &str, what: Value) -> Result<Granted> {
    let sessions = Api::<ConsoleSession>::namespaced(alice.clone(), NAMESPACE);
    let mut session = json!({
        "apiVersion": "drawbridge.dev/v1alpha1", "kind": "ConsoleSession",
        "metadata": {"name": name},
        "spec": {"user": USER, "reason": "to see how it works", "duration": "30m"},
    });
    for (field, value) in what.as_object().into_iter().flatten() {
        session["spec"][field] = value.clone();
    }
    let session = serde_json::from_value(session)?;
    sessions
        .create(&PostParams::default(), &session)
        .await
        .context("failed to ask for a session")?;
    let session = await_session(&sessions, name, in_phase(Phase::Ready)).await?;
    let status = session.status.context("it is Ready")?;
    let credential = status
        .credential
        .context("a Ready session has a credential")?;
    let secrets = Api::<Secret>::namespaced(alice.clone(), NAMESPACE);
    let secret = secrets
        .get(&credential.secret)
        .await
        .context("failed to read the session's Secret")?;
    let value = |key: &str| -> Result<String> {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.with_context(|| format!("the Secret has no {key}"))?;
        Ok(String::from_utf8(bytes.0.clone())?)
    };
    Ok(Granted {
        token: value("token")?,
        kubeconfig: value("kubeconfig")?,
        expires_at: status.expires_at.context("a Ready session has an end")?.0,
    })
}

/// Ends the shell's session, as its user.
pub(crate) async fn revoke(alice: &Client) -> Result<()> {
    let sessions = Api::<ConsoleSession>::namespaced(alice.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"revoked": true}}));
    sessions
        .patch(SHELL, &PatchParams::default(), &patch)
        .await
        .context("failed to revoke the session")?;
    await_session(&sessions, SHELL, in_phase(Phase::Revoked))
        .await
        .map(drop)
}

/// What the shell's session tells of its recordings, once there are so many.
pub(crate) async fn recorded(alice: &Client, count: usize) -> Result<Vec<Recorded>> {
    let sessions = Api::<ConsoleSession>::namespaced(alice.clone(), NAMESPACE);
    let enough = move |status: &ConsoleSessionStatus| status.recordings.len() >= count;
    let session = await_session(&sessions, SHELL, enough).await?;
    Ok(session.status.unwrap_or_default().recordings)
}

fn in_phase(phase: Phase) -> impl Fn(&ConsoleSessionStatus) -> bool {
    move |status| status.phase == Some(phase)
}

async fn await_session(
    sessions: &Api<ConsoleSession>,
    name: &str,
    there: impl Fn(&ConsoleSessionStatus) -> bool,
) -> Result<ConsoleSession> {
    let there = |session: Option<&ConsoleSession>| {
        session
            .and_then(|session| session.status.as_ref())
            .is_some_and(&there)
    };
    await_condition(sessions.clone(), name, there)
        .await?
        .with_context(|| format!("session {name} is gone"))
}
