//! The product under test: one operator and one gateway as processes, each with its own ServiceAccount's token.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::install::{KUBELET_ACCOUNT, SYSTEM_NAMESPACE, install, install_kubelet_account};
use crate::metrics::{Metrics, get};
use crate::note;
use crate::pki::Pki;
use crate::process::Process;
use crate::programs::find;
use crate::wait::wait_for;

/// Longest time from start to ready. A process is ready in a fraction of a second; a Lease whose holder was killed is
/// free after its duration.
const READY: Duration = Duration::from_secs(40);

/// How long the tokens of both programs live: longer than any run.
const TOKEN_SECONDS: i64 = 12 * 60 * 60;

/// A running operator and gateway. Both stop when the last [`Arc`] is dropped.
pub struct Drawbridge {
    operator: Mutex<Arc<Operator>>,
    gateway: Mutex<Arc<Gateway>>,
    pki: Pki,
    files: Files,
    extra: AtomicU32,
    /// Two operators on one cluster would write two truths; so only one process of this machine tests on it at a time.
    _lock: Option<File>,
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    /// The process.
    pub process: Process,
    /// Its admin port.
    pub admin: SocketAddr,
}

/// A running gateway.
pub struct Gateway {
    /// The process.
    pub process: Process,
    /// Where clients connect.
    pub addr: SocketAddr,
    /// Its admin port.
    pub admin: SocketAddr,
    /// Its certificate's authority.
    pub pki: Pki,
}

/// The directory of one run: kubeconfigs, certificates, logs. Kept when a test failed.
struct Files {
    dir: PathBuf,
    keep: AtomicBool,
}

impl Drawbridge {
    /// The one of this test binary; started if no test uses it now.
    ///
    /// # Errors
    /// When it does not start; says what it logged.
    pub async fn shared(cluster: &Cluster) -> Result<Arc<Self>> {
        static SHARED: tokio::sync::Mutex<Weak<Drawbridge>> =
            tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(Self::start(cluster).await?);
        *shared = Arc::downgrade(&started);
        Ok(started)
    }

