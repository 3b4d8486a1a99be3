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
pub mod keys;
pub mod ledger;
pub mod live;
pub mod retain;
mod run;
pub mod spool;
pub mod tap;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drawbridge_audit::recording::{Carried, End, Opening};
use drawbridge_audit::store::Store;
use drawbridge_crds::v1alpha1::Recorded;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

pub use self::tap::{Room, Tap};

use self::keys::Key;
use self::ledger::Ledger;
use self::live::Lives;
use self::retain::Retention;
use self::spool::{Place, Spool};
use self::writer::Writer;
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
    puts: Semaphore,
    deliveries: TaskTracker,
    stop: CancellationToken,
    /// Whether the store took what it was given last.
    store_up: AtomicBool,
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
    /// Ends it, the tap being gone, and waits until it is sealed on this disk. `None` if it could not be sealed: the
    /// next look at the spool tries again.
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
    ) -> Self {
        Self {
            spool,
            store,
            key,
            ledger,
            rules,
            metrics,
            lives: Arc::default(),
            turns: Semaphore::new(TURNS),
            puts: Semaphore::new(PUTS),
            deliveries: TaskTracker::new(),
            stop: CancellationToken::new(),
            store_up: AtomicBool::new(true),
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

    /// Whether the store took what it was given last.
    #[must_use]
    pub fn store_is_up(&self) -> bool {
        self.store_up.load(Ordering::Relaxed)
    }

    /// Takes room for a recording on this disk: before anything is opened that would have to be recorded.
    ///
    /// # Errors
    /// Why there can be no recording now.
    pub async fn reserve(
        &self,
        namespace: &str,
        session: &str,
        recording: Uuid,
    ) -> Result<Place, Unavailable> {
        let mut key = self.key.clone();
        let known = async { key.wait_for(Option::is_some).await.is_ok() };
        if !timeout(KEY_WAIT, known).await.unwrap_or(false) {
            return Err(self.unavailable(Unavailable::NoKey));
        }
        if !self.spool.has_room() {
            return Err(self.unavailable(Unavailable::Full));
        }
        let spool = self.spool.clone();
        let (namespace, session) = (namespace.to_owned(), session.to_owned());
        self.blocking(move || Ok(spool.reserve(&namespace, &session, recording)?))
            .await
            .map_err(|error| self.unavailable(error.into()))
    }

    /// Begins a recording. When this returns it is on the disk that there is one; times count from `begun`.
    ///
    /// # Errors
    /// Why there can be no recording.
    pub async fn begin(
        self: &Arc<Self>,
        place: Place,
        opening: Opening,
        begun: Instant,
        required: bool,
    ) -> Result<(Recording, Tap), Unavailable> {
        let writer = self
            .blocking(move || Writer::begin(place, opening))
            .await
            .map_err(|error| self.unavailable(error.into()))?;
        let dir = writer.place().dir().to_owned();
        let listed = self.lives.list(writer.opening().clone(), dir);
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

    fn unavailable(&self, why: Unavailable) -> Unavailable {
        self.metrics.recorder_failed(RecorderPart::spool);
        why
    }
}

#[cfg(test)]
pub(crate) mod tests;
