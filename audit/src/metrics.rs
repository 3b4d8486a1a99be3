//! What the log counts. The same names in every program; the label `sink` has as many values as there are flags.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds. A write and its sync take 0.1 ms on a good disk and 10 ms on a poor one; 1 s is a disk in trouble.
const WRITE_BUCKETS: [f64; 8] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1., 10.];

/// Every metric of a log; registered once.
#[derive(Clone, Debug)]
pub struct Metrics(pub(crate) Arc<Counts>);

#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) written: Counter,
    pub(crate) dropped: Counter,
    pub(crate) suppressed: Counter,
    pub(crate) write_errors: Counter,
    pub(crate) write_seconds: Histogram,
    pub(crate) accepting: Gauge,
    pub(crate) spool_bytes: Gauge,
    pub(crate) delivered: Family<SinkLabels, Counter>,
    pub(crate) sink_errors: Family<SinkLabels, Counter>,
    pub(crate) sink_dropped: Family<SinkLabels, Counter>,
    pub(crate) sink_up: Family<SinkLabels, Gauge>,
    pub(crate) backlog: Family<SinkLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct SinkLabels {
    /// The sink's name: its kind and a hash of its address.
    pub(crate) sink: String,
}

impl SinkLabels {
    pub(crate) fn of(sink: &str) -> Self {
        Self {
            sink: sink.to_owned(),
        }
    }
}

impl Metrics {
    /// The metrics, registered under `drawbridge_audit`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let Self(counts) = Self::unregistered();
        let registry = registry.sub_registry_with_prefix("drawbridge_audit");
        registry.register(
            "events_written",
            "Audit events synced to the spool",
            counts.written.clone(),
        );
        registry.register(
            "events_dropped",
            "Audit events that are in no log: the spool could not take them. Alert on any",
            counts.dropped.clone(),
        );
        registry.register(
            "refusals_suppressed",
            "Refusals that were counted and not written, because there were too many",
            counts.suppressed.clone(),
        );
        registry.register(
            "write_errors",
            "Failed writes to the spool; each is tried again",
            counts.write_errors.clone(),
        );
        registry.register_with_unit(
            "write",
            "Time to write and sync a batch of events",
            Unit::Seconds,
            counts.write_seconds.clone(),
        );
        registry.register(
            "accepting",
            "1 while events can be written; at 0 new sessions are refused. Alert on 0",
            counts.accepting.clone(),
        );
        registry.register_with_unit(
            "spool",
            "Size of the spool: what the slowest sink has not taken yet, and up to two segments more",
            Unit::Bytes,
            counts.spool_bytes.clone(),
        );
        registry.register(
            "sink_events_delivered",
            "Events a sink has taken; some may have been delivered twice",
            counts.delivered.clone(),
        );
        registry.register(
            "sink_errors",
            "Failed deliveries; each is tried again",
            counts.sink_errors.clone(),
        );
        registry.register(
            "sink_events_dropped",
            "Events that a sink will not get: it was behind for longer than the spool could wait. Alert on any",
            counts.sink_dropped.clone(),
        );
        registry.register(
            "sink_up",
            "1 while the last delivery was taken, 0 while deliveries fail",
            counts.sink_up.clone(),
        );
        registry.register_with_unit(
            "sink_backlog",
            "What a sink has not taken yet",
            Unit::Bytes,
            counts.backlog.clone(),
        );
        Self(counts)
    }

    /// The metrics alone; nobody reads them.
    #[must_use]
    pub fn unregistered() -> Self {
        Self(Arc::new(Counts {
            written: Counter::default(),
            dropped: Counter::default(),
            suppressed: Counter::default(),
            write_errors: Counter::default(),
            write_seconds: Histogram::new(WRITE_BUCKETS),
            accepting: Gauge::default(),
            spool_bytes: Gauge::default(),
            delivered: Family::default(),
            sink_errors: Family::default(),
            sink_dropped: Family::default(),
            sink_up: Family::default(),
            backlog: Family::default(),
        }))
    }
}

/// A number of bytes as a gauge takes it.
pub(crate) fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
