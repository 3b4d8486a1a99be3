//! The decision. No client, no clock, no async.

use drawbridge_crds::v1alpha1::{
    ConsoleSession, ConsoleSessionSpec, EndReason, Mode, ObservedSession, Phase, RecordingTerms,
    ResolvedTarget,
};
use drawbridge_crds::{names, rules};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::sync::Arc;

/// How far the clocks of an operator and an API server may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Everything one pass needs, fetched before any decision is made.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The session.
    pub session: Arc<ConsoleSession>,
    /// Whether its namespace is being deleted.
    pub namespace_deleting: bool,
    /// The pod of the target's name. Looked for only when [`needs_subject`].
    pub pod: Option<PodSeen>,
    /// How connections of sessions granted now are recorded.
    pub recording: RecordingTerms,
    /// The session that one of `mode: Observe` names. Looked for only before its grant.
    pub other: Option<ObservedSession>,
    /// When the session's account was made, if there is one: at its grant, or when it was restored. The gateway may write
    /// the status, but not that.
    pub account_made: Option<Timestamp>,
    /// When all this was read.
    pub now: Timestamp,
}

/// What is known about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    /// Its UID.
    pub uid: String,
    /// Whether its deletion has begun.
    pub deleting: bool,
    /// How far it is in its life.
    pub life: PodLife,
}

/// How far a pod is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodLife {
    /// Not completed; no more was asked.
    Live,
    /// Not running yet, or its node is lost; `status.phase`.
    Waiting(String),
    /// Running.
    Running {
        /// Names of its containers, the default one first.
        containers: Vec<String>,
        /// Names of those that must be named to be entered: sidecars and ephemeral containers.
        named_only: Vec<String>,
        /// Name of its node.
        node: String,
    },
    /// Ran to completion: `Succeeded` or `Failed`.
    Finished,
}

/// What should be true after the pass. Complete: what is not here is taken away.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whether access is open. If not, nothing made for the session may remain.
    pub access: Access,
    /// `status.phase`.
    pub phase: Phase,
    /// `reason` of the `Ready` condition: a word.
    pub reason: &'static str,
    /// `message` of the `Ready` condition: a sentence for the user.
    pub message: String,
    /// Why and when the session ended; `None` while it has not.
    pub ended: Option<(EndReason, Timestamp)>,
    /// Look again then, even if nothing changes.
    pub look_again: Option<Timestamp>,
    /// Delete the session itself.
    pub delete: bool,
}

/// Whether access is open.
#[derive(Clone, Debug, PartialEq)]
pub enum Access {
    /// Not yet, or not any more.
    Closed,
    /// To this pod or session, between these times.
    Open {
        /// What the grant names.
        subject: Subject,
        /// When access began.
        granted_at: Timestamp,
        /// When it ends.
        expires_at: Timestamp,
        /// How its connections are recorded; `None` if it was granted before there was a choice.
        recording: Option<RecordingTerms>,
    },
}

/// What a grant names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A pod to open.
    Pod(ResolvedTarget),
    /// A session to look at: no pod may be opened.
    Session(ObservedSession),
}

/// The grant the status records.
struct Granted {
    subject: Subject,
    since: Timestamp,
    expires_at: Timestamp,
    recording: Option<RecordingTerms>,
}

/// Whether the decision depends on the pod, or, with `mode: Observe`, on the session to look at.
#[must_use]
pub fn needs_subject(session: &ConsoleSession, now: Timestamp) -> bool {
    let waits = session
        .spec
        .not_before
        .as_ref()
        .is_some_and(|at| now < at.0);
    final_end(session).is_none()
        && !waits
        && !session.spec.revoked
        && session.metadata.deletion_timestamp.is_none()
}

/// The pod a granted session stands on; `None` before the grant.
#[must_use]
pub fn granted_pod(session: &ConsoleSession) -> Option<&str> {
    granted(session)?;
    let target = session.status.as_ref()?.target.as_ref()?;
    Some(target.pod_uid.as_str())
}

