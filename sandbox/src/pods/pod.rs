//! The life of one pod on the node: what to start, what to start again, and its end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::select;
use tokio::sync::{Notify, watch};

use super::container::{Container, Plan, random_id};
use super::report::{self, Ended, Part, Shown, State};
use super::spec;
use crate::auth::Identity;
use crate::cluster::{Cluster, NODE};
use crate::object;
use crate::rest::Delete;
use crate::store::{Key, Rejected};

/// Wait before a container that failed is started a third time; doubles up to [`MAX_WAIT`]. The second start comes at
/// once. Both as in the kubelet.
const FIRST_WAIT: i64 = 10;
/// Longest wait between two starts, in seconds.
const MAX_WAIT: i64 = 300;
/// Seconds a container must have run for its wait to begin anew.
const FORGIVEN: i64 = 2 * MAX_WAIT;
/// Exit code of a container that could not be started.
const START_ERROR: i32 = 128;

/// What of a pod can be reached: its containers by name.
#[derive(Default)]
pub(super) struct Reach {
    containers: Mutex<HashMap<String, Starts>>,
}

/// The last two starts of a container.
#[derive(Clone, Default)]
pub(super) struct Starts {
    /// What runs, or ran last if it is not to run again.
    pub(super) current: Option<Arc<Container>>,
    /// What ran before.
    pub(super) last: Option<Arc<Container>>,
}

impl Reach {
    pub(super) fn get(&self, container: &str) -> Starts {
        self.lock().get(container).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Starts>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container of the pod.
struct Slot {
    spec: Value,
    shown: Shown,
    running: Option<Arc<Container>>,
    /// When it may start again.
    next: Option<Timestamp>,
    /// Seconds to wait after the next failure.
    wait: i64,
}

/// A pod's life.
pub(super) struct Life {
    pub(super) cluster: Arc<Cluster>,
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) reach: Arc<Reach>,
    /// The object; `None` once it is gone.
    pub(super) feed: watch::Receiver<Option<Arc<Value>>>,
    /// First part of the marks of its containers.
    pub(super) sandbox: String,
}

impl Life {
    /// Lives it until the object is gone or the sandbox stops; then nothing of it is left.
    pub(super) async fn live(mut self) {
        let dir = self.dir();
        let mut slots: Vec<Slot> = Vec::new();
        let started = self.cluster.clock.now();
        let changed = Arc::new(Notify::new());
        let mut asked = false;
        let cluster = Arc::clone(&self.cluster);
        loop {
            let now = self.feed.borrow_and_update().clone();
            let Some(pod) = now else { break };
            collect(&mut slots, &pod);
            let mut wake = None;
            let deleting = object::deleting(&pod);
            if deleting {
                let running: Vec<_> = slots
                    .iter()
                    .filter_map(|one| one.running.as_ref())
                    .collect();
                let end = pod["metadata"]["deletionTimestamp"].as_str();
                let end = end.and_then(|end| end.parse().ok()).unwrap_or(started);
                for container in &running {
                    if cluster.clock.now() >= end {
                        container.kill();
                    } else if !asked {
                        container.terminate();
                    }
                }
                asked = true;
                wake = (cluster.clock.now() < end).then_some(end);
            } else {
                self.advance(&pod, &mut slots, &changed, &mut wake);
            }
            self.report(started, &slots, deleting);
            if deleting && slots.iter().all(|one| one.running.is_none()) {
                self.remove().await;
            }
            let wake = async {
                match wake {
                    Some(then) => cluster.clock.sleep_until(then).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                more = self.feed.changed() => if more.is_err() { break },
                () = changed.notified() => {}
                () = wake => {}
                () = cluster.stop.cancelled() => break,
            }
        }
        for container in slots.iter().filter_map(|one| one.running.as_ref()) {
            container.kill();
        }
        for container in slots.iter().filter_map(|one| one.running.as_ref()) {
            let _ = container.over.clone().wait_for(Option::is_some).await; // it is dropped at the latest with its runtime
        }
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %dir.display(), "failed to remove the directory of a pod");
        }
    }

