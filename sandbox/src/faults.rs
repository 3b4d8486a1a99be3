//! What a test wants to go wrong.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

/// Faults ordered and not yet over.
#[derive(Debug)]
pub struct Faults {
    requests: Mutex<Vec<RequestFault>>,
    /// What happens to watches.
    pub watches: watch::Sender<WatchFault>,
    /// What happens to exec and attach streams, those open and those to come.
    pub streams: watch::Sender<StreamFault>,
    /// Whether the kubelet lives: a dead one closes its port and drops its streams; pods go on.
    pub kubelet: watch::Sender<bool>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            watches: watch::Sender::new(WatchFault::None),
            streams: watch::Sender::new(StreamFault::None),
            kubelet: watch::Sender::new(true),
        }
    }
}

/// A request that is answered with an error.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestFault {
    /// As in [`crate::request::Attributes`]; empty for any.
    #[serde(default)]
    pub verb: String,
    /// `pods`, or `consolesessions.drawbridge.dev/status`; empty for any.
    #[serde(default)]
    pub resource: String,
    /// Requests that pass before it.
    #[serde(default)]
    pub after: u32,
    /// Requests that fail then.
    #[serde(default = "one")]
    pub times: u32,
    /// What they get.
    pub then: Answer,
}

fn one() -> u32 {
    1
}

/// What a faulty request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// This HTTP status, with the Status Kubernetes would send: 409, 429, 500, 503 and so on.
    Code(u16),
    /// The right answer, this many milliseconds late.
    DelayMs(u64),
    /// TCP reset.
    Reset,
}

/// What happens to watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchFault {
    /// Nothing.
    None,
    /// Events, bookmarks included, are held back as long as this lasts; connections stay.
    Stalled,
    /// Those open are ended now, and new ones refused with 503.
    Refused,
}

/// What happens to streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamFault {
    /// Nothing.
    None,
    /// After half of the next frame to the client the connection is cut.
    CutMidFrame,
    /// After half of the next frame nothing more comes.
    StallMidFrame,
    /// TCP reset.
    Reset,
}

impl Faults {
    /// Orders a fault.
    pub fn request(&self, fault: RequestFault) {
        self.requests
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(fault);
    }

    /// What this request gets instead of its answer, if anything.
    #[must_use]
    pub fn answer(&self, _verb: &str, _resource: &str) -> Option<Answer> {
        todo!("faults")
    }

    /// Takes back what was ordered.
    pub fn clear(&self) {
        todo!("faults")
    }
}

/// Time a kubelet that was killed takes to serve again after it is told to live.
pub const KUBELET_RETURN: Duration = Duration::from_millis(50);
