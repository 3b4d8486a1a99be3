//! alice@example.com's session: asked for, granted, revoked.

use anyhow::{Context as _, Result};
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::json;

/// Who is let in.
pub(crate) const USER: &str = "alice@example.com";
/// Where.
pub(crate) const NAMESPACE: &str = "demo";
/// The pod.
pub(crate) const POD: &str = "web";
/// The session.
pub(crate) const NAME: &str = "shell";

/// What a granted session gave its user.
pub(crate) struct Granted {
    /// For the browser.
    pub(crate) token: String,
    /// For kubectl.
    pub(crate) kubeconfig: String,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
}

/// Asks for a session as its user, waits until it is granted, and reads what was given; all with her own rights.
pub(crate) async fn ask(alice: &Client) -> Result<Granted> {
    let sessions = Api::<ConsoleSession>::namespaced(alice.clone(), NAMESPACE);
    let session = serde_json::from_value(json!({
        "apiVersion": "drawbridge.dev/v1alpha1", "kind": "ConsoleSession",
        "metadata": {"name": NAME},
        "spec": {
            "user": USER, "target": {"pod": {"name": POD}}, "reason": "to see how it works", "duration": "30m",
        },
    }))?;
    sessions
        .create(&PostParams::default(), &session)
        .await
        .context("failed to ask for a session")?;
    let session = await_phase(&sessions, Phase::Ready).await?;
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

/// Ends it, as its user.
pub(crate) async fn revoke(alice: &Client) -> Result<()> {
    let sessions = Api::<ConsoleSession>::namespaced(alice.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"revoked": true}}));
    sessions
        .patch(NAME, &PatchParams::default(), &patch)
        .await
        .context("failed to revoke the session")?;
    await_phase(&sessions, Phase::Revoked).await.map(drop)
}

async fn await_phase(sessions: &Api<ConsoleSession>, phase: Phase) -> Result<ConsoleSession> {
    let there = |session: Option<&ConsoleSession>| {
        session
            .and_then(|session| session.status.as_ref())
            .and_then(|status| status.phase)
            == Some(phase)
    };
    await_condition(sessions.clone(), NAME, there)
        .await?
        .context("the session is gone")
}
