//! Recordings: what goes over a connection, kept for those who must be able to look later.
//!
//! ```text
//!   bridge ── tap ──► writer ──► spool ──► store          a connection's bytes on their way to the record
//!             (one     (chunks,   (this     │
//!              buffer)  fsync)     disk)    └─► ledger    `status.recordings` of the session
//!                        │
//!                        └─► live: who follows meanwhile
//! ```
//!
//! The bridge never waits for a disk; a writer per connection drains its buffer each second, on the threads for what
//! blocks. Segments go to the store as they close, the manifest last. What a killed process left in the spool is sealed
//! and delivered by the next one.

pub mod args;
pub mod console;
mod health;
pub mod keys;
pub mod ledger;
pub mod live;
pub mod retain;
mod run;
pub mod spool;
pub mod tap;
pub mod writer;

use std::sync::Arc;
use std::time::Duration;

use drawbridge_audit::log::Log;
use drawbridge_audit::recording::{Carried, End, Level, Opening, Subprotocols};
use drawbridge_audit::store::Store;
use drawbridge_crds::v1alpha1::Recorded;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use self::tap::{Room, Tap};

use self::health::{Health, Part};
use self::keys::Key;
use self::ledger::Ledger;
use self::live::Lives;
use self::retain::{Retention, Steady};
use self::spool::{Place, Spool};
use self::writer::Writer;
use crate::clock::Clock;
use crate::metrics::{Metrics, RecorderPart};

/// Writers at work at the same time: more would only wait for the same disk.
const TURNS: usize = 16;
/// Requests to the store at the same time.
const PUTS: usize = 8;
/// How long a new connection waits for the first signing key: the operator makes it when it starts.
const KEY_WAIT: Duration = Duration::from_secs(5);

/// Records connections.
pub struct Recorder {
    spool: Spool,
    store: Store,
    key: Key,
    ledger: Arc<dyn Ledger>,
    rules: Rules,
    metrics: Arc<Metrics>,
    lives: Arc<Lives>,
    turns: Semaphore,
    puts: Arc<Semaphore>,
    deliveries: TaskTracker,
    stop: CancellationToken,
    health: Health,
    clock: Steady,
}

/// What the administrator chose.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Who alone can read recordings: age recipients. Empty: everybody who has the files.
    pub recipients: Vec<String>,
    /// What is deleted from the store, and when.
    pub retention: Retention,
    /// What this gateway calls itself.
    pub instance: String,
}

/// Why a connection cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// There is no signing key yet.
    #[error("there is no key to sign recordings with; does the operator run?")]
    NoKey,
    /// The spool holds as much as it may.
    #[error("the spool is full; is the store down?")]
    Full,
    /// The disk does not take it.
    #[error(transparent)]
    Writer(#[from] writer::Error),
}

impl Unavailable {
    /// In one word, for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoKey => "key",
            Self::Full => "full",
            Self::Writer(error) => word(error),
        }
    }

    /// What a client is told.
    #[must_use]
    pub fn public(&self) -> &'static str {
        match self.word() {
            "key" => "there is no key to sign recordings with",
            "full" => "there is no room left for them",
            _ => "the gateway's disk fails",
        }
    }
}

fn word(error: &writer::Error) -> &'static str {
    if error.is_full() { "full" } else { "disk" }
}

/// A connection that is about to be opened and will be recorded: its facts are on the disk. Dropped, it leaves nothing.
#[derive(Debug)]
#[must_use = "dropping it gives the place away"]
pub struct Prepared {
    place: Place,
    opening: Opening,
    begun: Instant,
}

/// A connection that is being recorded.
#[derive(Debug)]
#[must_use = "a recording that is not finished is sealed as interrupted"]
pub struct Recording {
    end: oneshot::Sender<End>,
    sealed: oneshot::Receiver<Finished>,
}

/// What is known of a connection once its recording is sealed.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What its session's status will say.
    pub recorded: Recorded,
    /// What each stream without a terminal carried.
    pub carried: Vec<Carried>,
}

impl Recording {
    /// Ends it, the tap being gone, and waits until it is sealed on this disk. `None` if it could not be sealed yet.
    pub async fn finish(self, end: End) -> Option<Finished> {
        let Self {
            end: ending,
            sealed,
        } = self;
        let _ = ending.send(end); // a writer that failed has sealed it already
        sealed.await.ok()
    }
}

