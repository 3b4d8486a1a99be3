//! Pods as local processes: a container is a directory and a command.
//!
//! ```text
//!  run ──► pod (one life per pod) ──► container (one per start) ──► process
//!           │  spec: what to run                │  log              ▲
//!           └─ report: the status               └── attach ┐        │ exec
//!  connect, kubelet ──► serve ──► query, channel, wire ──► stream ──┘
//! ```
//!
//! A container has the rights, the file system, the network and the `PATH` of whoever runs the sandbox. Its image is noted
//! and not used; `securityContext`, resources, probes, volumes, ports and `workingDir` mean nothing. Its processes are
//! found by a variable in their environment when they are to end; one that clears its environment, starts a session of its
//! own and loses its parent escapes. On other systems than Linux only the process started directly is ended.

mod channel;
mod container;
mod kubelet;
mod log;
mod logs;
mod pod;
mod process;
mod query;
mod report;
mod serve;
mod spec;
mod stream;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::cluster::{Cluster, NODE};
use crate::object;
use crate::server::Body;
use crate::status::Failure;
use crate::store::{Change, Key, Watch};

/// Containers that run, by pod UID.
#[derive(Default)]
pub struct Pods {
    lives: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    reach: Arc<pod::Reach>,
    feed: watch::Sender<Option<Arc<Value>>>,
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pods").finish_non_exhaustive()
    }
}

impl Pods {
    fn reach(&self, uid: &str) -> Option<Arc<pod::Reach>> {
        self.lock().get(uid).map(|entry| Arc::clone(&entry.reach))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts what the store says should run, ends what should not, and reports it in each pod's status; until the sandbox
/// stops, and then ends every process.
pub async fn run(cluster: Arc<Cluster>) {
    let sandbox = uuid::Uuid::new_v4().simple().to_string();
    let mut watchdog = process::watchdog(&sandbox)
        .inspect_err(
            |error| tracing::warn!(%error, "pods will outlive the sandbox if it is killed"),
        )
        .ok();
    let node = Node {
        cluster: Arc::clone(&cluster),
        sandbox,
        lives: TaskTracker::new(),
    };
    while !cluster.stop.is_cancelled() {
        let (revision, pods) = cluster.store.list("pods", None);
        for pod in &pods {
            node.see(pod);
        }
        let uids: Vec<&str> = pods.iter().map(|pod| object::uid(pod)).collect();
        cluster.pods.lock().retain(|uid, entry| {
            let there = uids.contains(&uid.as_str());
            if !there {
                entry.feed.send_replace(None);
            }
            there
        });
        let Ok(watch) = cluster.store.watch("pods", None, revision) else {
            continue;
        };
        tokio::select! {
            () = node.follow(watch) => {}
            () = cluster.stop.cancelled() => {}
        }
    }
    node.lives.close();
    node.lives.wait().await;
    if let Some(watchdog) = &mut watchdog {
        let _ = watchdog.kill().await; // nothing is left for it to do
    }
}

struct Node {
    cluster: Arc<Cluster>,
    /// First part of all marks.
    sandbox: String,
    lives: TaskTracker,
}

impl Node {
    /// Follows changes until some were missed.
    async fn follow(&self, mut watch: Watch) {
        while let Ok(event) = watch.next().await {
            if event.change == Change::Deleted {
                let entry = self.cluster.pods.lock().remove(object::uid(&event.object));
                if let Some(entry) = entry {
                    entry.feed.send_replace(None);
                }
            } else {
                self.see(&event.object);
            }
        }
    }

    /// Takes notice of a pod as it is now. One bound to no node is bound: there is no scheduler.
    fn see(&self, pod: &Arc<Value>) {
        let key = Key {
            resource: "pods".into(),
            namespace: object::namespace(pod).to_owned(),
            name: object::name(pod).to_owned(),
        };
        let spec = &pod["spec"];
        let gated = spec["schedulingGates"]
            .as_array()
            .is_some_and(|gates| !gates.is_empty());
        match spec["nodeName"].as_str() {
            None | Some("") if gated || object::deleting(pod) => {}
            None | Some("") => {
                let mut bound = (**pod).clone();
                bound["spec"]["nodeName"] = json!(NODE);
                // Whoever changed it meanwhile makes it be seen again.
                let _ = self
                    .cluster
                    .store
                    .replace(&key, object::revision(pod), bound);
            }
            Some(NODE) => {
                let mut lives = self.cluster.pods.lock();
                if let Some(entry) = lives.get(object::uid(pod)) {
                    entry.feed.send_replace(Some(Arc::clone(pod)));
                    return;
                }
                let (sender, feed) = watch::channel(Some(Arc::clone(pod)));
                let reach = Arc::<pod::Reach>::default();
                let uid = object::uid(pod).to_owned();
                let life = pod::Life {
                    cluster: Arc::clone(&self.cluster),
                    key,
                    uid: uid.clone(),
                    reach: Arc::clone(&reach),
                    feed,
                    sandbox: self.sandbox.clone(),
                };
                lives.insert(
                    uid,
                    Entry {
                        reach,
                        feed: sender,
                    },
                );
                self.lives.spawn(life.live());
            }
            Some(_) => {}
        }
    }
}

/// Answers `…/pods/{pod}/{exec|attach|log|portforward}` of somebody who may: a WebSocket for the first two (SPDY is
/// refused with the reason), text for `log`.
///
/// # Errors
/// What the API server would answer before the upgrade.
pub fn connect(
    cluster: &Arc<Cluster>,
    namespace: &str,
    pod: &str,
    subresource: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    serve::from_api_server(cluster, namespace, pod, subresource, request)
}

/// Serves the kubelet's own port (`/exec/{namespace}/{pod}[/{uid}]/{container}`, `/attach/…`, `/containerLogs/…`,
/// `/healthz`) until the sandbox stops: TLS, client certificate or token, and the right to `nodes/proxy` by the verb of
/// the method. Does not answer while [`crate::Faults::kubelet`] says it is dead.
pub async fn serve_kubelet(cluster: Arc<Cluster>, listener: TcpListener) {
    kubelet::serve(cluster, listener).await;
}
