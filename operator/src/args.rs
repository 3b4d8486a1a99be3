//! Every flag, once; `run` builds the parts in order and joins them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use drawbridge_admin::logging::Logging;
use drawbridge_admin::{Ready, Server, shutdown_signal};
use drawbridge_audit::event::Component;
use drawbridge_audit::log::{self, Log};
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{RecordingLevel, RecordingTerms};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::controller;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::grant::Gateway;
use crate::lease::Elector;
use crate::metrics::Metrics;
use crate::session::{Ctx, error_policy, reconcile};
use crate::signing::Signing;
use crate::watches::{Feeds, chain};
use crate::{FIELD_MANAGER, Guarded, sweep};

/// Passes that were begun may finish for this long after SIGTERM. A pass is about ten writes of 10 s at the very worst;
/// what is cut off is taken up by the successor. Keep terminationGracePeriodSeconds 10 s above it.
const DRAIN: Duration = Duration::from_secs(20);

/// Bytes of a name that fit into an Event's `reportingInstance`; a pod's name may be longer.
const MAX_INSTANCE: usize = 128;

/// Turns ConsoleSessions into access to pods, and takes it away again.
///
/// The API server is found as kubectl finds it: KUBECONFIG, ~/.kube/config, or the pod's own service account.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "drawbridge-operator", version)]
pub struct Args {
    /// Namespace of the session accounts. Must exist, be the same at the gateway, and be closed to everybody else.
    #[arg(long, env = "DRAWBRIDGE_SESSIONS_NAMESPACE", default_value = names::SESSIONS_NAMESPACE)]
    sessions_namespace: String,

    /// Where users reach the gateway, e.g. `https://drawbridge.example.com`. Goes into every kubeconfig.
    #[arg(long, env = "DRAWBRIDGE_GATEWAY_URL", value_parser = gateway_url)]
    gateway_url: String,

    /// PEM file with the certificates that sign the gateway's. Goes into every kubeconfig; read once at start. Leave it
    /// out when every client trusts them already.
    #[arg(long, env = "DRAWBRIDGE_GATEWAY_CA_FILE")]
    gateway_ca_file: Option<PathBuf>,

    /// Address of /livez, /readyz and /metrics. In a pod, where the kubelet must reach it: `0.0.0.0:8081`.
    #[arg(long, env = "DRAWBRIDGE_ADMIN_ADDR", default_value = "127.0.0.1:8081")]
    admin_addr: SocketAddr,

    /// Sessions worked on at the same time, 1 to 256. Each keeps up to four requests at the API server.
    #[arg(long, env = "DRAWBRIDGE_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,

    /// Namespace of the Lease by which one of several replicas leads.
    #[arg(
        long,
        env = "DRAWBRIDGE_LEASE_NAMESPACE",
        default_value = "drawbridge-system"
    )]
    lease_namespace: String,

    /// Name of that Lease.
    #[arg(
        long,
        env = "DRAWBRIDGE_LEASE_NAME",
        default_value = "drawbridge-operator"
    )]
    lease_name: String,

    /// What happens to connections that cannot be recorded, in sessions granted from now on: with `required` there are
    /// none, with `best-effort` they go on, and with `off` nothing is recorded.
    #[arg(long, env = "DRAWBRIDGE_RECORDING", value_enum, default_value_t = Recording::Required)]
    recording: Recording,

    /// Record what is typed, too, in sessions granted from now on; never what the terminal did not echo.
    #[arg(long, env = "DRAWBRIDGE_RECORDING_KEYSTROKES")]
    recording_keystrokes: bool,

    /// Record the bytes of binary streams (`kubectl cp`), too, in sessions granted from now on, and not only their number
    /// and hash.
    #[arg(long, env = "DRAWBRIDGE_RECORDING_PAYLOADS")]
    recording_payloads: bool,

    /// How long one key signs records before the next is made, e.g. `2160h` (90 days), the default. 1h at least. All public
    /// keys stay in the ConfigMap `drawbridge-signing-keys`, in the Lease's namespace.
    #[arg(long, env = "DRAWBRIDGE_SIGNING_KEY_ROTATION", default_value = "2160h", value_parser = rotation)]
    signing_key_rotation: Duration,

    /// What this replica calls itself in the Lease and in Events; each must have its own. Default: the host's name and
    /// a random suffix.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,

    #[command(flatten)]
    audit: log::Flags,

    #[command(flatten)]
    logging: Logging,
}

/// What happens to connections that cannot be recorded.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Recording {
    Required,
    BestEffort,
    Off,
}

impl From<Recording> for RecordingLevel {
    fn from(level: Recording) -> Self {
        match level {
            Recording::Required => Self::Required,
            Recording::BestEffort => Self::BestEffort,
            Recording::Off => Self::Off,
        }
    }
}

