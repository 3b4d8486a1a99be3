//! The candidates, and how each is started.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{
    client::{Endpoint, KEYSTROKES, hang_up},
    net::{certificates, client_tls},
    pki::Pki,
    world,
};

/// How long a candidate may take to carry its first session.
const START: Duration = Duration::from_secs(20);

/// haproxy's connection limit: two files each, under the 20,000 that are common, and over the 5,000 that are opened.
const MAXCONN: u32 = 9000;
/// The same when it splices: it sets a pipe aside for each. That is only measured with 8 sessions.
const MAXCONN_SPLICE: u32 = 1000;

/// Who stands between load and fake server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Peer {
    /// Nobody.
    Direct,
    Gateway,
    /// The gateway, with sessions that must be recorded.
    GatewayRecording,
    /// HTTP mode, as Debian ships it.
    Haproxy,
    /// The same with `splice-request` and `splice-response`.
    HaproxySplice,
    /// `kubectl proxy`: never TLS towards the client.
    KubectlProxy,
}

impl Peer {
    /// Whether it speaks TLS to the client when it does to the server.
    pub(super) fn client_tls(self) -> bool {
        self != Self::KubectlProxy
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Direct => "nobody",
            Self::Gateway => "gateway",
            Self::GatewayRecording => "gateway, recording",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy, splicing",
            Self::KubectlProxy => "`kubectl proxy`",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.title())
    }
}

/// A process that serves at an address, or the address alone.
pub(super) struct Serving {
    pub(super) address: SocketAddr,
    child: Option<Child>,
    /// Where it keeps what it writes; removed when it ends.
    _files: Option<TempDir>,
}

impl Serving {
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Ends the process and waits until it is gone.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child {
            child.kill().await?;
        }
        Ok(())
    }
}

/// The fake server's two addresses.
pub(super) struct FakeServer {
    plain: SocketAddr,
    tls: SocketAddr,
    child: Child,
}

impl FakeServer {
    /// Ends the process and waits until it is gone.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// What all measurements share: programs, certificates, a directory that is removed at the end.
pub(super) struct Stage {
    pub(super) pki: Pki,
    gateway: PathBuf,
    haproxy: PathBuf,
    kubectl: PathBuf,
    dir: TempDir,
}

impl Stage {
    pub(super) fn new(
        gateway: PathBuf,
        haproxy: PathBuf,
        kubectl: PathBuf,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self {
            pki: Pki::write(dir.path())?,
            gateway,
            haproxy,
            kubectl,
            dir,
        })
    }

