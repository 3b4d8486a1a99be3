//! What a kubelet does: starts what pods say, starts it again, ends it, and writes it into each pod's status.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::select;

use super::log;
use super::process::{self, Plan, Process};
use crate::cluster::{Cluster, NODE};
use crate::{object, store::Key};

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

/// Of every pod.
const ADDRESS: &str = "127.0.0.1";

/// Starts what the store says should run, ends what should not, and reports it in each pod's status; until the sandbox
/// stops, and then ends every process.
pub(crate) async fn run(cluster: Arc<Cluster>) {
    let watchdog = process::reaper(&mark(&cluster, ""));
    if let Err(error) = &watchdog {
        tracing::warn!(%error, "pods will outlive the sandbox if it is killed");
    }
    let mut starts = cluster.pods.0.subscribe();
    while !cluster.stop.is_cancelled() {
        starts.mark_unchanged();
        let (revision, pods) = cluster.store.list("pods", "");
        let wake = sync(&cluster, &pods);
        let mut watch = cluster.store.watch("pods", "", revision);
        select! {
            _ = watch.next() => {}
            _ = starts.changed() => {}
            () = cluster.clock.sleep_until(wake) => {}
            () = cluster.stop.cancelled() => {}
        }
    }
    drop(watchdog); // its input ends, and it kills whatever is there
    while !starts.borrow_and_update().is_empty() {
        sync(&cluster, &[]);
        let _ = starts.changed().await; // no error: the cluster is there
    }
}

/// The mark of a container's start; that of the whole sandbox, with which all of them begin, for an empty ID.
fn mark(cluster: &Cluster, id: &str) -> String {
    format!("sandbox://{}:{id}", cluster.dir.display())
}

/// Does what these pods, which are all there are, ask for now. Returns when to look again at the latest.
fn sync(cluster: &Arc<Cluster>, pods: &[Arc<Value>]) -> Timestamp {
    let ours = pods.iter().filter(|pod| pod["spec"]["nodeName"] == NODE);
    let wake = ours.map(|pod| advance(cluster, pod)).min();
    cluster.pods.0.send_if_modified(|all| {
        let before = all.len();
        all.retain(|(uid, _), last| {
            if pods.iter().any(|pod| object::uid(pod) == uid) {
                return true;
            }
            last.signal(Signal::KILL);
            let over = last.over().is_some();
            let dir = last.plan.dir.parent().filter(|_| over);
            let _ = dir.map(std::fs::remove_dir_all); // what another container still writes goes with that one
            !over
        });
        all.len() < before
    });
    wake.unwrap_or(Timestamp::MAX)
}

/// Takes a pod's containers a step on, and writes what became of them into its status; or removes a pod that is deleted
/// and of which nothing is left. Returns when the next step is due.
fn advance(cluster: &Arc<Cluster>, pod: &Value) -> Timestamp {
    let (now, uid) = (cluster.clock.now(), object::uid(pod));
    let end: Option<Timestamp> = object::meta(pod, "deletionTimestamp").parse().ok();
    let policy = pod["spec"]["restartPolicy"].as_str().unwrap_or_default();
    let mut wake = end.filter(|end| now < *end).unwrap_or(Timestamp::MAX);
    let (mut initialized, mut busy) = (true, false);
    let mut next = pod.clone();
    for (list, statuses) in LISTS {
        let mut entries = Vec::new();
        for spec in pod["spec"][list].as_array().into_iter().flatten() {
            let name = spec["name"].as_str().unwrap_or_default();
            let mut last = cluster.pods.last(uid, name);
            let due = due(list, policy, last.as_deref());
            match due.filter(|_| initialized && end.is_none()) {
                Some(due) if now < due => wake = wake.min(due),
                Some(_) => last = Some(start(cluster, pod, spec, last.as_deref())),
                None => {}
            }
            if let (Some(end), Some(last)) = (end, &last) {
                last.signal([Signal::TERM, Signal::KILL][usize::from(now >= end)]);
            }
            let entry = entry(list, policy, spec, last.as_deref());
            busy |= entry["started"] == true;
            initialized &= list != INIT || entry["ready"] == true;
            entries.push(entry);
        }
        if !entries.is_empty() {
            next["status"][statuses] = entries.into();
        }
    }
    summarize(&mut next["status"], now);
    let held = !object::texts(pod, "metadata", "finalizers").is_empty();
    let gone = end.is_some() && !busy && !held;
    let key = Key::new("pods", object::namespace(pod), object::name(pod));
    // Somebody who changed it meanwhile is a reason to look at it again.
    let next = (!gone).then_some(next);
    let _ = cluster.store.write(&key, Some(pod), next);
    wake
}