    fn dir(&self) -> PathBuf {
        self.cluster.dir.join("pods").join(&self.uid)
    }

    /// Starts what may start now; `wake` is when to look again.
    fn advance(
        &self,
        pod: &Value,
        slots: &mut Vec<Slot>,
        changed: &Arc<Notify>,
        wake: &mut Option<Timestamp>,
    ) {
        for (part, spec) in spec::containers(pod) {
            if !slots.iter().any(|one| one.shown.name == spec["name"]) {
                slots.push(Slot::new(part, spec.clone()));
            }
        }
        let policy = report::policy(pod);
        let mut initialized = true;
        for slot in slots {
            let init = matches!(slot.shown.part, Part::Init | Part::Sidecar);
            if slot.shown.part == Part::Main && !initialized {
                continue;
            }
            if !init || initialized {
                self.step(pod, slot, policy, changed);
            }
            if init {
                initialized &= slot.shown.passed();
            }
            if let Some(next) = slot.next {
                *wake = Some(wake.map_or(next, |wake| wake.min(next)));
            }
        }
    }

    /// What happens to one container now.
    fn step(&self, pod: &Value, slot: &mut Slot, policy: &str, changed: &Arc<Notify>) {
        let now = self.cluster.clock.now();
        if let State::Ended(ended) = &slot.shown.state {
            let again = match (slot.shown.part, policy) {
                (Part::Ephemeral, _) | (Part::Init, "Never") => false,
                (Part::Sidecar, _) => true,
                (Part::Init, _) | (Part::Main, "OnFailure") => ended.code != 0,
                (Part::Main, policy) => policy == "Always",
            };
            if !again {
                return;
            }
            if ended.finished.duration_since(ended.started).as_secs() >= FORGIVEN
                && ended.started > Timestamp::UNIX_EPOCH
            {
                slot.wait = 0;
            }
            let wait = SignedDuration::from_secs(slot.wait);
            slot.next = ended.finished.checked_add(wait).ok();
            slot.shown.last = Some(ended.clone());
            slot.shown.restarts += 1;
            slot.shown.state = State::Waiting {
                reason: "CrashLoopBackOff",
                message: format!(
                    "back-off {} restarting failed container={} pod={}",
                    pretty(slot.wait),
                    slot.shown.name,
                    report::full_name(pod)
                ),
            };
            slot.wait = (slot.wait * 2).clamp(FIRST_WAIT, MAX_WAIT);
            self.shift(&slot.shown.name);
        }
        if matches!(slot.shown.state, State::Waiting { .. })
            && slot.next.is_none_or(|next| next <= now)
        {
            self.start(pod, slot, changed);
        }
    }

    fn start(&self, pod: &Value, slot: &mut Slot, changed: &Arc<Notify>) {
        let now = self.cluster.clock.now();
        let name = slot.shown.name.clone();
        slot.next = None;
        let env = match spec::environment(&self.cluster, pod, &slot.spec, &self.dir().join(&name)) {
            Ok(env) => env,
            Err(message) => {
                slot.next = now.checked_add(SignedDuration::from_secs(FIRST_WAIT)).ok();
                slot.shown.state = State::Waiting {
                    reason: "CreateContainerConfigError",
                    message,
                };
                return;
            }
        };
        let flag = |field: &str| slot.spec[field].as_bool().unwrap_or(false);
        let plan = Plan {
            argv: spec::argv(&slot.spec, &env),
            env,
            dir: self.dir().join(&name),
            // No container can have such a name.
            log: self
                .dir()
                .join(".logs")
                .join(format!("{name}-{}.log", slot.shown.restarts)),
            tty: flag("tty"),
            stdin: flag("stdin"),
            stdin_once: flag("stdinOnce"),
            sandbox: self.sandbox.clone(),
        };
        match Container::start(plan, &self.cluster.clock, &self.cluster.tasks) {
            Ok(container) => {
                slot.shown.state = State::Running {
                    id: container.id.clone(),
                    since: now,
                };
                let (mut over, changed) = (container.over.clone(), Arc::clone(changed));
                self.cluster.tasks.spawn(async move {
                    let _ = over.wait_for(Option::is_some).await; // dropped is over too
                    changed.notify_one();
                });
                let mut reach = self.reach.lock();
                reach.entry(slot.shown.name.clone()).or_default().current =
                    Some(Arc::clone(&container));
                slot.running = Some(container);
            }
            Err(why) => {
                slot.shown.state = State::Ended(Ended {
                    id: random_id(),
                    code: START_ERROR,
                    reason: "StartError",
                    message: format!(
                        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc \
                         create failed: unable to start container process: {why}: unknown"
                    ),
                    started: Timestamp::UNIX_EPOCH,
                    finished: now,
                });
                changed.notify_one();
            }
        }
    }

