//! Looking: who may see what is recorded of a session, and the answers.
//!
//! Two ways in, neither of which a shell's token opens: a session of mode `Observe` for this very session, or an identity
//! that RBAC lets `get` `consolesessions/recordings` of it.

pub mod library;
pub(crate) mod live;
pub mod proof;

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drawbridge_audit::event::{self, Event, Type};
use drawbridge_protocol::subprotocol::{Bearer, Offer, Subprotocol};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Request, Response};
use hyper::upgrade::OnUpgrade;
use serde_json::json;
use tracing::info;
use uuid::Uuid;

use self::library::{Error, Item};
use self::live::{End, Followed};
use crate::body::Body;
use crate::console::{self, AUDIT, unlogged};
use crate::credential::{self, Credential};
use crate::gate::{Gate, Peer, chain, document, log_refusal, log_stranger};
use crate::grant::{self, Denied};
use crate::open::{Entry, Watching};
use crate::people::Identity;
use crate::refusal::{Kind, Refusal};
use crate::route::{Look, LookAt};
use crate::session::Session;
use crate::told::{self, Case};
use crate::upgrade::{Handshake, has_token};

/// Live views one identity may have open at the same time.
const MAX_LIVE: usize = 16;
/// How often it is asked whether an identity may still look on.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How often in a row nobody may be able to say before that counts as no.
const MAX_UNSURE: u32 = 4;

/// The session that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Who looks.
#[derive(Clone, Debug)]
pub enum Viewer {
    /// Whoever holds the token of this session of mode `Observe`.
    Session(Arc<Session>),
    /// An identity that may, and its token, to ask again while it looks on.
    Person(Arc<Identity>, Bearer),
}

impl Viewer {
    /// The username that records and the watched user are told.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Session(session) => &session.user,
            Self::Person(identity, _) => &identity.user,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(_) => Self::new(Kind::NoRecording, "there is no such recording of this session"),
            Error::Encrypted(_) => Self::new(
                Kind::NoRecording,
                "this recording is encrypted, and this gateway has no key to it: drawbridge-audit replays it for who has",
            )
            .with_code(409),
            Error::Broken(_, ref broken) => {
                let text = format!("this recording is broken, and not shown: {broken}; drawbridge-audit verify says more");
                Self::new(Kind::NoRecording, text).with_code(409).because(error)
            }
            Error::Unreadable(..) => Self::new(
                Kind::NoRecording,
                "this recording is broken at its beginning: segment 0 is not the one its manifest names, or cannot be read; drawbridge-audit verify says more",
            )
            .with_code(409)
            .because(error),
            error @ Error::Store(_) => Self::new(Kind::Unavailable, "the store of recordings cannot be read now; try again")
                .retry_after(5)
                .because(error),
        }
    }
}

