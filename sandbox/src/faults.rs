//! What a test wants to go wrong.

use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::Cluster;

/// Faults of requests that can be on order at once.
const MOST: usize = 1000;

/// Faults ordered and not yet over.
#[derive(Debug)]
pub struct Faults {
    requests: watch::Sender<Vec<RequestFault>>,
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
            requests: watch::Sender::default(),
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
    /// Requests that fail then; none if this is 0.
    pub times: u32,
    /// What they get.
    pub then: Answer,
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

/// What `POST /sandbox/faults` orders, everything optional.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Order {
    /// Requests to fail.
    pub requests: Vec<RequestFault>,
    /// What happens to watches from now on.
    pub watches: Option<WatchFault>,
    /// What happens to streams from now on.
    pub streams: Option<StreamFault>,
    /// Whether the kubelet lives.
    pub kubelet: Option<bool>,
    /// Seconds to move the clock, back if negative.
    pub advance_seconds: i64,
    /// Whether to forget all changes up to now, so that watches from an older revision get 410.
    pub compact: bool,
}

impl Faults {
    /// Orders a fault.
    pub fn request(&self, fault: RequestFault) {
        self.requests.send_modify(|requests| {
            if fault.times > 0 && requests.len() < MOST {
                requests.push(fault);
            }
        });
    }

    /// What this request gets instead of its answer, if anything; `resource` as in [`RequestFault::resource`].
    #[must_use]
    pub fn answer(&self, verb: &str, resource: &str) -> Option<Answer> {
        let mut answer = None;
        self.requests.send_modify(|requests| {
            for fault in requests.iter_mut() {
                let asked = ["", verb].contains(&&*fault.verb)
                    && ["", resource].contains(&&*fault.resource);
                if asked && fault.after > 0 {
                    fault.after -= 1;
                } else if asked {
                    fault.times -= 1;
                    answer = Some(fault.then);
                    break;
                }
            }
            requests.retain(|fault| fault.times > 0);
        });
        answer
    }

    /// Takes back what was ordered. The clock stays where it is.
    pub fn clear(&self) {
        self.requests.send_replace(Vec::new());
        self.watches.send_replace(WatchFault::None);
        self.streams.send_replace(StreamFault::None);
        self.kubelet.send_replace(true);
    }

    /// What is on order, as `GET /sandbox/faults` shows it.
    #[must_use]
    pub fn list(&self) -> Value {
        json!({
            "requests": *self.requests.borrow(),
            "watches": *self.watches.borrow(),
            "streams": *self.streams.borrow(),
            "kubelet": *self.kubelet.borrow(),
        })
    }
}

impl Order {
    /// Carries it out.
    pub fn place(self, cluster: &Cluster) {
        let faults = &cluster.faults;
        for fault in self.requests {
            faults.request(fault);
        }
        self.watches.map(|fault| faults.watches.send_replace(fault));
        self.streams.map(|fault| faults.streams.send_replace(fault));
        self.kubelet.map(|lives| faults.kubelet.send_replace(lives));
        let ahead = SignedDuration::from_secs(self.advance_seconds);
        cluster.clock.advance(ahead);
        if self.compact {
            cluster.store.compact();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_the_nth_request_of_its_kind_and_no_other() {
        let faults = Faults::default();
        faults.request(
            serde_json::from_value(
                json!({"verb": "patch", "resource": "pods/status", "after": 1, "times": 2, "then": {"code": 503}}),
            )
            .unwrap(),
        );
        let got = [
            ("patch", "pods/status", None),
            ("get", "pods/status", None),
            ("patch", "pods", None),
            ("patch", "pods/status", Some(Answer::Code(503))),
            ("patch", "pods/status", Some(Answer::Code(503))),
            ("patch", "pods/status", None),
        ];
        for (verb, resource, answer) in got {
            assert_eq!(faults.answer(verb, resource), answer, "{verb} {resource}");
        }
        assert_eq!(faults.list()["requests"], json!([]));
    }

    #[test]
    fn what_was_ordered_can_be_taken_back() {
        let faults = Faults::default();
        faults.request(serde_json::from_value(json!({"times": 1, "then": "reset"})).unwrap());
        faults.watches.send_replace(WatchFault::Refused);
        faults.kubelet.send_replace(false);
        faults.clear();
        assert_eq!(faults.list(), Faults::default().list());
        assert_eq!(faults.answer("get", "pods"), None);
    }
}
