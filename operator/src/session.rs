//! The driver: gather, plan, apply, report.

mod apply;
mod gather;
pub mod plan;
mod report;
mod told;
#[cfg(test)]
mod world;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drawbridge_audit::log::{Log, Unwritten};
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, RecordingTerms};
use jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use kube::{Client, Resource, ResourceExt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

pub(crate) use apply::delete;
use apply::{Applied, close, close_account, delete_session, open, set_finalizer};
use gather::gather;
use plan::{Access, Observed, Plan, plan};
use report::{renewal, report, report_failure};

use crate::Guarded;
use crate::cache::FORGET_AFTER;
use crate::grant::{self, Gateway};
use crate::metrics::{ErrorKind, Metrics, Outcome};
use crate::watches::{Watches, chain};

/// Longest wait for one answer of the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a pass whose session changed meanwhile: long enough for the watch to show the change.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);
/// Pause after a first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Repairs of one session within [`REPAIRS_PER`]; then somebody undoes them as fast as we make them, and waits for us.
const MAX_REPAIRS: u32 = 30;
/// See [`MAX_REPAIRS`].
const REPAIRS_PER: Duration = Duration::from_mins(1);
/// Longest sleep until a deadline: a clock that was set meanwhile is noticed after this.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// What every pass shares.
pub struct Ctx {
    /// One client, one identity: the operator's own.
    pub client: Client,
    /// Namespace of the session accounts.
    pub sessions_namespace: String,
    /// How users reach the gateway.
    pub gateway: Gateway,
    /// How connections of sessions granted from now on are recorded.
    pub recording: RecordingTerms,
    /// The caches.
    pub watches: Arc<Watches>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Publishes Events.
    pub recorder: Recorder,
    /// What is on record about who was granted what.
    pub log: Log,
    /// Passes start once this is cancelled: caches filled, lease held.
    pub leading: CancellationToken,
    /// No pass starts any more once this is cancelled.
    pub stop: CancellationToken,
    /// Failures in a row, by session UID; absent after a success.
    pub failures: Mutex<HashMap<String, u32>>,
    /// Repairs since a time, by session UID; absent for sessions that needed none, or are over.
    pub repairs: Mutex<HashMap<String, (Instant, u32)>>,
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read failed.
    #[error("failed to read {what} {name}")]
    Read {
        /// Kind of the object.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// A write failed.
    #[error("failed to write {what} {name}")]
    Write {
        /// Kind of the object.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error("no answer about {what} {name} from the API server within 10 s")]
    Timeout {
        /// Kind of the object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Somebody else's object has the name of one of ours.
    #[error("{what} {name} exists and was not made for this session; rename or delete it")]
    NameTaken {
        /// Kind of the object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// An object of ours is being deleted and cannot be made again until it is gone.
    #[error(
        "{what} {name} is being deleted; it is made again once it is gone (does a finalizer hold it?)"
    )]
    Deleting {
        /// Kind of the object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The object decided about changed meanwhile.
    #[error("the object changed meanwhile")]
    Conflict,
    /// The API server granted a token but sent none.
    #[error("the API server sent no token for account {0}")]
    NoToken(String),
    /// A grant that cannot be put on record is not given.
    #[error("the grant cannot be put on record")]
    Unlogged(#[from] Unwritten),
    /// A session without UID: not from an API server.
    #[error("the session has no UID")]
    NeverStored,
    /// A bug.
    #[error("the pass panicked: {0}")]
    Panicked(String),
}

impl Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Read { .. } | Error::NeverStored => ErrorKind::Read,
            Error::Write { .. } | Error::Conflict | Error::Deleting { .. } | Error::NoToken(_) => {
                ErrorKind::Write
            }
            Error::Timeout { .. } => ErrorKind::Timeout,
            Error::NameTaken { .. } => ErrorKind::NameTaken,
            Error::Unlogged(_) => ErrorKind::Audit,
            Error::Panicked(_) => ErrorKind::Panic,
        }
    }

    /// A word for the `Ready` condition; `None` for what passes by itself, which is not worth a write.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Error::NameTaken { .. } => Some("NameTaken"),
            Error::Deleting { .. } => Some("WaitingForDeletion"),
            Error::Read {
                source: kube::Error::Api(status),
                ..
            }
            | Error::Write {
                source: kube::Error::Api(status),
                ..
            } if (400..500).contains(&status.code) && status.code != 429 => Some("Refused"),
            _ => None,
        }
    }
}