fn rotation(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write it like 2160h"))?;
    let rotation = Duration::try_from(signed).unwrap_or_default();
    if rotation < Duration::from_hours(1) {
        return Err("must be 1h at least".into());
    }
    Ok(rotation)
}

/// A token in a kubeconfig goes wherever this points: over TLS, and without a path kubectl would prepend to its own.
fn gateway_url(text: &str) -> Result<String, String> {
    let uri: http::Uri = text
        .parse()
        .map_err(|error| format!("not a URL: {error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err("must begin with https://, for tokens travel there".into());
    }
    if uri.host().is_none_or(str::is_empty)
        || uri.query().is_some()
        || !matches!(uri.path(), "" | "/")
    {
        return Err("must be https://host or https://host:port, without path or query".into());
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("must not contain a user name or password".into());
    }
    Ok(text.trim_end_matches('/').into())
}

impl Args {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When something needed at start is missing, or when the process must not go on, e.g. the lease was lost.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            sessions_namespace,
            gateway_url,
            gateway_ca_file,
            admin_addr,
            concurrency,
            lease_namespace,
            lease_name,
            recording,
            recording_keystrokes,
            recording_payloads,
            signing_key_rotation,
            identity,
            audit,
            logging,
        } = self;
        let recording = RecordingTerms {
            level: recording.into(),
            keystrokes: recording_keystrokes,
            payloads: recording_payloads,
        };
        drawbridge_admin::logging::init(&logging)?;
        let signal = shutdown_signal()?;
        let identity = identity
            .filter(|identity| !identity.is_empty())
            .unwrap_or_else(own_name);
        let ca = gateway_ca_file.as_deref().map(read_ca).transpose()?;
        let config = Config::infer().await.context(
            "found no API server; set KUBECONFIG, or run in a pod with a service account",
        )?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            api_server = %config.cluster_url,
            sessions_namespace,
            gateway_url,
            gateway_ca_file = ?gateway_ca_file,
            %admin_addr,
            concurrency,
            lease_namespace,
            lease_name,
            ?recording,
            ?signing_key_rotation,
            identity,
            "starting"
        );
        let client = Client::try_from(config)
            .context("failed to set up the connection to the API server")?;
        let operator = Operator {
            client,
            sessions_namespace,
            gateway: Gateway {
                url: gateway_url,
                ca,
            },
            recording,
            signing_key_rotation,
            concurrency,
            lease: (lease_namespace, lease_name),
            identity,
        };
        let feeds = Feeds::default();
        let mut registry = Registry::default();
        let sessions = feeds.watches().sessions.watched().clone();
        let metrics = Arc::new(Metrics::register(&mut registry, sessions));
        let counts = drawbridge_audit::metrics::Metrics::new(&mut registry);
        let (log, logged) = audit
            .start(Component::Operator, operator.identity.clone(), counts)
            .await
            .context("failed to begin the audit log")?;
        let ready = Ready::default();
        let admin = Server::bind(admin_addr, ready.clone(), registry).await?;
        let admin_stop = CancellationToken::new();
        let admin = tokio::spawn(admin.serve(admin_stop.clone()));
        let ended = operator.run(feeds, metrics, log, ready, signal).await;
        // What it granted is on record, however it ended.
        logged.stop().await;
        ended.inspect_err(|error| error!("{error:#}"))?;
        admin_stop.cancel();
        admin.await.context("the admin port failed")
    }
}

/// The flags, resolved.
struct Operator {
    client: Client,
    sessions_namespace: String,
    gateway: Gateway,
    recording: RecordingTerms,
    signing_key_rotation: Duration,
    concurrency: u16,
    lease: (String, String),
    identity: String,
}

impl Operator {
    /// Everything but the admin port, until `signal`.
    async fn run(
        self,
        feeds: Feeds,
        metrics: Arc<Metrics>,
        log: Log,
        ready: Ready,
        signal: impl Future<Output = &'static str>,
    ) -> anyhow::Result<()> {
        let Self {
            client,
            sessions_namespace,
            gateway,
            recording,
            signing_key_rotation,
            concurrency,
            lease: (lease_namespace, lease_name),
            identity,
        } = self;
        let watches = Arc::new(feeds.watches());
        let warm = ready.condition("caches filled from the API server");
        let mut tasks = JoinSet::new();
        let queue = feeds.spawn(&client, &sessions_namespace, &watches, &metrics, &mut tasks);
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: Some(identity[..identity.floor_char_boundary(MAX_INSTANCE)].into()),
        };
        let ctx = Arc::new(Ctx {
            recorder: Recorder::new(client.clone(), reporter),
            log,
            client: client.clone(),
            sessions_namespace,
            gateway,
            recording,
            watches: Arc::clone(&watches),
            metrics: Arc::clone(&metrics),
            leading: CancellationToken::new(),
            stop: CancellationToken::new(),
            failures: Mutex::default(),
            repairs: Mutex::default(),
        });
        let orphans = Arc::new(Notify::new());
        tasks.spawn(sweep::run(Arc::clone(&ctx), Arc::clone(&orphans)));
        let filled = CancellationToken::new();
        let work = work(
            Arc::clone(&ctx),
            filled.clone(),
            queue,
            concurrency,
            orphans,
        );
        let mut passes = tokio::spawn(work);

