//! Whose a token is: asked of the API server (`TokenReview`), remembered for a moment.
//!
//! Of a session's token the answer is the session's UID, and nothing more: what that session allows, and whether it still does, is read from
//! the index on every request. Remembering an answer therefore never outlives a revocation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drawbridge_crds::names;
use drawbridge_protocol::subprotocol::Bearer;
use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::metrics::{Metrics, Review};
use crate::refusal::{Kind, Refusal};

/// How long "it is this session's" is remembered: as long as the API server itself remembers it.
const ACCEPTED_FOR: Duration = Duration::from_secs(10);
/// How long "it is nobody's" is remembered. Short: a token can be refused in the moment before its account is seen.
const REJECTED_FOR: Duration = Duration::from_secs(2);
/// How long a failed question is remembered, so that retrying clients do not multiply it.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// Answers remembered: about 100 bytes each.
const MAX_REMEMBERED: usize = 4096;
/// Questions asked at the same time; further ones wait.
const MAX_ASKING: usize = 64;
/// Longest wait for an answer, including for a turn to ask. Under kubectl's patience, and below the upstream's 10 s.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Who is asked whose a token is.
pub trait Reviewer: Send + Sync + 'static {
    /// Asks once.
    fn review<'a>(
        &'a self,
        token: &'a Bearer,
    ) -> BoxFuture<'a, Result<TokenReviewStatus, kube::Error>>;
}

/// Asks the API server.
#[derive(Clone)]
pub struct ApiServer {
    reviews: Api<TokenReview>,
    /// `None`: the API server's own.
    audience: Option<String>,
}

impl ApiServer {
    /// Asks whether tokens are good for `audience`.
    #[must_use]
    pub fn new(client: kube::Client, audience: String) -> Self {
        Self {
            reviews: Api::all(client),
            audience: Some(audience),
        }
    }

    /// Asks whether tokens are good for the API server itself.
    #[must_use]
    pub fn for_its_own(client: kube::Client) -> Self {
        Self {
            reviews: Api::all(client),
            audience: None,
        }
    }
}

impl Reviewer for ApiServer {
    fn review<'a>(
        &'a self,
        token: &'a Bearer,
    ) -> BoxFuture<'a, Result<TokenReviewStatus, kube::Error>> {
        Box::pin(async move {
            let question = TokenReview {
                metadata: ObjectMeta::default(),
                spec: TokenReviewSpec {
                    audiences: self.audience.clone().map(|audience| vec![audience]),
                    token: Some(token.expose().to_owned()),
                },
                status: None,
            };
            let answer = self
                .reviews
                .create(&PostParams::default(), &question)
                .await?;
            Ok(answer.status.unwrap_or_default())
        })
    }
}

/// Knows whose tokens are: of which session, unless it was made to tell something else.
pub struct Auth<A = Arc<str>> {
    reviewer: Box<dyn Reviewer>,
    judge: Judge<A>,
    remembered: Mutex<HashMap<Key, Slot<A>>>,
    asking: Semaphore,
    metrics: Arc<Metrics>,
}

/// SHA-256 of the token; the token itself is not kept.
type Key = [u8; 32];

enum Slot<A> {
    Known { answer: Answer<A>, until: Instant },
    Asked(watch::Receiver<Option<Answer<A>>>),
}

/// Whose a token is, or why nobody's.
type Answer<A> = Result<A, Failure>;

/// Whom a review names, if it says yes.
type Judge<A> = Box<dyn Fn(&TokenReviewStatus) -> Option<A> + Send + Sync>;

/// Why nobody could be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Failure {
    #[error(
        "the API server does not take this token: it may have expired, or its session may have ended"
    )]
    Rejected,
    #[error("the API server could not be asked whose token this is; try again")]
    Failed,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rejected => Self::new(Kind::Unauthenticated, failure.to_string()),
            Failure::Failed => Self::new(Kind::Unavailable, failure.to_string()).retry_after(1),
        }
    }
}

impl Auth<Arc<str>> {
    /// Asks `reviewer`, and takes only answers that name `audience` and an account in `sessions_namespace`.
    #[must_use]
    pub fn new(
        reviewer: impl Reviewer,
        audience: String,
        sessions_namespace: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        let judge = move |status: &TokenReviewStatus| {
            judge(status, &audience, &sessions_namespace).map(Arc::from)
        };
        Self::judging(reviewer, judge, metrics)
    }
}

