//! What a kubelet does: starts what pods say, starts it again, ends it, and writes it into each pod's status.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::select;
use tokio::sync::Notify;

use super::container::Container;
use super::process;
use crate::cluster::{Cluster, NODE};
use crate::object;
use crate::store::Key;

/// Seconds before a container that failed is started a third time; doubles with each, up to [`MAX_WAIT`]. The second
/// start comes at once. Both as in the kubelet.
const FIRST_WAIT: i64 = 10;
/// Longest wait between two starts, in seconds.
const MAX_WAIT: i64 = 300;

/// Where a pod lists a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    Init,
    #[default]
    Main,
    Ephemeral,
}

/// The fields of a pod's spec and of its status, in the order of starting.
const PARTS: [(Part, &str, &str); 3] = [
    (Part::Init, "initContainers", "initContainerStatuses"),
    (Part::Main, "containers", "containerStatuses"),
    (
        Part::Ephemeral,
        "ephemeralContainers",
        "ephemeralContainerStatuses",
    ),
];

/// A container of a pod.
#[derive(Default)]
struct Slot {
    part: Part,
    spec: Value,
    /// Its state and the one before its last start, as the status shows them.
    state: Value,
    last: Value,
    restarts: u32,
    /// When it may start.
    due: Timestamp,
    run: Option<Arc<Container>>,
    /// Of its last start.
    id: Value,
    /// Whether it was asked to end.
    asked: bool,
}

struct Node {
    cluster: Arc<Cluster>,
    /// First part of all marks.
    sandbox: String,
    /// Told when a container has ended.
    changed: Arc<Notify>,
    /// By UID.
    pods: HashMap<String, Vec<Slot>>,
}

/// Starts what the store says should run, ends what should not, and reports it in each pod's status; until the sandbox
/// stops, and then ends every process.
pub async fn run(cluster: Arc<Cluster>) {
    let mut node = Node {
        cluster: Arc::clone(&cluster),
        sandbox: uuid::Uuid::new_v4().simple().to_string(),
        changed: Arc::default(),
        pods: HashMap::new(),
    };
    let watchdog = process::reaper(&node.sandbox);
    if let Err(error) = &watchdog {
        tracing::warn!(%error, "pods will outlive the sandbox if it is killed");
    }
    while !cluster.stop.is_cancelled() {
        let (revision, pods) = cluster.store.list("pods", None);
        let wake = node.sync(&pods);
        let Ok(mut watch) = cluster.store.watch("pods", None, revision) else {
            continue;
        };
        select! {
            _ = watch.next() => {}
            () = node.changed.notified() => {}
            () = cluster.clock.sleep_until(wake) => {}
            () = cluster.stop.cancelled() => {}
        }
    }
    drop(watchdog); // its input ends, and it kills whatever is there
    node.sync(&[]);
    while !node.pods.is_empty() {
        node.changed.notified().await;
        node.sync(&[]);
    }
}

impl Node {
    /// Does what these pods, which are all there are, ask for now. Returns when to look again at the latest.
    fn sync(&mut self, pods: &[Arc<Value>]) -> Timestamp {
        let now = self.cluster.clock.now();
        let mut wake = Timestamp::MAX;
        let mut before = std::mem::take(&mut self.pods);
        for pod in pods.iter().filter(|pod| pod["spec"]["nodeName"] == NODE) {
            let uid = object::uid(pod).to_owned();
            let mut slots = before.remove(&uid).unwrap_or_default();
            wake = wake.min(self.advance(pod, &mut slots, now));
            self.report(pod, &slots, now);
            self.pods.insert(uid, slots);
        }
        for (uid, mut slots) in before {
            for slot in &mut slots {
                slot.settle(now);
                slot.signal(Signal::KILL);
            }
            if slots.iter().any(|slot| slot.run.is_some()) {
                self.pods.insert(uid, slots);
                continue;
            }
            self.cluster.pods.lock().retain(|(pod, _), _| *pod != uid);
            let _ = std::fs::remove_dir_all(self.dir(&uid)); // not there if nothing was started
        }
        wake
    }

    /// Working directories of a pod's containers, by their names.
    fn dir(&self, uid: &str) -> PathBuf {
        self.cluster.dir.join("pods").join(uid)
    }

