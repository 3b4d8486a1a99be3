//! Every flag, once; `run` builds the parts in order and joins them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use drawbridge_admin::logging::{self, Logging};
use drawbridge_admin::{Ready, Server, shutdown_signal};
use drawbridge_audit::event::Component;
use drawbridge_audit::log;
use drawbridge_crds::names;
use jiff::SignedDuration;
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::auth::{ApiServer as Reviewer, Auth};
use crate::bridge::Limits;
use crate::clock::Clock;
use crate::drain::Drain;
use crate::gate::{Gate, Rules};
use crate::listener::{Door, Listener};
use crate::lobby::Lobby;
use crate::look::library::Library;
use crate::look::proof::Keys;
use crate::metrics::Metrics;
use crate::open::Open;
use crate::origin::Origin;
use crate::people::People;
use crate::pods::Pods;
use crate::recall::Recall;
use crate::record::Recorder;
use crate::record::args::RecordingFlags;
use crate::sessions::Sessions;
use crate::upstream::{ApiServer, Kubelet, KubeletFlags, Upstream};
use crate::{cluster, tls};

/// The gateway: lets the holder of a session's token into the session's container, and cuts the connection when the
/// session ends.
#[derive(Parser, Clone, Debug)]
#[command(version, about)]
pub struct Args {
    /// Where clients connect.
    #[arg(long, env = "DRAWBRIDGE_LISTEN", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are. Not for the outside.
    #[arg(long, env = "DRAWBRIDGE_ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    admin_listen: SocketAddr,
    /// File with the certificate chain (PEM) clients see. Loaded anew when it changes; open consoles stay.
    #[arg(
        long,
        env = "DRAWBRIDGE_TLS_CERT",
        requires = "tls_key",
        required_unless_present = "insecure_plaintext"
    )]
    tls_cert: Option<PathBuf>,
    /// File with the key (PEM) of that certificate.
    #[arg(long, env = "DRAWBRIDGE_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How often certificate files are looked at, e.g. `10s`. At least 1s.
    #[arg(long, env = "DRAWBRIDGE_TLS_RELOAD", default_value = "10s", value_parser = duration)]
    tls_reload: Duration,
    /// Serve plain HTTP: tokens cross the network readable. Only behind something that speaks TLS, on the same machine.
    #[arg(long, env = "DRAWBRIDGE_INSECURE_PLAINTEXT", conflicts_with_all = ["tls_cert", "tls_key"])]
    insecure_plaintext: bool,
    /// Kubeconfig with the gateway's own credentials. Default: those of its pod, or of the environment.
    #[arg(long, env = "DRAWBRIDGE_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the sessions' accounts; the operator's must be the same.
    #[arg(long, env = "DRAWBRIDGE_SESSIONS_NAMESPACE", default_value = names::SESSIONS_NAMESPACE)]
    sessions_namespace: String,
    /// Path everything is served under as well, e.g. `/consoles`. Default: none.
    #[arg(long, env = "DRAWBRIDGE_PATH_PREFIX", default_value = "", value_parser = path_prefix)]
    path_prefix: String,
    /// Web origin whose pages may open consoles beside those of the gateway's own host, e.g. `https://console.example.com`.
    /// May be repeated.
    #[arg(long, env = "DRAWBRIDGE_ALLOW_ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<Origin>,
    /// The way to the pods.
    #[arg(long, env = "DRAWBRIDGE_UPSTREAM", value_enum, default_value_t = Way::ApiServer)]
    upstream: Way,
    #[command(flatten)]
    kubelet: KubeletFlags,
    /// Connections without a valid credential kept at the same time; the oldest makes room. Each holds up to 64 KiB.
    #[arg(long, env = "DRAWBRIDGE_MAX_WAITING", default_value_t = 512)]
    max_waiting: usize,
    /// Consoles and live views open at the same time, all sessions together.
    #[arg(long, env = "DRAWBRIDGE_MAX_CONSOLES", default_value_t = 10_000)]
    max_consoles: usize,
    /// How long after SIGTERM new requests are still taken, e.g. `3s`: endpoints take time to notice.
    #[arg(long, env = "DRAWBRIDGE_DRAIN_PAUSE", default_value = "3s", value_parser = duration)]
    drain_pause: Duration,
    /// How long open consoles may go on after that, e.g. `25s`. terminationGracePeriodSeconds must exceed both together
    /// by 20 s.
    #[arg(long, env = "DRAWBRIDGE_DRAIN", default_value = "25s", value_parser = duration)]
    drain: Duration,
    #[command(flatten)]
    recording: RecordingFlags,
    #[command(flatten)]
    audit: log::Flags,
    #[command(flatten)]
    logging: Logging,
}

/// How long recordings may take to reach the store after the last console has ended.
const SETTLE: Duration = Duration::from_secs(4);

