//! Status and Events, from what was applied.

use drawbridge_crds::v1alpha1::{ConsoleSession, ConsoleSessionStatus, Credential, Phase};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tracing::{info, warn};

use super::apply::{Applied, write};
use super::plan::{Access, Observed, Plan, Subject};
use super::{CALL_TIMEOUT, Ctx, Error, remember, told};
use crate::metrics::{ErrorKind, Verb};
use crate::watches::chain;
use crate::{FIELD_MANAGER, Guarded};

/// Longest note of an Event, in bytes; the API server refuses more than 1 KiB.
const MAX_NOTE: usize = 1000;

/// The status the plan means, given what was applied. Equal to the old one when nothing changed.
pub(super) fn status(
    seen: &Observed,
    plan: &Plan,
    applied: Option<&Applied>,
) -> ConsoleSessionStatus {
    let old = seen.session.status.clone().unwrap_or_default();
    let ready = matches!(plan.access, Access::Open { .. });
    let generation = seen.session.metadata.generation;
    let now = Time(seen.now);
    let condition = |kind: &str, holds: bool| {
        let before = old
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind);
        let status = if holds { "True" } else { "False" };
        let unchanged = before.filter(|before| before.status == status);
        Condition {
            type_: kind.into(),
            status: status.into(),
            reason: plan.reason.into(),
            message: plan.message.clone(),
            observed_generation: generation,
            last_transition_time: unchanged
                .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        }
    };
    let mut conditions = vec![condition("Ready", ready)];
    if plan.ended.is_some() {
        // Absent while it may still become ready: kstatus reads a `Stalled` of any age as failure only if true.
        conditions.push(condition("Stalled", true));
    }
    let mut status = ConsoleSessionStatus {
        observed_generation: generation,
        phase: Some(plan.phase),
        conditions,
        // After the end, what was granted stays on record.
        target: old.target,
        observed: old.observed,
        granted_at: old.granted_at,
        expires_at: old.expires_at,
        credential: applied.map(|applied| Credential {
            secret: applied.secret.clone(),
            expires_at: Time(applied.token_expires_at),
        }),
        ended_at: plan.ended.map(|(_, at)| Time(at)),
        end_reason: plan.ended.map(|(reason, _)| reason),
        recording: old.recording,
        recordings: old.recordings,
    };
    if let Access::Open {
        subject,
        granted_at,
        expires_at,
        recording,
    } = &plan.access
    {
        match subject {
            Subject::Pod(target) => status.target = Some(target.clone()),
            Subject::Session(other) => status.observed = Some(other.clone()),
        }
        status.granted_at = Some(Time(*granted_at));
        status.expires_at = Some(Time(*expires_at));
        status.recording = *recording;
    }
    status
}

/// Writes the status if it changed, and tells the change as an Event.
pub(super) async fn report(
    ctx: &Ctx,
    seen: &Observed,
    plan: &Plan,
    applied: Option<&Applied>,
) -> Result<(), Error> {
    let session = &*seen.session;
    let status = status(seen, plan, applied);
    for event in told::changes(session, plan) {
        if plan.ended.is_some() {
            ctx.log.emit(event); // nothing may keep a session from ending
        } else {
            // On record before the gateway can see it.
            ctx.log.record(event).await?;
        }
    }
    if session.status.as_ref() != Some(&status) && !put(ctx, session, &status).await? {
        return Ok(()); // the session is gone
    }
    let before = session.status.as_ref().and_then(|status| status.phase);
    if before != Some(plan.phase) {
        info!(phase = ?plan.phase, reason = plan.reason, "{}", plan.message);
        if !seen.namespace_deleting {
            // Nothing can be created in a namespace that is being deleted, Events least of all.
            publish(ctx, session, &transition(session, plan)).await;
        }
    } else if let Some(applied) = applied.filter(|applied| !applied.written.is_empty()) {
        let what = applied.written.join(", ");
        info!(what, "repaired");
        ctx.log.emit(told::repaired(session, plan, &what));
        let note = format!("restored what was missing or changed: {what}");
        publish(
            ctx,
            session,
            &event(EventType::Warning, "Repaired", "Repair", note),
        )
        .await;
    }
    Ok(())
}

/// Says in the `Ready` condition why the session cannot be brought up to its plan, once per reason.
pub(super) async fn report_failure(ctx: &Ctx, seen: &Observed, plan: &Plan, error: &Error) {
    let Some(reason) = error.reason() else { return };
    let session = &*seen.session;
    let old = session.status.clone().unwrap_or_default();
    let told = |condition: &Condition| condition.type_ == "Ready" && condition.reason == reason;
    if old.conditions.iter().any(told) {
        return;
    }
    // Access that was granted is not ended by a failed repair; access that was not is not begun.
    let granted = old.phase == Some(Phase::Ready);
    let not_ready = Plan {
        access: Access::Closed,
        phase: if granted {
            Phase::Ready
        } else {
            Phase::Pending
        },
        reason,
        message: chain(error),
        ended: None,
        ..plan.clone()
    };
    let status = ConsoleSessionStatus {
        credential: old.credential.clone(),
        ..status(seen, &not_ready, None)
    };
    match put(ctx, session, &status).await {
        Ok(true) => {
            let event = event(EventType::Warning, reason, "Grant", not_ready.message);
            publish(ctx, session, &event).await;
        }
        Ok(false) => {}
        // The failure itself is returned and logged by the driver.
        Err(error) => warn!(error = chain(&error), "failed to report the failure below"),
    }
}