/// One pass over one session, once this replica leads.
///
/// # Errors
/// Whatever kept it from bringing the session up to its plan; the session is then no more granted than before.
pub async fn reconcile(session: Arc<Guarded>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    tokio::select! {
        biased;
        () = ctx.stop.cancelled() => return Ok(Action::await_change()),
        () = ctx.leading.cancelled() => {}
    }
    let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
    // As it is now, not as it was when this pass was queued.
    let uid = session.meta().uid.clone().unwrap_or_default();
    let session = ctx.watches.sessions.get(&namespace, &name);
    let Some(session) = session.filter(|found| found.meta().uid.as_ref() == Some(&uid)) else {
        ctx.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&uid);
        return Ok(Action::await_change());
    };
    let span = info_span!(parent: None, "session", namespace, console = name, uid);
    // In a task of its own: a panic is this session's failure, not the end of the loop.
    let pass = tokio::spawn(pass(session, Arc::clone(&ctx)).instrument(span.clone()));
    let result = pass
        .await
        .unwrap_or_else(|panic| Err(Error::Panicked(panic.to_string())));
    let _entered = span.enter();
    match &result {
        Ok(_) => {
            ctx.failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&uid);
        }
        Err(Error::Conflict) => ctx.metrics.pass(Outcome::Conflict),
        Err(error) => {
            ctx.metrics.pass(Outcome::Error);
            ctx.metrics.error(error.kind());
            warn!(error = chain(error), "pass failed, to be tried again");
        }
    }
    result
}

/// When to try again after a failure: soon after a conflict, else later and later, never all sessions at once.
#[expect(clippy::needless_pass_by_value, reason = "kube calls it so")]
#[must_use]
pub fn error_policy(session: Arc<Guarded>, error: &Error, ctx: Arc<Ctx>) -> Action {
    if matches!(error, Error::Conflict) {
        return Action::requeue(CONFLICT_PAUSE);
    }
    let uid = session.meta().uid.clone().unwrap_or_default();
    let mut failures = ctx.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let failures = failures.entry(uid).or_default();
    let pause = pause(*failures, RandomState::new().build_hasher().finish());
    *failures = failures.saturating_add(1);
    let ends = session
        .0
        .as_ref()
        .ok()
        .and_then(|session| session.status.as_ref()?.expires_at.clone());
    Action::requeue(before(pause, ends.map(|at| at.0), Timestamp::now()))
}

/// The pause, cut short if access ends meanwhile: a repair that fails must not delay the end.
fn before(pause: Duration, ends: Option<Timestamp>, now: Timestamp) -> Duration {
    let left = ends.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
    match left {
        Some(left) if !left.is_zero() => pause.min(left),
        _ => pause, // over, or not begun
    }
}

/// The pause after `failures` earlier ones, made up to a quarter longer by `random`.
fn pause(failures: u32, random: u64) -> Duration {
    let pause = FIRST_PAUSE
        .saturating_mul(1 << failures.min(16))
        .min(LONGEST_PAUSE);
    let quarter = u64::try_from(pause.as_millis()).unwrap_or_default() / 4;
    pause + Duration::from_millis(random % (quarter + 1))
}