/// The way to the pods.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the API server, as the session's own account.
    ApiServer,
    /// Straight to kubelets. The gateway then needs `nodes/proxy`, which is code execution in every pod of the cluster,
    /// and the API server's audit log does not see consoles.
    Kubelet,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write it like 25s or 1m30s"))?;
    Duration::try_from(signed).map_err(|_| "it must not be negative".to_owned())
}

fn path_prefix(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.is_empty() || trimmed.starts_with('/') {
        Ok(trimmed.to_owned())
    } else {
        Err("it must begin with a slash".to_owned())
    }
}

impl Args {
    /// Runs until SIGTERM or SIGINT, and then until the consoles are drained.
    ///
    /// # Errors
    /// What kept it from starting, with what to do about it.
    #[expect(
        clippy::too_many_lines,
        reason = "every part, in the order they are built"
    )]
    pub async fn run(self) -> anyhow::Result<()> {
        let signal = shutdown_signal()?;
        logging::init(&self.logging)?;
        info!(version = env!("CARGO_PKG_VERSION"), args = ?self, "starting");
        let Self {
            listen,
            admin_listen,
            tls_cert,
            tls_key,
            tls_reload,
            insecure_plaintext: _, // clap lets it stand for the certificate
            kubeconfig,
            sessions_namespace,
            path_prefix,
            allow_origin,
            upstream: way,
            kubelet,
            max_waiting,
            max_consoles,
            drain_pause,
            drain,
            recording,
            audit,
            logging: _,
        } = self;
        let tls_reload = tls_reload.max(Duration::from_secs(1));

        let config = cluster::config(kubeconfig).await?;
        let client = Client::try_from(config.clone()).context("failed to set up the API client")?;
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let counts = drawbridge_audit::metrics::Metrics::new(&mut registry);
        let ready = Ready::default();
        let synced = ready.condition("watching sessions");
        let listening = ready.condition("listening");
        let admin = Server::bind(admin_listen, ready.clone(), registry).await?;
        // Until the very end: probes should be answered while consoles drain.
        let admin_stop = CancellationToken::new();
        let admin = tokio::spawn(admin.serve(admin_stop.clone()));

        let open = Arc::new(Open::new(Arc::clone(&metrics)));
        let sessions = Arc::new(Sessions::new(Arc::clone(&open), Arc::clone(&metrics)));
        let watch = {
            let (sessions, api) = (Arc::clone(&sessions), Api::all(client.clone()));
            tokio::spawn(async move { sessions.watch(api, synced).await })
        };
        let auth = authentication(
            client.clone(),
            sessions_namespace.clone(),
            Arc::clone(&metrics),
        );
        let people = People::new(
            client.clone(),
            sessions_namespace.clone(),
            Arc::clone(&metrics),
        );
        let pods = Pods::new(client.clone());
        let upstream = match way {
            Way::ApiServer => {
                ApiServer::new(&config, pods.clone(), sessions_namespace.clone())?.into()
            }
            Way::Kubelet => kubelets(
                &config,
                client.clone(),
                kubelet,
                tls_reload,
                Arc::clone(&metrics),
            )?,
        };
        let tls = certificate(tls_cert.zip(tls_key), tls_reload, Arc::clone(&metrics))?;

        let keys = Keys::published(client.clone(), recording.system_namespace());
        let (log, logged) = audit
            .start(Component::Gateway, own_name(), counts)
            .await
            .context("failed to begin the audit log")?;
        let recorder = recording.recorder(&client, Arc::clone(&metrics), log.clone())?;
        let recorder = Arc::new(recorder);
        tokio::spawn(Arc::clone(&recorder).look_after());
        tokio::spawn(sign(log.clone(), recorder.key().clone()));

        let bridges = TaskTracker::new();
        let gate = Arc::new(Gate {
            auth,
            sessions,
            open: Arc::clone(&open),
            upstream,
            people,
            library: Library::new(recorder.store().clone(), keys),
            pods,
            cluster: client,
            recall: Recall::default(),
            recorder: Arc::clone(&recorder),
            log,
            metrics,
            clock: Clock::wall(),
            bridges: bridges.clone(),
            fetches: Gate::fetches(),
            rules: Rules {
                path_prefix,
                allow_origin,
                sessions_namespace,
                max_consoles,
                limits: Limits::default(),
            },
        });
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let door = Door {
            tls,
            gate,
            lobby: Arc::new(Lobby::new(max_waiting)),
            stop: stop.clone(),
            connections: connections.clone(),
        };
        let listener = Listener::bind(listen, door).await?;
        info!(addr = %listener.local_addr()?, "listening");
        listening.met();
        let listener = tokio::spawn(listener.serve());

        let drain = Drain {
            ready,
            stop,
            open,
            bridges,
            connections,
            pause: drain_pause,
            limit: drain,
        };
        Running {
            watch,
            listener,
            drain,
            recorder,
            logged,
            admin,
            admin_stop,
        }
        .until(signal)
        .await
    }
}

