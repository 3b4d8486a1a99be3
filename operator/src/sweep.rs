//! Accounts whose session is gone.
//!
//! The finalizer removes a session's account; this is for sessions whose finalizer somebody stripped, and for writes
//! that arrived after their session had gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::ConsoleSession;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::cache::Cache;
use crate::grant::Made;
use crate::session::{Ctx, delete};
use crate::watches::chain;

/// Pause before a sweep, for the deletions of many sessions to become one sweep.
const GATHER: Duration = Duration::from_secs(2);
/// Longest wait for one answer of the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Sweeps once this replica leads, and again whenever `wake` says that a watch showed an object without a session.
pub async fn run(ctx: Arc<Ctx>, wake: Arc<Notify>) {
    ctx.leading.cancelled().await;
    loop {
        sweep(&ctx).await;
        wake.notified().await;
        tokio::time::sleep(GATHER).await;
    }
}

/// Deletes the accounts and anchors whose session does not exist. Reads the caches; asks the API server only about
/// sessions the caches do not know.
pub async fn sweep(ctx: &Ctx) {
    sweep_kind(ctx, &ctx.watches.accounts, "ServiceAccount").await;
    sweep_kind(ctx, &ctx.watches.secrets, "anchor Secret").await;
}

async fn sweep_kind<K: Made>(ctx: &Ctx, cache: &Cache<K>, what: &'static str) {
    for found in cache.watched().state() {
        let apart = found.namespace().as_deref() == Some(&ctx.sessions_namespace);
        if !apart || found.meta().deletion_timestamp.is_some() || lives(ctx, found.labels()).await {
            continue;
        }
        let name = found.name_any();
        match delete(ctx, cache, what, &*found).await {
            Ok(()) => info!(what, name, "deleted: its session is gone"),
            Err(error) => warn!(
                what,
                name,
                error = chain(&error),
                "its session is gone, but it cannot be deleted"
            ),
        }
    }
}

/// Whether the session of these labels exists. In doubt it does: an error, or labels that name none.
async fn lives(ctx: &Ctx, labels: &BTreeMap<String, String>) -> bool {
    let label = |key: &str| labels.get(key).map(String::as_str);
    let (Some(uid), Some(name), Some(namespace)) = (
        label(names::SESSION_UID_LABEL),
        label(names::SESSION_NAME_LABEL),
        label(names::SESSION_NAMESPACE_LABEL),
    ) else {
        return true;
    };
    let cached = ctx.watches.sessions.get(namespace, name);
    if cached.is_some_and(|session| session.uid().as_deref() == Some(uid)) {
        return true;
    }
    // The cache may be behind; the account of a session it does not know yet must not be deleted.
    let sessions: Api<PartialObjectMeta<ConsoleSession>> =
        Api::namespaced(ctx.client.clone(), namespace);
    match tokio::time::timeout(CALL_TIMEOUT, sessions.get_opt(name)).await {
        Ok(Ok(session)) => session.is_some_and(|session| session.uid().as_deref() == Some(uid)),
        Ok(Err(error)) => {
            warn!(
                namespace,
                name,
                error = chain(&error),
                "cannot tell whether the session exists"
            );
            true
        }
        Err(_) => true,
    }
}
