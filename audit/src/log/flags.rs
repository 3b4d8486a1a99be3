//! Flags about the audit log; flatten them into the binary's own.

use std::path::PathBuf;
use std::time::Duration;

use super::{Config, Log, Running, StartError, WhenFull};
use crate::event::Component;
use crate::metrics::Metrics;
use crate::sink::{Address, bytes};

/// Flags about the audit log.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "audit")]
pub struct Flags {
    /// Where audit events go; may be repeated. `stdout`, `file:PATH#rotate=100Mi&keep=10`, `webhook:https://HOST/PATH`,
    /// `nats://HOST:PORT/SUBJECT` or `kafka://HOST:PORT/TOPIC`; docs/audit.md has the options of each. Default: `stdout`
    /// and `file:` with `log/audit.jsonl` below the spool.
    #[arg(
        long = "audit-sink",
        env = "DRAWBRIDGE_AUDIT_SINK",
        value_delimiter = ';'
    )]
    sinks: Vec<Address>,
    /// Directory where audit events are kept until every sink has taken them. Should outlive the process; one process at
    /// a time.
    #[arg(
        id = "audit_spool", // whoever flattens these may have a spool of their own
        long = "audit-spool",
        env = "DRAWBRIDGE_AUDIT_SPOOL",
        default_value = "/var/lib/drawbridge/audit"
    )]
    spool: PathBuf,
    /// Most bytes of that directory, e.g. `1Gi`; at least `1Mi`. A sink may be gone until it is full: at 1,000 events a
    /// second about 20 minutes.
    #[arg(id = "audit_spool_max", long = "audit-spool-max", env = "DRAWBRIDGE_AUDIT_SPOOL_MAX", default_value = "1Gi", value_parser = bytes)]
    spool_max: u64,
    /// What becomes of events that cannot be written, or not delivered until the spool is full: `refuse` new sessions
    /// until there is room, or `drop-oldest` events.
    #[arg(long = "audit-when-full", env = "DRAWBRIDGE_AUDIT_WHEN_FULL", value_enum, default_value_t = WhenFull::Refuse)]
    when_full: WhenFull,
    /// A signed checkpoint at least after so many audit events.
    #[arg(long = "audit-checkpoint-events", env = "DRAWBRIDGE_AUDIT_CHECKPOINT_EVENTS", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_events: u64,
    /// A signed checkpoint at least so many seconds after an audit event; 1 to 86400.
    #[arg(long = "audit-checkpoint-seconds", env = "DRAWBRIDGE_AUDIT_CHECKPOINT_SECONDS", default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    checkpoint_seconds: u64,
}

impl Flags {
    /// Begins the log of `component`, which calls itself `name`.
    ///
    /// # Errors
    /// When the spool or a sink cannot be used at all.
    pub async fn start(
        self,
        component: Component,
        name: String,
        metrics: Metrics,
    ) -> Result<(Log, Running), StartError> {
        let Self {
            mut sinks,
            spool,
            spool_max,
            when_full,
            checkpoint_events,
            checkpoint_seconds,
        } = self;
        if sinks.is_empty() {
            sinks = vec![
                Address::stdout(),
                Address::file(spool.join("log/audit.jsonl")),
            ];
        }
        let config = Config {
            directory: spool,
            component,
            name,
            max_bytes: spool_max,
            when_full,
            sinks,
            checkpoint_events,
            checkpoint_interval: Duration::from_secs(checkpoint_seconds),
        };
        Log::start(config, metrics).await
    }
}
