//! What one test function has: a namespace of its own, pods, sessions; and what is told when it fails.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Secret};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::await_condition;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::RwLock;

use crate::cluster::Cluster;
use crate::drawbridge::{Drawbridge, Gateway, write_private};
use crate::install::{TEST_LABEL, gone_already};
use crate::note;
use crate::session::Session;
use crate::wait::{soon, wait_for};

/// Longest wait for a pod or a session; both take a second or two on an idle machine.
const LIMIT: Duration = Duration::from_mins(1);
/// Longest a whole test takes; a test that hangs should say so rather than be killed from outside.
const TEST_LIMIT: Duration = Duration::from_mins(10);

/// What a container does by default. It ignores SIGTERM, as every program does that is process 1 and does not ask for it:
/// the end of a pod is then when its grace is over, whether process 1 is what it is in a container or not.
const SLEEP: &str = "trap '' TERM; exec sleep 99999";

/// On a real cluster: held for reading by tests that share the processes, for writing by those that stop them.
static PROCESSES: RwLock<()> = RwLock::const_new(());

/// What a test function works with.
pub struct Test {
    /// The cluster, as administrator.
    pub cluster: Arc<Cluster>,
    /// The operator and the gateway.
    pub drawbridge: Arc<Drawbridge>,
    /// The test's own namespace.
    pub namespace: String,
    files: TempDir,
    names: AtomicU32,
}

/// Runs a test that leaves the operator and the gateway as they are, beside others.
///
/// # Panics
/// When the test fails; shows the logs and objects of it first.
pub async fn run(body: impl AsyncFnOnce(&Test) -> Result<()>) {
    let _shared = PROCESSES.read().await;
    run_body(Test::new().await, body).await;
}

/// Runs a test that may stop and restart the operator, the gateway or the API server, or counts what they do: on a real
/// cluster while no other of this binary runs; on the sandbox beside others, with a sandbox and programs of its own.
///
/// # Panics
/// When the test fails; shows the logs and objects of it first.
pub async fn run_alone(body: impl AsyncFnOnce(&Test) -> Result<()>) {
    if matches!(Cluster::is_sandbox(), Ok(true)) {
        return run_body(Test::apart().await, body).await;
    }
    let _alone = PROCESSES.write().await;
    run_body(Test::new().await, body).await;
}

