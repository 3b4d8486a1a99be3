//! What the gateway counts. Label values are closed enums, so their number is known.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::refusal::Kind;

/// Bounds: 1 ms is a resumed TLS connection to an API server beside us; 10 s is the handshake's own limit.
const DIAL_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// Every metric; registered once, handed around in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    /// Connections registered: being opened, or open.
    pub open: Gauge,
    /// Ended connections by reason.
    pub ended: Family<EndLabels, Counter>,
    /// Refused requests by reason.
    pub refused: Family<RefusalLabels, Counter>,
    /// Payload bytes by direction.
    pub bytes: Family<DirectionLabels, Counter>,
    /// Seconds from the decision to dial until the upstream's answer to the handshake.
    pub dial: Family<DialLabels, Histogram>,
    /// Answers to token questions by result.
    pub reviews: Family<ReviewLabels, Counter>,
    /// Sessions in the index.
    pub sessions: Gauge,
    /// Whether the last word from the watch was good.
    pub watch_up: Gauge,
    /// Failed watches and lists.
    pub watch_errors: Counter,
    /// Certificate files that could not be loaded.
    pub reload_errors: Counter,
    /// Connections shown out of the lobby.
    pub shown_out: Counter,
    /// Recordings being written.
    pub recordings_open: Gauge,
    /// Recordings sealed by verdict.
    pub recordings: Family<RecordingLabels, Counter>,
    /// Bytes of sealed recordings.
    pub recording_bytes: Counter,
    /// Bytes of sessions that recordings lack.
    pub recording_missed: Counter,
    /// Connections that went on without a recording although one was wanted.
    pub unrecorded: Counter,
    /// Failures of the recorder by part.
    pub recorder_failures: Family<RecorderLabels, Counter>,
    /// Whether the store took what it was given last.
    pub store_up: Gauge,
    /// Whether recordings could be made on this disk when last tried.
    pub spool_up: Gauge,
    /// Bytes in the spool.
    pub spool: Gauge,
}

/// Labels of [`Metrics::recordings`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RecordingLabels {
    /// Whether they hold everything.
    pub verdict: RecordingVerdict,
}

/// Labels of [`Metrics::recorder_failures`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RecorderLabels {
    /// What failed.
    pub part: RecorderPart,
}

/// Whether a recording holds everything.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(
    missing_docs,
    non_camel_case_types,
    reason = "the names are the label values"
)]
pub enum RecordingVerdict {
    complete,
    interrupted,
}

/// What of the recorder failed.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are the label values")]
pub enum RecorderPart {
    /// The disk, the bound of the spool, or the want of a key.
    spool,
    /// A manifest could not be made.
    seal,
    /// The store.
    store,
    /// The session's status.
    status,
}

/// Labels of [`Metrics::ended`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EndLabels {
    /// One of the fixed labels of `bridge::Closed`.
    pub reason: Label,
}

/// Labels of [`Metrics::refused`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusalLabels {
    /// Which kind.
    pub reason: Kind,
}

/// Labels of [`Metrics::bytes`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DirectionLabels {
    /// Which way.
    pub direction: Direction,
}

/// Labels of [`Metrics::dial`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DialLabels {
    /// What came of it.
    pub result: Dial,
}

/// Labels of [`Metrics::reviews`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReviewLabels {
    /// What came of it.
    pub result: Review,
}

/// A label value out of a closed set that another module owns.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Label(pub &'static str);

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(
    missing_docs,
    non_camel_case_types,
    reason = "the names are the label values"
)]
pub enum Direction {
    to_pod,
    to_client,
}

/// What came of dialling upstream.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(
    missing_docs,
    non_camel_case_types,
    reason = "the names are the label values"
)]
pub enum Dial {
    upgraded,
    refused,
    failed,
}

/// What came of asking whose a token is.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(
    missing_docs,
    non_camel_case_types,
    reason = "the names are the label values"
)]
pub enum Review {
    /// Known from a question up to 10 s ago.
    cached,
    /// Another request was asking the same; it shared the answer.
    shared,
    /// Asked, and a session's.
    accepted,
    /// Asked, and not a session's.
    rejected,
    /// The API server did not answer.
    failed,
}

