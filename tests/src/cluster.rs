//! The Kubernetes the tests run on, as its administrator sees it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum as _;
use drawbridge_sandbox::faults::{Answer, Faults, RequestFault, StreamFault, WatchFault};
use drawbridge_sandbox::{Release, Sandbox};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::audit::Audit;
use crate::embedded::Embedded;
use crate::kubectl::Kubectl;
use crate::note;
use crate::programs::repository;

/// Oldest kubectl the promises are made for: the first to exec over WebSocket by default.
const KUBECTL_MINOR: u32 = 30;

/// How long an API server is away that is restarted: what a real one takes at least.
const ABSENCE: Duration = Duration::from_secs(3);

/// A cluster and what is known of it.
pub struct Cluster {
    /// As administrator.
    pub client: Client,
    /// Version of the API server: major, minor.
    pub version: (u32, u32),
    config: Config,
    kubeconfig: PathBuf,
    kubectl: OnceCell<Kubectl>,
    /// What `tests/cluster/cluster env` says; empty on any other cluster.
    own: BTreeMap<String, String>,
    sandbox: Option<Arc<Embedded>>,
}

/// Something only some clusters let a test see or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The API server's audit log as a file (`DRAWBRIDGE_AUDIT_LOG`; known for the sandbox and the project's own cluster).
    AuditLog,
    /// Restarting the API server. Only on the sandbox and the project's own cluster.
    Restart,
    /// Reaching a kubelet from here, and knowing its authority. Only on the sandbox and the project's own cluster.
    Kubelet,
    /// Faults nobody can order from a real cluster. Only on the sandbox.
    Faults,
}

impl Cluster {
    /// Brings the project's own cluster up if the tests are to run on it; shows its progress.
    ///
    /// # Errors
    /// When that fails; what it printed says why.
    pub async fn ensure() -> Result<()> {
        if which()? != Which::Own {
            return Ok(());
        }
        let script = repository().join("tests/cluster/cluster");
        let status = tokio::process::Command::new(script)
            .arg("up")
            .status()
            .await;
        let status = status.context("failed to run tests/cluster/cluster")?;
        ensure!(
            status.success(),
            "no cluster: `tests/cluster/cluster up` failed; or set KUBECONFIG to another"
        );
        Ok(())
    }

    /// The sandbox of this process, which is started if none runs; with `DRAWBRIDGE_CLUSTER=real` the cluster of
    /// `KUBECONFIG`, or else the one `tests/cluster/cluster up` brought up.
    ///
    /// # Errors
    /// When there is none; says what to run.
    pub async fn connect() -> Result<Self> {
        match which()? {
            Which::Sandbox => Self::sandbox(Embedded::shared(release()?).await?).await,
            Which::Named(kubeconfig) => Self::real(kubeconfig).await,
            Which::Own => {
                let kubeconfig = own().remove("KUBECONFIG").context(
                    "no cluster to test on: run `tests/cluster/cluster up` (as root, on Debian), or set KUBECONFIG to a \
                     cluster where you are administrator",
                )?;
                Self::real(kubeconfig.into()).await
            }
        }
    }

    /// Whether the environment asks for the sandbox.
    ///
    /// # Errors
    /// When it asks for something there is not.
    pub fn is_sandbox() -> Result<bool> {
        Ok(which()? == Which::Sandbox)
    }

