//! Looking: who may see what is recorded of a session, and the answers.
//!
//! Two ways in, neither of which a shell's token opens: a session of mode `Observe` for this very session, or an identity
//! that RBAC lets `get` `consolesessions/recordings` of it.

pub mod library;

use std::sync::Arc;

use drawbridge_protocol::subprotocol::Offer;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Request, Response};
use serde_json::json;
use tracing::info;
use uuid::Uuid;

use self::library::Error;
use crate::body::Body;
use crate::console::AUDIT;
use crate::credential::{self, Credential};
use crate::gate::{Gate, Peer, chain, document, log_refusal, log_stranger};
use crate::grant;
use crate::people::Identity;
use crate::refusal::{Kind, Refusal};
use crate::route::{Look, LookAt};
use crate::session::Session;

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
    /// An identity that may.
    Person(Arc<Identity>),
}

impl Viewer {
    /// The username that records and the watched user are told.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Session(session) => &session.user,
            Self::Person(identity) => &identity.user,
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
            error => Self::new(Kind::Unavailable, "the store of recordings cannot be read now; try again")
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
    ) -> Result<Response<Body>, Refusal> {
        let headers = request.headers();
        let credential = credential::read(headers, offer, &self.rules.sessions_namespace)
            .map_err(|refusal| log_stranger(refusal, peer))?;
        let (viewer, watched) = match credential {
            Credential::Session(claim) => {
                let session = self.session(claim, peer).await?;
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
                let identity = self
                    .people
                    .may_look(&token, namespace, name)
                    .await
                    .map_err(|refusal| log_stranger(refusal, peer))?;
                drop(token);
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
                (Viewer::Person(identity), watched)
            }
        };
        let answer = self.show(&viewer, &watched, look.at, peer).await;
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
        peer: &Peer,
    ) -> Result<Response<Body>, Refusal> {
        let library = self
            .library
            .as_ref()
            .ok_or_else(|| Refusal::new(Kind::NoRecording, "this gateway keeps no recordings"))?;
        let _turn = self.turn().await?;
        match at {
            LookAt::List => {
                let (recordings, more) = library.list(watched).await?;
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
                told("downloaded", viewer, watched, id, peer);
                Ok(document(file))
            }
            LookAt::Cast(id) => {
                let pieces = library.cast(watched, id).await?;
                told("replayed", viewer, watched, id, peer);
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
            LookAt::Live(_) => Err(Refusal::new(
                Kind::NoRecording,
                "this recording is not being made here now",
            )),
        }
    }
}

/// Every look is on record.
fn told(what: &'static str, viewer: &Viewer, watched: &Watched, recording: Uuid, peer: &Peer) {
    let Watched {
        namespace,
        name,
        uid,
    } = watched;
    let by = match viewer {
        Viewer::Session(session) => Some(session.name.as_str()),
        Viewer::Person(_) => None,
    };
    info!(
        target: AUDIT,
        namespace, session = name, uid, %recording, viewer = viewer.user(), viewer_session = by, client = %peer.addr,
        "recording {what}"
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
