//! The index of sessions, kept by a watch of every `ConsoleSession`: who may what, and whom to cut.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use drawbridge_admin::Condition;
use drawbridge_crds::v1alpha1::{ConsoleSession, EndReason};
use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::core::DeserializeGuard;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::bridge::Stop;
use crate::metrics::Metrics;
use crate::open::Open;
use crate::session::{Session, State};

/// How long one watch request lasts. A connection that died without a word is noticed 5 s later at the latest.
const WATCH_SECONDS: u32 = 60;
/// How long [`Sessions::settled`] waits for a grant that the user may have seen before we did.
const SETTLE: Duration = Duration::from_secs(1);

/// Every session, as the watch last told it.
#[derive(Debug)]
pub struct Sessions {
    by_uid: RwLock<HashMap<String, Arc<Session>>>,
    changed: Notify,
    synced: AtomicBool,
    open: Arc<Open>,
    metrics: Arc<Metrics>,
}

impl Sessions {
    /// An empty index, which cuts the connections in `open`.
    #[must_use]
    pub fn new(open: Arc<Open>, metrics: Arc<Metrics>) -> Self {
        Self {
            by_uid: RwLock::default(),
            changed: Notify::new(),
            synced: AtomicBool::new(false),
            open,
            metrics,
        }
    }

    /// The session with this UID.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<Arc<Session>> {
        self.by_uid
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .cloned()
    }

    /// The session of this name, if it is there now. Looks at every session.
    #[must_use]
    pub fn named(&self, namespace: &str, name: &str) -> Option<Arc<Session>> {
        self.by_uid
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .find(|session| session.name == name && session.namespace == namespace)
            .cloned()
    }

    /// The session with this UID, waiting up to 1 s while it is unknown or not granted yet: a user who read the token out
    /// of the Secret can be here before the watch event is.
    pub async fn settled(&self, uid: &str) -> Option<Arc<Session>> {
        let settled = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable(); // before looking: a change in between must not be missed
                if let Some(session) = self.get(uid)
                    && !matches!(session.state, State::Waiting(_))
                {
                    return session;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(SETTLE, settled).await {
            Ok(session) => Some(session),
            Err(_) => self.get(uid),
        }
    }

    /// Keeps the index from the API server. `synced` is met once the first list is whole. Never returns: errors are
    /// logged and retried, and meanwhile the last known state is served and its deadlines are kept.
    pub async fn watch(&self, api: Api<DeserializeGuard<ConsoleSession>>, synced: Condition) {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        self.follow(watch_objects(api, config).backoff(Retry::default()), synced)
            .await;
    }

    async fn follow(
        &self,
        events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<ConsoleSession>>>>,
        synced: Condition,
    ) {
        let mut events = std::pin::pin!(events);
        let mut listed: HashSet<String> = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    self.metrics.watch_up.set(1);
                    match &event {
                        Event::Init => listed.clear(),
                        Event::InitApply(object) => listed.extend(uid(object).map(str::to_owned)),
                        _ => {}
                    }
                    let whole = matches!(event, Event::InitDone);
                    if whole {
                        self.retain(&std::mem::take(&mut listed));
                    }
                    self.take(event);
                    if whole {
                        info!(sessions = self.len(), "the list of sessions is whole");
                        self.synced.store(true, Ordering::Release);
                        synced.met();
                    }
                }
                Err(error) => {
                    self.metrics.watch_up.set(0);
                    self.metrics.watch_errors.inc();
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "watching sessions failed; serving from what is known"
                    );
                }
            }
        }
    }

    /// Takes in one event; lists are compared by the caller.
    pub(crate) fn take(&self, event: Event<DeserializeGuard<ConsoleSession>>) {
        match event {
            Event::Init | Event::InitDone => {}
            Event::InitApply(object) | Event::Apply(object) => self.apply(object),
            Event::Delete(object) => {
                if let Some(uid) = uid(&object) {
                    self.remove(uid, Stop::SessionDeleted);
                }
            }
        }
        #[allow(clippy::cast_possible_wrap, reason = "a count of objects in memory")]
        self.metrics.sessions.set(self.len() as i64);
        self.changed.notify_waiters();
    }

    /// Whether a whole list was seen: before that, a session that is not known may be there all the same.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(crate) fn set_synced(&self, synced: bool) {
        self.synced.store(synced, Ordering::Release);
    }

    /// Sessions known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_uid
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// No session is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in one object, and cuts its connections when it has ended.
    fn apply(&self, object: DeserializeGuard<ConsoleSession>) {
        let Some(uid) = uid(&object).map(str::to_owned) else {
            return;
        };
        match object.0 {
            Ok(object) => {
                let Some(session) = Session::of(&object) else {
                    return;
                };
                let ended = match session.state {
                    State::Ended(stop) => Some(stop),
                    _ => None,
                };
                self.by_uid
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(uid.clone(), Arc::new(session));
                // Index first, cut second: who registers in between is refused by the check, who registered before is cut.
                if let Some(stop) = ended {
                    self.open.cut(&uid, stop);
                }
            }
            Err(invalid) => {
                // It may have been revoked by the very change we cannot read: it grants nothing until we can.
                warn!(
                    namespace = invalid.metadata.namespace,
                    console = invalid.metadata.name,
                    uid,
                    error = invalid.error,
                    "a session cannot be read and grants nothing"
                );
                let stop = match invalid.metadata.deletion_timestamp {
                    Some(_) => Stop::SessionDeleted,
                    None => Stop::SessionEnded(EndReason::InvalidSpec),
                };
                self.remove(&uid, stop);
            }
        }
    }

    fn remove(&self, uid: &str, why: Stop) {
        self.by_uid
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
        self.open.cut(uid, why);
    }

    /// Drops every session that a whole list did not have: it was deleted while nobody watched.
    fn retain(&self, listed: &HashSet<String>) {
        let mut gone = Vec::new();
        self.by_uid
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|uid, _| {
                let keep = listed.contains(uid);
                if !keep {
                    gone.push(uid.clone());
                }
                keep
            });
        for uid in gone {
            self.open.cut(&uid, Stop::SessionDeleted);
        }
    }
}

