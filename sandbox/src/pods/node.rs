//! What a kubelet does: starts what pods say, starts it again, ends it, and writes it into each pod's status.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::select;
use tokio::sync::Notify;

use super::log;
use super::plan::Plan;
use super::process::{self, Process};
use crate::cluster::{Cluster, NODE};
use crate::object;
use crate::store::{Key, Raced};

/// Seconds before a container that failed is started a third time; doubles with each, up to [`MAX_WAIT`]. The second
/// start comes at once. Both as in the kubelet.
const FIRST_WAIT: i64 = 10;
/// Longest wait between two starts, in seconds.
const MAX_WAIT: i64 = 300;

/// Lists of containers in a pod's spec and in its status, in the order of starting.
const LISTS: [(&str, &str); 3] = [
    (INIT, "initContainerStatuses"),
    (MAIN, "containerStatuses"),
    (EPHEMERAL, "ephemeralContainerStatuses"),
];
const INIT: &str = "initContainers";
const MAIN: &str = "containers";
const EPHEMERAL: &str = "ephemeralContainers";

struct Node {
    cluster: Arc<Cluster>,
    /// First part of all marks.
    sandbox: String,
    /// Told when a container has ended.
    changed: Arc<Notify>,
}

/// Starts what the store says should run, ends what should not, and reports it in each pod's status; until the sandbox
/// stops, and then ends every process.
pub async fn run(cluster: Arc<Cluster>) {
    let node = Node {
        cluster: Arc::clone(&cluster),
        sandbox: uuid::Uuid::new_v4().simple().to_string(),
        changed: Arc::default(),
    };
    let watchdog = process::reaper(&node.sandbox);
    if let Err(error) = &watchdog {
        tracing::warn!(%error, "pods will outlive the sandbox if it is killed");
    }
    while !cluster.stop.is_cancelled() {
        let (revision, pods) = cluster.store.list("pods", None);
        let wake = node.sync(&pods);
        let mut watch = cluster.store.watch("pods", None, revision);
        select! {
            _ = watch.next() => {}
            () = node.changed.notified() => {}
            () = cluster.clock.sleep_until(wake) => {}
            () = cluster.stop.cancelled() => {}
        }
    }
    drop(watchdog); // its input ends, and it kills whatever is there
    node.sync(&[]);
    while !cluster.pods.0.borrow().is_empty() {
        node.changed.notified().await;
        node.sync(&[]);
    }
}

impl Node {
    /// Does what these pods, which are all there are, ask for now. Returns when to look again at the latest.
    fn sync(&self, pods: &[Arc<Value>]) -> Timestamp {
        let now = self.cluster.clock.now();
        let ours = pods.iter().filter(|pod| pod["spec"]["nodeName"] == NODE);
        let wake = ours.map(|pod| self.advance(pod, now)).min();
        self.cluster.pods.0.send_modify(|all| {
            all.retain(|(uid, _), starts| {
                let there = pods.iter().any(|pod| object::uid(pod) == uid);
                let Some(last) = starts.last().filter(|_| !there) else {
                    return true;
                };
                last.signal(Signal::KILL);
                let over = last.over().is_some();
                if over {
                    let _ = std::fs::remove_dir_all(&last.plan.dir);
                    let _ = std::fs::remove_dir(self.dir(uid)); // once it is empty
                }
                !over
            });
        });
        wake.unwrap_or(Timestamp::MAX)
    }

    /// Working directories of a pod's containers, by their names.
    fn dir(&self, uid: &str) -> PathBuf {
        self.cluster.dir.join("pods").join(uid)
    }

