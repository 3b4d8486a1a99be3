//! The one task that writes: chains what is queued, syncs it, and keeps the spool within its bound.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::cursor::Cursors;
use super::spool::{Position, Spool, count};
use super::{Entry, Log, QUEUE, Shared, Unwritten, WhenFull, blocking};
use crate::chain::Chain;
use crate::event::{Component, Event, Facts, Type};
use crate::metrics::{SinkLabels, gauge};

/// Most events that are synced together.
const BATCH: usize = 1024;
/// How long an event nobody waits for may wait for others, to share a sync: it survives a crash after this and a sync.
const GATHER: Duration = Duration::from_millis(20);
/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// What a writer is made of.
pub(super) struct Parts {
    pub(super) component: Component,
    pub(super) instance: String,
    pub(super) spool: Spool,
    pub(super) max_bytes: u64,
    pub(super) checkpoint_events: u64,
    pub(super) checkpoint_interval: Duration,
    pub(super) directory: PathBuf,
}

/// What follows a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    No,
    Checkpoint,
    /// `Stopped`.
    Last,
}

/// The writing end of a log.
pub(super) struct Writer {
    chain: Chain,
    /// Lent to a blocking thread during a write.
    spool: Option<Spool>,
    queue: mpsc::Receiver<Entry>,
    end: watch::Sender<Position>,
    cursors: Arc<Cursors>,
    shared: Option<Arc<Shared>>,
    max_bytes: u64,
    checkpoint_events: u64,
    checkpoint_interval: Duration,
    /// Lines since the last checkpoint.
    unsigned: u64,
    /// The disk refused the last write: room in the spool is no news until it takes one.
    failing: bool,
    directory: PathBuf,
}

impl Writer {
    pub(super) fn new(
        parts: Parts,
        log: &Log,
        queue: mpsc::Receiver<Entry>,
        end: watch::Sender<Position>,
        cursors: Arc<Cursors>,
    ) -> Self {
        log.accept();
        Self {
            chain: Chain::new(parts.component, parts.instance),
            spool: Some(parts.spool),
            queue,
            end,
            cursors,
            shared: log.0.clone(),
            max_bytes: parts.max_bytes,
            checkpoint_events: parts.checkpoint_events,
            checkpoint_interval: parts.checkpoint_interval,
            unsigned: 0,
            failing: false,
            directory: parts.directory,
        }
    }