    /// A container is to start again: what ran last is now what ran before, and what ran before that is forgotten.
    fn shift(&self, name: &str) {
        let mut reach = self.reach.lock();
        let starts = reach.entry(name.to_owned()).or_default();
        if let Some(current) = starts.current.take()
            && let Some(forgotten) = starts.last.replace(current)
        {
            forgotten.log.forget();
        }
    }

    /// Writes the status, unless the object is gone or another.
    fn report(&self, started: Timestamp, slots: &[Slot], over: bool) {
        let shown: Vec<Shown> = slots.iter().map(|one| one.shown.clone()).collect();
        while let Some(pod) = self.cluster.store.get(&self.key) {
            if object::uid(&pod) != self.uid {
                return;
            }
            let mut next = (*pod).clone();
            next["status"] = report::status(&pod, started, &shown, over, self.cluster.clock.now());
            let written = self
                .cluster
                .store
                .replace(&self.key, object::revision(&pod), next);
            if written != Err(Rejected::Changed) {
                return;
            }
        }
    }

    /// Removes the object, as the kubelet does when nothing of a pod is left.
    async fn remove(&self) {
        let Some(kind) = self.cluster.kinds.find("", "v1", "pods") else {
            return;
        };
        let delete = Delete {
            grace: Some(0),
            uid: Some(self.uid.clone()),
            ..Delete::default()
        };
        let who = Identity::sandbox(&format!("system:node:{NODE}"));
        let (namespace, name) = (&self.key.namespace, &self.key.name);
        if let Err(error) = self
            .cluster
            .delete(&who, &kind, namespace, name, &delete)
            .await
            && error.code != 404
        {
            tracing::warn!(%error, namespace, name, "failed to remove a pod that has ended");
        }
    }
}

impl Slot {
    fn new(part: Part, spec: Value) -> Self {
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let reason = match part {
            Part::Main => "ContainerCreating",
            _ => "PodInitializing",
        };
        Self {
            shown: Shown {
                name: text("name"),
                image: text("image"),
                part,
                state: State::Waiting {
                    reason,
                    message: String::new(),
                },
                last: None,
                restarts: 0,
            },
            spec,
            running: None,
            next: None,
            wait: 0,
        }
    }
}

/// Takes notice of containers that ended.
fn collect(slots: &mut [Slot], pod: &Value) {
    for slot in slots {
        let Some(container) = &slot.running else {
            continue;
        };
        let Some(code) = *container.over.borrow() else {
            continue;
        };
        let State::Running { since, .. } = slot.shown.state else {
            continue;
        };
        tracing::debug!(
            pod = report::full_name(pod),
            container = slot.shown.name,
            code,
            "a container ended"
        );
        slot.shown.state = State::Ended(Ended {
            id: container.id.clone(),
            code,
            reason: if code == 0 { "Completed" } else { "Error" },
            message: String::new(),
            started: since,
            finished: container.finished(),
        });
        slot.running = None;
    }
}

/// Seconds as Go writes a duration.
fn pretty(seconds: i64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
