//! What a console asks of the recorder, and what its session says about that.

use std::sync::Arc;

use drawbridge_audit::recording::{End, Level, Mode, Opening, Settings, Subprotocols, VERSION};
use drawbridge_audit::subject;
use drawbridge_crds::v1alpha1::{RecordingLevel, ResolvedTarget};
use drawbridge_protocol::subprotocol::Subprotocol;
use drawbridge_protocol::transcode::{Outcome, Streams};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Prepared, Recorder, Recording, Tap, Unavailable};
use crate::bridge::{Closed, Ended, Stop};
use crate::refusal::{Kind, Refusal};
use crate::session::Session;

/// What is known of a connection before its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its ID, which becomes the recording's.
    pub connection: Uuid,
    /// Its session.
    pub session: &'a Session,
    /// What is entered.
    pub target: &'a ResolvedTarget,
    /// How.
    pub attach: bool,
    /// The argv asked for.
    pub argv: &'a [String],
    /// The streams asked for.
    pub streams: Streams,
    /// When it begins.
    pub now: Timestamp,
}

impl Recorder {
    /// Room for the recording of a connection, its facts in it; `None` if it is not to be recorded, or need not be and
    /// cannot.
    ///
    /// # Errors
    /// It must be recorded, and cannot.
    pub async fn prepare(self: &Arc<Self>, facts: Facts<'_>) -> Result<Option<Prepared>, Refusal> {
        if facts.session.recording.level == RecordingLevel::Off {
            return Ok(None);
        }
        let opening = opening(facts, self);
        let prepared = self.reserve(opening.clone()).await;
        self.or_without(opening, prepared)
    }

    /// Begins the recording of a connection, now that it is known what is spoken with the client and with the pod's side.
    ///
    /// # Errors
    /// It must be recorded, and cannot.
    pub async fn start(
        self: &Arc<Self>,
        prepared: Option<Prepared>,
        client: Subprotocol,
        upstream: Subprotocol,
    ) -> Result<Option<(Recording, Tap)>, Refusal> {
        let Some(prepared) = prepared else {
            return Ok(None);
        };
        let opening = prepared.opening.clone();
        let subprotocols = Subprotocols {
            client: client.name().to_owned(),
            upstream: upstream.name().to_owned(),
        };
        let begun = self.begin(prepared, subprotocols).await;
        self.or_without(opening, begun)
    }

    fn or_without<T>(
        self: &Arc<Self>,
        opening: Opening,
        found: Result<T, Unavailable>,
    ) -> Result<Option<T>, Refusal> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(why) if opening.settings.level == Level::Required => {
                let told = format!(
                    "this session must be recorded, and recordings cannot be made at the moment: {}",
                    why.public()
                );
                let refusal = Refusal::new(Kind::Unavailable, told);
                Err(refusal.retry_after(5).because(why))
            }
            Err(why) => {
                self.go_without(opening, &why);
                Ok(None)
            }
        }
    }
}

fn opening(facts: Facts<'_>, recorder: &Recorder) -> Opening {
    let Facts {
        connection,
        session,
        target,
        attach,
        argv,
        streams,
        now,
    } = facts;
    let terms = session.recording;
    Opening {
        version: VERSION,
        recording: connection,
        session: subject::Session {
            namespace: session.namespace.clone(),
            name: session.name.clone(),
            uid: session.uid.clone(),
        },
        user: session.user.clone(),
        pod: subject::Pod {
            name: target.pod.clone(),
            uid: target.pod_uid.clone(),
            container: target.container.clone(),
            node: target.node.clone(),
        },
        mode: if attach { Mode::Attach } else { Mode::Exec },
        argv: argv.to_vec(),
        tty: streams.tty,
        stdin: streams.stdin,
        subprotocols: Subprotocols::default(), // not agreed on yet
        started_at: now,
        settings: Settings {
            level: match terms.level {
                RecordingLevel::BestEffort => Level::BestEffort,
                RecordingLevel::Required | RecordingLevel::Off => Level::Required,
            },
            keystrokes: terms.keystrokes,
            payloads: terms.payloads,
            recipients: recorder.rules().recipients.clone(),
        },
        gateway: recorder.rules().instance.clone(),
        legal_hold: session.legal_hold,
    }
}

/// How a recording says that its connection ended; `None`: the client did not take its 101.
#[must_use]
pub fn end(ended: Option<&Ended>) -> End {
    let reason = match ended.map(|ended| ended.closed) {
        None => "NeverUpgraded",
        Some(Closed::ByPod) => "Completed",
        Some(Closed::ByClient) => "ClientLeft",
        Some(Closed::ClientLost) => "ClientLost",
        Some(Closed::UpstreamLost) => "UpstreamLost",
        Some(Closed::Idle) => "Idle",
        Some(Closed::Stalled) => "Stalled",
        Some(Closed::Violation) => "Violation",
        Some(Closed::Unrecorded) => "Unrecorded",
        Some(Closed::Stopped(Stop::Expired)) => "Expired",
        Some(Closed::Stopped(Stop::Revoked)) => "Revoked",
        Some(Closed::Stopped(Stop::SessionDeleted)) => "SessionDeleted",
        Some(Closed::Stopped(Stop::SessionEnded(_))) => "SessionEnded",
        Some(Closed::Stopped(Stop::Draining)) => "GatewayStopped",
    };
    let exit_code = match ended.and_then(|ended| ended.outcome.as_ref()) {
        Some(Outcome::Success) => Some(0),
        Some(Outcome::Exit(code)) => i32::try_from(*code).ok(),
        Some(Outcome::Error { .. } | Outcome::Lost) | None => None,
    };
    End {
        reason: reason.to_owned(),
        exit_code,
    }
}