    /// A sandbox that nobody else uses.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn sandbox_apart() -> Result<Self> {
        Self::sandbox(Arc::new(Embedded::start(release()?).await?)).await
    }

    /// The real cluster the environment names, or else a sandbox for each release it can behave like.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn all_releases() -> Result<Vec<Self>> {
        if which()? != Which::Sandbox {
            return Ok(vec![Self::connect().await?]);
        }
        let mut all = Vec::new();
        for release in Release::value_variants() {
            let sandbox = Arc::new(Embedded::start(*release).await?);
            all.push(Self::sandbox(sandbox).await?);
        }
        Ok(all)
    }

    async fn real(kubeconfig: PathBuf) -> Result<Self> {
        // The environment file speaks of the project's own cluster, and of no other.
        let own = own();
        let is_own = own
            .get("KUBECONFIG")
            .is_some_and(|path| Path::new(path) == kubeconfig);
        let own = if is_own { own } else { BTreeMap::new() };
        Self::at(kubeconfig, own, None).await
    }

    async fn sandbox(sandbox: Arc<Embedded>) -> Result<Self> {
        Self::at(
            sandbox.kubeconfig().to_owned(),
            BTreeMap::new(),
            Some(sandbox),
        )
        .await
    }

    async fn at(
        kubeconfig: PathBuf,
        own: BTreeMap<String, String>,
        sandbox: Option<Arc<Embedded>>,
    ) -> Result<Self> {
        let config = Kubeconfig::read_from(&kubeconfig)
            .with_context(|| format!("KUBECONFIG={}", kubeconfig.display()))?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = client(config.clone())?;
        let server = client.apiserver_version().await.with_context(|| {
            format!("the API server of {} does not answer; `tests/cluster/cluster up` repairs the project's own", kubeconfig.display())
        })?;
        let number = |text: &str| {
            text.trim_end_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .unwrap_or(0)
        };
        Ok(Self {
            client,
            version: (number(&server.major), number(&server.minor)),
            config,
            kubeconfig,
            kubectl: OnceCell::new(),
            own,
            sandbox,
        })
    }

    /// The administrator's kubectl: `KUBECTL`, else the one the project's own cluster has brought, else the one on `PATH`.
    ///
    /// # Errors
    /// When there is none, or only one older than the promises.
    pub async fn kubectl(&self) -> Result<&Kubectl> {
        let make = async || {
            let program = std::env::var("KUBECTL").ok();
            let program = program.map(PathBuf::from).or_else(brought);
            let program = program.unwrap_or_else(|| "kubectl".into());
            kubectl(&program, &self.kubeconfig).await
        };
        self.kubectl.get_or_try_init(make).await
    }

    /// The sandbox it is, for faults.
    ///
    /// # Errors
    /// When it is no sandbox; ask [`Cluster::offers`] first.
    pub fn faulty(&self) -> Result<&Sandbox> {
        let sandbox = self.sandbox.as_ref().context("this is no sandbox")?;
        Ok(sandbox.sandbox())
    }

    /// How the administrator reaches the API server.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the API server speaks `v5.channel.k8s.io`, i.e. can tell a process that its stdin has ended.
    #[must_use]
    pub fn has_v5(&self) -> bool {
        self.version >= (1, 30)
    }

    /// Whether the test can be run here. If not, it fails, unless `DRAWBRIDGE_SKIP` names what is missing: then the
    /// caller must return, and the person running the tests is told.
    ///
    /// # Errors
    /// When it is missing and not excused.
    pub fn offers(&self, what: Needs) -> Result<bool> {
        let (there, name) = match what {
            Needs::AuditLog => (self.audit_path().is_some(), "audit-log"),
            Needs::Restart => (
                self.sandbox.is_some() || self.own.contains_key("CLUSTER_APISERVER_PID_FILE"),
                "restart",
            ),
            Needs::Kubelet => (self.kubelet_authority().is_some(), "kubelet"),
            Needs::Faults => (self.sandbox.is_some(), "faults"),
        };
        if there {
            return Ok(true);
        }
        let excused = std::env::var("DRAWBRIDGE_SKIP").unwrap_or_default();
        if excused.split(',').any(|item| item.trim() == name) {
            note(format!(
                "SKIPPED, NOT PASSED: {} has no {name}",
                self.kubeconfig.display()
            ));
            return Ok(false);
        }
        bail!("this cluster has no {name} to test with; DRAWBRIDGE_SKIP={name} skips what needs it")
    }

    /// The API server's audit log.
    ///
    /// # Errors
    /// When this cluster shows none; ask [`Cluster::offers`] first.
    pub fn audit(&self) -> Result<Audit> {
        Ok(Audit::new(self.audit_path().context("no audit log")?))
    }

    fn audit_path(&self) -> Option<PathBuf> {
        if let Some(sandbox) = &self.sandbox {
            return Some(sandbox.audit_log());
        }
        let path = std::env::var("DRAWBRIDGE_AUDIT_LOG").ok();
        path.or_else(|| self.own.get("CLUSTER_AUDIT_LOG").cloned())
            .map(PathBuf::from)
    }

    /// The certificate of the authority that signed the kubelets' certificates, as a PEM file.
    #[must_use]
    pub fn kubelet_authority(&self) -> Option<PathBuf> {
        match &self.sandbox {
            Some(sandbox) => Some(sandbox.authority().to_owned()),
            None => self.own.get("CLUSTER_KUBELET_CA").map(PathBuf::from),
        }
    }

    /// A kubectl with another kubeconfig.
    ///
    /// # Errors
    /// When there is none, or no directory for its cache can be made.
    pub async fn kubectl_with(&self, kubeconfig: &Path) -> Result<Kubectl> {
        Kubectl::new(self.kubectl().await?.program(), kubeconfig)
    }

    /// A client with a token instead of the administrator's credential.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn client_with_token(&self, token: &str) -> Result<Client> {
        let config: Kubeconfig = serde_json::from_value(self.kubeconfig_with_token(token)?)?;
        client(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)
    }

    /// A kubeconfig for this cluster with `token` as its only credential, as JSON (which is YAML).
    ///
    /// # Errors
    /// When the administrator's kubeconfig names no cluster.
    pub fn kubeconfig_with_token(&self, token: &str) -> Result<Value> {
        let own = Kubeconfig::read_from(&self.kubeconfig)?;
        let context = own
            .current_context
            .as_ref()
            .and_then(|name| own.contexts.iter().find(|context| context.name == *name));
        let context = context
            .and_then(|context| context.context.as_ref())
            .context("no current context")?;
        let cluster = own
            .clusters
            .iter()
            .find(|cluster| cluster.name == context.cluster);
        let cluster = cluster
            .and_then(|cluster| cluster.cluster.as_ref())
            .context("the context names no cluster")?;
        Ok(json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
        }))
    }

    /// What a pod of the tests needs besides its name and command: image, pull policy, and the node on clusters
    /// without a scheduler. `DRAWBRIDGE_TEST_IMAGE` names another image; it must hold a busybox.
    #[must_use]
    pub fn pod_defaults(&self) -> (String, &'static str, Option<&str>) {
        let image = std::env::var("DRAWBRIDGE_TEST_IMAGE").ok();
        match self.own.get("CLUSTER_IMAGE") {
            Some(own) => (
                image.unwrap_or_else(|| own.to_owned()),
                "Never",
                self.own.get("CLUSTER_NODE").map(String::as_str),
            ),
            None => (
                image.unwrap_or_else(|| "busybox:1.37".to_owned()),
                "IfNotPresent",
                None,
            ),
        }
    }

    /// Runs `tests/cluster/cluster restart-apiserver`; what a client sees of that is done to it on the sandbox.
    ///
    /// # Errors
    /// When that fails.
    pub async fn restart_apiserver(&self) -> Result<()> {
        if let Some(sandbox) = &self.sandbox {
            let faults = &sandbox.sandbox().cluster().faults;
            let all = RequestFault {
                times: u32::MAX,
                then: Answer::Code(503),
                ..RequestFault::default()
            };
            faults.send_replace(Faults {
                requests: vec![all],
                watches: WatchFault::Refused,
                streams: StreamFault::Reset,
                ..Faults::default()
            });
            tokio::time::sleep(ABSENCE).await;
            faults.send_replace(Faults::default());
            return Ok(());
        }
        let script = repository().join("tests/cluster/cluster");
        let output = tokio::process::Command::new(script)
            .arg("restart-apiserver")
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "restart-apiserver failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

fn client(mut config: Config) -> Result<Client> {
    // A test that waits has its own limits; a dead connection must not wait for the kernel's.
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).context("failed to make a client")
}