        let signing =
            Signing::new(&client, &lease_namespace, signing_key_rotation).signing(ctx.log.clone());
        let mut elector = Elector::new(&client, &lease_namespace, &lease_name, identity, &metrics);
        let lead = async {
            watches
                .synced()
                .await
                .context("a watch ended before its cache was filled")?;
            info!("caches are filled");
            warm.met();
            filled.cancel();
            elector.acquire().await;
            // Before the first grant, if it can be had: connections that must be recorded wait for it.
            if let Err(error) = signing.ensure(Timestamp::now()).await {
                warn!(error = chain(&error), "there may be no signing key yet");
            }
            ctx.leading.cancel();
            tokio::select! {
                lost = elector.hold() => Err::<(), anyhow::Error>(lost.into()),
                () = signing.keep() => bail!("the signing key is not kept any more"),
            }
        };
        tokio::select! {
            name = signal => {
                info!(signal = name, "stopping");
                Ok(())
            }
            // Without waiting for anything: a successor may be writing already.
            lost = lead => lost,
            ended = tasks.join_next() => Err(anyhow::anyhow!("a task that never ends has ended: {ended:?}")),
            ended = &mut passes => Err(anyhow::anyhow!("the passes have ended: {ended:?}")),
        }?;

        ready.withdraw();
        ctx.stop.cancel();
        let leads = ctx.leading.is_cancelled();
        tokio::select! {
            finished = timeout(DRAIN, passes) => if finished.is_err() {
                warn!("passes are still running; the next leader takes them up");
            },
            // Nobody else may lead while they run.
            lost = elector.hold(), if leads => return Err(lost.into()),
        }
        tasks.shutdown().await;
        if leads {
            elector.release().await;
        }
        Ok(())
    }
}

/// Runs passes over the sessions that are queued until told to stop, then waits for those begun.
///
/// Begins when the caches are `filled`: kube's applier waits for the same itself, but of two who wait for one store only
/// one is woken.
async fn work(
    ctx: Arc<Ctx>,
    filled: CancellationToken,
    mut queue: mpsc::Receiver<kube::runtime::reflector::ObjectRef<Guarded>>,
    concurrency: u16,
    orphans: Arc<Notify>,
) {
    let stop = ctx.stop.clone();
    if stop.run_until_cancelled(filled.cancelled()).await.is_none() {
        return;
    }
    let sessions = ctx.watches.sessions.watched().clone();
    let queue = stream::poll_fn(move |cx| queue.poll_recv(cx))
        .map(Ok::<_, watcher::Error>)
        .take_until(async move { stop.cancelled().await })
        .boxed();
    let config = controller::Config::default().concurrency(concurrency);
    let passes = controller::applier(
        |session, ctx| Box::pin(reconcile(session, ctx)),
        error_policy,
        ctx,
        sessions,
        queue,
        config,
    );
    passes
        .for_each(|pass| {
            // What failed is logged by the pass itself.
            if let Err(controller::Error::ObjectNotFound(_)) = pass {
                orphans.notify_one();
            }
            std::future::ready(())
        })
        .await;
}

fn read_ca(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let pem = std::fs::read(path)
        .with_context(|| format!("failed to read --gateway-ca-file {}", path.display()))?;
    let text = String::from_utf8_lossy(&pem);
    if text.contains("PRIVATE KEY") {
        bail!(
            "--gateway-ca-file {} contains a private key; it would go to every user",
            path.display()
        );
    }
    ensure!(
        text.contains("-----BEGIN CERTIFICATE-----"),
        "--gateway-ca-file {} contains no PEM certificate",
        path.display()
    );
    Ok(pem)
}

/// The host's name, as kubelet sets it in a pod, and a suffix that tells two runs on one host apart.
fn own_name() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| FIELD_MANAGER.into());
    // Keyed by the operating system's random numbers.
    let suffix = RandomState::new().build_hasher().finish();
    format!("{host}-{suffix:016x}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_gateway_url_is_https_and_no_more_than_an_address() {
        assert_eq!(
            gateway_url("https://gate.example.com/").as_deref(),
            Ok("https://gate.example.com")
        );
        assert_eq!(
            gateway_url("https://[2001:db8::1]:8443").as_deref(),
            Ok("https://[2001:db8::1]:8443")
        );
        for refused in [
            "http://gate.example.com",
            "gate.example.com",
            "https://",
            "https://gate.example.com/api",
            "https://gate.example.com/?x",
            "https://alice:secret@gate.example.com",
        ] {
            assert!(gateway_url(refused).is_err(), "{refused}");
        }
    }
}
