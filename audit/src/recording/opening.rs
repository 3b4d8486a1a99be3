//! What is known before the first byte: who, where, how. Every recording begins with it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::subject::{Pod, Session};

/// The facts a recording opens with. In its first chunk, in its manifest, and in the header line that players read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// The version of the format: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The recording's id: a `UUIDv7`, one for each connection.
    pub recording: Uuid,
    /// The session that let the user in.
    pub session: Session,
    /// Who: the Kubernetes username.
    pub user: String,
    /// Where.
    pub pod: Pod,
    /// How it was opened.
    pub mode: Mode,
    /// The argv that was asked for; empty for [`Mode::Attach`].
    pub argv: Vec<String>,
    /// Whether there is a terminal. Without one, stdout and stderr are apart.
    pub tty: bool,
    /// Whether there is a stdin.
    pub stdin: bool,
    /// How either leg lays out its channels.
    pub subprotocols: Subprotocols,
    /// When, by the wall clock. Every other time counts from here, by a clock that nobody sets.
    pub started_at: Timestamp,
    /// What is kept.
    pub settings: Settings,
    /// Which gateway wrote it.
    pub gateway: String,
    /// Whether the session was labelled to be kept whatever the retention says.
    pub legal_hold: bool,
}

/// How a container is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// By a process of its own.
    Exec,
    /// At the container's main process.
    Attach,
}

/// The WebSocket subprotocols of a connection, e.g. `v5.channel.k8s.io`. Empty: none was agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subprotocols {
    /// Between the client and the gateway.
    pub client: String,
    /// Between the gateway and the API server or kubelet.
    pub upstream: String,
}

/// What is kept of a session, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// What happens if the recording cannot be written.
    pub level: Level,
    /// Whether typed lines are kept, if the terminal echoed them. Default: no.
    pub keystrokes: bool,
    /// Whether the payload of binary streams is kept, and not just its length, hash and beginning. Default: no.
    pub payloads: bool,
    /// The age recipients (`age1…`) who may read it; empty: it is not encrypted.
    pub recipients: Vec<String>,
}

/// What a session may do without its recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Nothing: it ends.
    #[default]
    Required,
    /// Go on; the gap is noted.
    BestEffort,
}