    /// Takes a pod's containers a step on from what its status says, and writes that again; or removes a pod that is
    /// deleted and of which nothing is left. Returns when the next step is due. The status is written whoever changes the
    /// pod meanwhile: what was started must not be started again.
    fn advance(&self, pod: &Arc<Value>, now: Timestamp) -> Timestamp {
        let uid = object::uid(pod);
        let mut status = pod["status"].clone();
        let end = pod["metadata"]["deletionTimestamp"].as_str().map(instant);
        let policy = pod["spec"]["restartPolicy"].as_str().unwrap_or_default();
        let mut wake = end.filter(|end| now < *end).unwrap_or(Timestamp::MAX);
        let (mut initialized, mut busy) = (true, false);
        for (list, statuses) in LISTS {
            let specs = pod["spec"][list].as_array().into_iter().flatten();
            let mut entries = status[statuses].as_array().cloned().unwrap_or_default();
            for (index, spec) in specs.enumerate() {
                if index == entries.len() {
                    entries.push(entry(spec));
                }
                let entry = &mut entries[index];
                let run = self
                    .cluster
                    .pods
                    .starts(uid, spec["name"].as_str().unwrap_or_default())
                    .pop();
                settle(entry, run.as_deref(), end, now);
                if end.is_none() {
                    start_again(list, policy, entry);
                }
                if initialized && end.is_none() && entry["state"]["waiting"].is_object() {
                    let due = due(entry);
                    if now >= due {
                        self.start(pod, spec, entry, now);
                    } else {
                        wake = wake.min(due);
                    }
                }
                let running = entry["state"]["running"].is_object();
                initialized &= list != INIT || code(entry) == Some(0);
                entry["started"] = running.into();
                entry["ready"] = match list {
                    INIT => code(entry) == Some(0),
                    MAIN => running,
                    _ => false,
                }
                .into();
                busy |= running;
            }
            if !entries.is_empty() {
                status[statuses] = entries.into();
            }
        }
        summarize(&mut status, now);
        let key = Key {
            resource: "pods".into(),
            namespace: object::namespace(pod).to_owned(),
            name: object::name(pod).to_owned(),
        };
        let store = &self.cluster.store;
        let mut live = Some(Arc::clone(pod));
        while let Some(pod) = live.filter(|live| object::uid(live) == uid) {
            let mut next = (*pod).clone();
            next["status"] = status.clone();
            let finalizers = pod["metadata"]["finalizers"].as_array();
            let done = end.is_some() && !busy && finalizers.is_none_or(Vec::is_empty);
            live = match store.write(&key, Some(&pod), Some(next)) {
                Ok(pod) if done => store.write(&key, Some(&pod), None).err().and(None),
                Ok(_) => None,
                Err(Raced) => store.get(&key),
            };
        }
        wake
    }

    fn start(&self, pod: &Value, spec: &Value, entry: &mut Value, now: Timestamp) {
        let uid = object::uid(pod).to_owned();
        let name = spec["name"].as_str().unwrap_or_default().to_owned();
        let id = uuid::Uuid::new_v4().simple();
        if !entry["containerID"].is_null() {
            entry["restartCount"] = (restarts(entry) + 1).into();
        }
        entry["containerID"] = format!("sandbox://{id}").into();
        let mark = format!("{}/{id}", self.sandbox);
        let plan = Plan::of(pod, spec, self.dir(&uid).join(&name), mark);
        match Process::start(plan, &self.cluster.tasks) {
            Ok((process, written)) => {
                entry["state"] = json!({"running": {"startedAt": time(now)}});
                self.cluster.pods.add(uid, name, Arc::clone(&process));
                let (clock, changed) = (self.cluster.clock.clone(), Arc::clone(&self.changed));
                self.cluster.tasks.spawn(async move {
                    log::keep(&process.log, written, &clock).await;
                    changed.notify_one();
                });
            }
            Err(error) => {
                terminate(entry, 128, "StartError", now);
                entry["state"]["terminated"]["message"] = format!("{error:#}").into();
                self.changed.notify_one();
            }
        }
    }
}