    /// Takes a pod's containers a step on. Returns when the next step is due.
    fn advance(&self, pod: &Value, slots: &mut Vec<Slot>, now: Timestamp) -> Timestamp {
        for (part, field, _) in PARTS {
            for spec in pod["spec"][field].as_array().into_iter().flatten() {
                if !slots.iter().any(|slot| slot.spec["name"] == spec["name"]) {
                    let state = json!({"waiting": {"reason": "ContainerCreating"}});
                    let spec = spec.clone();
                    slots.push(Slot {
                        part,
                        spec,
                        state,
                        ..Slot::default()
                    });
                }
            }
        }
        let end = pod["metadata"]["deletionTimestamp"].as_str();
        let end: Option<Timestamp> = end.and_then(|end| end.parse().ok());
        let policy = pod["spec"]["restartPolicy"].as_str().unwrap_or_default();
        let (mut wake, mut initialized) = (Timestamp::MAX, true);
        for slot in slots {
            slot.settle(now);
            if let Some(end) = end {
                if now >= end {
                    slot.signal(Signal::KILL);
                } else if !std::mem::replace(&mut slot.asked, true) {
                    slot.signal(Signal::TERM);
                }
                wake = if now < end { end } else { wake };
            } else {
                slot.start_again(policy, now);
                let waits = slot.run.is_none() && slot.code().is_none() && initialized;
                if waits && now >= slot.due {
                    self.start(pod, slot, now);
                } else if waits {
                    wake = wake.min(slot.due);
                }
            }
            initialized &= slot.part != Part::Init || slot.code() == Some(0);
        }
        wake
    }

    fn start(&self, pod: &Value, slot: &mut Slot, now: Timestamp) {
        let uid = object::uid(pod).to_owned();
        let name = slot.spec["name"].as_str().unwrap_or_default().to_owned();
        let id = uuid::Uuid::new_v4().simple();
        let (dir, mark) = (self.dir(&uid).join(&name), format!("{}/{id}", self.sandbox));
        slot.restarts += u32::from(slot.last.is_object());
        slot.id = format!("sandbox://{id}").into();
        match Container::start(&self.cluster, pod, &slot.spec, &dir, mark, &self.changed) {
            Ok(container) => {
                slot.state = json!({"running": {"startedAt": time(now)}});
                slot.run = Some(Arc::clone(&container));
                let mut all = self.cluster.pods.lock();
                let starts = all.entry((uid, name)).or_default();
                starts.drain(..starts.len().saturating_sub(1));
                starts.push(container);
            }
            Err(error) => {
                slot.end(128, "StartError", now);
                slot.state["terminated"]["message"] = format!("{error:#}").into();
                self.changed.notify_one();
            }
        }
    }

    /// Writes the status, or removes the object when nothing of it is left to be done. Whoever changes the pod meanwhile
    /// makes it be seen again.
    fn report(&self, pod: &Value, slots: &[Slot], now: Timestamp) {
        let mut next = pod.clone();
        update(&mut next["status"], slots, now);
        let key = Key {
            resource: "pods".into(),
            namespace: object::namespace(pod).to_owned(),
            name: object::name(pod).to_owned(),
        };
        let finalizers = pod["metadata"]["finalizers"].as_array();
        let done = object::deleting(pod)
            && finalizers.is_none_or(Vec::is_empty)
            && slots.iter().all(|slot| slot.run.is_none());
        let store = &self.cluster.store;
        if let Ok(pod) = store.replace(&key, object::revision(pod), next)
            && done
        {
            let _ = store.remove(&key, object::revision(&pod));
        }
    }
}

impl Slot {
    /// The exit code, unless it runs or is to run.
    fn code(&self) -> Option<i64> {
        self.state["terminated"]["exitCode"].as_i64()
    }

    fn signal(&self, signal: Signal) {
        if let Some(run) = &self.run {
            run.process.signal(signal);
        }
    }

    /// Takes notice of its end.
    fn settle(&mut self, now: Timestamp) {
        if let Some(code) = self.run.as_ref().and_then(|run| run.over()) {
            let reason = if code == 0 { "Completed" } else { "Error" };
            self.end(code, reason, now);
        }
    }