    /// Installs the CustomResourceDefinitions and the RBAC of this repository, then starts both programs.
    ///
    /// # Errors
    /// When it does not start; says what it logged.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let lock = if cluster.faulty().is_ok() {
            None // it is ours alone
        } else {
            Some(alone().await?)
        };
        install(cluster).await?;
        let files = Files::new()?;
        let pki = Pki::write(&files.dir)?;
        for account in ["drawbridge-operator", "drawbridge-gateway"] {
            files.kubeconfig(cluster, account).await?;
        }
        let addr = free_port()?;
        let operator = Operator::start(&files.dir, &pki, addr, &[])?;
        let gateway = Gateway::start(
            &files.dir,
            &kubeconfig(&files.dir, "drawbridge-gateway"),
            &pki,
            "gateway",
            addr,
            &[],
        )?;
        let started = Self {
            operator: Mutex::new(Arc::new(operator)),
            gateway: Mutex::new(Arc::new(gateway)),
            pki,
            files,
            extra: AtomicU32::new(0),
            _lock: lock,
        };
        let (operator, gateway) = (started.operator(), started.gateway());
        if let Err(error) = tokio::try_join!(operator.ready(), gateway.ready()) {
            started.keep_files();
            return Err(error);
        }
        Ok(started)
    }

    /// The operator running now.
    #[must_use]
    pub fn operator(&self) -> Arc<Operator> {
        Arc::clone(&lock(&self.operator))
    }

    /// The gateway running now: the one the users' kubeconfigs name.
    #[must_use]
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&lock(&self.gateway))
    }

    /// Starts another operator in place of the last, which must have ended, with more flags; waits until it is ready.
    ///
    /// # Errors
    /// When the last still runs, or it does not get ready.
    pub async fn restart_operator(&self, flags: &[&str]) -> Result<Arc<Operator>> {
        ensure!(
            self.operator().process.ended().is_some(),
            "the operator still runs"
        );
        let operator = Arc::new(Operator::start(
            &self.files.dir,
            &self.pki,
            self.gateway().addr,
            flags,
        )?);
        *lock(&self.operator) = Arc::clone(&operator);
        operator.ready().await?;
        Ok(operator)
    }

    /// Starts another gateway on the address of the last, which must have ended, with more flags; waits until it is
    /// ready.
    ///
    /// # Errors
    /// When the last still runs, or it does not get ready.
    pub async fn restart_gateway(&self, flags: &[&str]) -> Result<Arc<Gateway>> {
        let last = self.gateway();
        ensure!(last.process.ended().is_some(), "the gateway still runs");
        let kubeconfig = kubeconfig(&self.files.dir, "drawbridge-gateway");
        let gateway = Gateway::start(
            &self.files.dir,
            &kubeconfig,
            &self.pki,
            "gateway",
            last.addr,
            flags,
        )?;
        let gateway = Arc::new(gateway);
        *lock(&self.gateway) = Arc::clone(&gateway);
        gateway.ready().await?;
        Ok(gateway)
    }

    /// One more gateway beside the first, on an address of its own, that goes straight to kubelets, with more flags;
    /// waits until it is ready. It has an account of its own, so that the first has no more rights than it needs.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn kubelet_gateway(&self, cluster: &Cluster, flags: &[&str]) -> Result<Gateway> {
        let number = self.extra.fetch_add(1, Ordering::Relaxed) + 2;
        install_kubelet_account(cluster).await?;
        let kubeconfig = self.files.kubeconfig(cluster, KUBELET_ACCOUNT).await?;
        let flags: Vec<&str> = flags
            .iter()
            .copied()
            .chain(["--upstream=kubelet"])
            .collect();
        let gateway = Gateway::start(
            &self.files.dir,
            &kubeconfig,
            &self.pki,
            &format!("gateway-{number}"),
            free_port()?,
            &flags,
        )?;
        if let Err(error) = gateway.ready().await {
            self.keep_files();
            return Err(error);
        }
        Ok(gateway)
    }

    /// The token one of the programs runs with, by its ServiceAccount: what must not be in a log.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn token_of(&self, account: &str) -> Result<String> {
        let config: Value =
            serde_json::from_slice(&std::fs::read(kubeconfig(&self.files.dir, account))?)?;
        let token = config
            .pointer("/users/0/user/token")
            .and_then(Value::as_str);
        Ok(token.context("its kubeconfig holds a token")?.to_owned())
    }

    /// Keeps the logs when this is dropped, and returns where they are.
    pub fn keep_files(&self) -> &Path {
        self.files.keep.store(true, Ordering::Relaxed);
        &self.files.dir
    }

    /// Where the certificates are.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The audit log of one of the programs, by its name in [`Drawbridge::logs`]: `operator` or `gateway`.
    #[must_use]
    pub fn audit_log(&self, program: &str) -> PathBuf {
        self.files
            .dir
            .join(format!("{program}.audit/log/audit.jsonl"))
    }

    /// Everything both programs have logged so far, further gateways included.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn logs(&self) -> Result<Vec<(PathBuf, String)>> {
        let files = std::fs::read_dir(&self.files.dir)?.collect::<Result<Vec<_>, _>>()?;
        let logs = files
            .into_iter()
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.map(|path| {
            Ok((
                path.clone(),
                String::from_utf8_lossy(&std::fs::read(&path)?).into_owned(),
            ))
        })
        .collect()
    }
}

impl Operator {
    fn start(dir: &Path, pki: &Pki, gateway: SocketAddr, flags: &[&str]) -> Result<Self> {
        let admin = free_port()?;
        let mut args = vec![
            format!("--admin-addr={admin}"),
            format!("--gateway-url=https://{gateway}"),
            format!("--gateway-ca-file={}", pki.ca.display()),
            format!("--audit-spool={}", dir.join("operator.audit").display()),
        ];
        add(&mut args, flags);
        let process = program(
            dir,
            "drawbridge-operator",
            "operator",
            &kubeconfig(dir, "drawbridge-operator"),
            &args,
        )?;
        Ok(Self { process, admin })
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// When the process ends first, or 40 s pass.
    pub async fn ready(&self) -> Result<()> {
        ready(&self.process, self.admin).await
    }

    /// Its metrics.
    ///
    /// # Errors
    /// When the admin port does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.admin).await
    }
}