impl<A: Clone + Send + Sync + 'static> Auth<A> {
    /// Asks `reviewer`, and lets `judge` say whom its answer names.
    #[must_use]
    pub fn judging(
        reviewer: impl Reviewer,
        judge: impl Fn(&TokenReviewStatus) -> Option<A> + Send + Sync + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            reviewer: Box::new(reviewer),
            judge: Box::new(judge),
            remembered: Mutex::default(),
            asking: Semaphore::new(MAX_ASKING),
            metrics,
        }
    }

    /// Whose a token is.
    ///
    /// The same token is asked about once, however many requests bring it at the same time.
    ///
    /// # Errors
    /// 401 when it is nobody's, 503 when nobody could say.
    pub async fn identify(self: &Arc<Self>, token: &Bearer) -> Result<A, Refusal> {
        let key: Key = Sha256::digest(token.expose().as_bytes()).into();
        let mut answer = {
            let mut slots = self.lock();
            match slots.get(&key) {
                Some(Slot::Known { answer, until }) if Instant::now() < *until => {
                    self.metrics.review(Review::cached);
                    return Ok(answer.clone()?);
                }
                Some(Slot::Asked(answer)) if answer.has_changed().is_ok() => {
                    self.metrics.review(Review::shared);
                    answer.clone()
                }
                _ => {
                    make_room(&mut slots);
                    let (tx, rx) = watch::channel(None);
                    slots.insert(key, Slot::Asked(rx.clone()));
                    // Its own task: whoever asked first may hang up, and the others still wait.
                    tokio::spawn(Arc::clone(self).ask(key, token.clone(), tx));
                    rx
                }
            }
        };
        let answer = match answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None, // the asking task died
        };
        Ok(answer.unwrap_or(Err(Failure::Failed))?)
    }

    async fn ask(self: Arc<Self>, key: Key, token: Bearer, tell: watch::Sender<Option<Answer<A>>>) {
        let asked = timeout(TIMEOUT, async {
            let _turn = self.asking.acquire().await;
            self.reviewer.review(&token).await
        });
        let (answer, keep, result) = match asked.await {
            Ok(Ok(status)) => {
                if let Some(whose) = (self.judge)(&status) {
                    (Ok(whose), ACCEPTED_FOR, Review::accepted)
                } else {
                    debug!(error = status.error, "a token was rejected");
                    (Err(Failure::Rejected), REJECTED_FOR, Review::rejected)
                }
            }
            Ok(Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a token could not be reviewed; may this account create tokenreviews?"
                );
                (Err(Failure::Failed), FAILED_FOR, Review::failed)
            }
            Err(_) => {
                warn!(
                    "a token could not be reviewed within {TIMEOUT:?}; is the API server overloaded?"
                );
                (Err(Failure::Failed), FAILED_FOR, Review::failed)
            }
        };
        self.metrics.review(result);
        let until = Instant::now() + keep;
        self.lock().insert(
            key,
            Slot::Known {
                answer: answer.clone(),
                until,
            },
        );
        let _ = tell.send(Some(answer)); // everybody may have hung up
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot<A>>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one more: what is over goes first, then what would be over next. Open questions stay; the lobby bounds
/// how many there can be.
fn make_room<A>(slots: &mut HashMap<Key, Slot<A>>) {
    if slots.len() < MAX_REMEMBERED {
        return;
    }
    let now = Instant::now();
    slots.retain(|_, slot| match slot {
        Slot::Known { until, .. } => now < *until,
        Slot::Asked(answer) => answer.has_changed().is_ok(),
    });
    if slots.len() < MAX_REMEMBERED {
        return;
    }
    let mut known: Vec<(Instant, Key)> = slots
        .iter()
        .filter_map(|(key, slot)| match slot {
            Slot::Known { until, .. } => Some((*until, *key)),
            Slot::Asked(_) => None,
        })
        .collect();
    known.sort_unstable();
    // Many at once: the next ones need not sort again.
    for (_, key) in known.into_iter().take(MAX_REMEMBERED / 8) {
        slots.remove(&key);
    }
}

