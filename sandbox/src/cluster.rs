//! What the parts of the sandbox share, and the handle of a running one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::tokens::Tokens;
use crate::clock::Clock;
use crate::faults::Faults;
use crate::kinds::Kinds;
use crate::pki::Pki;
use crate::release::Release;
use crate::store::Store;

/// Name of the one node.
pub const NODE: &str = "sandbox";

/// What the parts share.
#[derive(Debug)]
pub struct Cluster {
    /// Objects.
    pub store: Arc<Store>,
    /// Kinds.
    pub kinds: Kinds,
    /// Time.
    pub clock: Clock,
    /// What to behave like.
    pub release: Release,
    /// Certificates.
    pub pki: Pki,
    /// ServiceAccount tokens.
    pub tokens: Tokens,
    /// What is to go wrong.
    pub faults: Faults,
    /// Containers that run.
    pub pods: crate::pods::Pods,
    /// Where the API server listens.
    pub address: SocketAddr,
    /// Where the kubelet listens.
    pub kubelet: SocketAddr,
    /// Scratch directory: containers, logs, the audit log, kubeconfigs.
    pub dir: PathBuf,
    /// Everything ends when this is cancelled.
    pub stop: CancellationToken,
    /// Every task.
    pub tasks: TaskTracker,
}

/// How to start a sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server listens. Must be a loopback address; port 0 for any. Default: `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Where the kubelet listens, likewise.
    pub kubelet_listen: SocketAddr,
    /// What to behave like.
    pub release: Release,
    /// Scratch directory; a temporary one, removed at the end, if `None`.
    pub dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            kubelet_listen: (Ipv4Addr::LOCALHOST, 0).into(),
            release: Release::default(),
            dir: None,
        }
    }
}

/// A running sandbox. Ends with [`Sandbox::stop`]; dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct Sandbox {
    cluster: Arc<Cluster>,
    // Removed last.
    _scratch: Option<tempfile::TempDir>,
}

impl Sandbox {
    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// A port that is taken, an address that is not loopback, a directory that cannot be made.
    pub async fn start(_options: Options) -> anyhow::Result<Self> {
        todo!("cluster")
    }

    /// What its parts share, faults and clock among them.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// `https://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.cluster.address)
    }

    /// A kubeconfig with a client certificate for this user and these groups, in YAML.
    ///
    /// # Errors
    /// When a name cannot be put into a certificate.
    pub fn kubeconfig(&self, _user: &str, _groups: &[&str]) -> anyhow::Result<String> {
        todo!("cluster")
    }

    /// Ends every pod and every connection and waits for it.
    pub async fn stop(self) {
        self.cluster.stop.cancel();
        self.cluster.tasks.close();
        self.cluster.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.cluster.stop.cancel();
    }
}

#[cfg(test)]
impl Cluster {
    /// One that serves nothing, with the kinds built in and the roles every cluster begins with.
    pub(crate) fn for_tests(release: Release) -> Arc<Self> {
        let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
        let cluster = Self {
            store: Arc::default(),
            kinds: Kinds::builtin(release),
            clock: Clock::default(),
            release,
            pki: Pki::new().unwrap(),
            tokens: Tokens::new().unwrap(),
            faults: Faults::default(),
            pods: crate::pods::Pods::default(),
            address: nowhere,
            kubelet: nowhere,
            dir: PathBuf::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        for object in crate::auth::rbac::bootstrap() {
            cluster.put(object);
        }
        Arc::new(cluster)
    }

    /// Where an object of a built-in kind is stored.
    pub(crate) fn key(&self, object: &serde_json::Value) -> crate::store::Key {
        let text = |field: &str| object[field].as_str().unwrap();
        let kind = self.kinds.of(text("apiVersion"), text("kind")).unwrap();
        crate::store::Key {
            resource: kind.resource().into(),
            namespace: crate::object::namespace(object).to_owned(),
            name: crate::object::name(object).to_owned(),
        }
    }

    /// Stores an object as it is, with a UID of its own unless it has one. Returns the UID.
    pub(crate) fn put(&self, mut object: serde_json::Value) -> String {
        let fresh = uuid::Uuid::new_v4().to_string();
        let metadata = crate::object::metadata_mut(&mut object);
        metadata.entry("uid").or_insert(fresh.into());
        let uid = crate::object::uid(&object).to_owned();
        self.store.create(self.key(&object), object).unwrap();
        uid
    }

    /// Removes an object.
    pub(crate) fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let key = self.key(&serde_json::json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"namespace": namespace, "name": name},
        }));
        let revision = crate::object::revision(&self.store.get(&key).unwrap());
        self.store.remove(&key, revision).unwrap();
    }
}