    /// Writes until told to stop, then what is queued, and `Stopped` last.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let cursors = Arc::clone(&self.cursors);
        let first = Instant::now() + self.checkpoint_interval;
        let mut checkpoint = interval_at(first, self.checkpoint_interval);
        checkpoint.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut entries = Vec::new();
        loop {
            let mut due = false;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = cursors.moved.notified() => {
                    self.release().await;
                    continue;
                }
                _ = checkpoint.tick(), if self.unsigned > 0 => due = true,
                read = self.queue.recv_many(&mut entries, BATCH) => if read == 0 { break },
            }
            self.gather(&mut entries, &stop).await;
            due |= self.unsigned + entries.len() as u64 >= self.checkpoint_events;
            let sign = if due { Sign::Checkpoint } else { Sign::No };
            self.write(&mut entries, sign, &stop).await;
        }
        self.queue.close();
        while self.queue.recv_many(&mut entries, BATCH).await > 0 {
            self.write(&mut entries, Sign::No, &stop).await;
        }
        self.write(&mut entries, Sign::Last, &stop).await;
    }

    /// Waits a moment for more, unless somebody waits for these.
    async fn gather(&mut self, entries: &mut Vec<Entry>, stop: &CancellationToken) {
        let until = Instant::now() + GATHER;
        let awaited = |entries: &[Entry]| entries.iter().any(|entry| entry.synced.is_some());
        while entries.len() < BATCH && !awaited(entries) {
            let more = self.queue.recv_many(entries, BATCH);
            let more = stop.run_until_cancelled(timeout_at(until, more));
            if !matches!(more.await, Some(Ok(1..))) {
                return;
            }
        }
    }

    /// Writes `entries`, however often that takes; given up only when the process ends. Afterwards there are none.
    async fn write(&mut self, entries: &mut Vec<Entry>, sign: Sign, stop: &CancellationToken) {
        loop {
            let Some(shared) = self.shared.clone() else {
                return;
            };
            // Whoever gave up waiting was told that it cannot be written.
            entries.retain(|entry| {
                entry
                    .synced
                    .as_ref()
                    .is_none_or(|synced| !synced.is_closed())
            });
            let Err(why) = self.attempt(&shared, entries, sign).await else {
                return;
            };
            shared.metrics.0.write_errors.inc();
            shared.set_trouble(Some(why.clone()));
            refuse(entries, &why);
            if stop.is_cancelled() {
                warn!(events = entries.len(), %why, "audit events are lost: they cannot be written, and the process ends");
                shared.metrics.0.dropped.inc_by(entries.len() as u64);
                entries.clear();
                return;
            }
            let cursors = Arc::clone(&self.cursors);
            tokio::select! {
                () = sleep(RETRY) => {}
                () = cursors.moved.notified() => self.release().await,
                () = stop.cancelled() => {}
            }
            // Nobody should wait for what cannot be written now; the rest is kept as long as there is room.
            while let Ok(entry) = self.queue.try_recv() {
                if entry.synced.is_none() && entries.len() >= QUEUE {
                    shared.drop_event();
                } else {
                    entries.push(entry);
                }
            }
        }
    }

    /// Writes `entries` and answers who waits for them, or leaves everything as it was and says why.
    async fn attempt(
        &mut self,
        shared: &Shared,
        entries: &mut Vec<Entry>,
        sign: Sign,
    ) -> Result<(), Arc<str>> {
        let before = self.chain.clone();
        let unsigned = self.unsigned;
        let mut lines = Vec::new();
        let dropped = shared.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            self.link(&lost(dropped, None), &mut lines);
        }
        for entry in &*entries {
            self.link(&entry.event, &mut lines);
        }
        if sign == Sign::Checkpoint && shared.signer.borrow().is_some() {
            self.link(&self.vouching(shared, Type::Checkpoint), &mut lines);
            self.unsigned = 0;
        }
        if sign == Sign::Last {
            self.link(&self.vouching(shared, Type::Stopped), &mut lines);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let count = self.chain.lines_since(&before);
        let written = match self.make_room(lines.len() as u64, shared).await {
            Ok(()) => self.append(lines, shared).await,
            Err(why) => Err(why),
        };
        if let Err(why) = written {
            (self.chain, self.unsigned) = (before, unsigned);
            return Err(why);
        }
        shared.metrics.0.written.inc_by(count);
        shared.dropped.fetch_sub(dropped, Ordering::Relaxed);
        for entry in entries.drain(..) {
            if let Some(synced) = entry.synced {
                let _ = synced.send(Ok(())); // who gave up waiting needs no answer
            }
        }
        self.judge(shared);
        Ok(())
    }

    fn link(&mut self, event: &Event, lines: &mut Vec<u8>) {
        self.chain.link(event, lines);
        self.unsigned += 1;
    }

    /// An event that vouches for the chain up to itself, if there is a key to sign it with.
    fn vouching(&self, shared: &Shared, kind: Type) -> Event {
        let mut event = Event::now(kind, Facts::default());
        let key = shared.signer.borrow().clone();
        event.facts.checkpoint = key.map(|key| self.chain.statement(&event).sign(&key));
        event
    }

    async fn append(&mut self, lines: Vec<u8>, shared: &Shared) -> Result<(), Arc<str>> {
        let Some(mut spool) = self.spool.take() else {
            return Err("the spool is in use".into()); // never: it is lent below and nowhere else
        };
        let begun = Instant::now();
        let (spool, written) = blocking(move || {
            let written = spool.append(&lines);
            (spool, written)
        })
        .await;
        self.spool = Some(spool);
        let took = begun.elapsed().as_secs_f64();
        shared.metrics.0.write_seconds.observe(took);
        self.failing = written.is_err();
        let end = written
            .map_err(|error| format!("cannot write to {}: {error}", self.directory.display()))?;
        self.end.send_replace(end);
        Ok(())
    }

    /// Makes room for so many bytes, or says who is in the way.
    async fn make_room(&mut self, bytes: u64, shared: &Shared) -> Result<(), Arc<str>> {
        while self.spool.as_ref().map_or(0, Spool::bytes) + bytes > self.max_bytes {
            if shared.when_full == WhenFull::Refuse {
                return Err(self.full("full"));
            }
            let oldest = self.spool.as_ref().and_then(Spool::after_oldest);
            let Some(until) = oldest else {
                return Ok(()); // a single segment: a batch longer than the whole spool
            };
            for (sink, at) in self.cursors.all() {
                if at >= until {
                    continue;
                }
                let directory = self.directory.clone();
                let missed = blocking(move || count(&directory, at, until)).await;
                let missed = missed.unwrap_or(0); // then nobody can say how many
                let labels = SinkLabels::of(&sink);
                let dropped = &shared.metrics.0.sink_dropped;
                dropped.get_or_create(&labels).inc_by(missed);
                self.cursors.set(&sink, until);
                // Told once the sink takes events again: what is written now may be dropped, too.
                self.cursors.drop_for(&sink, missed);
            }
            self.release_until(until).await;
        }
        Ok(())
    }

    /// Removes what every sink has taken.
    async fn release(&mut self) {
        let cursors = self.cursors.all();
        let slowest = cursors.iter().map(|(_, at)| *at).min();
        let until = slowest.or_else(|| self.spool.as_ref().map(Spool::end));
        if let Some(until) = until {
            self.release_until(until).await;
        }
        if let Some(shared) = self.shared.clone() {
            self.judge(&shared);
        }
    }

    async fn release_until(&mut self, until: Position) {
        let Some(mut spool) = self.spool.take() else {
            return;
        };
        if spool.begin().segment < until.segment {
            let released;
            (spool, released) = blocking(move || {
                let released = spool.release(until);
                (spool, released)
            })
            .await;
            if let Err(error) = released {
                warn!(%error, "cannot remove audit events every sink has taken");
            }
        }
        self.spool = Some(spool);
    }

    /// Says whether new sessions may begin: an eighth of the spool is kept for those that are open.
    fn judge(&self, shared: &Shared) {
        let Some(spool) = &self.spool else { return };
        shared.metrics.0.spool_bytes.set(gauge(spool.bytes()));
        for (sink, at) in self.cursors.all() {
            let backlog = &shared.metrics.0.backlog;
            backlog
                .get_or_create(&SinkLabels::of(&sink))
                .set(gauge(spool.bytes_since(at)));
        }
        if self.failing {
            return;
        }
        let full = spool.bytes() > self.max_bytes - self.max_bytes / 8;
        shared.set_trouble(
            (full && shared.when_full == WhenFull::Refuse).then(|| self.full("nearly full")),
        );
    }

    fn full(&self, how: &str) -> Arc<str> {
        let behind = self.cursors.all().into_iter().min_by_key(|(_, at)| *at);
        let sink = behind.map_or_else(String::new, |(sink, _)| {
            format!(": sink {sink} does not take events")
        });
        format!("the spool {} is {how}{sink}", self.directory.display()).into()
    }
}

/// Tells whoever waits that it cannot be written, and forgets their entries.
fn refuse(entries: &mut Vec<Entry>, why: &Arc<str>) {
    entries.retain_mut(|entry| match entry.synced.take() {
        Some(synced) => {
            let _ = synced.send(Err(Unwritten(Arc::clone(why)))); // who gave up waiting needs no answer
            false
        }
        None => true,
    });
}

/// Says that events were dropped: those of one sink, or of all.
pub(crate) fn lost(dropped: u64, sink: Option<String>) -> Event {
    let facts = Facts {
        dropped: Some(dropped),
        sink,
        ..Facts::default()
    };
    Event::now(Type::EventsDropped, facts)
}
