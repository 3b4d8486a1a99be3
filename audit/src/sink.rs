//! Where events go. Each sink reads the spool at its own pace; what it has taken, a cursor on disk says.
//!
//! Every sink gets the lines as they were written, byte for byte, for their hashes to hold wherever they are verified.
//! Delivery is at least once: what was delivered in the last half second before a crash is delivered again, and so is
//! a batch a sink did not acknowledge whole.

mod address;
mod file;
mod kafka;
mod nats;
mod stdout;
mod tls;
mod webhook;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::address::Address;
pub(crate) use self::address::bytes;

use crate::event::{Event, Facts, Type};
use crate::log::spool::{Position, read};
use crate::log::{Cursors, Log, blocking, lost, store};
use crate::metrics::{Metrics, SinkLabels};

/// Most events delivered together.
const MAX_LINES: usize = 512;
/// Most bytes delivered together, but for a single longer line: half of what NATS takes in one message by default.
const MAX_BYTES: usize = 512 * 1024;
/// Longest secret, in bytes: a file that is longer is not one.
const MAX_SECRET: u64 = 4096;
/// How long a sink may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Failures in a row before an event says so: one that is over at the second try is not worth a line.
const TOLD_AFTER: u32 = 3;
/// How long what was delivered may be ahead of the cursor on disk: what a crash delivers again.
const STORE: Duration = Duration::from_millis(500);

/// Why a sink did not take a batch.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It has no certificates to trust, or a file of them cannot be used.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// It was not reached, or did not acknowledge.
    #[error("{0}")]
    Refused(String),
    /// It wants fewer events at once.
    #[error("it does not take so many events at once")]
    TooLarge,
    /// It took too long.
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// Lines on their way to a sink.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The lines, each with its newline.
    pub(crate) bytes: Bytes,
    /// How many.
    pub(crate) count: usize,
}

impl Batch {
    /// Each line without its newline.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Bytes> {
        let ends = memchr::memchr_iter(b'\n', &self.bytes);
        let mut begin = 0;
        ends.map(move |end| {
            let line = self.bytes.slice(begin..end);
            begin = end + 1;
            line
        })
    }
}

/// What a sink needs to know of a line.
#[derive(Debug, Deserialize)]
pub(crate) struct Head {
    /// The event's id.
    pub(crate) id: String,
    /// Whose chain it is in.
    pub(crate) instance: String,
    /// Its place there.
    pub(crate) seq: u64,
}

impl Head {
    pub(crate) fn of(line: &[u8]) -> Result<Self, SinkError> {
        serde_json::from_slice(line).map_err(|error| {
            SinkError::Refused(format!("the spool holds a line that is no event: {error}"))
        })
    }
}

/// The outcome of a delivery.
pub(crate) type Delivered<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// Takes events.
pub(crate) trait Sink: Send + Sync {
    /// Takes a batch. `Ok`: all of it is safe there. After an error all of it is delivered again.
    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> Delivered<'a>;

    /// How long it may take for a batch; `None`: as long as it wants, because it cannot be interrupted.
    fn timeout(&self) -> Option<Duration> {
        Some(TIMEOUT)
    }
}

/// One sink and how far it is.
pub(crate) struct Delivery {
    pub(crate) name: String,
    /// The address, for people.
    pub(crate) shown: String,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) directory: PathBuf,
    pub(crate) synced: watch::Receiver<Position>,
    pub(crate) cursors: Arc<Cursors>,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
}

/// How a sink has been doing.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    since: Option<Instant>,
}