/// How and when the session ended, as its status records it: final, whatever else the object says by now.
fn final_end(session: &ConsoleSession) -> Option<(EndReason, Option<Timestamp>)> {
    let status = session.status.as_ref()?;
    let at = status.ended_at.as_ref().map(|at| at.0);
    let by_phase = match status.phase {
        Some(Phase::Expired) => Some(EndReason::Expired),
        Some(Phase::Revoked) => Some(EndReason::Revoked),
        Some(Phase::Failed) => Some(EndReason::InvalidSpec),
        Some(Phase::Pending | Phase::Scheduled | Phase::Ready) | None => None,
    };
    let reason = status.end_reason.or(by_phase);
    // Any one of the three is enough: who edits the status must not be able to revive the session.
    reason
        .or(at.map(|_| EndReason::Revoked))
        .map(|reason| (reason, at))
}

fn granted(session: &ConsoleSession) -> Option<Granted> {
    let status = session.status.as_ref()?;
    let since = status.granted_at.as_ref()?.0;
    let subject = match session.spec.mode {
        Mode::Exec | Mode::Attach => Subject::Pod(status.target.clone()?),
        Mode::Observe => Subject::Session(status.observed.clone()?),
    };
    Some(Granted {
        subject,
        since,
        // Never later than the spec allows, whatever the status says.
        expires_at: expiry(session, since)?.min(status.expires_at.as_ref()?.0),
        // What was agreed at the grant does not change under an open shell.
        recording: status.recording,
    })
}

/// When access granted at `granted_at` ends. `None` past the end of representable time.
fn expiry(session: &ConsoleSession, granted_at: Timestamp) -> Option<Timestamp> {
    let duration =
        SignedDuration::try_from(std::time::Duration::from(session.spec.duration)).ok()?;
    let end = granted_at.checked_add(duration).ok()?;
    let window = session.spec.not_after.as_ref().map_or(end, |at| at.0);
    Some(whole_seconds(end.min(window)))
}

/// Times in the API are whole seconds; rounded down, so that access never lasts longer than allowed.
fn whole_seconds(at: Timestamp) -> Timestamp {
    let second = at.as_nanosecond().div_euclid(1_000_000_000);
    i64::try_from(second)
        .ok()
        .and_then(|second| Timestamp::from_second(second).ok())
        .unwrap_or(at)
}

/// Decides.
///
/// # Guarantees
/// - An ended session stays ended, for the reason and at the time first recorded.
/// - Access is open only at or after `notBefore`, before `notAfter`, and before `expiresAt`.
/// - It is open only to the pod, or the session, it was first granted for.
#[must_use]
pub fn plan(seen: &Observed) -> Plan {
    let session = &*seen.session;
    if let Some((reason, at)) = final_end(session) {
        return over(seen, reason, at);
    }
    if let Some(reason) = taken_away(seen) {
        return over(seen, reason, None);
    }
    match granted(session) {
        Some(granted) => match vouched(seen, granted) {
            Some(granted) => keep(seen, &granted),
            None => over(seen, EndReason::Revoked, None),
        },
        None => wait_or_grant(seen),
    }
}

/// The grant that the status tells of, as far as what it left behind bears it out: a status that was written by somebody
/// else neither revives what has ended nor makes access longer. `None`: there is no trace of a grant.
fn vouched(seen: &Observed, granted: Granted) -> Option<Granted> {
    let session = &*seen.session;
    let Some(made) = seen.account_made else {
        // Before the account is made the session is held, and it is let go only after the account is gone.
        let mut held = session.finalizers().iter();
        return held.any(|name| name == names::FINALIZER).then_some(granted);
    };
    let latest = made.checked_add(SKEW).unwrap_or(made);
    if granted.since <= latest {
        return Some(granted);
    }
    Some(Granted {
        since: latest,
        expires_at: granted.expires_at.min(expiry(session, latest)?),
        ..granted
    })
}

/// Reasons that beat everything else.
fn taken_away(seen: &Observed) -> Option<EndReason> {
    if seen.session.spec.revoked {
        Some(EndReason::Revoked)
    } else if seen.session.metadata.deletion_timestamp.is_some() {
        Some(EndReason::SessionDeleted)
    } else if seen.namespace_deleting {
        Some(EndReason::NamespaceDeleted)
    } else if rules::check(&seen.session).is_err() {
        Some(EndReason::InvalidSpec)
    } else {
        None
    }
}