impl Gateway {
    fn start(
        dir: &Path,
        kubeconfig: &Path,
        pki: &Pki,
        name: &str,
        addr: SocketAddr,
        flags: &[&str],
    ) -> Result<Self> {
        let admin = free_port()?;
        let mut args = vec![
            format!("--listen={addr}"),
            format!("--admin-listen={admin}"),
            format!("--tls-cert={}", pki.cert.display()),
            format!("--tls-key={}", pki.key.display()),
            // One each: two gateways must not share a spool. The store is in it.
            format!("--spool={}", dir.join(format!("{name}.spool")).display()),
            // One each: two processes must not share a spool.
            format!(
                "--audit-spool={}",
                dir.join(format!("{name}.audit")).display()
            ),
            // Nobody is to be warned when a test has ended.
            "--drain-pause=0s".to_owned(),
            "--drain=1s".to_owned(),
        ];
        add(&mut args, flags);
        let process = program(dir, "drawbridge-gateway", name, kubeconfig, &args)?;
        Ok(Self {
            process,
            addr,
            admin,
            pki: pki.clone(),
        })
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// When the process ends first, or 40 s pass.
    pub async fn ready(&self) -> Result<()> {
        ready(&self.process, self.admin).await
    }

    /// Its metrics.
    ///
    /// # Errors
    /// When the admin port does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.admin).await
    }

    /// Connections it has dialled upstream so far, whatever came of them.
    ///
    /// # Errors
    /// When the admin port does not answer.
    pub async fn dials(&self) -> Result<f64> {
        Ok(self
            .metrics()
            .await?
            .sum("drawbridge_gateway_upstream_dial_seconds_count"))
    }
}

/// Adds flags (`--name=value`) in place of those of the same name.
fn add(args: &mut Vec<String>, flags: &[&str]) {
    for flag in flags {
        let name = flag.split('=').next();
        args.retain(|have| have.split('=').next() != name);
        args.push((*flag).to_owned());
    }
}

fn kubeconfig(dir: &Path, account: &str) -> PathBuf {
    dir.join(format!("{account}.kubeconfig"))
}

fn program(
    dir: &Path,
    binary: &str,
    name: &str,
    kubeconfig: &Path,
    args: &[String],
) -> Result<Process> {
    let kubeconfig = kubeconfig.to_str().context("a path in UTF-8")?;
    let filter = std::env::var("DRAWBRIDGE_TEST_LOG").unwrap_or_else(|_| "info".to_owned());
    let env = [
        ("KUBECONFIG", kubeconfig),
        ("RUST_LOG", &filter),
        ("RUST_BACKTRACE", "1"),
    ];
    Process::start(
        name,
        &find(binary)?,
        args,
        &env,
        &dir.join(format!("{name}.log")),
    )
}

async fn ready(process: &Process, admin: SocketAddr) -> Result<()> {
    let readyz = wait_for("/readyz", READY, async || {
        if process.ended().is_some() {
            return Ok(Some(())); // told below
        }
        match get(admin, "/readyz").await? {
            (200, _) => Ok(Some(())),
            (_, body) => bail!("{}", body.trim()),
        }
    });
    let readyz = readyz.await.with_context(|| process.log_tail(40));
    process.must_run()?;
    readyz
}

/// Waits until no other process of this machine tests.
async fn alone() -> Result<File> {
    let path = std::env::temp_dir().join("drawbridge-tests.lock");
    let file = File::options().create(true).append(true).open(&path)?;
    if file.try_lock().is_err() {
        note(format!(
            "waiting for another test run to end ({})",
            path.display()
        ));
        let waiting = file.try_clone()?;
        tokio::task::spawn_blocking(move || waiting.lock()).await??;
    }
    Ok(file)
}

/// An address nobody listens on now.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Writes a file that holds a secret. Whoever reads it meanwhile sees the old one or the new one, never half of it: gateways of
/// tests that run at once share the kubeconfig of one account.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let dir = path.parent().context("a file lies in a directory")?;
    // Readable by nobody else, under a name of its own.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// Writes a kubeconfig with a token of a ServiceAccount in [`SYSTEM_NAMESPACE`].
    async fn kubeconfig(&self, cluster: &Cluster, account: &str) -> Result<PathBuf> {
        let path = kubeconfig(&self.dir, account);
        let token = cluster
            .token(SYSTEM_NAMESPACE, account, None, TOKEN_SECONDS)
            .await?;
        write_private(&path, &cluster.kubeconfig_with_token(&token)?.to_string())?;
        Ok(path)
    }

    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("drawbridge-tests-")
            .tempdir()?
            .keep();
        Ok(Self {
            dir,
            keep: AtomicBool::new(false),
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.keep.load(Ordering::Relaxed) || std::env::var_os("DRAWBRIDGE_KEEP").is_some() {
            note(format!(
                "logs and certificates are in {}",
                self.dir.display()
            ));
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