impl Delivery {
    /// Delivers until everything is delivered after `stop`, or a delivery fails after it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let labels = SinkLabels::of(&self.name);
        let counts = Arc::clone(&self.metrics.0);
        counts.sink_up.get_or_create(&labels).set(1);
        let mut at = self.position();
        let mut stored = at;
        let mut store_at = Instant::now() + STORE;
        let mut trouble = Trouble::default();
        let mut most = MAX_LINES;
        loop {
            // Asked before the end is looked up: whoever sees the writer gone sees all it wrote.
            let ending = stop.is_cancelled() || self.synced.has_changed().is_err();
            let end = *self.synced.borrow_and_update();
            at = at.max(self.position()); // what was dropped is passed over
            if stored != at && (store_at <= Instant::now() || (at >= end && ending)) {
                self.store(at).await;
                (stored, store_at) = (at, Instant::now() + STORE);
            }
            if at >= end {
                if ending {
                    return;
                }
                tokio::select! {
                    _ = self.synced.changed() => {}
                    () = sleep_until(store_at), if stored != at => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            match self.deliver(at, end, most).await {
                Ok((next, count)) => {
                    at = next;
                    self.cursors.set(&self.name, at);
                    counts.delivered.get_or_create(&labels).inc_by(count);
                    counts.sink_up.get_or_create(&labels).set(1);
                    self.recovered(&std::mem::take(&mut trouble));
                    let dropped = self.cursors.take_dropped(&self.name);
                    if dropped > 0 {
                        self.log.emit(lost(dropped, Some(self.name.clone())));
                    }
                    most = (most * 2).min(MAX_LINES);
                }
                Err(SinkError::TooLarge) if most > 1 => most /= 2,
                Err(error) => {
                    counts.sink_errors.get_or_create(&labels).inc();
                    counts.sink_up.get_or_create(&labels).set(0);
                    self.failed(&mut trouble, &error);
                    if stored != at {
                        self.store(at).await;
                        stored = at;
                    }
                    if stop.is_cancelled() {
                        return; // the next run goes on
                    }
                    let pause = Instant::now() + pause(trouble.failures, rand::random());
                    tokio::select! { () = sleep_until(pause) => {}, () = stop.cancelled() => {} }
                }
            }
        }
    }

    fn position(&self) -> Position {
        self.cursors.get(&self.name).unwrap_or_default()
    }

    async fn deliver(
        &mut self,
        at: Position,
        end: Position,
        most: usize,
    ) -> Result<(Position, u64), SinkError> {
        let directory = self.directory.clone();
        let lines = blocking(move || read(&directory, at, end, most, MAX_BYTES)).await;
        let lines = lines.map_err(|source| SinkError::File {
            path: self.directory.clone(),
            source,
        })?;
        let batch = Batch {
            bytes: lines.bytes.into(),
            count: lines.count,
        };
        if batch.count > 0 {
            let limit = self.sink.timeout();
            let delivered = self.sink.deliver(&batch);
            match limit {
                Some(limit) => timeout(limit, delivered)
                    .await
                    .unwrap_or(Err(SinkError::Timeout))?,
                None => delivered.await?,
            }
        }
        Ok((lines.next, batch.count as u64))
    }

    async fn store(&self, at: Position) {
        let (directory, name) = (self.directory.clone(), self.name.clone());
        let shown = self.shown.clone();
        let stored = blocking(move || store(&directory, &name, &shown, at)).await;
        if let Err(error) = stored {
            warn!(sink = self.name, %error, "cannot store how far this audit sink is; after a crash it gets some events twice");
        }
    }

    fn failed(&self, trouble: &mut Trouble, error: &SinkError) {
        trouble.failures += 1;
        trouble.since.get_or_insert_with(Instant::now);
        if trouble.failures != TOLD_AFTER {
            return;
        }
        let why = chain(error);
        warn!(
            sink = self.name,
            address = self.shown,
            error = why,
            "an audit sink does not take events; they wait in the spool"
        );
        let facts = Facts {
            sink: Some(self.name.clone()),
            message: Some(why),
            ..Facts::default()
        };
        self.log.emit(Event::now(Type::SinkFailed, facts));
    }

    fn recovered(&self, trouble: &Trouble) {
        let Some(since) = trouble.since.filter(|_| trouble.failures >= TOLD_AFTER) else {
            return;
        };
        info!(
            sink = self.name,
            address = self.shown,
            "an audit sink takes events again"
        );
        let facts = Facts {
            sink: Some(self.name.clone()),
            duration_seconds: Some(since.elapsed().as_secs_f64()),
            ..Facts::default()
        };
        self.log.emit(Event::now(Type::SinkRecovered, facts));
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The pause after so many failures, made up to a quarter longer by `random`, so that replicas do not come all at once.
fn pause(failures: u32, random: u64) -> Duration {
    let doubled = 1 << failures.saturating_sub(1).min(16);
    let pause = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
    let quarter = u64::try_from(pause.as_millis()).unwrap_or_default() / 4;
    pause + Duration::from_millis(random % (quarter + 1))
}

/// The secret in a file, without the space around it.
async fn secret(path: &Path) -> Result<String, SinkError> {
    let failed = |source| SinkError::File {
        path: path.to_owned(),
        source,
    };
    if tokio::fs::metadata(path).await.map_err(failed)?.len() > MAX_SECRET {
        return Err(failed(io::Error::other("it is too long for a secret")));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(failed(io::Error::other("it is empty")));
    }
    Ok(secret.to_owned())
}

/// An error and what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_their_limit() {
        let pauses: Vec<u128> = [1, 2, 3, 8, 40]
            .map(|failures| pause(failures, 0).as_millis())
            .to_vec();
        assert_eq!(pauses, [250, 500, 1000, 30_000, 30_000]);
        assert!(pause(40, u64::MAX) <= LONGEST_PAUSE * 5 / 4);
    }

    #[test]
    fn a_batch_falls_into_its_lines() {
        let batch = Batch {
            bytes: Bytes::from_static(b"a\n\nbc\n"),
            count: 3,
        };
        assert_eq!(batch.lines().collect::<Vec<_>>(), ["a", "", "bc"]);
    }
}