/// A gateway that serves.
struct Running {
    watch: JoinHandle<()>,
    listener: JoinHandle<()>,
    drain: Drain,
    recorder: Arc<Recorder>,
    logged: log::Running,
    admin: JoinHandle<()>,
    admin_stop: CancellationToken,
}

impl Running {
    /// Serves until `signal`, then ends everything, the admin port last.
    async fn until(self, signal: impl Future<Output = &'static str>) -> anyhow::Result<()> {
        let signal = tokio::select! {
            signal = signal => signal,
            // Without the watch nobody would be cut.
            ended = self.watch => anyhow::bail!("the watch of sessions ended: {ended:?}"),
        };
        info!(signal, "asked to stop");
        self.drain.run().await;
        self.listener.await.context("the listener failed")?;
        self.recorder.settle(SETTLE).await;
        // After the last console has said how it ended.
        self.logged.stop().await;
        self.admin_stop.cancel();
        self.admin.await.context("the admin port failed")
    }
}

/// Signs checkpoints with the key that manifests are signed with, whichever that is.
async fn sign(log: log::Log, mut key: crate::record::keys::Key) {
    loop {
        let now = key.borrow_and_update().clone();
        if let Some(key) = now {
            log.sign_with(key);
        }
        if key.changed().await.is_err() {
            return; // the last one counts
        }
    }
}

/// What this replica calls itself: its pod's name.
fn own_name() -> String {
    let name = ["POD_NAME", "HOSTNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    name.unwrap_or_else(|| "gateway".to_owned())
}

/// Whose tokens are, asked of the API server.
fn authentication(client: Client, sessions_namespace: String, metrics: Arc<Metrics>) -> Arc<Auth> {
    let audience = names::TOKEN_AUDIENCE.to_owned();
    let reviewer = Reviewer::new(client, audience.clone());
    Arc::new(Auth::new(reviewer, audience, sessions_namespace, metrics))
}

/// The way to kubelets, and its certificate files watched.
fn kubelets(
    config: &kube::Config,
    client: Client,
    flags: KubeletFlags,
    reload: Duration,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Upstream> {
    warn!(
        "consoles go straight to kubelets: this gateway holds nodes/proxy, which is code execution in every pod, and the API server's audit log does not see consoles"
    );
    let kubelet = Kubelet::new(config, client, flags)?;
    let files = kubelet.files();
    tokio::spawn(async move { files.keep(reload, &metrics).await });
    Ok(kubelet.into())
}

/// TLS towards clients, and its files watched; `None` without files.
fn certificate(
    files: Option<(PathBuf, PathBuf)>,
    reload: Duration,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    let Some((cert, key)) = files else {
        warn!("serving plain HTTP: tokens cross the network readable");
        return Ok(None);
    };
    let certificate = Arc::new(tls::certificate(cert, key)?);
    let config = tls::server(Arc::clone(&certificate))?;
    tokio::spawn(async move { certificate.keep(reload, &metrics).await });
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["drawbridge-gateway"].iter().chain(flags))
    }

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_certificate_and_its_key_are_needed_unless_plaintext_is_asked_for_by_name() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--tls-cert", "c"]).is_err());
        assert!(parse(&["--tls-cert", "c", "--tls-key", "k"]).is_ok());
        assert!(parse(&["--insecure-plaintext"]).is_ok());
        assert!(parse(&["--insecure-plaintext", "--tls-cert", "c", "--tls-key", "k"]).is_err());
    }

    #[test]
    fn values_are_checked_where_they_are_typed() {
        let with = |flag: &str, value: &str| parse(&["--insecure-plaintext", flag, value]);
        assert_eq!(
            with("--drain", "1m30s").expect("reads").drain,
            Duration::from_secs(90)
        );
        assert!(with("--drain=-5s", "").is_err());
        assert!(with("--drain", "25").is_err());
        assert_eq!(
            with("--path-prefix", "/c/prod/")
                .expect("reads")
                .path_prefix,
            "/c/prod"
        );
        assert!(with("--path-prefix", "c").is_err());
        assert!(with("--allow-origin", "console.example.com").is_err());
        assert_eq!(
            with("--allow-origin", "https://a.example,https://b.example")
                .expect("reads")
                .allow_origin
                .len(),
            2
        );
        let offer = with("--kubelet-subprotocol", "v4.base64.channel.k8s.io")
            .expect("reads")
            .kubelet
            .kubelet_subprotocol;
        assert_eq!(offer.header().as_deref(), Some("v4.base64.channel.k8s.io"));
        assert_eq!(
            parse(&["--insecure-plaintext"]).expect("reads").upstream,
            Way::ApiServer
        );
    }
}