impl Recorder {
    /// A recorder; [`Recorder::look_after`] does the rest of its work.
    #[must_use]
    pub fn new(
        spool: Spool,
        store: Store,
        key: Key,
        ledger: Arc<dyn Ledger>,
        rules: Rules,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> Self {
        Self {
            health: Health::new(log, Arc::clone(&metrics)),
            clock: Steady::new(Clock::wall()),
            spool,
            store,
            key,
            ledger,
            rules,
            metrics,
            lives: Arc::default(),
            turns: Semaphore::new(TURNS),
            puts: Arc::new(Semaphore::new(PUTS)),
            deliveries: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// What this gateway calls itself, and for whom it encrypts.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Recordings being written here.
    #[must_use]
    pub fn lives(&self) -> &Arc<Lives> {
        &self.lives
    }

    /// Where finished recordings are.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The key that records are signed with.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Takes room for a recording on this disk and writes its facts there: before anything is opened that would have to be
    /// recorded. They lack the subprotocols. Times count from now.
    ///
    /// # Errors
    /// Why there can be no recording now.
    pub async fn reserve(&self, opening: Opening) -> Result<Prepared, Unavailable> {
        let begun = Instant::now();
        let mut key = self.key.clone();
        let known = async { key.wait_for(Option::is_some).await.is_ok() };
        if !timeout(KEY_WAIT, known).await.unwrap_or(false) {
            self.metrics.recorder_failed(RecorderPart::spool);
            return Err(Unavailable::NoKey);
        }
        let reserved = self.place(opening.clone()).await;
        match &reserved {
            Ok(_) => self.health.works(Part::Spool),
            Err(error) => {
                self.metrics.recorder_failed(RecorderPart::spool);
                self.health.failed(Part::Spool, &chain(error));
            }
        }
        Ok(Prepared {
            place: reserved?,
            opening,
            begun,
        })
    }

    async fn place(&self, opening: Opening) -> Result<Place, Unavailable> {
        if !self.spool.has_room() {
            return Err(Unavailable::Full);
        }
        let (spool, down) = (self.spool.clone(), !self.health.is_up(Part::Spool));
        let work = move || {
            if down {
                spool.probe()?;
            }
            Ok(spool.reserve(&opening)?)
        };
        Ok(self.blocking(work).await?)
    }

    /// Begins a recording, the pod's side being open.
    ///
    /// # Errors
    /// Why there can be no recording.
    pub async fn begin(
        self: &Arc<Self>,
        prepared: Prepared,
        subprotocols: Subprotocols,
    ) -> Result<(Recording, Tap), Unavailable> {
        let Prepared {
            place,
            opening,
            begun,
        } = prepared;
        let required = opening.settings.level == Level::Required;
        let writer = self
            .blocking(move || Ok(Box::new(Writer::begin(place, opening, subprotocols)?)))
            .await
            .inspect_err(|_| self.metrics.recorder_failed(RecorderPart::spool))?;
        let dir = writer.place().dir().to_owned();
        let listed = self.lives.list(Arc::clone(writer.opening()), dir);
        let (tap, tape) = tap::tap(begun, required);
        let (end, ending) = oneshot::channel();
        let (tell, sealed) = oneshot::channel();
        let run = run::Run {
            recorder: Arc::clone(self),
            tape,
            ending,
            begun,
            listed,
        };
        let run = run.run(writer, tell);
        self.deliveries.spawn(run.in_current_span());
        Ok((Recording { end, sealed }, tap))
    }

    /// Delivers what this process and earlier ones left in the spool, keeps counting it, and deletes from the store what
    /// is due. Never returns.
    pub async fn look_after(self: Arc<Self>) {
        let retention = tokio::spawn(Arc::clone(&self).retain());
        loop {
            self.take_up().await;
            tokio::time::sleep(run::LOOK).await;
            if retention.is_finished() && self.rules.retention.is_some() {
                tracing::error!("the retention task has ended; nothing is deleted any more");
            }
        }
    }

    /// Waits until everything is delivered, `limit` at most; what is left waits for the next process.
    pub async fn settle(&self, limit: Duration) {
        self.deliveries.close();
        if timeout(limit, self.deliveries.wait()).await.is_err() {
            self.stop.cancel();
            tracing::warn!(
                recordings = self.deliveries.len(),
                "some recordings are still in the spool; the next gateway delivers them"
            );
        }
    }

    /// Runs what blocks when it is its turn.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, writer::Error> + Send + 'static,
    ) -> Result<T, writer::Error> {
        let _turn = self.turns.acquire().await; // never closed
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or(Err(writer::Error::Panicked))
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let words = next.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = next.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