impl Gate {
    /// Answers a request to look, whoever asks.
    ///
    /// # Errors
    /// Why not; logged.
    pub(crate) async fn look<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        offer: &Offer,
        look: Look,
        peer: &Peer,
        case: &mut Case,
    ) -> Result<Response<Body>, Refusal> {
        let headers = request.headers();
        let client = told::client(headers, peer.addr);
        let credential = credential::read(headers, offer, &self.rules.sessions_namespace)
            .map_err(|refusal| log_stranger(refusal, peer))?;
        let (viewer, watched) = match credential {
            Credential::Session(claim) => {
                let session = self.session(claim, peer).await?;
                case.of(&session);
                let now = self.clock.now();
                let other = grant::look(&session, &look.namespace, &look.name, now)
                    .map_err(Refusal::from)
                    .inspect_err(|refusal| log_refusal(refusal, &session, peer))?;
                let watched = Watched {
                    namespace: session.namespace.clone(),
                    name: other.session.clone(),
                    uid: other.uid.clone(),
                };
                (Viewer::Session(session), watched)
            }
            Credential::Other(token) => {
                let (namespace, name) = (&look.namespace, &look.name);
                let stranger = |refusal| log_stranger(refusal, peer);
                let people = &self.people;
                let identity = people.whose(&token).await.map_err(stranger)?;
                case.by(&identity.user);
                let identity = people.may(identity, namespace, name).await;
                let identity = identity.map_err(stranger)?;
                peer.place.leave();
                let session = self
                    .sessions
                    .named(namespace, name)
                    .ok_or_else(|| no_session(self.sessions.is_synced()))?;
                let watched = Watched {
                    namespace: session.namespace.clone(),
                    name: session.name.clone(),
                    uid: session.uid.clone(),
                };
                (Viewer::Person(identity, token), watched)
            }
        };
        case.about(&viewer, &watched);
        let answer = match look.at {
            LookAt::Live(id) => {
                let looking = (viewer.clone(), watched.clone());
                self.follow(request, looking, id, client, peer).await
            }
            at => self.show(&viewer, &watched, at, client, peer).await,
        };
        answer.inspect_err(|refusal| {
            let Watched {
                namespace, name, ..
            } = &watched;
            info!(
                namespace, session = name, viewer = viewer.user(), client = %peer.addr, code = refusal.code(),
                why = refusal.public(), error = chain(refusal), "not shown"
            );
        })
    }

    async fn show(
        &self,
        viewer: &Viewer,
        watched: &Watched,
        at: LookAt,
        client: event::Client,
        peer: &Peer,
    ) -> Result<Response<Body>, Refusal> {
        let record = async |kind, id| {
            let look = told::look(viewer, watched, id, client);
            self.log
                .record(Event::now(kind, look))
                .await
                .map_err(unlogged)
        };
        let library = &self.library;
        let _turn = self.turn().await?;
        match at {
            LookAt::List => {
                record(Type::Listed, None).await?;
                let lives = self.recorder.lives().of(&watched.uid);
                let (mut recordings, more) = library.list(watched).await?;
                // What is being made is not in the store, or not all of it.
                for live in lives {
                    let item = Item::open(&live.opening);
                    match recordings.iter_mut().find(|other| other.id == item.id) {
                        Some(other) => *other = item,
                        None => recordings.push(item),
                    }
                }
                recordings.sort_by_key(|item| Reverse(item.id));
                let Watched {
                    namespace,
                    name,
                    uid,
                } = watched;
                let list = json!({
                    "session": {"namespace": namespace, "name": name, "uid": uid},
                    "viewer": viewer.user(),
                    "recordings": recordings,
                    "more": more,
                });
                Ok(document(list.to_string().into()))
            }
            LookAt::Manifest(id) => {
                let file = library.manifest_file(watched, id).await?;
                record(Type::Downloaded, Some(id)).await?;
                log("recording downloaded", viewer, watched, id, peer.addr, None);
                Ok(document(file))
            }
            LookAt::Cast(id) => {
                let pieces = library.cast(watched, id).await?;
                record(Type::Replayed, Some(id)).await?;
                log("recording replayed", viewer, watched, id, peer.addr, None);
                let mut response = Response::new(Body::Pieces(pieces));
                let headers = response.headers_mut();
                for (name, value) in [
                    (CONTENT_TYPE, "application/x-asciicast"),
                    (CACHE_CONTROL, "no-store"),
                    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                ] {
                    headers.insert(name, HeaderValue::from_static(value));
                }
                Ok(response)
            }
            LookAt::Live(_) => Err(not_live()),
        }
    }

    /// Lets one follow a recording while it is made.
    async fn follow<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        (viewer, watched): (Viewer, Watched),
        id: Uuid,
        client: event::Client,
        peer: &Peer,
    ) -> Result<Response<Body>, Refusal> {
        let handshake = Handshake::check(request.version(), request.headers())?;
        if !has_token(
            request.headers(),
            &SEC_WEBSOCKET_PROTOCOL,
            live::SUBPROTOCOL,
        ) {
            return Err(Refusal::new(
                Kind::NoSubprotocol,
                format!("offer the subprotocol {}", live::SUBPROTOCOL),
            ));
        }
        let live = self.recorder.lives().get(id);
        let live = live
            .filter(|live| live.opening.session.uid == watched.uid)
            .ok_or_else(not_live)?;
        if !live.opening.settings.recipients.is_empty() {
            return Err(Error::Encrypted(id).into());
        }
        // Register, then check, then serve: what ends the viewer's session from here on finds the connection.
        let (key, most) = match &viewer {
            Viewer::Session(session) => (session.uid.clone(), session.max_connections),
            Viewer::Person(identity, _) => (format!("person {}", identity.user), MAX_LIVE),
        };
        let entry = self.open.register(&key);
        if let Viewer::Session(session) = &viewer {
            grant::holds(self.sessions.get(&session.uid).as_deref(), self.clock.now())
                .map_err(Denied::Ended)?;
        }
        if entry.rank() > most {
            return Err(Refusal::new(
                Kind::TooManyConnections,
                format!(
                    "{most} live views are open already, as many as there may be: close one first"
                ),
            ));
        }
        self.check_not_full()?;
        let facts = event::Facts {
            connection: Some(Uuid::now_v7().to_string()),
            ..told::look(&viewer, &watched, Some(id), client)
        };
        let began = Event::now(Type::LiveViewed, facts.clone());
        self.log.record(began).await.map_err(unlogged)?;
        let looking = Looking {
            gate: Arc::clone(self),
            watching: self.open.watched_by(&watched.uid, viewer.user()),
            viewer,
            watched,
            id,
            client: peer.addr,
            facts,
            begun: Instant::now(),
        };
        looking.log("live view opened", None);
        let followed = Followed::new(&live);
        drop(live);
        let upgraded = hyper::upgrade::on(&mut *request);
        self.bridges.spawn(looking.run(upgraded, entry, followed));
        Ok(handshake.naming(Some(live::SUBPROTOCOL)))
    }
}

