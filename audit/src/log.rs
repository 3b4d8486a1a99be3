//! The audit log of one process.
//!
//! ```text
//!  emit, record ─► queue ─► writer: chain, checkpoints ─► spool (synced) ─┬─► sink, cursor, back-off
//!                  bounded                                bounded         └─► sink, cursor, back-off
//! ```
//!
//! Nobody who emits waits for a disk, but who [`record`](Log::record)s: then the event is synced before what it tells of
//! becomes true. A sink reads the spool at its own pace; what the slowest has not taken yet is kept, across restarts,
//! until the spool is full. Then, as [`WhenFull`] says, either no new session begins or the oldest events are dropped.

mod cursor;
mod flags;
mod limit;
pub(crate) mod spool;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::flags::Flags;
pub use self::spool::OpenError;

pub(crate) use self::cursor::{Cursors, store};

use self::limit::Limit;
use self::spool::Spool;
pub(crate) use self::writer::lost;

use self::writer::Writer;
use crate::event::{Component, Event, Facts, Type};
use crate::keys::SigningKey;
use crate::metrics::Metrics;
use crate::sink::{Address, Delivery, Sink, SinkError};

/// Events on their way to the writer. At 1,000 a second, eight seconds of a disk that hangs; about 8 MiB.
const QUEUE: usize = 8192;
/// How long [`Log::record`] waits for the disk before it says that the event cannot be written.
const RECORD: Duration = Duration::from_secs(5);
/// How long a new process waits for the one before it to let go of the spool: the longest the gateway drains.
const LOCK: Duration = Duration::from_mins(1);
/// Pause between two looks whether it has.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How long sinks may still take events when the process ends. What is left is delivered by the next one.
const FLUSH: Duration = Duration::from_secs(5);
/// Refusals of strangers written: 100 at once, then 10 a second: a scan is seen, a flood is counted.
const STRANGERS: (u32, Duration) = (100, Duration::from_millis(100));
/// Refusals of people with a session: 1,000 at once, then 100 a second.
const KNOWN: (u32, Duration) = (1000, Duration::from_millis(10));

/// What becomes of events that cannot be written, or not delivered for so long that the spool is full.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// No new session begins until there is room.
    Refuse,
    /// The oldest events are dropped, and an event says how many.
    DropOldest,
}

/// What a log is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the spool is. Made if need be; one process at a time.
    pub directory: PathBuf,
    /// Which program this is.
    pub component: Component,
    /// What this replica calls itself: the pod's name.
    pub name: String,
    /// Most bytes of the spool. At least 1 MiB; below, 1 MiB.
    pub max_bytes: u64,
    /// What becomes of events beyond.
    pub when_full: WhenFull,
    /// Where events go.
    pub sinks: Vec<Address>,
    /// A checkpoint after this many events. At least 1.
    pub checkpoint_events: u64,
    /// A checkpoint after this long, if there was an event.
    pub checkpoint_interval: Duration,
}

/// Why an event is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit events cannot be written: {0}")]
pub struct Unwritten(Arc<str>);

/// What the sinks could not be made of, or the spool.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] OpenError),
    /// A sink.
    #[error("the audit sink {sink} cannot be used")]
    Sink {
        /// As it was written, without secrets.
        sink: String,
        /// Why.
        #[source]
        source: SinkError,
    },
}

/// Writes events. Clones write to the same log.
#[derive(Clone, Debug)]
pub struct Log(Option<Arc<Shared>>);

/// An event on its way, and who waits until it is synced.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) event: Event,
    pub(crate) synced: Option<oneshot::Sender<Result<(), Unwritten>>>,
}

/// What the emitting and the writing side share.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: mpsc::Sender<Entry>,
    when_full: WhenFull,
    /// Why no new session may begin; `None` while it may.
    trouble: Mutex<Option<Arc<str>>>,
    /// Events dropped since the writer last said so.
    dropped: AtomicU64,
    strangers: Limit,
    known: Limit,
    signer: watch::Sender<Option<Arc<SigningKey>>>,
    metrics: Metrics,
}

/// A log that is written.
#[derive(Debug)]
#[must_use = "what is still queued is lost unless it is stopped"]
pub struct Running {
    stop: CancellationToken,
    writer: JoinHandle<()>,
    sinks: TaskTracker,
    sinks_stop: CancellationToken,
}