async fn pass(session: Arc<Guarded>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    let session = match &session.0 {
        Ok(session) => Arc::new(session.clone()),
        Err(invalid) => return malformed(&ctx, invalid).await,
    };
    let began = Instant::now();
    let seen = gather(&ctx, session).await?; // reads
    let decided = plan(&seen); // decides
    let now = seen.now;
    let look_again = match Box::pin(carry_out(&ctx, &seen, &decided)).await {
        Ok(look_again) => look_again,
        Err(error) => {
            // An end is final and told already; what still has to be taken away is in the log.
            if decided.ended.is_none() {
                let session = current(&ctx, &seen.session);
                report_failure(&ctx, &Observed { session, ..seen }, &decided, &error).await;
            }
            return Err(error);
        }
    };
    ctx.metrics.pass(Outcome::Ok);
    Ok(look_again.map_or_else(Action::await_change, |at| {
        sleep_until(at, now, began.elapsed())
    }))
}

/// Sleeps until `at`; it was `now` this long ago.
fn sleep_until(at: Timestamp, now: Timestamp, ago: Duration) -> Action {
    let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    let left = left.saturating_sub(ago);
    // A timer that fires a moment early must not find the deadline still ahead again and again.
    Action::requeue(left.clamp(Duration::from_millis(1), LONGEST_SLEEP))
}

/// Writes what the plan says. Answers when to look again.
async fn carry_out(ctx: &Ctx, seen: &Observed, plan: &Plan) -> Result<Option<Timestamp>, Error> {
    match &plan.access {
        Access::Open { expires_at, .. } => {
            if let Some(pause) = contested(ctx, &seen.session) {
                let resume = seen.now.checked_add(pause).ok();
                return Ok(plan.look_again.into_iter().chain(resume).min());
            }
            let (seen, applied) = Box::pin(grant_access(ctx, seen, *expires_at)).await?;
            report(ctx, &seen, plan, Some(&applied)).await?; // status follows what was applied
            if was_granted(&seen.session) && !applied.written.is_empty() {
                count_repair(ctx, &seen.session);
            }
            Ok([
                plan.look_again,
                renewal(plan, &applied),
                settled(&applied, seen.now),
            ]
            .into_iter()
            .flatten()
            .min())
        }
        Access::Closed => {
            // The gateway cuts on the status: it is written before anything is taken away. But what cannot be told is
            // taken away all the same.
            let told = report(ctx, seen, plan, None).await;
            if let Err(Error::Conflict) = told {
                return Err(Error::Conflict);
            }
            if plan.ended.is_some() {
                ctx.watches.interest.forget(&seen.session);
                let uid = seen.session.uid().unwrap_or_default();
                ctx.repairs
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&uid);
            }
            let session = current(ctx, &seen.session);
            Box::pin(close(ctx, &session)).await?;
            told?;
            if plan.delete {
                delete_session(ctx, &session).await?;
            }
            Ok(plan.look_again)
        }
    }
}

async fn grant_access(
    ctx: &Ctx,
    seen: &Observed,
    until: Timestamp,
) -> Result<(Observed, Applied), Error> {
    let began = Instant::now();
    let mut seen = seen.clone();
    if !seen
        .session
        .finalizers()
        .iter()
        .any(|name| name == names::FINALIZER)
    {
        // Before anything is made outside the session's namespace, where no owner reference reaches.
        let held = set_finalizer(ctx, seen.session.meta(), true)
            .await?
            .ok_or(Error::Conflict)?;
        let held = held.0.as_ref().map_err(|_| Error::Conflict)?;
        seen.session = Arc::new(held.clone());
    }
    let session = &seen.session;
    let wanted = grant::grant(session, &ctx.sessions_namespace).ok_or(Error::NeverStored)?;
    let applied = Box::pin(open(ctx, session, wanted, until, seen.now)).await?;
    if session
        .status
        .as_ref()
        .is_none_or(|status| status.granted_at.is_none())
    {
        ctx.metrics.granted(began.elapsed().as_secs_f64());
    }
    Ok((seen, applied))
}