fn uid(object: &DeserializeGuard<ConsoleSession>) -> Option<&str> {
    match &object.0 {
        Ok(object) => object.metadata.uid.as_deref(),
        Err(invalid) => invalid.metadata.uid.as_deref(),
    }
}

/// Pauses between attempts to watch: 100 ms, doubling to 5 s. Short, because a revocation waits for it.
#[derive(Debug, Default)]
struct Retry {
    doubled: u32,
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(100 << self.doubled.min(6)).min(Duration::from_secs(5));
        self.doubled += 1;
        Some(pause)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.doubled = 0;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use kube::core::error_boundary::InvalidObject;

    use super::*;
    use crate::session::tests::{object, object_with};

    fn sessions() -> Arc<Sessions> {
        let metrics = Arc::new(Metrics::unregistered());
        Arc::new(Sessions::new(
            Arc::new(Open::new(Arc::clone(&metrics))),
            metrics,
        ))
    }

    fn good(object: ConsoleSession) -> DeserializeGuard<ConsoleSession> {
        DeserializeGuard(Ok(object))
    }

    async fn play(
        sessions: &Sessions,
        events: Vec<watcher::Result<Event<DeserializeGuard<ConsoleSession>>>>,
    ) -> bool {
        let ready = drawbridge_admin::Ready::default();
        sessions
            .follow(stream::iter(events), ready.condition("watching sessions"))
            .await;
        ready.is_ready()
    }

    async fn stop_of(entry: &mut crate::open::Entry) -> Stop {
        let clock = crate::clock::Clock::following_tokio(jiff::Timestamp::UNIX_EPOCH);
        entry.stopped(&clock, || Ok(jiff::Timestamp::MAX)).await
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_synced_once_the_first_list_is_whole_and_not_before() {
        let sessions = sessions();
        assert!(
            !play(
                &sessions,
                vec![Ok(Event::Init), Ok(Event::InitApply(good(object())))]
            )
            .await
        );
        assert!(
            sessions.get("6f1c").is_some(),
            "known before that all the same"
        );
        assert!(play(&sessions, vec![Ok(Event::Init), Ok(Event::InitDone)]).await);
        assert!(sessions.is_empty(), "the whole list did not have it");
    }

    #[tokio::test(start_paused = true)]
    async fn every_kind_of_end_cuts_open_connections_with_its_reason() {
        let revoked = || good(object_with("/spec/revoked", true.into()));
        let invalid = || {
            let metadata = object().metadata;
            DeserializeGuard(Err(InvalidObject {
                error: "spec: missing field `user`".into(),
                metadata,
            }))
        };
        for (event, want) in [
            (Event::Apply(revoked()), Stop::Revoked),
            (Event::InitApply(revoked()), Stop::Revoked),
            (Event::Delete(good(object())), Stop::SessionDeleted),
            (Event::InitDone, Stop::SessionDeleted),
            (
                Event::Apply(invalid()),
                Stop::SessionEnded(EndReason::InvalidSpec),
            ),
        ] {
            let sessions = sessions();
            play(&sessions, vec![Ok(Event::Apply(good(object())))]).await;
            let mut entry = sessions.open.register("6f1c");
            play(&sessions, vec![Ok(event)]).await;
            assert_eq!(stop_of(&mut entry).await, want);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_error_changes_nothing_and_the_next_event_is_taken() {
        let sessions = sessions();
        let error = || Err(watcher::Error::NoResourceVersion);
        play(
            &sessions,
            vec![Ok(Event::Apply(good(object()))), error(), error()],
        )
        .await;
        assert!(sessions.get("6f1c").is_some());
        assert_eq!(
            (
                sessions.metrics.watch_errors.get(),
                sessions.metrics.watch_up.get()
            ),
            (2, 0)
        );
        play(
            &sessions,
            vec![Ok(Event::Apply(good(object_with(
                "/spec/revoked",
                true.into(),
            ))))],
        )
        .await;
        assert_eq!(
            sessions.get("6f1c").expect("known").state,
            State::Ended(Stop::Revoked)
        );
        assert_eq!(sessions.metrics.watch_up.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_before_the_watch_event_waits_for_it_a_little() {
        let sessions = sessions();
        let waiter = {
            let sessions = Arc::clone(&sessions);
            tokio::spawn(async move { sessions.settled("6f1c").await })
        };
        tokio::task::yield_now().await;
        play(
            &sessions,
            vec![Ok(Event::Apply(good(object_with(
                "/status/phase",
                "Pending".into(),
            ))))],
        )
        .await;
        tokio::task::yield_now().await;
        play(&sessions, vec![Ok(Event::Apply(good(object())))]).await;
        assert_eq!(
            waiter.await.expect("ran").expect("found").state,
            State::Ready
        );
        let begun = tokio::time::Instant::now();
        assert_eq!(sessions.settled("unknown").await, None);
        assert_eq!(
            begun.elapsed().as_millis() / 10,
            100,
            "waits a second, no longer"
        );
    }

    #[test]
    fn retries_slow_down_to_five_seconds_and_begin_anew() {
        let mut retry = Retry::default();
        let pauses: Vec<u128> = retry
            .by_ref()
            .take(9)
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        retry.reset();
        assert_eq!(retry.next(), Some(Duration::from_millis(100)));
    }
}