impl Log {
    /// Opens the spool and begins to write and deliver. The first event is `Started`.
    ///
    /// # Errors
    /// When the spool or a sink cannot be used at all. A sink that cannot be reached is no error: it is tried again.
    pub async fn start(config: Config, metrics: Metrics) -> Result<(Self, Running), StartError> {
        let (log, queue) = Self::channel(QUEUE, config.when_full, metrics.clone());
        let Config {
            directory,
            component,
            name,
            max_bytes,
            when_full: _,
            sinks,
            checkpoint_events,
            checkpoint_interval,
        } = config;
        let max_bytes = max_bytes.max(1 << 20);
        let segment = (max_bytes / 16).min(8 << 20);
        let opened = open(directory.clone(), segment).await?;
        let (spool, found) = opened;
        if found.torn > 0 {
            warn!(
                bytes = found.torn,
                "removed an audit event the last run did not finish writing; nobody was told of it"
            );
        }
        let cursors = Arc::new(Cursors::default());
        let (end, synced) = watch::channel(spool.end());
        let mut deliveries = Vec::new();
        for address in sinks {
            let shown = address.to_string();
            let failed = |source| StartError::Sink {
                sink: shown.clone(),
                source,
            };
            let sink: Box<dyn Sink> = address.open().await.map_err(failed)?;
            deliveries.push(Delivery {
                name: address.name(),
                shown: shown.clone(),
                sink,
                directory: directory.clone(),
                synced: synced.clone(),
                cursors: Arc::clone(&cursors),
                log: log.clone(),
                metrics: metrics.clone(),
            });
        }
        cursors_of(
            &directory,
            &deliveries,
            &cursors,
            spool.begin(),
            spool.end(),
        )
        .await?;
        let stop = CancellationToken::new();
        let writer = Writer::new(
            writer::Parts {
                component,
                instance: format!("{name}/{}", uuid::Uuid::now_v7()),
                spool,
                max_bytes,
                checkpoint_events: checkpoint_events.max(1),
                checkpoint_interval,
                directory,
            },
            &log,
            queue,
            end,
            cursors,
        );
        let started = Facts {
            predecessor: found.predecessor,
            message: Some(format!("version {}", env!("CARGO_PKG_VERSION"))),
            ..Facts::default()
        };
        log.emit(Event::now(Type::Started, started));
        let writer = tokio::spawn(writer.run(stop.clone()));
        let (tracker, sinks_stop) = (TaskTracker::new(), CancellationToken::new());
        for delivery in deliveries {
            tracker.spawn(delivery.run(sinks_stop.clone()));
        }
        tracker.close();
        let running = Running {
            stop,
            writer,
            sinks: tracker,
            sinks_stop,
        };
        Ok((log, running))
    }

    /// Keeps nothing, and always can: for tests of what emits.
    #[must_use]
    pub fn discard() -> Self {
        Self(None)
    }

    /// The emitting side, and what comes out of it: for tests of what emits. Who records waits until the entry is
    /// [answered](Emitted::take).
    #[must_use]
    pub fn for_tests(capacity: usize) -> (Self, Emitted) {
        let (log, queue) = Self::channel(capacity, WhenFull::Refuse, Metrics::unregistered());
        log.accept();
        (log, Emitted(queue))
    }

    fn channel(
        capacity: usize,
        when_full: WhenFull,
        metrics: Metrics,
    ) -> (Self, mpsc::Receiver<Entry>) {
        let (queue, entries) = mpsc::channel(capacity);
        let shared = Shared {
            queue,
            when_full,
            trouble: Mutex::new(None),
            dropped: AtomicU64::new(0),
            strangers: Limit::new(STRANGERS.0, STRANGERS.1),
            known: Limit::new(KNOWN.0, KNOWN.1),
            signer: watch::Sender::new(None),
            metrics,
        };
        (Self(Some(Arc::new(shared))), entries)
    }

    /// Writes `event` soon. Never waits; when the queue is full the event is dropped and counted.
    pub fn emit(&self, event: Event) {
        let Some(shared) = &self.0 else { return };
        if shared
            .queue
            .try_send(Entry {
                event,
                synced: None,
            })
            .is_err()
        {
            shared.drop_event();
        }
    }

    /// Writes `event` and waits until it is synced, 5 s at most. While the oldest are dropped for want of room, an event
    /// that cannot be written is counted instead.
    ///
    /// # Errors
    /// That it cannot be written, and what it tells of must not happen.
    pub async fn record(&self, event: Event) -> Result<(), Unwritten> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let (synced, answer) = oneshot::channel();
        let entry = Entry {
            event,
            synced: Some(synced),
        };
        let written = timeout(RECORD, async {
            let ended = || Unwritten("the log has ended".into());
            shared.queue.send(entry).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        });
        let written = written.await.unwrap_or_else(|_| {
            let why = shared.trouble();
            Err(Unwritten(
                why.unwrap_or_else(|| "the disk does not answer".into()),
            ))
        });
        match (written, shared.when_full) {
            (Err(_), WhenFull::DropOldest) => {
                shared.drop_event();
                Ok(())
            }
            (written, _) => written,
        }
    }

    /// Writes that a request was refused, unless there were too many like it: then it is counted, and the next one
    /// that is written says how many. `stranger`: whoever asked has shown no session.
    pub fn refused(&self, stranger: bool, facts: impl FnOnce() -> Facts) {
        let Some(shared) = &self.0 else { return };
        let limit = if stranger {
            &shared.strangers
        } else {
            &shared.known
        };
        let Some(suppressed) = limit.pass() else {
            shared.metrics.0.suppressed.inc();
            return;
        };
        let mut facts = facts();
        facts.suppressed = Some(suppressed).filter(|suppressed| *suppressed > 0);
        self.emit(Event::now(Type::Refused, facts));
    }

    /// Whether a new session may begin.
    ///
    /// # Errors
    /// Why not: its events could not be written, or nobody takes them.
    pub fn accepts(&self) -> Result<(), Unwritten> {
        let Some(shared) = &self.0 else { return Ok(()) };
        match (shared.trouble(), shared.when_full) {
            (Some(why), WhenFull::Refuse) => Err(Unwritten(why)),
            _ => Ok(()),
        }
    }

    /// Signs checkpoints with `key` from now on.
    pub fn sign_with(&self, key: Arc<SigningKey>) {
        if let Some(shared) = &self.0 {
            shared.signer.send_replace(Some(key));
        }
    }

    fn accept(&self) {
        if let Some(shared) = &self.0 {
            shared.set_trouble(None);
        }
    }
}

