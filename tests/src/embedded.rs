//! A sandbox inside this process, on threads of its own: it outlives the runtime of the test that started it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context as _, Result};
use drawbridge_sandbox::{Options, Release, Sandbox};
use tokio::runtime::Runtime;

use crate::drawbridge::write_private;

/// Threads of a sandbox. Its work is small, but a slow disk or a lock must not stop it.
const THREADS: usize = 2;

/// A running sandbox. Dropping it ends it, and waits for that.
pub(crate) struct Embedded {
    /// Both are there until it is dropped.
    inside: Option<(Sandbox, Runtime)>,
    kubeconfig: PathBuf,
    authority: PathBuf,
}

impl Embedded {
    /// The one of this process; started if no test uses it now.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn shared(release: Release) -> Result<Arc<Self>> {
        static SHARED: tokio::sync::Mutex<Weak<Embedded>> =
            tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(Self::start(release).await?);
        *shared = Arc::downgrade(&started);
        Ok(started)
    }

    /// Starts one.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(release: Release) -> Result<Self> {
        // Two crates of this process choose a provider by themselves; one that is there already is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("sandbox")
            .enable_all()
            .build()?;
        let options = Options {
            release,
            ..Options::default()
        };
        let sandbox = runtime
            .spawn(Sandbox::start(options))
            .await?
            .context("the sandbox does not start")?;
        let cluster = sandbox.cluster();
        let (kubeconfig, authority) = (
            cluster.dir.join("administrator.kubeconfig"),
            cluster.dir.join("ca.crt"),
        );
        write_private(
            &kubeconfig,
            &sandbox.kubeconfig("administrator", &["system:masters"])?,
        )?;
        std::fs::write(&authority, &cluster.pki.authority)?;
        Ok(Self {
            inside: Some((sandbox, runtime)),
            kubeconfig,
            authority,
        })
    }

    /// The sandbox itself.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        let (sandbox, _) = self.inside.as_ref().expect("it is there until the drop");
        sandbox
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The certificate of the authority of both its ports.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// Its audit log.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.sandbox().cluster().dir.join("audit.log")
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let Some((sandbox, runtime)) = self.inside.take() else {
            return;
        };
        // Whoever drops it may be inside a runtime, where nothing may block on another.
        let ended = std::thread::spawn(move || runtime.block_on(sandbox.stop()));
        let _ = ended.join();
    }
}
