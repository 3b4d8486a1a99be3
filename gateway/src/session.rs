//! What the gateway keeps of a `ConsoleSession`: the fields it decides by, checked and compact.

use std::time::Duration;

use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{
    ConsoleSession, EndReason, Mode, ObservedSession, Phase, RecordingTerms, ResolvedTarget,
};
use jiff::Timestamp;

use crate::bridge::Stop;

/// Bounds of the idle limit, as the CRD documents them. API servers without CEL store anything.
const IDLE: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(24);
/// Most connections a session may have, as the CRD documents it.
const MAX_CONNECTIONS: u32 = 64;

/// One session as the watch last told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// `metadata.uid`: what the account's name carries.
    pub uid: String,
    /// Namespace of the session and of its pod.
    pub namespace: String,
    /// Name of the session.
    pub name: String,
    /// Whom it was declared for; for people and logs, decides nothing here.
    pub user: String,
    /// Why, in the requester's words; for people too.
    pub reason: Option<String>,
    /// Whether it can be used.
    pub state: State,
    /// What may be opened.
    pub mode: Mode,
    /// The only argv allowed; empty: any.
    pub command: Vec<String>,
    /// Not usable before.
    pub not_before: Option<Timestamp>,
    /// Not usable from then on.
    pub expires_at: Option<Timestamp>,
    /// The pod and container granted; `None` until the operator found them.
    pub target: Option<ResolvedTarget>,
    /// The session whose recordings may be looked at, with [`Mode::Observe`]; `None` until the operator found it.
    pub observed: Option<ObservedSession>,
    /// Longest silence of a connection. 10 s to 24 h.
    pub idle: Duration,
    /// Connections at the same time. 1 to 64.
    pub max_connections: usize,
    /// How its connections are recorded.
    pub recording: RecordingTerms,
    /// Whether its recordings are kept whatever the retention says.
    pub legal_hold: bool,
}

/// Whether a session can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not granted yet; the operator's phase, if it has seen the session at all.
    Waiting(Option<Phase>),
    /// Granted.
    Ready,
    /// Over for good.
    Ended(Stop),
}

impl Session {
    /// The session in an object from the API server; `None` when it has no UID, namespace or name, i.e. was never stored.
    #[must_use]
    pub fn of(object: &ConsoleSession) -> Option<Self> {
        let spec = &object.spec;
        let status = object.status.as_ref();
        Some(Self {
            uid: object.metadata.uid.clone()?,
            namespace: object.metadata.namespace.clone()?,
            name: object.metadata.name.clone()?,
            user: spec.user.clone(),
            reason: spec.reason.clone(),
            state: state(object),
            mode: spec.mode,
            command: spec.command.clone(),
            not_before: spec.not_before.as_ref().map(|time| time.0),
            expires_at: status
                .and_then(|status| status.expires_at.as_ref())
                .map(|time| time.0),
            target: status.and_then(|status| status.target.clone()),
            observed: status.and_then(|status| status.observed.clone()),
            idle: Duration::from(spec.idle_timeout).clamp(*IDLE.start(), *IDLE.end()),
            max_connections: spec.max_connections.clamp(1, MAX_CONNECTIONS) as usize,
            // A session of an older operator is recorded as well.
            recording: status
                .and_then(|status| status.recording)
                .unwrap_or_default(),
            legal_hold: names::legal_hold(object),
        })
    }
}