    fn end(&mut self, code: i32, reason: &str, now: Timestamp) {
        self.run = None;
        self.state = json!({"terminated": {
            "exitCode": code, "reason": reason, "containerID": self.id,
            "startedAt": self.state["running"]["startedAt"], "finishedAt": time(now),
        }});
    }

    /// Lets it wait for its next start, if it has ended and is to have one.
    fn start_again(&mut self, policy: &str, now: Timestamp) {
        let again = match (self.part, policy, self.code()) {
            (_, _, None) | (Part::Ephemeral, ..) | (_, "Never", _) => false,
            (Part::Main, "Always", _) => true,
            (_, _, code) => code != Some(0),
        };
        if again {
            let later = FIRST_WAIT << self.restarts.saturating_sub(1).min(5);
            let wait = if self.restarts == 0 {
                0
            } else {
                later.min(MAX_WAIT)
            };
            let message = format!("back-off {wait}s restarting failed container");
            let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
            self.last = std::mem::replace(&mut self.state, waiting);
            self.due = now + SignedDuration::from_secs(wait);
        }
    }

    /// Its entry in the status.
    fn entry(&self) -> Value {
        let running = self.run.is_some();
        let ready = match self.part {
            Part::Init => self.code() == Some(0),
            Part::Main => running,
            Part::Ephemeral => false,
        };
        // No image is pulled: its ID says so by being the reference itself.
        let image = &self.spec["image"];
        let mut entry = json!({
            "name": self.spec["name"], "image": image, "imageID": image, "containerID": self.id,
            "ready": ready, "started": running, "restartCount": self.restarts,
            "state": self.state, "lastState": {},
        });
        if self.last.is_object() {
            entry["lastState"] = self.last.clone();
        }
        entry
    }
}

fn time(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// `status.phase`
fn phase(slots: &[Slot]) -> &'static str {
    let of = |part| slots.iter().filter(move |slot| slot.part == part);
    let failed = |slot: &Slot| slot.code().is_some_and(|code| code != 0);
    if of(Part::Init).any(failed) {
        "Failed"
    } else if of(Part::Main).any(|slot| slot.id.is_null()) {
        "Pending"
    } else if of(Part::Main).any(|slot| slot.code().is_none()) {
        "Running"
    } else if of(Part::Main).any(failed) {
        "Failed"
    } else {
        "Succeeded"
    }
}

/// Brings a pod's status up to what became of its containers; what others wrote into it stays.
fn update(status: &mut Value, slots: &[Slot], now: Timestamp) {
    let all = |part, holds: &dyn Fn(&Slot) -> bool| {
        let mut slots = slots.iter().filter(|slot| slot.part == part);
        slots.all(holds)
    };
    let ready = all(Part::Main, &|slot| slot.run.is_some());
    let initialized = all(Part::Init, &|slot| slot.code() == Some(0));
    let before = status["conditions"].take();
    let mut conditions = before.as_array().cloned().unwrap_or_default();
    for (kind, holds) in [
        ("PodScheduled", true),
        ("Initialized", initialized),
        ("ContainersReady", ready),
        ("Ready", ready),
    ] {
        let text = if holds { "True" } else { "False" };
        let same = |one: &Value| one["type"] == kind && one["status"] == text;
        if !conditions.iter().any(same) {
            conditions.retain(|one| one["type"] != kind);
            conditions.push(json!({"type": kind, "status": text, "lastTransitionTime": time(now)}));
        }
    }
    status["conditions"] = conditions.into();
    status["phase"] = phase(slots).into();
    for (field, value) in [
        ("hostIP", json!("127.0.0.1")),
        ("podIP", json!("127.0.0.1")),
        ("podIPs", json!([{"ip": "127.0.0.1"}])),
        ("startTime", json!(time(now))),
    ] {
        if status[field].is_null() {
            status[field] = value;
        }
    }
    for (part, _, field) in PARTS {
        let listed = slots.iter().filter(|slot| slot.part == part);
        let entries: Vec<Value> = listed.map(Slot::entry).collect();
        if !entries.is_empty() {
            status[field] = entries.into();
        }
    }
}

#[cfg(test)]
mod tests;