impl Shared {
    fn drop_event(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.metrics.0.dropped.inc();
    }

    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_trouble(&self, why: Option<Arc<str>>) {
        self.metrics.0.accepting.set(why.is_none().into());
        let before = {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *trouble, why.clone())
        };
        match (before, why) {
            (None, Some(why)) => warn!(%why, "audit events cannot be written or delivered"),
            (Some(_), None) => info!("audit events can be written and delivered again"),
            _ => {}
        }
    }
}

impl Running {
    /// Writes what is queued, then `Stopped`; gives the sinks up to 5 s to take it.
    pub async fn stop(self) {
        let Self {
            stop,
            writer,
            sinks,
            sinks_stop,
        } = self;
        stop.cancel();
        if let Err(error) = writer.await {
            warn!(%error, "the audit log did not end in good order");
        }
        sinks_stop.cancel();
        if timeout(FLUSH, sinks.wait()).await.is_err() {
            info!(
                "some audit events are not delivered yet; the next run delivers them from the spool"
            );
        }
    }
}

/// What a [`Log::for_tests`] was told.
#[derive(Debug)]
pub struct Emitted(mpsc::Receiver<Entry>);

impl Emitted {
    /// The next event; who recorded it is told that it is synced. `None` when there is none.
    pub fn take(&mut self) -> Option<Event> {
        let Entry { event, synced } = self.0.try_recv().ok()?;
        if let Some(synced) = synced {
            let _ = synced.send(Ok(())); // who gave up waiting needs no answer
        }
        Some(event)
    }

    /// The next event, waiting for it; who recorded it is told that it is synced. `None` when every log is gone.
    pub async fn next(&mut self) -> Option<Event> {
        let Entry { event, synced } = self.0.recv().await?;
        if let Some(synced) = synced {
            let _ = synced.send(Ok(()));
        }
        Some(event)
    }
}

/// Opens the spool, once whoever had it lets go.
async fn open(directory: PathBuf, segment: u64) -> Result<(Spool, spool::Found), OpenError> {
    let attempts = async {
        let mut told = false;
        loop {
            let directory = directory.clone();
            match blocking(move || Spool::open(&directory, segment)).await {
                Err(OpenError::Locked(directory)) if !told => {
                    info!(
                        directory = %directory.display(),
                        "waiting for another process to let go of the audit spool"
                    );
                    told = true;
                }
                Err(OpenError::Locked(_)) => {}
                opened => return opened,
            }
            sleep(LOCK_PAUSE).await;
        }
    };
    let opened = timeout(LOCK, attempts).await;
    opened.unwrap_or_else(|_| Err(OpenError::Locked(directory.clone())))
}

/// Puts every sink where it was; a new one at the beginning of what is kept.
async fn cursors_of(
    directory: &std::path::Path,
    deliveries: &[Delivery],
    cursors: &Cursors,
    begin: spool::Position,
    end: spool::Position,
) -> Result<(), OpenError> {
    let names: Vec<String> = deliveries.iter().map(|sink| sink.name.clone()).collect();
    let path = directory.to_owned();
    let found = blocking(move || {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let forgotten = cursor::forget_others(&path, &names)?;
        let positions = names.into_iter().map(|name| cursor::load(&path, name));
        Ok((forgotten, positions.collect::<Result<Vec<_>, _>>()?))
    });
    let (forgotten, positions) = found.await.map_err(|source| OpenError::Io {
        path: directory.join("cursors"),
        source,
    })?;
    for sink in forgotten {
        warn!(
            sink,
            "this audit sink is not configured any more; what it had not taken is not kept for it"
        );
    }
    for (sink, position) in deliveries.iter().zip(positions) {
        // One beyond the end is that of another spool.
        let position = position.filter(|at| (begin..=end).contains(at));
        cursors.set(&sink.name, position.unwrap_or(begin));
    }
    Ok(())
}

/// Runs `work` where it may block; its panic is ours.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and nobody is left to be told.
            Err(_) => std::future::pending().await,
        },
    }
}