/// What the object says about the end, whoever wrote it: the user (`revoked`), the API server (`deletionTimestamp`) or
/// the operator (`status`). The first two do not wait for the operator.
fn state(object: &ConsoleSession) -> State {
    if object.spec.revoked {
        return State::Ended(Stop::Revoked);
    }
    let status = object.status.as_ref();
    let reason = status.and_then(|status| status.end_reason);
    if object.metadata.deletion_timestamp.is_some() {
        return State::Ended(match reason {
            Some(EndReason::NamespaceDeleted) => Stop::SessionEnded(EndReason::NamespaceDeleted),
            _ => Stop::SessionDeleted,
        });
    }
    match status.and_then(|status| status.phase) {
        Some(Phase::Ready) => State::Ready,
        Some(phase) if phase.ended() => State::Ended(match (reason, phase) {
            (Some(EndReason::Expired), _) | (None, Phase::Expired) => Stop::Expired,
            (Some(EndReason::Revoked), _) | (None, Phase::Revoked) => Stop::Revoked,
            (Some(EndReason::SessionDeleted), _) => Stop::SessionDeleted,
            (Some(reason), _) => Stop::SessionEnded(reason),
            (None, _) => Stop::SessionEnded(EndReason::InvalidSpec),
        }),
        phase => State::Waiting(phase),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A session that is granted: pod `web`, container `app`, in namespace `shop`, until 2030.
    pub(crate) fn object() -> ConsoleSession {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "drawbridge.dev/v1alpha1", "kind": "ConsoleSession",
            "metadata": {"name": "fix-cart", "namespace": "shop", "uid": "6f1c", "resourceVersion": "1"},
            "spec": {"user": "alice@example.com", "target": {"pod": {"name": "web"}}},
            "status": {
                "phase": "Ready", "expiresAt": "2030-01-01T01:00:00Z",
                "target": {"pod": "web", "podUID": "p-1", "container": "app", "node": "n1"},
            },
        }))
        .expect("a session")
    }

    pub(crate) fn ready() -> Session {
        Session::of(&object()).expect("stored")
    }

    pub(crate) fn object_with(path: &str, value: serde_json::Value) -> ConsoleSession {
        let mut json = serde_json::to_value(object()).expect("serialises");
        let (parent, key) = path.rsplit_once('/').expect("a pointer");
        json.pointer_mut(parent).expect("parent exists")[key] = value;
        serde_json::from_value(json).expect("a session")
    }

    #[test]
    fn a_granted_session_is_ready_with_its_defaults() {
        let session = ready();
        assert_eq!(session.state, State::Ready);
        assert_eq!(
            (session.idle, session.max_connections),
            (Duration::from_mins(15), 4)
        );
        assert_eq!(session.target.expect("resolved").container, "app");
    }

    #[test]
    fn every_way_to_end_is_seen_without_waiting_for_the_operator() {
        for (path, value, want) in [
            ("/spec/revoked", true.into(), State::Ended(Stop::Revoked)),
            (
                "/metadata/deletionTimestamp",
                "2029-01-01T00:00:00Z".into(),
                State::Ended(Stop::SessionDeleted),
            ),
            (
                "/status/phase",
                "Expired".into(),
                State::Ended(Stop::Expired),
            ),
            (
                "/status/phase",
                "Revoked".into(),
                State::Ended(Stop::Revoked),
            ),
            (
                "/status/phase",
                "Failed".into(),
                State::Ended(Stop::SessionEnded(EndReason::InvalidSpec)),
            ),
            (
                "/status/phase",
                "Pending".into(),
                State::Waiting(Some(Phase::Pending)),
            ),
            (
                "/status/phase",
                serde_json::Value::Null,
                State::Waiting(None),
            ),
        ] {
            let session = Session::of(&object_with(path, value.clone())).expect("stored");
            assert_eq!(session.state, want, "{path} = {value}");
        }
    }

    #[test]
    fn the_operators_reason_is_kept() {
        let mut object = object_with("/status/phase", "Failed".into());
        object.status.as_mut().expect("has one").end_reason = Some(EndReason::PodReplaced);
        assert_eq!(
            Session::of(&object).expect("stored").state,
            State::Ended(Stop::SessionEnded(EndReason::PodReplaced))
        );
    }

    #[test]
    fn limits_out_of_bounds_are_brought_into_them() {
        for (path, value, idle, connections) in [
            ("/spec/idleTimeout", "0s", 10, 4),
            ("/spec/idleTimeout", "2000h", 86_400, 4),
        ] {
            let session = Session::of(&object_with(path, value.into())).expect("stored");
            assert_eq!(
                (session.idle.as_secs(), session.max_connections),
                (idle, connections),
                "{value}"
            );
        }
        for (value, connections) in [(0, 1), (4_000_000, 64)] {
            let session =
                Session::of(&object_with("/spec/maxConnections", value.into())).expect("stored");
            assert_eq!(session.max_connections, connections, "{value}");
        }
    }

    #[test]
    fn an_object_that_was_never_stored_is_no_session() {
        let mut object = object();
        object.metadata.uid = None;
        assert_eq!(Session::of(&object), None);
    }
}