fn keep(seen: &Observed, granted: &Granted) -> Plan {
    if seen.now >= granted.expires_at {
        return over(seen, EndReason::Expired, None);
    }
    let lost = match (&granted.subject, &seen.pod) {
        (Subject::Pod(_), None) => Some(EndReason::PodDeleted),
        (Subject::Pod(target), Some(pod)) if pod.uid != target.pod_uid => {
            Some(EndReason::PodReplaced)
        }
        (Subject::Pod(_), Some(pod)) if pod.deleting => Some(EndReason::PodDeleted),
        (Subject::Pod(_), Some(pod)) if pod.life == PodLife::Finished => {
            Some(EndReason::PodFinished)
        }
        // Recordings outlive their session.
        (Subject::Session(_), _) | (Subject::Pod(_), Some(_)) => None,
    };
    match lost {
        Some(reason) => over(seen, reason, None),
        None => open(
            seen,
            granted.subject.clone(),
            granted.since,
            granted.expires_at,
            granted.recording,
        ),
    }
}

fn wait_or_grant(seen: &Observed) -> Plan {
    let spec = &seen.session.spec;
    if spec.not_after.as_ref().is_some_and(|at| seen.now >= at.0) {
        return over(seen, EndReason::WindowMissed, None);
    }
    if let Some(at) = spec.not_before.as_ref().filter(|at| seen.now < at.0) {
        return Plan {
            phase: Phase::Scheduled,
            look_again: Some(at.0),
            ..waiting(seen, "Scheduled", format!("access is granted at {}", at.0))
        };
    }
    let name = match (spec.pod(), &spec.observe, &seen.other) {
        (Some(name), ..) => name,
        (None, _, Some(other)) => return grant(seen, Subject::Session(other.clone())),
        (None, observe, None) => {
            let name = observe.as_ref().map_or("", |observe| &observe.session);
            let message = format!("session {name} does not exist (yet)");
            return waiting(seen, "SessionNotFound", message);
        }
    };
    let pod = match &seen.pod {
        None => {
            return waiting(
                seen,
                "PodNotFound",
                format!("pod {name} does not exist (yet)"),
            );
        }
        Some(pod) if pod.deleting => {
            return waiting(
                seen,
                "PodDeleting",
                format!("pod {name} is being deleted; waiting for the next of that name"),
            );
        }
        Some(pod) => pod,
    };
    let (containers, node) = match &pod.life {
        PodLife::Finished => return over(seen, EndReason::PodFinished, None),
        PodLife::Live => {
            return waiting(
                seen,
                "PodNotRunning",
                format!("pod {name} is not known to run yet"),
            );
        }
        PodLife::Waiting(phase) => {
            return waiting(
                seen,
                "PodNotRunning",
                format!("pod {name} is {phase}, not Running"),
            );
        }
        PodLife::Running {
            containers,
            named_only,
            node,
        } => (allowed(spec, containers, named_only), node),
    };
    let Some(container) = containers.first().cloned() else {
        return over(seen, EndReason::ContainerNotFound, None);
    };
    let target = ResolvedTarget {
        pod: name.to_owned(),
        pod_uid: pod.uid.clone(),
        container,
        containers,
        node: node.clone(),
    };
    grant(seen, Subject::Pod(target))
}

/// Access begins now.
fn grant(seen: &Observed, subject: Subject) -> Plan {
    let granted_at = whole_seconds(seen.now);
    match expiry(&seen.session, granted_at) {
        Some(expires_at) if seen.now < expires_at => {
            let recording = match subject {
                Subject::Pod(_) => Some(seen.recording),
                Subject::Session(_) => None, // there are no connections to record
            };
            open(seen, subject, granted_at, expires_at, recording)
        }
        _ => over(seen, EndReason::WindowMissed, None),
    }
}

/// The containers a session may enter, the default one first: the one its spec names, else all but those that must be named.
fn allowed(spec: &ConsoleSessionSpec, containers: &[String], named_only: &[String]) -> Vec<String> {
    let allowed = |name: &&String| match spec.container() {
        Some(wanted) => name.as_str() == wanted,
        // The default one may be a sidecar that the pod's annotation names.
        None => Some(*name) == containers.first() || !named_only.contains(name),
    };
    containers.iter().filter(allowed).cloned().collect()
}

