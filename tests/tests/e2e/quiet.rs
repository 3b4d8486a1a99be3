//! At rest nothing is written: who watches the API server's load does not see this product.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use drawbridge_tests::{Needs, SYSTEM_NAMESPACE, Seen, note, run_alone, wait_for};
use kube::api::ListParams;
use serde_json::json;

const SESSIONS: usize = 200;
const QUIET: Duration = Duration::from_mins(1);

/// A write by the operator or the gateway. Leases are how a leader shows that it lives; `TokenReview`s and the like are
/// questions in the form of a `create`.
fn is_write(seen: &Seen) -> bool {
    let ours = seen
        .user
        .username
        .starts_with(&format!("system:serviceaccount:{SYSTEM_NAMESPACE}:"));
    let question = matches!(
        seen.object_ref.resource.as_str(),
        "tokenreviews" | "subjectaccessreviews" | "selfsubjectaccessreviews"
    );
    ours && seen.stage == "ResponseComplete"
        && !matches!(seen.verb.as_str(), "get" | "list" | "watch")
        && seen.object_ref.resource != "leases"
        && !question
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_ready_sessions_cause_no_api_write_in_a_minute() {
    run_alone(async |test| {
        if !test.cluster.offers(Needs::AuditLog)? {
            return Ok(());
        }
        test.pod("web").await?;
        for n in 0..SESSIONS {
            test.create_session(&format!("session-{n}"), "web", json!({}))
                .await?;
        }
        let sessions = test.api::<ConsoleSession>();
        wait_for("all are Ready", Duration::from_mins(2), async || {
            let ready = sessions.list(&ListParams::default()).await?;
            let phases = ready
                .items
                .iter()
                .map(|session| session.status.as_ref().and_then(|status| status.phase));
            let ready = phases.filter(|phase| *phase == Some(Phase::Ready)).count();
            ensure!(ready == SESSIONS, "{ready} are");
            Ok(Some(()))
        })
        .await?;
        let audit = test.cluster.audit()?;
        // What was caused by the grants themselves (Events, the last status) settles first.
        let mut mark = audit.mark()?;
        wait_for(
            "five seconds without a write",
            Duration::from_mins(1),
            async || {
                let quiet = wait_for("a write", Duration::from_secs(5), async || {
                    Ok(audit.since(mark, is_write)?.pop())
                })
                .await;
                mark = audit.mark()?;
                Ok(quiet.is_err().then_some(()))
            },
        )
        .await?;
        // The minute itself: over it, or at the first write.
        let written = wait_for("a write", QUIET, async || {
            Ok(audit.since(mark, is_write)?.pop())
        })
        .await;
        ensure!(written.is_err(), "somebody wrote: {written:?}");
        let mut asked = BTreeMap::<String, usize>::new();
        for seen in audit.since(mark, |seen| {
            seen.user.username.contains(SYSTEM_NAMESPACE) && seen.stage == "ResponseComplete"
        })? {
            *asked
                .entry(format!("{} {}", seen.verb, seen.object_ref.resource))
                .or_default() += 1;
        }
        note(format!(
            "in a minute with {SESSIONS} Ready sessions: no write; {asked:?}"
        ));
        Ok(())
    })
    .await;
}
