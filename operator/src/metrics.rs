//! What the operator counts. Registered once, passed in; every label is a closed enum.

use std::fmt;

use drawbridge_crds::v1alpha1::Phase;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Guarded;

/// Seconds. From a grant on an idle API server (about 30 ms) to well past the promise of 2 s.
const GRANT_BUCKETS: [f64; 9] = [0.02, 0.05, 0.1, 0.2, 0.5, 1., 2., 5., 10.];

/// How a pass over one session ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Outcome {
    /// Everything is as it should be.
    Ok,
    /// The session changed meanwhile; tried again at once.
    Conflict,
    /// Something failed; tried again after a pause.
    Error,
    /// The session cannot be parsed; skipped.
    Malformed,
}

/// What failed.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum ErrorKind {
    /// A read from the API server.
    Read,
    /// A write to the API server.
    Write,
    /// The API server did not answer in time.
    Timeout,
    /// An object of the same name that is not ours.
    NameTaken,
    /// A watch; it is started again.
    Watch,
    /// An Event could not be published.
    Event,
    /// The lease could not be read or written.
    Lease,
    /// A session's objects were changed again and again; its repair pauses.
    Contested,
    /// An audit event could not be written; nothing is granted without.
    Audit,
    /// A bug: a pass panicked.
    Panic,
}

/// A kind of write to the API server.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Verb {
    /// Made an object.
    Create,
    /// Changed an object.
    Patch,
    /// Wrote a session's status.
    Status,
    /// Deleted an object.
    Delete,
    /// Asked for a token.
    Token,
    /// Published an Event.
    Event,
    /// Wrote the lease.
    Lease,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: Outcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    kind: ErrorKind,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: Verb,
}

/// Every metric of the operator.
#[derive(Debug)]
pub struct Metrics {
    passes: Family<OutcomeLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    writes: Family<VerbLabels, Counter>,
    grant_seconds: Histogram,
    leader: Gauge,
}

impl Metrics {
    /// Adds everything to `registry` under `drawbridge_operator_`; sessions are counted in `sessions` when asked.
    #[must_use]
    pub fn register(registry: &mut Registry, sessions: Store<Guarded>) -> Self {
        let metrics = Self {
            passes: Family::default(),
            errors: Family::default(),
            writes: Family::default(),
            grant_seconds: Histogram::new(GRANT_BUCKETS),
            leader: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("drawbridge_operator");
        registry.register(
            "passes",
            "Passes over one session, by outcome. Error that keeps growing: see the log, or the sessions' Ready condition",
            metrics.passes.clone(),
        );
        registry.register(
            "errors",
            "What failed, by kind. All are tried again; alert on Panic, NameTaken and Contested, and on any other that keeps growing",
            metrics.errors.clone(),
        );
        registry.register(
            "api_writes",
            "Writes sent to the API server, refused ones too. At rest only Lease grows",
            metrics.writes.clone(),
        );
        registry.register(
            "grant_seconds",
            "Time from the decision to grant until the session was Ready: the API server's answers to about ten writes",
            metrics.grant_seconds.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica decides, 0 while it stands by. The sum over all replicas should be 1",
            metrics.leader.clone(),
        );
        registry.register_collector(Box::new(Sessions(sessions)));
        metrics
    }

    pub(crate) fn pass(&self, outcome: Outcome) {
        self.passes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        self.errors.get_or_create(&ErrorLabels { kind }).inc();
    }

    pub(crate) fn write(&self, verb: Verb) {
        self.writes.get_or_create(&VerbLabels { verb }).inc();
    }

    pub(crate) fn granted(&self, seconds: f64) {
        self.grant_seconds.observe(seconds);
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}

/// Sessions by phase, counted in the watch cache at the moment of the scrape.
#[derive(Debug)]
struct Sessions(Store<Guarded>);

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
enum Counted {
    New,
    Pending,
    Scheduled,
    Ready,
    Expired,
    Revoked,
    Failed,
    Malformed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CountedLabels {
    phase: Counted,
}

impl Counted {
    const ALL: [Self; 8] = [
        Self::New,
        Self::Pending,
        Self::Scheduled,
        Self::Ready,
        Self::Expired,
        Self::Revoked,
        Self::Failed,
        Self::Malformed,
    ];

    fn of(session: &Guarded) -> Self {
        let Ok(session) = &session.0 else {
            return Self::Malformed;
        };
        match session.status.as_ref().and_then(|status| status.phase) {
            None => Self::New,
            Some(Phase::Pending) => Self::Pending,
            Some(Phase::Scheduled) => Self::Scheduled,
            Some(Phase::Ready) => Self::Ready,
            Some(Phase::Expired) => Self::Expired,
            Some(Phase::Revoked) => Self::Revoked,
            Some(Phase::Failed) => Self::Failed,
        }
    }
}

impl Collector for Sessions {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut counts = [0_i64; Counted::ALL.len()];
        for session in self.0.state() {
            counts[Counted::of(&session) as usize] += 1;
        }
        let gauge = ConstGauge::new(0_i64);
        let mut family = encoder.encode_descriptor(
            "sessions",
            "Sessions that exist, by phase. New: not looked at yet; Malformed: cannot be parsed and is skipped",
            None,
            gauge.metric_type(),
        )?;
        for phase in Counted::ALL {
            let labels = CountedLabels { phase };
            ConstGauge::new(counts[phase as usize]).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store::Writer;

    use super::*;

    #[test]
    fn every_metric_is_in_the_text_with_its_labels() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, Writer::<Guarded>::default().as_reader());
        metrics.pass(Outcome::Ok);
        metrics.error(ErrorKind::NameTaken);
        metrics.write(Verb::Token);
        metrics.granted(0.04);
        metrics.leads(true);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "drawbridge_operator_passes_total{outcome=\"Ok\"} 1",
            "drawbridge_operator_errors_total{kind=\"NameTaken\"} 1",
            "drawbridge_operator_api_writes_total{verb=\"Token\"} 1",
            "drawbridge_operator_grant_seconds_bucket{le=\"0.05\"} 1",
            "drawbridge_operator_leader 1",
            "drawbridge_operator_sessions{phase=\"Ready\"} 0",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }
}
