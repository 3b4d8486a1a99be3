//! The Kubernetes the tests run on, as its administrator sees it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::audit::Audit;
use crate::kubectl::Kubectl;
use crate::note;
use crate::programs::repository;

/// Oldest kubectl the promises are made for: the first to exec over WebSocket by default.
const KUBECTL_MINOR: u32 = 30;

/// A cluster and what is known of it.
pub struct Cluster {
    /// As administrator.
    pub client: Client,
    /// The administrator's kubectl.
    pub kubectl: Kubectl,
    /// Version of the API server: major, minor.
    pub version: (u32, u32),
    config: Config,
    kubeconfig: PathBuf,
    /// What `tests/cluster/cluster env` says; empty on any other cluster.
    sandbox: BTreeMap<String, String>,
}

/// Something only some clusters let a test see or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The API server's audit log as a file (`DRAWBRIDGE_AUDIT_LOG`; known for the project's own cluster).
    AuditLog,
    /// Restarting the API server. Only on the project's own cluster.
    Restart,
    /// Reaching a kubelet from here. Only on the project's own cluster.
    Kubelet,
}

impl Cluster {
    /// Brings the project's own cluster up unless `KUBECONFIG` names another; shows its progress.
    ///
    /// # Errors
    /// When that fails; what it printed says why.
    pub async fn ensure() -> Result<()> {
        if std::env::var("KUBECONFIG").is_ok_and(|path| !path.is_empty()) {
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

    /// The cluster of `KUBECONFIG`; if that is not set, the one `tests/cluster/cluster up` brought up.
    ///
    /// # Errors
    /// When there is none; says what to run.
    pub async fn connect() -> Result<Self> {
        let sandbox = sandbox();
        let kubeconfig = match std::env::var("KUBECONFIG").ok().filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(sandbox.get("KUBECONFIG").context(
                "no cluster to test on: run `tests/cluster/cluster up` (as root, on Debian), or set KUBECONFIG to a \
                 cluster where you are administrator",
            )?),
        };
        // The environment file speaks of the project's own cluster, and of no other.
        let own = sandbox
            .get("KUBECONFIG")
            .is_some_and(|path| Path::new(path) == kubeconfig);
        let sandbox = if own { sandbox } else { BTreeMap::new() };
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
        let program = std::env::var("KUBECTL")
            .ok()
            .or_else(|| sandbox.get("CLUSTER_KUBECTL").cloned());
        Ok(Self {
            client,
            kubectl: kubectl(
                &program.unwrap_or_else(|| "kubectl".to_owned()),
                &kubeconfig,
            )
            .await?,
            version: (number(&server.major), number(&server.minor)),
            config,
            kubeconfig,
            sandbox,
        })
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
                self.sandbox("CLUSTER_APISERVER_PID_FILE").is_some(),
                "restart",
            ),
            Needs::Kubelet => (self.sandbox("CLUSTER_KUBELET").is_some(), "kubelet"),
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
        let path = std::env::var("DRAWBRIDGE_AUDIT_LOG").ok();
        path.or_else(|| self.sandbox("CLUSTER_AUDIT_LOG").map(str::to_owned))
            .map(PathBuf::from)
    }

    /// A value of `tests/cluster/cluster env`.
    #[must_use]
    pub fn sandbox(&self, key: &str) -> Option<&str> {
        self.sandbox.get(key).map(String::as_str)
    }

    /// A kubectl with another kubeconfig.
    ///
    /// # Errors
    /// When no directory for its cache can be made.
    pub fn kubectl_with(&self, kubeconfig: &Path) -> Result<Kubectl> {
        Kubectl::new(self.kubectl.program(), kubeconfig)
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
        match self.sandbox("CLUSTER_IMAGE") {
            Some(own) => (
                image.unwrap_or_else(|| own.to_owned()),
                "Never",
                self.sandbox("CLUSTER_NODE"),
            ),
            None => (
                image.unwrap_or_else(|| "busybox:1.37".to_owned()),
                "IfNotPresent",
                None,
            ),
        }
    }

    /// Runs `tests/cluster/cluster restart-apiserver`.
    ///
    /// # Errors
    /// When that fails.
    pub async fn restart_apiserver(&self) -> Result<()> {
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
    config.connect_timeout = Some(std::time::Duration::from_secs(5));
    Client::try_from(config).context("failed to make a client")
}

/// What the project's own cluster says of itself; empty when it is not up.
fn sandbox() -> BTreeMap<String, String> {
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

async fn kubectl(program: &str, kubeconfig: &Path) -> Result<Kubectl> {
    let kubectl = Kubectl::new(Path::new(program), kubeconfig)?;
    let version: Value =
        serde_json::from_str(&kubectl.ok(&["version", "--client", "-o", "json"]).await?)?;
    let minor = version["clientVersion"]["minor"]
        .as_str()
        .unwrap_or_default();
    let number: u32 = minor.trim_end_matches('+').parse().unwrap_or(0);
    ensure!(
        number >= KUBECTL_MINOR,
        "{program} is 1.{minor}; the promises are made for 1.{KUBECTL_MINOR} or newer: set KUBECTL"
    );
    Ok(kubectl)
}