async fn run_body(test: Result<Test>, body: impl AsyncFnOnce(&Test) -> Result<()>) {
    let test = match test {
        Ok(test) => test,
        Err(error) => panic!("the test could not begin: {error:?}"),
    };
    let limited =
        soon("the end of this test", TEST_LIMIT, Box::pin(body(&test))).map(Result::flatten);
    let done = AssertUnwindSafe(limited).catch_unwind().await;
    if !matches!(done, Ok(Ok(()))) {
        test.show().await;
    }
    test.clean_up().await;
    drop(test);
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:?}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Test {
    /// A namespace of its own on a cluster with the product running.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn new() -> Result<Self> {
        let cluster = Cluster::connect().await?;
        let drawbridge = Drawbridge::shared(&cluster).await?;
        Self::on(Arc::new(cluster), drawbridge).await
    }

    /// The same with a sandbox and programs nobody else uses.
    async fn apart() -> Result<Self> {
        let cluster = Cluster::sandbox_apart().await?;
        let drawbridge = Drawbridge::start(&cluster).await?;
        Self::on(Arc::new(cluster), Arc::new(drawbridge)).await
    }

    /// Another namespace beside this one's.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn beside(&self) -> Result<Self> {
        Self::on(Arc::clone(&self.cluster), Arc::clone(&self.drawbridge)).await
    }

    async fn on(cluster: Arc<Cluster>, drawbridge: Arc<Drawbridge>) -> Result<Self> {
        let namespaces = Api::<Namespace>::all(cluster.client.clone());
        let namespace = serde_json::from_value(
            json!({"metadata": {"generateName": "e2e-", "labels": {TEST_LABEL: "true"}}}),
        )?;
        let namespace = namespaces
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(Self {
            cluster,
            drawbridge,
            namespace: namespace
                .metadata
                .name
                .context("a stored object has a name")?,
            files: tempfile::tempdir()?,
            names: AtomicU32::new(0),
        })
    }

    /// The gateway running now.
    #[must_use]
    pub fn gateway(&self) -> Arc<Gateway> {
        self.drawbridge.gateway()
    }

    /// Objects of one kind in the test's namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        <K as Resource>::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// A name nobody else uses.
    #[must_use]
    pub fn name(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A path in a directory that is removed with the test.
    #[must_use]
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.files.path().join(name)
    }

    /// A pod of one busybox that sleeps, running.
    ///
    /// # Errors
    /// When it does not run within a minute.
    pub async fn pod(&self, name: &str) -> Result<Pod> {
        self.pod_with(name, json!({})).await
    }

    /// A pod of one container named `main`, running, with other fields of the container.
    ///
    /// # Errors
    /// When it does not run within a minute.
    pub async fn pod_with(&self, name: &str, container: Value) -> Result<Pod> {
        self.create_pod(name, vec![container]).await?;
        self.running(name).await
    }

    /// Creates a pod with these containers, defaults filled in, the first named `main`; does not wait.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create_pod(&self, name: &str, containers: Vec<Value>) -> Result<Pod> {
        let (image, policy, node) = self.cluster.pod_defaults();
        let containers = containers.into_iter().enumerate().map(|(n, more)| {
            let name = if n == 0 { "main".to_owned() } else { format!("extra-{n}") };
            let mut container = json!({
                "name": name, "image": image, "imagePullPolicy": policy, "command": ["sh", "-c", SLEEP],
            });
            for (key, value) in more.as_object().into_iter().flatten() {
                container[key] = value.clone();
            }
            container
        });
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {
                "containers": containers.collect::<Vec<_>>(),
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
            },
        });
        if let Some(node) = node {
            pod["spec"]["nodeName"] = node.into();
        }
        let pod: Pod = serde_json::from_value(pod)?;
        let pods = self.api::<Pod>();
        // The namespace's ServiceAccount, without which no pod is admitted, is made a moment after the namespace.
        wait_for("a pod is admitted", LIMIT, async || {
            Ok(Some(pods.create(&PostParams::default(), &pod).await?))
        })
        .await
    }

    /// Waits until a pod runs.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn running(&self, name: &str) -> Result<Pod> {
        let what = format!("pod {name} runs");
        let pod = soon(
            &what,
            LIMIT,
            Box::pin(await_condition(self.api::<Pod>(), name, is_pod_running())),
        )
        .await??;
        pod.context("the pod is gone")
    }

    /// A granted session for `pod`, applied on the server's side, with other fields of the spec.
    ///
    /// # Errors
    /// When it is refused, or not Ready within a minute.
    pub async fn session(&self, pod: &str, more: Value) -> Result<Session> {
        let name = self.name("session");
        self.apply_session(&name, pod, more).await?;
        self.granted(&name).await
    }

    /// Applies a session on the server's side; does not wait.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply_session(&self, name: &str, pod: &str, more: Value) -> Result<()> {
        let patch = Patch::Apply(self.session_object(name, pod, &more));
        let me = PatchParams::apply("drawbridge-tests");
        self.api::<ConsoleSession>()
            .patch(name, &me, &patch)
            .await?;
        Ok(())
    }

    /// Creates a session through the API; does not wait.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create_session(
        &self,
        name: &str,
        pod: &str,
        more: Value,
    ) -> Result<ConsoleSession> {
        let object = serde_json::from_value(self.session_object(name, pod, &more))?;
        Ok(self
            .api::<ConsoleSession>()
            .create(&PostParams::default(), &object)
            .await?)
    }

    fn session_object(&self, name: &str, pod: &str, more: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "drawbridge.dev/v1alpha1", "kind": "ConsoleSession",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"user": "alice@example.com", "target": {"pod": {"name": pod}}},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        object
    }

    /// Waits until a session is Ready, and reads what its user is given.
    ///
    /// # Errors
    /// When it is not within a minute; shows its status.
    pub async fn granted(&self, name: &str) -> Result<Session> {
        let object = self.phase(name, Phase::Ready).await?;
        let status = object.status.as_ref().context("it is Ready")?;
        let secret = status
            .credential
            .as_ref()
            .context("a Ready session has a credential")?;
        let secret = self
            .api::<Secret>()
            .get(&secret.secret)
            .await
            .context("the Secret of a Ready session")?;
        let value = |key: &str| -> Result<String> {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            Ok(String::from_utf8(
                bytes
                    .with_context(|| format!("the Secret has no {key}"))?
                    .0
                    .clone(),
            )?)
        };
        let kubeconfig = self.file(&format!("{name}.kubeconfig"));
        write_private(&kubeconfig, &value("kubeconfig")?)?;
        Ok(Session {
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            uid: object
                .metadata
                .uid
                .clone()
                .context("a stored object has a UID")?,
            pod: object.spec.pod().unwrap_or_default().to_owned(),
            token: value("token")?,
            kubeconfig,
            object,
        })
    }

    /// Waits until a session is in a phase.
    ///
    /// # Errors
    /// When it is not within a minute; shows its status.
    pub async fn phase(&self, name: &str, phase: Phase) -> Result<ConsoleSession> {
        let there = |object: Option<&ConsoleSession>| {
            object
                .and_then(|object| object.status.as_ref())
                .and_then(|status| status.phase)
                == Some(phase)
        };
        let sessions = self.api::<ConsoleSession>();
        let what = format!("session {name} is {phase:?}");
        match soon(
            &what,
            LIMIT,
            Box::pin(await_condition(sessions.clone(), name, there)),
        )
        .await
        {
            Ok(found) => found?.context("the session is gone"),
            Err(error) => {
                let now = sessions.get_opt(name).await?.map(|object| object.status);
                Err(error.context(format!("its status is {now:?}")))
            }
        }
    }

    /// Sets `spec.revoked`.
    ///
    /// # Errors
    /// When that is refused.
    pub async fn revoke(&self, name: &str) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"revoked": true}}));
        self.api::<ConsoleSession>()
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Deletes an object of the test's namespace; does not wait until it is gone.
    ///
    /// # Errors
    /// When that is refused.
    pub async fn delete<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
        <K as Resource>::DynamicType: Default,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Shows what a person would look at after a failure.
    async fn show(&self) {
        self.show_all::<ConsoleSession>().await;
        self.show_all::<Pod>().await;
        self.show_all::<Secret>().await;
        self.show_all::<Role>().await;
        self.show_all::<RoleBinding>().await;
        self.show_all::<Event>().await;
        note(format!(
            "operator:\n{}",
            self.drawbridge.operator().process.log_tail(60)
        ));
        note(format!("gateway:\n{}", self.gateway().process.log_tail(60)));
        note(format!(
            "logs are kept in {}",
            self.drawbridge.keep_files().display()
        ));
    }

    /// Shows every object of a kind, but for what is in a Secret.
    async fn show_all<K>(&self)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + serde::Serialize
            + std::fmt::Debug,
        <K as Resource>::DynamicType: Default,
    {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        match self.api::<K>().list(&ListParams::default()).await {
            Ok(list) => {
                for item in list {
                    let mut item = serde_json::to_value(item).unwrap_or_default();
                    item["metadata"]["managedFields"].take();
                    item["data"].take();
                    note(format!("{kind} {item}"));
                }
            }
            Err(error) => note(format!("no {kind} can be shown: {error}")),
        }
    }

    /// Deletes the namespace. Its sessions go first and while the operator runs, which alone can release them.
    pub async fn clean_up(&self) {
        if std::env::var_os("DRAWBRIDGE_KEEP").is_some() {
            note(format!("namespace {} is kept", self.namespace));
            return;
        }
        let sessions = self.api::<ConsoleSession>();
        let released = async {
            let namespaces = Api::<Namespace>::all(self.cluster.client.clone());
            namespaces
                .delete(&self.namespace, &DeleteParams::default())
                .await
                .map(drop)
                .or_else(gone_already)?;
            wait_for(
                "the operator releases the sessions of a deleted namespace",
                LIMIT,
                async || {
                    let left = sessions.list(&ListParams::default()).await?;
                    ensure!(left.items.is_empty(), "{} left", left.items.len());
                    Ok(Some(()))
                },
            )
            .await
        };
        if let Err(error) = released.await {
            note(format!(
                "namespace {} was not cleaned up: {error:#}",
                self.namespace
            ));
        }
    }
}
