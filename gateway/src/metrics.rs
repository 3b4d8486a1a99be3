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
        metrics
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
        }
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
