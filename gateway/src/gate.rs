//! What happens to one request: who asks, what the session allows, and the answer.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drawbridge_audit::log::Log;
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::RecordingLevel;
use drawbridge_protocol::subprotocol::Offer;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::auth::Auth;
use crate::bridge::Limits;
use crate::clock::Clock;
use crate::grant::{self, Ask, Denied};
use crate::lobby::Place;
use crate::look::library::Library;
use crate::metrics::{Metrics, RefusalLabels};
use crate::open::Open;
use crate::origin::{self, Origin};
use crate::people::People;
use crate::pods::Pods;
use crate::recall::Recall;
use crate::record::Recorder;
use crate::refusal::{Body, Kind, Refusal};
use crate::route::{self, Action, Route};
use crate::session::{Session, State};
use crate::sessions::Sessions;
use crate::told::Case;
use crate::upstream::Upstream;
use crate::{credential, discovery, web};

/// Documents fetched from the API server for clients at the same time; further ones wait.
const MAX_FETCHES: usize = 32;
/// How long a document waits for its turn.
const FETCH_TURN: Duration = Duration::from_secs(5);

/// Everything a request needs.
pub struct Gate {
    /// Whose a token is.
    pub auth: Arc<Auth>,
    /// What sessions allow.
    pub sessions: Arc<Sessions>,
    /// The connections open here.
    pub open: Arc<Open>,
    /// The way to the pods.
    pub upstream: Upstream,
    /// Who may look without a session.
    pub people: People,
    /// The recordings there are.
    pub library: Library,
    /// Pod objects.
    pub pods: Pods,
    /// The API server's version.
    pub cluster: kube::Client,
    /// Refusals just given.
    pub recall: Recall,
    /// Keeps the record.
    pub recorder: Arc<Recorder>,
    /// What is on record about who did what.
    pub log: Log,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// The tasks that relay.
    pub bridges: TaskTracker,
    /// Turns to fetch a document.
    pub fetches: Semaphore,
    /// What the administrator chose.
    pub rules: Rules,
}

/// What the administrator chose.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Path everything is served under as well: empty, or with a leading slash and no trailing one.
    pub path_prefix: String,
    /// Pages of other hosts that may ask.
    pub allow_origin: Vec<Origin>,
    /// Where the accounts of sessions are.
    pub sessions_namespace: String,
    /// Consoles open at the same time, all sessions together.
    pub max_consoles: usize,
    /// Limits of every connection.
    pub limits: Limits,
}

/// The connection a request came on.
#[derive(Debug)]
pub struct Peer {
    /// Whom it comes from.
    pub addr: SocketAddr,
    /// Its place in the lobby.
    pub place: Place,
}

impl Gate {
    /// A semaphore for [`Gate::fetches`].
    #[must_use]
    pub fn fetches() -> Semaphore {
        Semaphore::new(MAX_FETCHES)
    }

    /// Answers one request. Refusals are answers too.
    pub async fn serve<B>(
        self: Arc<Self>,
        mut request: Request<B>,
        peer: Arc<Peer>,
    ) -> Response<Body> {
        let mut case = Case::new(request.headers(), peer.addr);
        let response = match self.answer(&mut request, &peer, &mut case).await {
            Ok(response) => response,
            Err(refusal) => {
                self.metrics
                    .refused
                    .get_or_create(&RefusalLabels {
                        reason: refusal.kind(),
                    })
                    .inc();
                let (stranger, facts) = case.refused(&refusal);
                self.log.refused(stranger, || facts);
                refusal.response()
            }
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            peer.place.enter(); // it waits for the next request
        }
        response
    }