/// Somebody who follows a recording.
struct Looking {
    gate: Arc<Gate>,
    /// While this is there the users of the session are told.
    watching: Watching,
    viewer: Viewer,
    watched: Watched,
    id: Uuid,
    client: SocketAddr,
    /// What the audit log knows of it.
    facts: event::Facts,
    begun: Instant,
}

impl Looking {
    async fn run(self, upgraded: OnUpgrade, mut entry: Entry, followed: Followed) {
        let end = match console::client(upgraded, Subprotocol::Unnamed).await {
            Some(client) => {
                let stop = self.stopped(&mut entry);
                followed.show(client, stop).await
            }
            None => End::Viewer,
        };
        self.log("live view ended", Some(end.label()));
        let lasted = self.begun.elapsed();
        let ended = told::looked_on(self.facts, end.label(), lasted);
        self.gate.log.emit(ended);
        drop(self.watching);
    }

    /// Resolves when the viewer may not look any more.
    async fn stopped(&self, entry: &mut Entry) -> End {
        let gate = &self.gate;
        match &self.viewer {
            Viewer::Session(session) => {
                let holds =
                    || grant::holds(gate.sessions.get(&session.uid).as_deref(), gate.clock.now());
                End::Stopped(entry.stopped(&gate.clock, holds).await)
            }
            Viewer::Person(_, token) => {
                let draining = entry.stopped(&gate.clock, || Ok(jiff::Timestamp::MAX));
                tokio::select! {
                    stop = draining => End::Stopped(stop),
                    () = self.refused(token) => End::Forbidden,
                }
            }
        }
    }

    /// Resolves when the identity may not look any more, or nobody can say for too long.
    async fn refused(&self, token: &Bearer) {
        let mut unsure = 0;
        loop {
            tokio::time::sleep(ASK_AGAIN).await;
            let Watched {
                namespace, name, ..
            } = &self.watched;
            match self.gate.people.may_look(token, namespace, name).await {
                Ok(_) => unsure = 0,
                Err(refusal) if refusal.kind() == Kind::Unavailable && unsure < MAX_UNSURE => {
                    unsure += 1;
                }
                Err(_) => return,
            }
        }
    }

    fn log(&self, what: &'static str, end: Option<&'static str>) {
        log(what, &self.viewer, &self.watched, self.id, self.client, end);
    }
}

fn not_live() -> Refusal {
    Refusal::new(
        Kind::NoRecording,
        "this recording is not being made at this gateway now",
    )
}

/// Every look is in the program's own log, too.
fn log(
    what: &'static str,
    viewer: &Viewer,
    watched: &Watched,
    recording: Uuid,
    client: SocketAddr,
    end: Option<&'static str>,
) {
    let Watched {
        namespace,
        name,
        uid,
    } = watched;
    let by = match viewer {
        Viewer::Session(session) => Some(session.name.as_str()),
        Viewer::Person(..) => None,
    };
    info!(
        target: AUDIT,
        namespace, session = name, uid, %recording, viewer = viewer.user(), viewer_session = by, %client, end,
        "{what}"
    );
}

fn no_session(synced: bool) -> Refusal {
    if synced {
        Refusal::new(
            Kind::NoRecording,
            "there is no such session now; the recordings of one that is gone are in the store, for drawbridge-audit",
        )
    } else {
        Refusal::new(
            Kind::Unavailable,
            "this gateway has not seen the sessions yet; try again",
        )
        .retry_after(1)
    }
}

#[cfg(test)]
pub(crate) mod tests;