/// The session a review names; `None` unless it says yes, to our audience, about an account of a session.
fn judge<'a>(
    status: &'a TokenReviewStatus,
    audience: &str,
    sessions_namespace: &str,
) -> Option<&'a str> {
    if status.authenticated != Some(true) {
        return None;
    }
    // A server that ignored our audiences answers without them, or with its own.
    if !status
        .audiences
        .as_ref()?
        .iter()
        .any(|named| named == audience)
    {
        return None;
    }
    names::session_uid(
        sessions_namespace,
        status.user.as_ref()?.username.as_deref()?,
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::authentication::v1::UserInfo;
    use tokio::sync::Notify;

    use super::*;

    /// What the API server says of the account of the session with this UID.
    pub(crate) fn yes(uid: &str) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![names::TOKEN_AUDIENCE.into()]),
            user: Some(UserInfo {
                username: Some(names::account_username(names::SESSIONS_NAMESPACE, uid)),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    /// Takes tokens that begin with `good` for the session `6f1c`, fails for `down`, and answers once `go` was notified.
    #[derive(Default)]
    struct Fake {
        asked: AtomicUsize,
        go: Notify,
        hold: bool,
    }

    impl Reviewer for Arc<Fake> {
        fn review<'a>(
            &'a self,
            token: &'a Bearer,
        ) -> BoxFuture<'a, Result<TokenReviewStatus, kube::Error>> {
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::Relaxed);
                if self.hold {
                    self.go.notified().await;
                }
                match token.expose() {
                    text if text.starts_with("good") => Ok(yes("6f1c")),
                    "down" => Err(kube::Error::LinesCodecMaxLineLengthExceeded),
                    _ => Ok(TokenReviewStatus {
                        authenticated: Some(false),
                        ..TokenReviewStatus::default()
                    }),
                }
            })
        }
    }

    fn auth(hold: bool) -> (Arc<Fake>, Arc<Auth>) {
        let fake = Arc::new(Fake {
            hold,
            ..Fake::default()
        });
        let (audience, namespace) = (
            names::TOKEN_AUDIENCE.to_owned(),
            names::SESSIONS_NAMESPACE.to_owned(),
        );
        let metrics = Arc::new(Metrics::unregistered());
        (
            Arc::clone(&fake),
            Arc::new(Auth::new(fake, audience, namespace, metrics)),
        )
    }

    fn bearer(text: &str) -> Bearer {
        Bearer::from(text.to_owned())
    }

    #[test]
    fn only_a_yes_about_a_session_account_for_our_audience_names_a_session() {
        let with = |change: fn(&mut TokenReviewStatus)| {
            let mut status = yes("6f1c");
            change(&mut status);
            judge(&status, names::TOKEN_AUDIENCE, names::SESSIONS_NAMESPACE).map(str::to_owned)
        };
        assert_eq!(with(|_| ()).as_deref(), Some("6f1c"));
        assert_eq!(with(|status| status.authenticated = Some(false)), None);
        assert_eq!(with(|status| status.authenticated = None), None);
        assert_eq!(with(|status| status.audiences = None), None);
        assert_eq!(
            with(|status| status.audiences = Some(vec!["https://kubernetes.default.svc".into()])),
            None
        );
        assert_eq!(with(|status| status.user = None), None);
        assert_eq!(
            with(|status| {
                status.user.as_mut().expect("set").username =
                    Some("system:serviceaccount:default:cs-6f1c".into());
            }),
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_remembered_for_ten_seconds_and_a_no_for_two() {
        let (fake, auth) = auth(false);
        for (token, seconds, code) in [
            ("good", 10, None),
            ("bad", 2, Some(401)),
            ("down", 1, Some(503)),
        ] {
            let before = fake.asked.load(Ordering::Relaxed);
            for _ in 0..3 {
                let answer = auth.identify(&bearer(token)).await;
                assert_eq!(answer.err().map(|refusal| refusal.code()), code, "{token}");
                tokio::time::advance(Duration::from_millis(seconds * 1000 / 3)).await;
            }
            assert_eq!(
                fake.asked.load(Ordering::Relaxed),
                before + 1,
                "{token}: asked once"
            );
            tokio::time::advance(Duration::from_millis(10)).await;
            let _ = auth.identify(&bearer(token)).await;
            assert_eq!(
                fake.asked.load(Ordering::Relaxed),
                before + 2,
                "{token}: asked again"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_asked_about_once_however_many_bring_it_and_whoever_hangs_up() {
        let (fake, auth) = auth(true);
        let asks: Vec<_> = (0..20)
            .map(|_| {
                let auth = Arc::clone(&auth);
                tokio::spawn(async move {
                    auth.identify(&bearer("good"))
                        .await
                        .map_err(|refusal| refusal.code())
                })
            })
            .collect();
        while fake.asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        asks[0].abort();
        fake.go.notify_one();
        for ask in asks.into_iter().skip(1) {
            assert_eq!(ask.await.expect("ran").as_deref(), Ok("6f1c"));
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reviewer_that_never_answers_costs_eight_seconds() {
        let (_fake, auth) = auth(true);
        let begun = Instant::now();
        let refusal = auth.identify(&bearer("good")).await.expect_err("refused");
        assert_eq!((refusal.code(), begun.elapsed().as_secs()), (503, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn questions_at_the_same_time_and_answers_remembered_are_bounded() {
        let (fake, auth) = auth(true);
        let asks: Vec<_> = (0..2 * MAX_ASKING)
            .map(|n| {
                let auth = Arc::clone(&auth);
                tokio::spawn(
                    async move { auth.identify(&bearer(&format!("good{n}"))).await.is_ok() },
                )
            })
            .collect();
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), MAX_ASKING);
        for ask in asks {
            while !ask.is_finished() {
                fake.go.notify_one();
                tokio::task::yield_now().await;
            }
            assert!(ask.await.expect("ran"));
        }
        let mut slots = auth.lock();
        let until = Instant::now() + ACCEPTED_FOR;
        for n in 0..2 * MAX_REMEMBERED {
            make_room(&mut slots);
            slots.insert(
                Sha256::digest(n.to_be_bytes()).into(),
                Slot::Known {
                    answer: Err(Failure::Rejected),
                    until,
                },
            );
            assert!(slots.len() <= MAX_REMEMBERED);
        }
    }
}