    async fn answer<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        peer: &Peer,
        case: &mut Case,
    ) -> Result<Response<Body>, Refusal> {
        let strangers = |refusal| log_stranger(refusal, peer);
        let uri = request.uri();
        let route = route::route(
            request.method(),
            uri.path(),
            uri.query(),
            &self.rules.path_prefix,
        )
        .map_err(strangers)?;
        if let Route::Web(page) = &route {
            return Ok(web::serve(page, request.method(), request.headers()));
        }
        case.asks(&route);
        origin::check(request.headers(), &self.rules.allow_origin).map_err(strangers)?;
        let offer = credential::offer(request.headers()).map_err(strangers)?;
        if let Route::Look(look) = route {
            return Box::pin(self.look(request, &offer, look, peer, case)).await;
        }
        let claim = credential::token(request.headers(), &offer, &self.rules.sessions_namespace)
            .map_err(strangers)?;
        let session = self.session(claim, peer).await?;
        case.of(&session);
        let answer = Box::pin(self.route(request, &offer, &session, route, peer, case)).await;
        answer.inspect_err(|refusal| log_refusal(refusal, &session, peer))
    }

    /// The session whose token it is. Whoever brought it leaves the lobby.
    pub(crate) async fn session(
        &self,
        claim: credential::Claim,
        peer: &Peer,
    ) -> Result<Arc<Session>, Refusal> {
        let strangers = |refusal| log_stranger(refusal, peer);
        // Before the API server is asked: a token of no session cannot be good, and costs nobody anything.
        if self.sessions.settled(&claim.session).await.is_none() {
            return Err(strangers(self.unknown()));
        }
        let uid = self.auth.identify(&claim.token).await.map_err(strangers)?;
        drop(claim);
        peer.place.leave();
        self.sessions
            .get(&uid)
            .ok_or_else(|| strangers(self.unknown()))
    }

    fn unknown(&self) -> Refusal {
        if self.sessions.is_synced() {
            Refusal::new(
                Kind::Unauthenticated,
                "this token's session is not there any more",
            )
        } else {
            Refusal::new(
                Kind::Unavailable,
                "this gateway has not seen the sessions yet; try again",
            )
            .retry_after(1)
        }
    }

    async fn route<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        offer: &Offer,
        session: &Arc<Session>,
        route: Route,
        peer: &Peer,
        case: &mut Case,
    ) -> Result<Response<Body>, Refusal> {
        match route {
            Route::Discovery(which) => {
                alive(session, self)?;
                Ok(document(discovery::document(which)))
            }
            Route::Version => {
                alive(session, self)?;
                self.fetch(self.version()).await
            }
            Route::Pod { namespace, pod } => {
                grant::check(
                    session,
                    Ask::Pod {
                        namespace: &namespace,
                        pod: &pod,
                    },
                    self.clock.now(),
                )?;
                let user = names::account_username(&self.rules.sessions_namespace, &session.uid);
                self.fetch(self.pods.get(&user, &namespace, &pod)).await
            }
            Route::Session { namespace, name } => {
                alive(session, self)?;
                grant::own(session, &namespace, &name)?;
                Ok(document(self.summary(session)))
            }
            Route::Stream(stream) => self.stream(request, offer, session, stream, peer).await,
            // These two are answered before anybody is asked which session is theirs.
            Route::Look(look) => self.look(request, offer, look, peer, case).await,
            Route::Web(page) => Ok(web::serve(&page, request.method(), request.headers())),
            Route::Console {
                namespace,
                name,
                transport,
                container,
                tty,
            } => {
                let grant = grant::check(
                    session,
                    Ask::Session {
                        namespace: &namespace,
                        name: &name,
                    },
                    self.clock.now(),
                )?;
                let action = grant::action(session.mode).ok_or(Denied::NotReady(None))?;
                let pod = &grant.target.pod;
                let stream = console(session, action, pod, transport, container, tty);
                self.stream(request, offer, session, stream, peer).await
            }
        }
    }

    /// A document that has to be fetched, when its turn comes.
    async fn fetch(
        &self,
        document_: impl Future<Output = Result<Bytes, Refusal>>,
    ) -> Result<Response<Body>, Refusal> {
        let _turn = self.turn().await?;
        document_.await.map(document)
    }

    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let busy = || {
            Refusal::new(
                Kind::Unavailable,
                "too many requests at the moment; try again",
            )
            .retry_after(1)
        };
        let turn = tokio::time::timeout(FETCH_TURN, self.fetches.acquire()).await;
        turn.map_err(|_| busy())?.map_err(|_| busy())
    }

    async fn version(&self) -> Result<Bytes, Refusal> {
        let failed = || {
            Refusal::new(
                Kind::UpstreamFailed,
                "the API server could not be asked for its version",
            )
        };
        let version =
            tokio::time::timeout(crate::upstream::TIMEOUT, self.cluster.apiserver_version()).await;
        let version = version
            .map_err(|error| failed().because(error))?
            .map_err(|error| failed().because(error))?;
        Ok(serde_json::to_vec(&version)
            .map_err(|error| failed().because(error))?
            .into())
    }

    /// What the holder of a session's token may know about it.
    fn summary(&self, session: &Session) -> Bytes {
        let phase = match session.state {
            State::Waiting(phase) => phase.map(|phase| format!("{phase:?}")),
            State::Ready => Some("Ready".to_owned()),
            State::Ended(_) => None, // answered with 401 before
        };
        let summary = json!({
            "namespace": session.namespace,
            "name": session.name,
            "user": session.user,
            "reason": session.reason,
            "mode": session.mode,
            "command": session.command,
            "target": session.target.as_ref().map(|target| json!({
                "pod": target.pod,
                "container": target.container,
                "containers": if target.containers.is_empty() { std::slice::from_ref(&target.container) } else { &target.containers },
            })),
            "observed": session.observed.as_ref().map(|other| &other.session),
            "phase": phase,
            "notBefore": session.not_before,
            "expiresAt": session.expires_at,
            "idleTimeoutSeconds": session.idle.as_secs(),
            "maxConnections": session.max_connections,
            "connectionsHere": self.open.count(&session.uid),
            "recorded": session.recording.level != RecordingLevel::Off,
            // By this clock the session ends.
            "now": self.clock.now(),
        });
        summary.to_string().into()
    }
}