fn waiting(seen: &Observed, reason: &'static str, message: String) -> Plan {
    Plan {
        access: Access::Closed,
        phase: Phase::Pending,
        reason,
        message,
        ended: None,
        look_again: seen.session.spec.not_after.as_ref().map(|at| at.0),
        delete: false,
    }
}

fn open(
    seen: &Observed,
    subject: Subject,
    granted_at: Timestamp,
    expires_at: Timestamp,
    recording: Option<RecordingTerms>,
) -> Plan {
    let spec = &seen.session.spec;
    let may = match (&subject, spec.mode) {
        (Subject::Session(other), _) => {
            format!("look at session {} and its recordings", other.session)
        }
        (Subject::Pod(target), mode) => format!(
            "{} {} {} of pod {}",
            if mode == Mode::Attach {
                "attach to"
            } else {
                "exec into"
            },
            if target.containers.len() > 1 {
                "containers"
            } else {
                "container"
            },
            target.containers.join(", "),
            target.pod
        ),
    };
    Plan {
        message: format!("{} may {may} until {expires_at}", spec.user),
        access: Access::Open {
            subject,
            granted_at,
            expires_at,
            recording,
        },
        phase: Phase::Ready,
        reason: "Granted",
        ended: None,
        look_again: Some(expires_at),
        delete: false,
    }
}

/// The session is over. `at`: when, if that is on record already.
fn over(seen: &Observed, reason: EndReason, at: Option<Timestamp>) -> Plan {
    let session = &*seen.session;
    let ended_at = at.unwrap_or_else(|| match (reason, granted(session)) {
        // The gateway cut at that time, however late this pass is.
        (EndReason::Expired, Some(granted)) => granted.expires_at,
        _ => whole_seconds(seen.now),
    });
    let (phase, word, message) = told(session, reason);
    let gone_at = session.spec.ttl_after_finished.and_then(|ttl| {
        let ttl = SignedDuration::try_from(std::time::Duration::from(ttl)).ok()?;
        ended_at.checked_add(ttl).ok()
    });
    let deleting = session.metadata.deletion_timestamp.is_some();
    Plan {
        access: Access::Closed,
        phase,
        reason: word,
        message,
        ended: Some((reason, ended_at)),
        look_again: gone_at.filter(|at| seen.now < *at && !deleting),
        delete: gone_at.is_some_and(|at| seen.now >= at) && !deleting,
    }
}

/// How an end is told: phase, a word, a sentence.
fn told(session: &ConsoleSession, reason: EndReason) -> (Phase, &'static str, String) {
    let pod = session.spec.pod().unwrap_or_default();
    match reason {
        EndReason::Expired => (Phase::Expired, "Expired", "access ended at its time".into()),
        EndReason::WindowMissed => (
            Phase::Expired,
            "WindowMissed",
            "notAfter passed before access could be granted".into(),
        ),
        EndReason::Revoked => (Phase::Revoked, "Revoked", "access was revoked".into()),
        EndReason::SessionDeleted => (
            Phase::Revoked,
            "SessionDeleted",
            "the session is being deleted".into(),
        ),
        EndReason::NamespaceDeleted => (
            Phase::Revoked,
            "NamespaceDeleted",
            format!(
                "namespace {} is being deleted",
                session.namespace().unwrap_or_default()
            ),
        ),
        EndReason::PodDeleted => (
            Phase::Failed,
            "PodDeleted",
            format!("pod {pod} was deleted"),
        ),
        EndReason::PodReplaced => (
            Phase::Failed,
            "PodReplaced",
            format!(
                "pod {pod} was replaced by another of the same name; make a new session for that one"
            ),
        ),
        EndReason::PodFinished => (
            Phase::Failed,
            "PodFinished",
            format!("pod {pod} ran to completion"),
        ),
        EndReason::ContainerNotFound => (
            Phase::Failed,
            "ContainerNotFound",
            format!(
                "pod {pod} has no container {}",
                session.spec.container().unwrap_or("at all")
            ),
        ),
        EndReason::InvalidSpec => {
            let broken = rules::check(session).err().map(|rule| rule.to_string());
            (
                Phase::Failed,
                "InvalidSpec",
                broken.unwrap_or_else(|| "the spec broke a rule of the API".into()),
            )
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
