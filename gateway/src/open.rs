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
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Inner {
    by_session: HashMap<Arc<str>, Vec<Slot>>,
    /// Who watches a session, by its UID; only those that somebody does.
    watchers: HashMap<Arc<str>, Vec<(u64, Arc<str>)>>,
    /// What every user is told, now and later.
    notice: Notice,
    next: u64,
    closing: Option<Stop>,
}

/// A line for a user; the latest counts.
type Notice = Option<Arc<str>>;

#[derive(Debug)]
struct Slot {
    id: u64,
    stop: oneshot::Sender<Stop>,
    notices: watch::Sender<Notice>,
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
    notices: watch::Receiver<Notice>,
}

/// Somebody who watches a session, which its users are told. Dropping it, on any path, ends that.
#[derive(Debug)]
#[must_use = "dropping it ends the watching"]
pub struct Watching {
    open: Arc<Open>,
    session: Arc<str>,
    id: u64,
    user: Arc<str>,
}

impl Open {
    /// None open.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            inner: Mutex::default(),
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
        let notice = inner.notice.clone().or_else(|| {
            let watchers = inner.watchers.get(session)?;
            Some(Arc::from(watched(watchers)))
        });
        let (notices, told) = watch::channel(notice);
        let (session, rank) = if let Some(stop) = inner.closing {
            let _ = tx.send(stop); // too late: stopped from the start, and nothing to remove
            (Arc::from(session), 0)
        } else {
            let key = match inner.by_session.get_key_value(session) {
                Some((key, _)) => Arc::clone(key),
                None => Arc::from(session),
            };
            let slots = inner.by_session.entry(Arc::clone(&key)).or_default();
            slots.push(Slot {
                id,
                stop: tx,
                notices,
            });
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
            notices: told,
        }
    }

    /// Tells the users of the session with this UID, now and those who come while it lasts, that `user` watches it.
    pub fn watched_by(self: &Arc<Self>, session: &str, user: &str) -> Watching {
        let (session, user) = (Arc::<str>::from(session), Arc::<str>::from(user));
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        let watchers = inner.watchers.entry(Arc::clone(&session)).or_default();
        watchers.push((id, Arc::clone(&user)));
        let text = watched(watchers);
        if inner.notice.is_none() {
            inner.tell(&session, &text);
        }
        drop(inner);
        Watching {
            open: Arc::clone(self),
            session,
            id,
            user,
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
        let text = Some(Arc::from(text));
        let mut inner = self.lock();
        inner.notice.clone_from(&text);
        for slot in inner.by_session.values().flatten() {
            slot.notices.send_replace(text.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the map whole, whatever panicked elsewhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who watches, in a line for the one who is watched.
fn watched(watchers: &[(u64, Arc<str>)]) -> String {
    let mut users: Vec<&str> = Vec::new();
    for (_, user) in watchers {
        if !users.contains(&&**user) {
            users.push(user);
        }
    }
    let first = users.first().copied().unwrap_or("somebody");
    match users.len() {
        0 | 1 => format!("drawbridge: {first} is watching this session"),
        several => format!(
            "drawbridge: {first} and {} more are watching this session",
            several - 1
        ),
    }
}

impl Inner {
    fn tell(&self, session: &str, text: &str) {
        let text: Arc<str> = Arc::from(text);
        for slot in self.by_session.get(session).into_iter().flatten() {
            slot.notices.send_replace(Some(Arc::clone(&text)));
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut inner = self.open.lock();
        let Some(watchers) = inner.watchers.get_mut(&self.session) else {
            return;
        };
        watchers.retain(|(id, _)| *id != self.id);
        let text = if watchers.is_empty() {
            inner.watchers.remove(&self.session);
            format!(
                "drawbridge: {} is no longer watching this session",
                self.user
            )
        } else {
            watched(watchers)
        };
        // That the gateway restarts is the more important word.
        if inner.notice.is_none() {
            inner.tell(&self.session, &text);
        }
    }
}

impl Entry {
    /// What its user is to be told: by [`Open::notify`], and who watches.
    #[must_use]
    pub fn notices(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.notices.clone()
    }

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

    fn told(entry: &Entry) -> Option<String> {
        entry.notices().borrow().as_deref().map(str::to_owned)
    }

    #[tokio::test]
    async fn a_notice_reaches_everybody_and_those_who_come_later() {
        let open = open();
        let before = open.register("a");
        open.notify("closing");
        for entry in [before, open.register("b")] {
            assert_eq!(told(&entry).as_deref(), Some("closing"));
        }
    }

    #[tokio::test]
    async fn who_is_watched_is_told_by_whom_and_when_that_ends() {
        let open = open();
        let (one, other) = (open.register("a"), open.register("b"));
        let first = open.watched_by("a", "alice@example.com");
        let is = Some("drawbridge: alice@example.com is watching this session".to_owned());
        assert_eq!((told(&one), told(&other)), (is.clone(), None));
        assert_eq!(told(&open.register("a")), is, "one who comes later, too");
        let again = open.watched_by("a", "alice@example.com");
        assert_eq!(told(&one), is, "in two windows");
        let second = open.watched_by("a", "system:serviceaccount:shop:watcher");
        let both = "drawbridge: alice@example.com and 1 more are watching this session";
        assert_eq!(told(&one).as_deref(), Some(both));
        drop(second);
        drop(first);
        assert_eq!(told(&one), is);
        drop(again);
        let over = "drawbridge: alice@example.com is no longer watching this session";
        assert_eq!(told(&one).as_deref(), Some(over));
        assert_eq!(told(&open.register("a")), None);
        assert!(open.lock().watchers.is_empty());
    }

    #[tokio::test]
    async fn that_the_gateway_restarts_stays_the_last_word() {
        let open = open();
        let entry = open.register("a");
        let watching = open.watched_by("a", "alice@example.com");
        open.notify("closing");
        drop(watching);
        assert_eq!(told(&entry).as_deref(), Some("closing"));
    }
}
