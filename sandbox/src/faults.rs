//! What a test wants to go wrong.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;

/// What is to go wrong; what `GET /sandbox/faults` shows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// Requests to fail.
    pub requests: Vec<RequestFault>,
    /// What happens to watches.
    pub watches: WatchFault,
    /// What happens to exec and attach streams, those open and those to come.
    pub streams: StreamFault,
    /// Whether the kubelet is dead: it closes its port and drops its streams; pods go on.
    pub kubelet_dead: bool,
}

/// A request that is answered with an error.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestFault {
    /// As in [`crate::request::Attributes`]; empty for any.
    pub verb: String,
    /// `pods`, or `consolesessions.drawbridge.dev/status`; empty for any.
    pub resource: String,
    /// Requests that pass before it.
    pub after: u32,
    /// Requests that fail then; none if this is 0.
    pub times: u32,
    /// What they get.
    pub then: Answer,
}

/// What a faulty request gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// This HTTP status, with the Status Kubernetes would send: 409, 429, 500, 503 and so on.
    Code(u16),
    /// TCP reset.
    #[default]
    Reset,
}

/// What happens to watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchFault {
    /// Nothing.
    #[default]
    None,
    /// Events, bookmarks included, are held back as long as this lasts; connections stay.
    Stalled,
    /// Those open are ended now, and new ones refused with 503.
    Refused,
}

/// What happens to streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamFault {
    /// Nothing.
    #[default]
    None,
    /// After half of the next frame to the client the connection is cut.
    CutMidFrame,
    /// After half of the next frame nothing more comes.
    StallMidFrame,
    /// TCP reset.
    Reset,
}

/// What `POST /sandbox/faults` orders, everything optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Order {
    /// What is to go wrong from now on, in place of what was.
    pub faults: Option<Faults>,
    /// Seconds to move the clock, back if negative.
    pub advance_seconds: i64,
}

impl Faults {
    /// What a request gets instead of its answer, if anything; `resource` as in [`RequestFault::resource`].
    pub fn answer(&mut self, verb: &str, resource: &str) -> Option<Answer> {
        let asked = |fault: &&mut RequestFault| {
            let about = ["", resource].contains(&&*fault.resource);
            about && ["", verb].contains(&&*fault.verb) && fault.times > 0
        };
        let mut answer = None;
        for fault in self.requests.iter_mut().filter(asked) {
            if fault.after == 0 {
                fault.times -= 1;
                answer = Some(fault.then);
                break;
            }
            fault.after -= 1;
        }
        self.requests.retain(|fault| fault.times > 0);
        answer
    }
}

impl Order {
    /// Carries it out.
    pub fn place(self, cluster: &Cluster) {
        self.faults
            .map(|faults| cluster.faults.send_replace(faults));
        let ahead = SignedDuration::from_secs(self.advance_seconds);
        cluster.clock.advance(ahead);
    }
}

#[cfg(test)]
mod tests;