/// What `…/console` stands for: the one command, or a shell; or the container's own process.
fn console(
    session: &Session,
    action: Action,
    pod: &str,
    transport: route::Transport,
    container: Option<String>,
    tty: bool,
) -> route::Stream {
    let command = match action {
        Action::Attach => Vec::new(),
        Action::Exec if session.command.is_empty() => vec!["sh".to_owned()],
        Action::Exec => session.command.clone(),
    };
    route::Stream {
        action,
        transport,
        namespace: session.namespace.clone(),
        pod: pod.to_owned(),
        container,
        command,
        streams: drawbridge_protocol::transcode::Streams {
            stdin: true,
            stdout: true,
            stderr: !tty,
            tty,
        },
    }
}

/// A session that has ended has no token that counts, for nothing.
fn alive(session: &Session, gate: &Gate) -> Result<(), Denied> {
    match session.state {
        State::Ended(stop) => Err(Denied::Ended(stop)),
        _ if session
            .expires_at
            .is_some_and(|end| end <= gate.clock.now()) =>
        {
            Err(Denied::Ended(crate::bridge::Stop::Expired))
        }
        _ => Ok(()),
    }
}

/// Anybody can cause these, in any number.
pub(crate) fn log_stranger(refusal: Refusal, peer: &Peer) -> Refusal {
    debug!(
        client = %peer.addr, code = refusal.code(), reason = refusal.kind().label(), why = refusal.public(),
        error = chain(&refusal), "refused"
    );
    refusal
}

/// Only holders of a good token cause these.
pub(crate) fn log_refusal(refusal: &Refusal, session: &Session, peer: &Peer) {
    let (code, reason, why) = (refusal.code(), refusal.kind().label(), refusal.public());
    let error = chain(refusal);
    let Session {
        namespace,
        name,
        uid,
        user,
        ..
    } = session;
    if code >= 500 {
        warn!(namespace, session = name, uid, user, client = %peer.addr, code, reason, why, error, "refused");
    } else {
        info!(namespace, session = name, uid, user, client = %peer.addr, code, reason, why, error, "refused");
    }
}

/// What is behind a refusal, outermost first; `None` when nothing is.
pub(crate) fn chain(refusal: &Refusal) -> Option<String> {
    let mut source = std::error::Error::source(refusal)?;
    let mut text = source.to_string();
    while let Some(next) = source.source() {
        // Some errors print their source as well.
        let next_text = next.to_string();
        if !text.ends_with(&next_text) {
            text = format!("{text}: {next_text}");
        }
        source = next;
    }
    Some(text)
}

pub(crate) fn document(json: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
pub(crate) mod tests;