fn was_granted(session: &ConsoleSession) -> bool {
    session
        .status
        .as_ref()
        .is_some_and(|status| status.granted_at.is_some())
}

/// How long to leave a session alone that was repaired too often; `None` when it may be repaired.
fn contested(ctx: &Ctx, session: &ConsoleSession) -> Option<Duration> {
    let repairs = ctx.repairs.lock().unwrap_or_else(PoisonError::into_inner);
    let (since, count) = repairs.get(&session.uid().unwrap_or_default())?;
    let left = REPAIRS_PER.saturating_sub(since.elapsed());
    (*count >= MAX_REPAIRS && !left.is_zero()).then_some(left)
}

fn count_repair(ctx: &Ctx, session: &ConsoleSession) {
    let mut repairs = ctx.repairs.lock().unwrap_or_else(PoisonError::into_inner);
    let (since, count) = repairs
        .entry(session.uid().unwrap_or_default())
        .or_insert((Instant::now(), 0));
    if since.elapsed() >= REPAIRS_PER {
        (*since, *count) = (Instant::now(), 0);
    }
    *count += 1;
    if *count == MAX_REPAIRS {
        ctx.metrics.error(ErrorKind::Contested);
        warn!("repaired {MAX_REPAIRS} times within a minute: somebody undoes it; pausing");
    }
}

/// After a write, look once more when the caches have surely caught up: what was deleted again meanwhile is noticed then.
fn settled(applied: &Applied, now: Timestamp) -> Option<Timestamp> {
    let wrote = !applied.written.is_empty();
    wrote.then(|| now.checked_add(FORGET_AFTER).ok()).flatten()
}

/// The session with what this pass wrote to it.
fn current(ctx: &Ctx, session: &Arc<ConsoleSession>) -> Arc<ConsoleSession> {
    let cached = ctx.watches.sessions.get(
        &session.namespace().unwrap_or_default(),
        &session.name_any(),
    );
    match cached.as_deref() {
        Some(kube::core::DeserializeGuard(Ok(current))) if current.uid() == session.uid() => {
            Arc::new(current.clone())
        }
        _ => Arc::clone(session),
    }
}

/// A session that does not parse cannot be decided about. It is left alone, but its deletion must not hang on us.
async fn malformed(ctx: &Ctx, invalid: &InvalidObject) -> Result<Action, Error> {
    ctx.metrics.pass(Outcome::Malformed);
    let meta = &invalid.metadata;
    let held = meta
        .finalizers
        .iter()
        .flatten()
        .any(|name| name == names::FINALIZER);
    if meta.deletion_timestamp.is_some() && held {
        let uid = meta.uid.as_deref().ok_or(Error::NeverStored)?;
        close_account(ctx, &names::account(uid), true).await?;
        set_finalizer(ctx, meta, false).await?;
    } else {
        warn!(
            error = invalid.error,
            "skipped a session that cannot be parsed"
        );
    }
    Ok(Action::await_change())
}

/// Remembers what the API server answered to a write on a session.
fn remember(ctx: &Ctx, before: &ObjectMeta, mut now: Guarded) -> Arc<Guarded> {
    now.meta_mut().managed_fields = None;
    let now = Arc::new(now);
    let replaced = kube::core::DeserializeGuard(Err(InvalidObject {
        error: String::new(),
        metadata: before.clone(),
    }));
    let (namespace, name) = (now.namespace().unwrap_or_default(), now.name_any());
    ctx.watches
        .sessions
        .wrote(&namespace, &name, Some(&replaced), Some(Arc::clone(&now)));
    now
}

/// Bounds one call to the API server in time.
async fn in_time<T>(
    what: &'static str,
    name: &str,
    call: impl Future<Output = T>,
) -> Result<T, Error> {
    timeout(CALL_TIMEOUT, call)
        .await
        .map_err(|_| Error::Timeout {
            what,
            name: name.into(),
        })
}

#[cfg(test)]
#[path = "session/driver_tests.rs"]
mod tests;