/// Writes the status over the version of the session the decision was made from, and no other. `false`: it is gone.
async fn put(
    ctx: &Ctx,
    session: &ConsoleSession,
    status: &ConsoleSessionStatus,
) -> Result<bool, Error> {
    let name = session.name_any();
    let api: Api<Guarded> =
        Api::namespaced(ctx.client.clone(), &session.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": ConsoleSession::api_version(&()),
        "kind": ConsoleSession::kind(&()),
        "metadata": {"name": name, "uid": session.uid(), "resourceVersion": session.resource_version()},
        // The recordings are the gateway's to tell, under its own name as field manager.
        "status": ConsoleSessionStatus { recordings: Vec::new(), ..status.clone() },
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&patch);
    let answer = api.patch_status(&name, &params, &patch);
    match write(ctx, Verb::Status, "status of session", &name, answer).await {
        Ok(patched) => {
            remember(ctx, session.meta(), patched);
            Ok(true)
        }
        Err(Error::Write {
            source: kube::Error::Api(status),
            ..
        }) if status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

fn transition(session: &ConsoleSession, plan: &Plan) -> Event {
    let note = plan.message.clone();
    match plan.phase {
        Phase::Pending => event(EventType::Normal, "Waiting", "Wait", note),
        Phase::Scheduled => event(EventType::Normal, "Scheduled", "Wait", note),
        Phase::Ready => {
            let why = session.spec.reason.as_deref();
            let note = why.map_or_else(|| note.clone(), |why| format!("{note}; reason: {why}"));
            event(EventType::Normal, "Granted", "Grant", note)
        }
        Phase::Expired => event(EventType::Normal, "Expired", "End", note),
        Phase::Revoked => event(EventType::Normal, "Revoked", "End", note),
        Phase::Failed => event(
            EventType::Warning,
            "Failed",
            "End",
            format!("{}: {note}", plan.reason),
        ),
    }
}

fn event(type_: EventType, reason: &str, action: &str, mut note: String) -> Event {
    if note.len() > MAX_NOTE {
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        note.push('…');
    }
    Event {
        type_,
        reason: reason.into(),
        note: Some(note),
        action: action.into(),
        secondary: None,
    }
}

/// Best effort: an Event lost is no reason to decide again.
async fn publish(ctx: &Ctx, session: &ConsoleSession, event: &Event) {
    ctx.metrics.write(Verb::Event);
    let reference = session.object_ref(&());
    let error =
        match tokio::time::timeout(CALL_TIMEOUT, ctx.recorder.publish(event, &reference)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer from the API server".into(),
        };
    ctx.metrics.error(ErrorKind::Event);
    warn!(event = event.reason, error, "failed to publish an Event");
}

/// When to look again for the token's sake.
pub(super) fn renewal(plan: &Plan, applied: &Applied) -> Option<Timestamp> {
    match &plan.access {
        Access::Open { expires_at, .. } => {
            crate::grant::renew_at(applied.token_expires_at, *expires_at)
        }
        Access::Closed => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drawbridge_crds::v1alpha1::EndReason;

    use super::*;
    use crate::session::plan::plan;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn waiting(now: i64, status: Option<ConsoleSessionStatus>) -> Observed {
        let session = json!({
            "metadata": {"name": "shell", "namespace": "shop", "uid": "6f1c0000-1", "generation": 1},
            "spec": {"user": "alice@example.com", "target": {"pod": {"name": "web-0"}}, "notAfter": "2027-01-15T08:00:00Z"},
        });
        let mut session: ConsoleSession = serde_json::from_value(session).expect("a session");
        session.status = status;
        Observed {
            session: Arc::new(session),
            namespace_deleting: false,
            pod: None,
            recording: drawbridge_crds::v1alpha1::RecordingTerms::default(),
            other: None,
            account_made: None,
            now: at(now),
        }
    }

    fn decided(now: i64, status: Option<ConsoleSessionStatus>) -> ConsoleSessionStatus {
        let seen = waiting(now, status);
        super::status(&seen, &plan(&seen), None)
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = decided(1_799_000_000, None);
        let second = decided(1_799_000_100, Some(first.clone()));
        assert_eq!(first, second, "nothing changed, so nothing is written");
        let ended = decided(1_800_000_000, Some(second.clone()));
        assert_eq!(ended.end_reason, Some(EndReason::WindowMissed));
        assert_eq!(ended.conditions[0].status, "False");
        assert_eq!(
            ended.conditions[0].last_transition_time, second.conditions[0].last_transition_time,
            "it was not ready before, and is not now"
        );
        assert_eq!(ended.conditions[0].reason, "WindowMissed");
        let stalled = &ended.conditions[1];
        assert_eq!(
            (stalled.type_.as_str(), stalled.status.as_str()),
            ("Stalled", "True")
        );
        assert_eq!(stalled.last_transition_time.0, at(1_800_000_000));
        assert_eq!(
            ended,
            decided(1_800_000_500, Some(ended.clone())),
            "an end is written once"
        );
    }

    #[test]
    fn a_note_is_cut_between_characters_within_the_bound_of_the_api() {
        let note = event(EventType::Normal, "Granted", "Grant", "ä".repeat(2000))
            .note
            .expect("a note");
        assert!(note.len() <= 1024, "{}", note.len());
        assert!(note.ends_with("ä…"));
    }
}