impl Metrics {
    /// The metrics, registered in `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        let registry = registry.sub_registry_with_prefix("drawbridge_gateway");
        registry.register(
            "connections_open",
            "Console connections being opened or open",
            metrics.open.clone(),
        );
        registry.register(
            "connections_ended",
            "Console connections ended, by reason",
            metrics.ended.clone(),
        );
        registry.register(
            "requests_refused",
            "Requests refused before any upgrade, by reason",
            metrics.refused.clone(),
        );
        registry.register_with_unit(
            "payload",
            "Bytes of console data relayed; counted when a connection ends",
            Unit::Bytes,
            metrics.bytes.clone(),
        );
        registry.register_with_unit(
            "upstream_dial",
            "Time to a WebSocket with the pod: connect, TLS, handshake; `refused` is an answer other than 101",
            Unit::Seconds,
            metrics.dial.clone(),
        );
        registry.register(
            "token_reviews",
            "Questions whose a token is, by result",
            metrics.reviews.clone(),
        );
        registry.register(
            "sessions",
            "ConsoleSessions known from the watch",
            metrics.sessions.clone(),
        );
        registry.register(
            "sessions_watch_up",
            "1 while the watch of sessions works; at 0 revocations are not seen and only deadlines are kept",
            metrics.watch_up.clone(),
        );
        registry.register(
            "sessions_watch_errors",
            "Failed lists and watches of sessions",
            metrics.watch_errors.clone(),
        );
        registry.register(
            "tls_reload_errors",
            "Times changed certificate files could not be loaded; the old certificate stays in use",
            metrics.reload_errors.clone(),
        );
        registry.register(
            "lobby_shown_out",
            "Connections without a credential that were dropped to make room for newer ones",
            metrics.shown_out.clone(),
        );
        metrics.register_recorder(registry);
        metrics
    }

    fn register_recorder(&self, registry: &mut Registry) {
        registry.register(
            "recordings_open",
            "Recordings being written",
            self.recordings_open.clone(),
        );
        registry.register(
            "recordings_sealed",
            "Recordings sealed, by verdict; `interrupted` ones break off or were taken up after a crash",
            self.recordings.clone(),
        );
        registry.register_with_unit(
            "recordings_size",
            "Bytes of sealed recordings, compressed",
            Unit::Bytes,
            self.recording_bytes.clone(),
        );
        registry.register_with_unit(
            "recordings_missed",
            "Bytes of sessions that their recordings lack, because the recorder could not keep up; sessions with level Required never add to it",
            Unit::Bytes,
            self.recording_missed.clone(),
        );
        registry.register(
            "connections_unrecorded",
            "Connections that went on without a recording, or without the rest of it, their sessions' level being BestEffort. Alert on any growth",
            self.unrecorded.clone(),
        );
        registry.register(
            "recorder_failures",
            "What failed in recording, by part. All is tried again, but connections that must be recorded are refused or ended on `spool`",
            self.recorder_failures.clone(),
        );
        registry.register(
            "recordings_store_up",
            "1 while the store takes recordings; at 0 they wait in the spool",
            self.store_up.clone(),
        );
        registry.register(
            "recordings_spool_up",
            "1 while consoles can be recorded on this disk; at 0 those that must be recorded are refused",
            self.spool_up.clone(),
        );
        registry.register_with_unit(
            "spool",
            "Bytes of recordings that the store does not have yet; at --spool-max new connections are refused",
            Unit::Bytes,
            self.spool.clone(),
        );
    }

    /// The metrics alone; nobody reads them.
    #[must_use]
    pub fn unregistered() -> Self {
        Self {
            open: Gauge::default(),
            ended: Family::default(),
            refused: Family::default(),
            bytes: Family::default(),
            dial: Family::new_with_constructor(|| Histogram::new(DIAL_BUCKETS)),
            reviews: Family::default(),
            sessions: Gauge::default(),
            watch_up: Gauge::default(),
            watch_errors: Counter::default(),
            reload_errors: Counter::default(),
            shown_out: Counter::default(),
            recordings_open: Gauge::default(),
            recordings: Family::default(),
            recording_bytes: Counter::default(),
            recording_missed: Counter::default(),
            unrecorded: Counter::default(),
            recorder_failures: Family::default(),
            store_up: Gauge::default(),
            spool_up: Gauge::default(),
            spool: Gauge::default(),
        }
    }

    /// Counts one sealed recording.
    pub fn recording_sealed(&self, complete: bool) {
        let verdict = if complete {
            RecordingVerdict::complete
        } else {
            RecordingVerdict::interrupted
        };
        self.recordings
            .get_or_create(&RecordingLabels { verdict })
            .inc();
    }

    /// Counts one failure of the recorder.
    pub fn recorder_failed(&self, part: RecorderPart) {
        self.recorder_failures
            .get_or_create(&RecorderLabels { part })
            .inc();
    }

    /// Notes how much the spool holds.
    pub fn spool_used(&self, bytes: u64) {
        self.spool.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts one answer to a token question.
    pub fn review(&self, result: Review) {
        self.reviews.get_or_create(&ReviewLabels { result }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_open_metrics_and_holds_every_name() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.review(Review::cached);
        metrics
            .ended
            .get_or_create(&EndLabels {
                reason: Label("by_pod"),
            })
            .inc();
        metrics
            .refused
            .get_or_create(&RefusalLabels {
                reason: Kind::Unauthenticated,
            })
            .inc();
        metrics
            .bytes
            .get_or_create(&DirectionLabels {
                direction: Direction::to_pod,
            })
            .inc_by(3);
        metrics
            .dial
            .get_or_create(&DialLabels {
                result: Dial::upgraded,
            })
            .observe(0.004);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "drawbridge_gateway_connections_open 0",
            r#"drawbridge_gateway_connections_ended_total{reason="by_pod"} 1"#,
            r#"drawbridge_gateway_requests_refused_total{reason="unauthenticated"} 1"#,
            r#"drawbridge_gateway_payload_bytes_total{direction="to_pod"} 3"#,
            r#"drawbridge_gateway_upstream_dial_seconds_count{result="upgraded"} 1"#,
            r#"drawbridge_gateway_token_reviews_total{result="cached"} 1"#,
            "drawbridge_gateway_sessions_watch_up 0",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