/// Takes notice of a container that runs or has ended, or brings its end about when the pod is deleted.
fn settle(entry: &mut Value, run: Option<&Process>, end: Option<Timestamp>, now: Timestamp) {
    let shown = entry["state"]["running"].is_object();
    // One that nobody started is none, whoever wrote that into the status.
    match (run, run.map_or(Some(255), Process::over)) {
        (_, Some(0)) if shown => terminate(entry, 0, "Completed", now),
        (_, Some(code)) if shown => terminate(entry, code, "Error", now),
        (Some(run), None) => {
            if !shown {
                entry["state"] = json!({"running": {"startedAt": time(now)}});
            }
            match end {
                Some(end) if now >= end => run.signal(Signal::KILL),
                Some(_) => run.ask_to_end(),
                None => {}
            }
        }
        _ => {}
    }
}

/// How a container begins in the status. No image is pulled: its ID says so by being the reference itself.
fn entry(spec: &Value) -> Value {
    json!({
        "name": spec["name"], "image": spec["image"], "imageID": spec["image"], "restartCount": 0,
        "state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {},
    })
}

fn terminate(entry: &mut Value, code: i32, reason: &str, now: Timestamp) {
    entry["state"] = json!({"terminated": {
        "exitCode": code, "reason": reason, "containerID": entry["containerID"],
        "startedAt": entry["state"]["running"]["startedAt"], "finishedAt": time(now),
    }});
}

/// The exit code of a container that is not to start again.
fn code(entry: &Value) -> Option<i64> {
    entry["state"]["terminated"]["exitCode"].as_i64()
}

fn restarts(entry: &Value) -> i64 {
    entry["restartCount"].as_i64().unwrap_or_default()
}

/// Lets a container wait for its next start, if it has ended and is to have one.
fn start_again(list: &str, policy: &str, entry: &mut Value) {
    let again = match (list, policy, code(entry)) {
        (_, _, None) | (EPHEMERAL, ..) | (_, "Never", _) => false,
        (MAIN, "Always", _) => true,
        (_, _, code) => code != Some(0),
    };
    if again {
        let message = format!("back-off {}s restarting failed container", wait(entry));
        entry["lastState"] = entry["state"].take();
        entry["state"] = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
    }
}

/// Seconds between a container's end and its next start.
fn wait(entry: &Value) -> i64 {
    match restarts(entry) {
        0 => 0,
        count => (FIRST_WAIT << (count - 1).min(5)).min(MAX_WAIT),
    }
}

/// When a container that waits may start.
fn due(entry: &Value) -> Timestamp {
    let ended = entry["lastState"]["terminated"]["finishedAt"].as_str();
    ended.map_or(Timestamp::MIN, |ended| {
        instant(ended) + SignedDuration::from_secs(wait(entry))
    })
}

fn time(time: Timestamp) -> String {
    format!("{time:.0}")
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap_or_default()
}

/// `status.phase`
fn phase(status: &Value) -> &'static str {
    let of = |list: &str| status[list].as_array().into_iter().flatten();
    let mut main = of("containerStatuses");
    let failed = |entry: &Value| code(entry).is_some_and(|code| code != 0);
    if of("initContainerStatuses").any(failed) {
        "Failed"
    } else if main.clone().any(|entry| entry["containerID"].is_null()) {
        "Pending"
    } else if main.clone().any(|entry| code(entry).is_none()) {
        "Running"
    } else if main.any(failed) {
        "Failed"
    } else {
        "Succeeded"
    }
}

/// Brings a pod's phase, conditions and addresses up to the state of its containers.
fn summarize(status: &mut Value, now: Timestamp) {
    status["phase"] = phase(status).into();
    let all_ready = |list: &str| {
        let mut entries = status[list].as_array().into_iter().flatten();
        entries.all(|entry| entry["ready"] == true)
    };
    let (initialized, ready) = (
        all_ready("initContainerStatuses"),
        all_ready("containerStatuses"),
    );
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
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
    if status["startTime"].is_null() {
        status["startTime"] = time(now).into();
    }
    let address = "127.0.0.1";
    status["hostIP"] = address.into();
    status["podIP"] = address.into();
    status["podIPs"] = json!([{"ip": address}]);
}

#[cfg(test)]
mod tests;
