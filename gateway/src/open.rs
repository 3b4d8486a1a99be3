//! The connections open here: registered before they are checked, cut by reason, counted per session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use crate::bridge::Stop;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Longest sleep towards a wall-clock deadline: an operating system's clock may be set while we sleep.
const RECHECK: Duration = Duration::from_secs(30);

/// Every connection open on this gateway.
#[derive(Debug)]
pub struct Open {
    inner: Mutex<Inner>,
    notices: watch::Sender<Option<Arc<str>>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Inner {
    by_session: HashMap<Arc<str>, Vec<Slot>>,
    next: u64,
    closing: Option<Stop>,
}

#[derive(Debug)]
struct Slot {
    id: u64,
    stop: oneshot::Sender<Stop>,
}

/// One registered connection. Dropping it, on any path, removes it.
#[derive(Debug)]
#[must_use = "dropping it removes the connection"]
pub struct Entry {
    open: Arc<Open>,
    session: Arc<str>,
    id: u64,
    rank: usize,
    stop: oneshot::Receiver<Stop>,
}

impl Open {
    /// None open.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            inner: Mutex::default(),
            notices: watch::Sender::new(None),
            metrics,
        }
    }

    /// Registers a connection of the session with this UID. Do it *before* checking the grant: whatever ends the session
    /// after the check then finds the connection.
    pub fn register(self: &Arc<Self>, session: &str) -> Entry {
        let (tx, rx) = oneshot::channel();
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        let (session, rank) = if let Some(stop) = inner.closing {
            let _ = tx.send(stop); // too late: stopped from the start, and nothing to remove
            (Arc::from(session), 0)
        } else {
            let key = match inner.by_session.get_key_value(session) {
                Some((key, _)) => Arc::clone(key),
                None => Arc::from(session),
            };
            let slots = inner.by_session.entry(Arc::clone(&key)).or_default();
            slots.push(Slot { id, stop: tx });
            (key, slots.len())
        };
        drop(inner);
        self.metrics.open.inc();
        Entry {
            open: Arc::clone(self),
            session,
            id,
            rank,
            stop: rx,
        }
    }

    /// Connections of a session open here.
    #[must_use]
    pub fn count(&self, session: &str) -> usize {
        self.lock().by_session.get(session).map_or(0, Vec::len)
    }

    /// Ends every connection of a session.
    pub fn cut(&self, session: &str, why: Stop) {
        let slots = self.lock().by_session.remove(session);
        for slot in slots.into_iter().flatten() {
            let _ = slot.stop.send(why); // an entry being dropped no longer listens
        }
    }

    /// Ends every connection, and every one registered from now on.
    pub fn close_all(&self, why: Stop) {
        let sessions = {
            let mut inner = self.lock();
            inner.closing = Some(why);
            std::mem::take(&mut inner.by_session)
        };
        for slot in sessions.into_values().flatten() {
            let _ = slot.stop.send(why);
        }
    }

    /// Tells every user, now and those who come later.
    pub fn notify(&self, text: &str) {
        self.notices.send_replace(Some(Arc::from(text)));
    }

    /// What [`Open::notify`] says, for one bridge.
    #[must_use]
    pub fn notices(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.notices.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the map whole, whatever panicked elsewhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// How many connections of its session there were when it was registered, itself included.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Resolves when this connection must end: cut by [`Open::cut`] or [`Open::close_all`], or its time is over.
    ///
    /// `holds` says until when the grant holds as far as the index knows, or why it does not; it is asked at the start
    /// and at least every 30 s, so that neither a set clock nor a lost signal can keep a connection alive.
    pub async fn stopped(
        &mut self,
        clock: &Clock,
        holds: impl Fn() -> Result<Timestamp, Stop>,
    ) -> Stop {
        loop {
            let until = match holds() {
                Ok(until) => until,
                Err(stop) => return stop,
            };
            let left = Duration::try_from(until.duration_since(clock.now())).unwrap_or_default();
            if left.is_zero() {
                return Stop::Expired;
            }
            tokio::select! {
                biased;
                stop = &mut self.stop => return stop.unwrap_or(Stop::Draining),
                () = tokio::time::sleep(left.min(RECHECK)) => {}
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inner = self.open.lock();
        if let Some(slots) = inner.by_session.get_mut(&self.session) {
            slots.retain(|slot| slot.id != self.id);
            if slots.is_empty() {
                inner.by_session.remove(&self.session);
            }
        }
        drop(inner);
        self.open.metrics.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Arc<Open> {
        Arc::new(Open::new(Arc::new(Metrics::unregistered())))
    }

    fn start() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().expect("a time")
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_between_registration_and_waiting_is_not_lost() {
        let open = open();
        let mut entry = open.register("a");
        open.cut("a", Stop::Revoked);
        let clock = Clock::following_tokio(start());
        assert_eq!(
            entry.stopped(&clock, || Ok(Timestamp::MAX)).await,
            Stop::Revoked
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_reaches_every_connection_of_the_session_and_no_other() {
        let open = open();
        let clock = Clock::following_tokio(start());
        let (mut one, mut two, mut other) =
            (open.register("a"), open.register("a"), open.register("b"));
        open.cut("a", Stop::SessionDeleted);
        for entry in [&mut one, &mut two] {
            assert_eq!(
                entry.stopped(&clock, || Ok(Timestamp::MAX)).await,
                Stop::SessionDeleted
            );
        }
        let waited = tokio::time::timeout(
            Duration::from_hours(1),
            other.stopped(&clock, || Ok(Timestamp::MAX)),
        )
        .await;
        assert!(waited.is_err(), "b was not cut");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_at_its_time_and_not_later() {
        let open = open();
        let clock = Clock::following_tokio(start());
        let until = start() + Duration::from_millis(95_500);
        let mut entry = open.register("a");
        let begun = tokio::time::Instant::now();
        assert_eq!(entry.stopped(&clock, || Ok(until)).await, Stop::Expired);
        let late = begun.elapsed().abs_diff(Duration::from_millis(95_500));
        assert!(late <= Duration::from_millis(2), "late by {late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_set_forward_is_noticed_within_half_a_minute() {
        let open = open();
        let set = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ahead = Arc::clone(&set);
        let origin = tokio::time::Instant::now();
        let clock = Clock::from_fn(move || {
            let jump = if ahead.load(std::sync::atomic::Ordering::Relaxed) {
                7200
            } else {
                0
            };
            start() + origin.elapsed() + Duration::from_secs(jump)
        });
        let mut entry = open.register("a");
        let stopped = entry.stopped(&clock, || Ok(start() + Duration::from_hours(1)));
        let stop = tokio::time::timeout(Duration::from_secs(31), async {
            set.store(true, std::sync::atomic::Ordering::Relaxed);
            stopped.await
        });
        assert_eq!(stop.await.expect("noticed"), Stop::Expired);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_the_index_no_longer_has_ends_its_connections_even_without_a_signal() {
        let open = open();
        let clock = Clock::following_tokio(start());
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let mut entry = open.register("a");
        let stop = entry
            .stopped(&clock, || {
                match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                    0 => Ok(Timestamp::MAX),
                    _ => Err(Stop::SessionDeleted),
                }
            })
            .await;
        assert_eq!(stop, Stop::SessionDeleted);
    }

    #[tokio::test(start_paused = true)]
    async fn ranks_count_a_session_and_dropping_frees_the_place() {
        let open = open();
        let first = open.register("a");
        let second = open.register("a");
        assert_eq!(
            (first.rank(), second.rank(), open.register("b").rank()),
            (1, 2, 1)
        );
        drop(first);
        assert_eq!((open.count("a"), open.register("a").rank()), (1, 2));
        drop(second);
        assert_eq!((open.count("a"), open.count("b")), (0, 0));
        assert_eq!(open.metrics.open.get(), 0);
        assert!(
            open.lock().by_session.is_empty(),
            "nothing is kept for sessions without connections"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_close_all_even_new_connections_are_stopped() {
        let open = open();
        let clock = Clock::following_tokio(start());
        let mut before = open.register("a");
        open.close_all(Stop::Draining);
        let mut after = open.register("a");
        for entry in [&mut before, &mut after] {
            assert_eq!(
                entry.stopped(&clock, || Ok(Timestamp::MAX)).await,
                Stop::Draining
            );
        }
    }

    #[tokio::test]
    async fn a_notice_reaches_those_who_come_later() {
        let open = open();
        open.notify("closing");
        assert_eq!(open.notices().borrow().as_deref(), Some("closing"));
    }
}
