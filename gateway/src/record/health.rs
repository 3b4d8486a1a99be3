//! Whether recordings can be made and stored: on record once when that ends, and once when it works again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drawbridge_audit::event::Type;
use drawbridge_audit::log::Log;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::told;

/// What can fail for all recordings at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// This machine's disk, or the bound of the spool.
    Spool,
    /// Where recordings are kept.
    Store,
}

/// How both parts have been doing.
#[derive(Debug)]
pub(super) struct Health {
    log: Log,
    metrics: Arc<Metrics>,
    spool: Mutex<Trouble>,
    store: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// In a row.
    failures: u32,
    since: Option<Instant>,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Spool => "spool",
            Self::Store => "store",
        }
    }

    /// Failures in a row that are an outage. A store across a network fails now and then, and is asked again anyway.
    fn patience(self) -> u32 {
        match self {
            Self::Spool => 1,
            Self::Store => 3,
        }
    }
}

impl Health {
    pub(super) fn new(log: Log, metrics: Arc<Metrics>) -> Self {
        metrics.store_up.set(1); // until they prove otherwise
        metrics.spool_up.set(1);
        Self {
            log,
            metrics,
            spool: Mutex::default(),
            store: Mutex::default(),
        }
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Whether it did what it was asked last.
    pub(super) fn is_up(&self, part: Part) -> bool {
        self.trouble(part).failures == 0
    }

    /// It failed.
    pub(super) fn failed(&self, part: Part, why: &str) {
        let failures = {
            let mut trouble = self.trouble(part);
            trouble.failures = trouble.failures.saturating_add(1);
            trouble.since.get_or_insert_with(Instant::now);
            trouble.failures
        };
        self.gauge(part).set(0);
        if failures == part.patience() {
            let event = told::recorder(Type::RecorderFailed, part.word(), Some(why), None);
            self.log.emit(event);
        }
    }

    /// It did what it was asked.
    pub(super) fn works(&self, part: Part) {
        let before = std::mem::take(&mut *self.trouble(part));
        self.gauge(part).set(1);
        if before.failures >= part.patience() {
            let lasted = before.since.map(|since| since.elapsed());
            let event = told::recorder(Type::RecorderRecovered, part.word(), None, lasted);
            self.log.emit(event);
            let seconds = lasted.unwrap_or(Duration::ZERO).as_secs();
            tracing::info!(?part, seconds, "recording works again");
        }
    }

    fn gauge(&self, part: Part) -> &Gauge {
        match part {
            Part::Spool => &self.metrics.spool_up,
            Part::Store => &self.metrics.store_up,
        }
    }

    fn trouble(&self, part: Part) -> MutexGuard<'_, Trouble> {
        let trouble = match part {
            Part::Spool => &self.spool,
            Part::Store => &self.store,
        };
        trouble.lock().unwrap_or_else(PoisonError::into_inner) // a count and a time, whole at any moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_once_and_its_end_once_with_how_long_it_was() {
        let (log, mut emitted) = Log::for_tests(16);
        let health = Health::new(log, Arc::new(Metrics::unregistered()));
        health.failed(Part::Store, "a hiccup");
        health.works(Part::Store);
        assert!(emitted.take().is_none(), "one failure is none");
        for _ in 0..10 {
            health.failed(Part::Store, "no route");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(!health.is_up(Part::Store) && health.is_up(Part::Spool));
        assert_eq!(health.metrics.store_up.get(), 0);
        health.works(Part::Store);
        health.works(Part::Store);
        let failed = emitted.take().expect("told");
        assert_eq!(failed.kind(), Type::RecorderFailed);
        assert_eq!(failed.facts().reason.as_deref(), Some("store"));
        assert_eq!(failed.facts().message.as_deref(), Some("no route"));
        let recovered = emitted.take().expect("told");
        assert_eq!(recovered.kind(), Type::RecorderRecovered);
        assert_eq!(recovered.facts().duration_seconds, Some(10.0));
        assert!(emitted.take().is_none());
        health.failed(Part::Spool, "full");
        assert!(emitted.take().is_some(), "a disk is not tried again");
    }
}
