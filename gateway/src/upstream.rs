//! The WebSocket towards the pod: through the API server as the session's own account, or straight to the kubelet.

mod answer;
mod api_server;
mod dial;
mod kubelet;
mod sign;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::ResolvedTarget;
use drawbridge_protocol::subprotocol::{SelectedError, Subprotocol};
use drawbridge_protocol::transcode::Streams;
use http::header::InvalidHeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use self::answer::Answer;
pub use self::api_server::ApiServer;
pub use self::kubelet::{Flags as KubeletFlags, Kubelet};

use crate::bridge::Leg;
use crate::metrics::{Dial, DialLabels, Metrics};
use crate::route::Action;
use crate::session::Session;
use crate::transport::Transport;

/// Longest time from the first packet to the upstream's answer: connect, TLS, request.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// What the path of a request may hold as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The stream that is wanted. All of it comes from the session and from the checked query, nothing from other headers.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Whose account it is opened as.
    pub session: &'a Session,
    /// Into what.
    pub target: &'a ResolvedTarget,
    /// Exec or attach.
    pub action: Action,
    /// Argv; empty for attach.
    pub command: &'a [String],
    /// The streams asked for.
    pub streams: Streams,
    /// This connection's id, a UUID: what the upstream's audit log calls it.
    pub connection: &'a str,
}

/// Opens streams into pods.
#[derive(Debug)]
pub struct Upstream {
    way: Way,
    /// What was negotiated last, for explanations: servers of one cluster rarely differ.
    last: Mutex<Option<Subprotocol>>,
}

#[derive(Debug)]
enum Way {
    ApiServer(Box<ApiServer>),
    Kubelet(Box<Kubelet>),
}

impl From<ApiServer> for Upstream {
    fn from(way: ApiServer) -> Self {
        Self {
            way: Way::ApiServer(Box::new(way)),
            last: Mutex::default(),
        }
    }
}

impl From<Kubelet> for Upstream {
    fn from(way: Kubelet) -> Self {
        Self {
            way: Way::Kubelet(Box::new(way)),
            last: Mutex::default(),
        }
    }
}

impl Upstream {
    /// Opens one stream, within [`TIMEOUT`].
    ///
    /// # Errors
    /// What went wrong; nothing is left half open.
    pub async fn dial(
        &self,
        call: &Call<'_>,
        metrics: &Metrics,
    ) -> Result<Leg<Transport>, DialError> {
        let begun = Instant::now();
        let dial = async {
            match &self.way {
                Way::ApiServer(way) => way.dial(call).await,
                Way::Kubelet(way) => way.dial(call).await,
            }
        };
        let leg = tokio::time::timeout(TIMEOUT, dial)
            .await
            .unwrap_or(Err(DialError::Timeout));
        let result = match &leg {
            Ok(_) => Dial::upgraded,
            Err(DialError::Answered(_)) => Dial::refused,
            Err(_) => Dial::failed,
        };
        metrics
            .dial
            .get_or_create(&DialLabels { result })
            .observe(begun.elapsed().as_secs_f64());
        if let Ok(leg) = &leg {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(leg.subprotocol);
        }
        leg
    }

    /// As whom streams of the session with this UID are opened at the API server; `None` when they go to kubelets.
    #[must_use]
    pub fn account(&self, session: &str, namespace: &str) -> Option<String> {
        match &self.way {
            Way::ApiServer(_) => Some(names::account_username(namespace, session)),
            Way::Kubelet(_) => None,
        }
    }

    /// What the last stream was opened with; `None` before the first.
    #[must_use]
    pub fn last_negotiated(&self) -> Option<Subprotocol> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why no stream was opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No TCP connection.
    #[error("failed to connect to {to}")]
    Connect {
        /// Host and port.
        to: String,
        #[source]
        source: std::io::Error,
    },
    /// No TLS session: the certificate is not trusted, or not for this name.
    #[error("failed to set up TLS with {to}")]
    Tls {
        /// Host and port.
        to: String,
        #[source]
        source: std::io::Error,
    },
    /// The request could not be signed with the gateway's own credentials.
    #[error("failed to read the gateway's own credentials")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request would be longer than a URI can be.
    #[error("the request is too long for the upstream")]
    TooLong,
    /// A header would hold what no header can.
    #[error("the request cannot be written as HTTP")]
    Unwritable(#[from] InvalidHeaderValue),
    /// The HTTP exchange broke.
    #[error("failed to speak HTTP with the upstream")]
    Http(#[from] hyper::Error),
    /// It said 101 and did not mean it.
    #[error("the upstream's handshake is wrong: {0}")]
    Handshake(&'static str),
    /// It chose a subprotocol it was not offered.
    #[error(transparent)]
    Subprotocol(#[from] SelectedError),
    /// It answered with something else than 101.
    #[error("the upstream answered {}", .0.code)]
    Answered(Answer),
    /// The pod that has the granted name is not the one that was granted.
    #[error("pod {pod:?} is not the one this session was granted for: another took its place")]
    Replaced {
        /// The name.
        pod: String,
    },
    /// The API server could not be asked about the pod or its node.
    #[error("failed to read {what} from the API server")]
    Lookup {
        /// `pod` or `node`, and its name.
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// The node has no address to dial.
    #[error("node {0:?} has no InternalIP to dial")]
    NoAddress(String),
    /// Too slow.
    #[error("the upstream did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// Percent-encodes one segment of a path.
fn segment(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, PATH)
}

/// The query of a stream: argv, the container if it belongs there, and `1` for every stream, under the dialect's names.
fn query(call: &Call<'_>, container: Option<&str>, [stdin, stdout, stderr]: [&str; 3]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for argument in call.command {
        query.append_pair("command", argument);
    }
    if let Some(container) = container {
        query.append_pair("container", container);
    }
    let Streams {
        stdin: input,
        stdout: output,
        stderr: error,
        tty,
    } = call.streams;
    for (name, wanted) in [
        (stdin, input),
        (stdout, output),
        (stderr, error && !tty),
        ("tty", tty),
    ] {
        if wanted {
            query.append_pair(name, "1");
        }
    }
    query.finish()
}

#[cfg(test)]
pub(crate) mod tests;