    /// Each program, and the arguments that make it tell its version.
    pub(super) fn programs(&self) -> [(&Path, &'static [&'static str]); 3] {
        [
            (&self.gateway, &["--version"]),
            (&self.haproxy, &["-v"]),
            (&self.kubectl, &["version", "--client"]),
        ]
    }

    /// The end of what the last candidate wrote.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("candidate.log")
    }

    /// Starts a fake server for `peer`.
    pub(super) async fn fake_server(
        &self,
        peer: Peer,
        core: Option<usize>,
    ) -> anyhow::Result<FakeServer> {
        let mut command = pinned(&std::env::current_exe()?, core);
        command.args(["fake-server", "--tls", "127.0.0.1:0"]);
        if peer == Peer::GatewayRecording {
            command.arg("--recorded");
        }
        command
            .arg("--cert")
            .arg(&self.pki.cert)
            .arg("--key")
            .arg(&self.pki.key);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let line = BufReader::new(stdout)
            .lines()
            .next_line()
            .await?
            .context("the fake server did not start")?;
        let Listening { plain, tls } = serde_json::from_str(&line)?;
        Ok(FakeServer { plain, tls, child })
    }

    /// Starts a candidate in front of `server` and waits until it has carried a session.
    pub(super) async fn start(
        &self,
        peer: Peer,
        tls: bool,
        server: &FakeServer,
        core: Option<usize>,
    ) -> anyhow::Result<Serving> {
        let upstream = if tls { server.tls } else { server.plain };
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut files = None;
        let mut command = match peer {
            Peer::Direct => {
                return Ok(Serving {
                    address: upstream,
                    child: None,
                    _files: None,
                });
            }
            Peer::Gateway | Peer::GatewayRecording => {
                // On the disk that the machine has: nobody records into memory.
                let files = files.insert(TempDir::new_in(self.dir.path())?);
                self.gateway(tls, listen, upstream, core, files.path())?
            }
            Peer::Haproxy => self.haproxy(tls, listen, upstream, core, false)?,
            Peer::HaproxySplice => self.haproxy(tls, listen, upstream, core, true)?,
            Peer::KubectlProxy => self.kubectl_proxy(tls, listen, upstream, core)?,
        };
        let log = fs::File::create(self.log())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {peer}; is it installed?"))?;
        let mut serving = Serving {
            address: listen,
            child: Some(child),
            _files: files,
        };
        self.wait(&mut serving, tls && peer.client_tls()).await?;
        Ok(serving)
    }

    /// Opens sessions until one works: the last one there is, which no load uses.
    async fn wait(&self, serving: &mut Serving, tls: bool) -> anyhow::Result<()> {
        let Serving { address, child, .. } = serving;
        let tls = if tls {
            Some((
                client_tls(certificates(&self.pki.ca)?, None)?,
                ServerName::from(address.ip()),
            ))
        } else {
            None
        };
        let endpoint = Endpoint {
            address: *address,
            host: address.to_string(),
            tls,
            protocol: "v4.channel.k8s.io",
        };
        let (token, path) = (
            world::token(world::SESSIONS - 1),
            world::exec_path(&["echo"], false),
        );
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = child
                .as_mut()
                .and_then(|child| child.try_wait().transpose())
                .transpose()?
            {
                bail!("it ended with {status}");
            }
            match endpoint.open(Some(&token), &path, KEYSTROKES).await {
                Ok(socket) => return hang_up(socket).await,
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("no session after {START:?}")));
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn haproxy(
        &self,
        tls: bool,
        listen: SocketAddr,
        upstream: SocketAddr,
        core: Option<usize>,
        splice: bool,
    ) -> anyhow::Result<Command> {
        let (bind, server) = if tls {
            (
                format!(" ssl crt {} alpn http/1.1", self.pki.both.display()),
                format!(
                    " ssl verify required ca-file {} alpn http/1.1",
                    self.pki.ca.display()
                ),
            )
        } else {
            (String::new(), String::new())
        };
        let (maxconn, splice) = if splice {
            (
                MAXCONN_SPLICE,
                "option splice-request\n    option splice-response\n    ",
            )
        } else {
            (MAXCONN, "")
        };
        // Threads: haproxy starts one per core it may use, as the gateway does.
        let config = format!(
            "global\n    maxconn {maxconn}\n\
             defaults\n    mode http\n    maxconn {maxconn}\n    {splice}timeout connect 5s\n    timeout client 1h\n    \
             timeout server 1h\n    timeout tunnel 1h\n\
             listen bench\n    bind {listen}{bind}\n    server api {upstream}{server}\n"
        );
        let file = self.dir.path().join("haproxy.cfg");
        fs::write(&file, config)?;
        let mut command = pinned(&self.haproxy, core);
        command.arg("-db").arg("-f").arg(file);
        Ok(command)
    }

    fn kubectl_proxy(
        &self,
        tls: bool,
        listen: SocketAddr,
        upstream: SocketAddr,
        core: Option<usize>,
    ) -> anyhow::Result<Command> {
        let mut command = pinned(&self.kubectl, core);
        command
            .arg("proxy")
            .arg("--kubeconfig")
            .arg(self.kubeconfig(tls, upstream)?);
        command.args([
            "--address",
            "127.0.0.1",
            "--port",
            &listen.port().to_string(),
            "--disable-filter",
        ]);
        Ok(command)
    }

    /// The gateway with nothing turned off.
    fn gateway(
        &self,
        tls: bool,
        listen: SocketAddr,
        upstream: SocketAddr,
        core: Option<usize>,
        files: &Path,
    ) -> anyhow::Result<Command> {
        let mut command = pinned(&self.gateway, core);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig(tls, upstream)?);
        command.args([
            "--listen",
            &listen.to_string(),
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        command
            .arg("--spool")
            .arg(files.join("recordings"))
            .arg("--audit-spool")
            .arg(files.join("audit"));
        if tls {
            command
                .arg("--tls-cert")
                .arg(&self.pki.cert)
                .arg("--tls-key")
                .arg(&self.pki.key);
        } else {
            command.arg("--insecure-plaintext");
        }
        Ok(command)
    }

    fn kubeconfig(&self, tls: bool, upstream: SocketAddr) -> anyhow::Result<PathBuf> {
        let cluster = if tls {
            json!({ "server": format!("https://{upstream}"), "certificate-authority": self.pki.ca })
        } else {
            json!({ "server": format!("http://{upstream}") })
        };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{ "name": "bench", "cluster": cluster }],
            "users": [{ "name": "bench", "user": { "token": "bench" } }],
            "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "bench" } }],
        });
        let file = self.dir.path().join("kubeconfig");
        fs::write(&file, config.to_string())?;
        Ok(file)
    }
}

/// What the fake server says when it listens.
#[derive(Deserialize)]
struct Listening {
    plain: SocketAddr,
    tls: SocketAddr,
}

/// `program`, held to one core if there is one to hold it to. Programs see one core then, and start one thread.
pub(super) fn pinned(program: &Path, core: Option<usize>) -> Command {
    match core {
        None => Command::new(program),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &core.to_string()]).arg(program);
            command
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