/// Which cluster the tests run on.
#[derive(Debug, PartialEq, Eq)]
enum Which {
    Sandbox,
    Own,
    Named(PathBuf),
}

fn which() -> Result<Which> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    Ok(
        match (set("KUBECONFIG"), set("DRAWBRIDGE_CLUSTER").as_deref()) {
            // A KUBECONFIG that is set for other work must not lead a plain `cargo test` to that cluster.
            (_, None | Some("sandbox")) => Which::Sandbox,
            (Some(path), Some("real")) => Which::Named(path.into()),
            (None, Some("real")) => Which::Own,
            (_, Some(other)) => bail!("DRAWBRIDGE_CLUSTER={other} is neither `sandbox` nor `real`"),
        },
    )
}

/// What a sandbox is to behave like.
fn release() -> Result<Release> {
    match std::env::var("DRAWBRIDGE_SANDBOX_RELEASE") {
        Ok(text) if !text.is_empty() => Release::from_str(&text, false).map_err(anyhow::Error::msg),
        _ => Ok(Release::default()),
    }
}

/// What the project's own cluster says of itself; empty when it is not up.
fn own() -> BTreeMap<String, String> {
    let output = Command::new(repository().join("tests/cluster/cluster"))
        .arg("env")
        .output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        return BTreeMap::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The kubectl that `tests/cluster/cluster up` leaves in its cache (`CLUSTER_KUBECTL`), whether the cluster is up or not.
fn brought() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = set("DRAWBRIDGE_CACHE").or_else(|| {
        let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        Some(caches?.join("drawbridge"))
    });
    cache
        .map(|cache| cache.join("kubectl/kubectl"))
        .filter(|path| path.is_file())
}

async fn kubectl(program: &Path, kubeconfig: &Path) -> Result<Kubectl> {
    let kubectl = Kubectl::new(program, kubeconfig)?;
    let version: Value =
        serde_json::from_str(&kubectl.ok(&["version", "--client", "-o", "json"]).await?)?;
    let minor = version["clientVersion"]["minor"]
        .as_str()
        .unwrap_or_default();
    let number: u32 = minor.trim_end_matches('+').parse().unwrap_or(0);
    ensure!(
        number >= KUBECTL_MINOR,
        "{} is 1.{minor}; the promises are made for 1.{KUBECTL_MINOR} or newer: set KUBECTL",
        program.display()
    );
    Ok(kubectl)
}