/// Starts a container of a pod. An image's own command is not known: a shell stands for it if there is an input, and
/// otherwise something that only waits, for about 68 years.
fn start(
    cluster: &Arc<Cluster>,
    pod: &Value,
    spec: &Value,
    last: Option<&Process>,
) -> Arc<Process> {
    let (uid, name) = (object::uid(pod), spec["name"].as_str().unwrap_or_default());
    let mut spec = spec.clone();
    let none = |field: &str| spec[field].as_array().is_none_or(Vec::is_empty);
    if none("command") && none("args") {
        let shell = (spec["stdin"] == true).then(|| json!(["sh"]));
        spec["command"] = shell.unwrap_or_else(|| json!(["sleep", "2147483647"]));
    }
    let plan = Plan {
        spec,
        dir: cluster.dir.join("pods").join(uid).join(name),
        host: object::name(pod).to_owned(),
        mark: mark(cluster, &uuid::Uuid::new_v4().simple().to_string()),
        restarts: last.map_or(0, |last| last.plan.restarts + 1),
        before: last.map(state).unwrap_or_default(),
        started: cluster.clock.now(),
    };
    let (process, written) = Process::start(plan, true, &cluster.tasks);
    let (shared, started) = (Arc::clone(cluster), Arc::clone(&process));
    cluster.tasks.spawn(async move {
        log::keep(&started.log, written, &shared.clock).await;
        shared.pods.0.send_modify(|_| {}); // its end is news
    });
    let key = (uid.to_owned(), name.to_owned());
    let last = Arc::clone(&process);
    let keep = |all: &mut HashMap<_, _>| drop(all.insert(key, last));
    cluster.pods.0.send_modify(keep);
    process
}

/// When a container is to start, for the first time or again.
fn due(place: &str, policy: &str, last: Option<&Process>) -> Option<Timestamp> {
    let Some(last) = last else {
        return Some(Timestamp::MIN);
    };
    let (code, ended) = last.over()?;
    let wait = SignedDuration::from_secs(wait(last.plan.restarts));
    starts_again(place, policy, code).then(|| ended + wait)
}

/// Whether a container that ended with this code is to start again.
fn starts_again(place: &str, policy: &str, code: i32) -> bool {
    match (place, policy) {
        (EPHEMERAL, _) | (_, "Never") => false,
        (MAIN, "Always") => true,
        _ => code != 0,
    }
}

/// Seconds between a container's end and its next start.
fn wait(restarts: u32) -> i64 {
    match restarts {
        0 => 0,
        count => (FIRST_WAIT << (count - 1).min(5)).min(MAX_WAIT),
    }
}

/// A container in the status. No image is pulled: its ID says so by being the reference itself.
fn entry(place: &str, policy: &str, spec: &Value, last: Option<&Process>) -> Value {
    let plan = last.map(|last| &last.plan);
    let restarts = plan.map_or(0, |plan| plan.restarts);
    let mut now = last.map_or(json!({"waiting": {"reason": "ContainerCreating"}}), state);
    let mut before = plan.map(|plan| plan.before.clone());
    if last.is_some() && due(place, policy, last).is_some() {
        let message = format!("back-off {}s restarting failed container", wait(restarts));
        let waiting = json!({"reason": "CrashLoopBackOff", "message": message});
        before = Some(std::mem::replace(&mut now, json!({"waiting": waiting})));
    }
    let completed = now["terminated"]["exitCode"] == 0;
    let runs = now["running"].is_object();
    let ready = completed && place == INIT || runs && place == MAIN;
    let mut entry = json!({});
    let filled = json!({
        "name": spec["name"], "image": spec["image"], "imageID": spec["image"], "restartCount": restarts,
        "started": runs, "ready": ready, "containerID": plan.map(|plan| &plan.mark),
        "state": now, "lastState": before,
    });
    json_patch::merge(&mut entry, &filled); // without what is null
    entry
}

/// What became of a start.
fn state(start: &Process) -> Value {
    let started = format!("{:.0}", start.plan.started);
    let Some((code, ended)) = start.over() else {
        return json!({"running": {"startedAt": started}});
    };
    let reason = ["Completed", "Error"][usize::from(code != 0)];
    let reason = start.failure.as_ref().map_or(reason, |_| "StartError");
    json!({"terminated": {
        "exitCode": code, "reason": reason, "message": start.failure, "containerID": start.plan.mark,
        "startedAt": started, "finishedAt": format!("{ended:.0}"),
    }})
}

/// `status.phase`
fn phase(status: &Value) -> &'static str {
    let of = |list: &str| status[list].as_array().into_iter().flatten();
    let code = |entry: &Value| entry["state"]["terminated"]["exitCode"].as_i64();
    let failed = |entry: &Value| code(entry).is_some_and(|code| code != 0);
    let mut main = of("containerStatuses");
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
    let now = format!("{now:.0}");
    let of = |list: &str| status[list].as_array().into_iter().flatten();
    let all_ready = |list: &str| of(list).all(|entry| entry["ready"] == true);
    let ready = all_ready("containerStatuses");
    let mut conditions: Vec<Value> = of("conditions").cloned().collect();
    for (kind, holds) in [
        ("PodScheduled", true),
        ("Initialized", all_ready("initContainerStatuses")),
        ("ContainersReady", ready),
        ("Ready", ready),
    ] {
        let text = if holds { "True" } else { "False" };
        let same = |one: &Value| one["type"] == kind && one["status"] == text;
        if !conditions.iter().any(same) {
            conditions.retain(|one| one["type"] != kind);
            conditions.push(json!({"type": kind, "status": text, "lastTransitionTime": now}));
        }
    }
    let started = status["startTime"].as_str().unwrap_or(&now);
    let summary = json!({
        "phase": phase(status), "conditions": conditions, "startTime": started, "hostIP": ADDRESS,
        "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}],
    });
    json_patch::merge(status, &summary);
}

#[cfg(test)]
mod tests;
