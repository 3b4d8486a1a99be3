//! The operator and the gateway: this program again, each as a process of its own.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

use crate::files::{Files, private};

/// Longest time from start to ready. It takes a fraction of a second on an idle machine.
const READY: Duration = Duration::from_secs(30);
/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(20);
/// How long a process has to stop after SIGTERM: the gateway's drain, and a margin.
const STOP: Duration = Duration::from_secs(5);

/// A running child. Dropping it kills it.
pub(crate) struct Part {
    name: &'static str,
    child: Child,
    /// Closing it ends the child.
    _tie: Option<ChildStdin>,
    admin: SocketAddr,
    log: PathBuf,
}

impl Part {
    /// Starts it with these flags; `admin` names the flag for its admin port.
    pub(crate) fn start(
        name: &'static str,
        files: &Files,
        kubeconfig: &std::path::Path,
        admin: &str,
        flags: &[String],
    ) -> Result<Self> {
        let port = free_port()?;
        let log = files.path(&format!("{name}.log"));
        let mut child = Command::new(std::env::current_exe()?)
            .arg(name)
            .arg(format!("{admin}={port}"))
            .args(flags)
            .env("KUBECONFIG", kubeconfig)
            // Ctrl-C is for the demo, which then ends its parts in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(private(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start the {name}"))?;
        Ok(Self {
            name,
            // Taken out, or waiting for the child would close it.
            _tie: child.stdin.take(),
            child,
            admin: port,
            log,
        })
    }

    /// Waits until `/readyz` says so.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let ready = timeout(READY, async {
            while !answers(self.admin).await {
                if let Some(status) = self.child.try_wait()? {
                    bail!("the {} ended ({status}):\n{}", self.name, self.log_tail());
                }
                sleep(POLL).await;
            }
            Ok(())
        });
        match ready.await {
            Ok(done) => done,
            Err(_) => bail!(
                "the {} is not ready after {} s:\n{}",
                self.name,
                READY.as_secs(),
                self.log_tail()
            ),
        }
    }

    /// Waits until it ends by itself, which it should not; says why it did.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => {
                anyhow::anyhow!("the {} ended ({status}):\n{}", self.name, self.log_tail())
            }
            Err(error) => error.into(),
        }
    }

    /// Ends it: SIGTERM, then SIGKILL.
    pub(crate) async fn stop(mut self) {
        let pid = self
            .child
            .id()
            .and_then(|pid| pid.try_into().ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM); // it may have ended
        }
        if timeout(STOP, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await; // it may have ended
        }
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Ends this process when its standard input closes, i.e. when the demo is gone, however it went.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let mut nothing = [0];
        while matches!(std::io::stdin().read(&mut nothing), Ok(1..)) {}
        std::process::exit(1);
    });
}

/// An address nobody listens on now.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Whether `/readyz` answers 200.
async fn answers(admin: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut head = [0; 12]; // "HTTP/1.1 200"
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head.ends_with(b" 200"))
    };
    matches!(timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}
