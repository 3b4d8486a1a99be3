//! What the parts of the sandbox share, and the handle of a running one.

use std::{fs::File, net::Ipv4Addr, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, sync::DropGuard, task::TaskTracker};

use crate::auth::{rbac::bootstrap, tokens::Tokens};
use crate::pods::{self, Pods};
use crate::{Faults, Release, clock::Clock, kinds::Kinds, pki::Pki, store::Store};
use crate::{controllers, discovery::git_version, object, server};

/// Name of the one node.
pub(crate) const NODE: &str = "sandbox";

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
    /// TLS of the API server and the kubelet.
    pub tls: Arc<ServerConfig>,
    /// ServiceAccount tokens.
    pub tokens: Tokens,
    /// What is to go wrong.
    pub faults: watch::Sender<Faults>,
    /// Containers that run.
    pub pods: Pods,
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
    /// What was asked, by whom.
    pub audit: File,
}

/// Serves the part of the Kubernetes API that Drawbridge uses, with pods as local processes. For trying and testing: it
/// is no cluster, and whoever reaches it runs commands as you, so it listens on loopback only.
#[derive(clap::Parser, Clone, Debug, Default)]
#[command(version)]
pub struct Options {
    /// Port of the API server; 0 for any.
    #[arg(long, default_value_t)]
    pub port: u16,
    /// Kubernetes release to behave like.
    #[arg(long, value_enum, default_value_t)]
    pub release: Release,
    /// Directory for containers, logs and the kubeconfig; made if it is not there, and kept. Default: a temporary one.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// A running sandbox. Ends with [`Sandbox::stop`]; dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct Sandbox {
    cluster: Arc<Cluster>,
    _stop: DropGuard,
    // Removed last.
    _scratch: tempfile::TempDir,
}

impl Sandbox {
    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// A port that is taken, a directory that cannot be made.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let api = bind("API server", options.port).await?;
        let kubelet = bind("kubelet", 0).await?;
        let scratch = tempfile::TempDir::with_prefix("drawbridge-sandbox-")
            .context("failed to make a scratch directory")?;
        let dir = options.dir.unwrap_or_else(|| scratch.path().to_owned());
        let made = std::fs::create_dir_all(&dir).and_then(|()| dir.canonicalize());
        let dir = made.with_context(|| format!("failed to make {}", dir.display()))?;
        let mut audit = File::options();
        let audit = audit.create(true).append(true).open(dir.join("audit.log"));
        let audit = audit.context("failed to open the audit log")?;
        let pki = Pki::new()?;
        let cluster = Arc::new(Cluster {
            store: Arc::default(),
            kinds: Kinds::builtin(options.release),
            clock: Clock::default(),
            release: options.release,
            tls: pki.server_config()?,
            pki,
            tokens: Tokens::new()?,
            faults: watch::Sender::default(),
            pods: Pods::default(),
            address: api.local_addr()?,
            kubelet: kubelet.local_addr()?,
            audit,
            dir,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        for object in bootstrap().into_iter().chain([cluster.node()]) {
            cluster.plant(object)?;
        }
        let tasks = &cluster.tasks;
        tasks.spawn(pods::run(Arc::clone(&cluster)));
        tasks.spawn(pods::serve_kubelet(Arc::clone(&cluster), kubelet));
        tasks.spawn(server::serve(Arc::clone(&cluster), api));
        controllers::start(&cluster).await;
        Ok(Self {
            _stop: cluster.stop.clone().drop_guard(),
            cluster,
            _scratch: scratch,
        })
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
    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> anyhow::Result<String> {
        let issued = self.cluster.pki.client(user, groups)?;
        let [certificate, key] = [&issued.certificate, &issued.key].map(|pem| STANDARD.encode(pem));
        let user = json!({"client-certificate-data": certificate, "client-key-data": key});
        Ok(self.kubeconfig_of(&user))
    }

    /// A kubeconfig for a user as one has it, such as `{"token": "…"}`, in JSON, which is YAML.
    #[must_use]
    pub fn kubeconfig_of(&self, user: &Value) -> String {
        let authority = STANDARD.encode(&self.cluster.pki.authority);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "sandbox",
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox", "namespace": "default"}}],
            "clusters": [{"name": "sandbox", "cluster": {"server": self.url(), "certificate-authority-data": authority}}],
            "users": [{"name": "sandbox", "user": user}],
        });
        format!("{config:#}\n")
    }

    /// Ends every pod and every connection and waits for it.
    pub async fn stop(self) {
        self.cluster.stop.cancel();
        self.cluster.tasks.close();
        self.cluster.tasks.wait().await;
    }
}

impl Cluster {
    /// Stores an object a cluster begins with.
    pub(crate) fn plant(&self, mut object: Value) -> anyhow::Result<()> {
        let [version, kind] = ["apiVersion", "kind"].map(|field| object::text(&object[field]));
        let kind = self.kinds.of(version, kind);
        let kind = kind.with_context(|| format!("no kind {} is served", object["kind"]))?;
        self.stamp(&kind, &mut object);
        let (namespace, name) = (object::namespace(&object), object::name(&object));
        let key = Self::place(&kind, namespace, name);
        self.store.write(&key, None, Some(object))?;
        Ok(())
    }

    /// The one node: this machine, as far as pods see it.
    fn node(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}},
            "spec": {},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": self.kubelet.ip()}, {"type": "Hostname", "address": NODE},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet.port()}},
                "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": format!("{:.0}", self.clock.now())},
                ],
                "nodeInfo": {
                    "kubeletVersion": git_version(self.release), "osImage": "local processes, no containers",
                },
            },
        })
    }
}

async fn bind(what: &str, port: u16) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    bound.with_context(|| format!("the {what} cannot listen on port {port}; is it taken?"))
}

#[cfg(test)]
mod tests;
