//! The demo itself: everything is started, shown, and ended.

use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use drawbridge_crds::names::{SIGNING_KEYS, SYSTEM_NAMESPACE};
use drawbridge_sandbox::{Options, Sandbox};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use crate::check::check;
use crate::files::{Files, private};
use crate::install::{install, token};
use crate::part::Part;
use crate::session::{self, Granted, NAMESPACE, SHELL, USER};
use crate::summary::{KEYS, Summary};

/// Plays it: with the gateway on `port`, in a browser if `open`, checked and ended if `check`.
pub(crate) async fn play(port: u16, open: bool, check: bool) -> Result<()> {
    let begun = Instant::now();
    let addr = free(port)?;
    let files = Files::new()?;
    log_to(&files.path("sandbox.log"))?;
    eprintln!("demo: starting; pods of the sandbox are processes of this machine and run as you");
    let options = Options {
        dir: Some(files.path("sandbox")),
        ..Options::default()
    };
    let sandbox = Sandbox::start(options)
        .await
        .context("failed to start the sandbox")?;
    let set = tokio::select! {
        stage = Stage::set(&sandbox, &files, addr) => stage.map(Some),
        () = interrupted() => Ok(None),
    };
    let done = match set {
        Ok(Some(stage)) => stage.show(&files, begun, open, check).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if !check {
        eprintln!("\ndemo: ending");
    }
    sandbox.stop().await;
    done
}

/// Everything that runs beside the sandbox, and what was granted.
struct Stage {
    operator: Part,
    gateway: Part,
    alice: Client,
    alice_file: PathBuf,
    granted: Granted,
    look: Granted,
    url: String,
    replay: String,
}

impl Stage {
    /// Installs the product, starts it, and lets alice@example.com in.
    async fn set(sandbox: &Sandbox, files: &Files, addr: SocketAddr) -> Result<Self> {
        let admin = sandbox.kubeconfig("admin", &["system:masters"])?;
        files.write("admin.kubeconfig", &admin)?;
        let admin = client(&admin).await?;
        install(&admin)
            .await
            .context("failed to install Drawbridge")?;
        let (mut operator, mut gateway) = parts(sandbox, files, &admin, addr).await?;
        tokio::try_join!(operator.ready(), gateway.ready())?;

        let alice = sandbox.kubeconfig(USER, &[])?;
        let alice_file = files.write("alice.kubeconfig", &alice)?;
        let alice = client(&alice).await?;
        let granted = session::ask_shell(&alice).await?;
        let look = session::ask_look(&alice).await?;
        let link =
            |page: &str, token| format!("https://{addr}/ui/{page}#{NAMESPACE}/{SHELL}/{token}");
        let (url, replay) = (link("", &granted.token), link("replay.html", &look.token));
        let keys = Api::<ConfigMap>::namespaced(admin, SYSTEM_NAMESPACE);
        let there = |keys: Option<&ConfigMap>| keys.is_some();
        let keys = await_condition(keys, SIGNING_KEYS, there).await?;
        files.write(KEYS, &serde_json::to_string_pretty(&keys)?)?;
        Ok(Self {
            operator,
            gateway,
            alice,
            alice_file,
            granted,
            look,
            url,
            replay,
        })
    }

    /// Says where the shell is, until it is interrupted or something fails.
    async fn show(
        mut self,
        files: &Files,
        begun: Instant,
        open: bool,
        check_only: bool,
    ) -> Result<()> {
        let shell = files.write("shell.kubeconfig", &self.granted.kubeconfig)?;
        let until = self
            .granted
            .expires_at
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%H:%M")
            .to_string();
        let keys = std::io::stdin().is_terminal() && !check_only;
        let summary = Summary {
            url: &self.url,
            replay: &self.replay,
            dir: files.dir(),
            shell: &shell,
            alice: &self.alice_file,
            took: begun.elapsed(),
            until: &until,
            keys,
            colour: std::io::stdout().is_terminal(),
        };
        println!("{}", summary.text());
        if open && has_desktop() {
            // What cannot be opened is printed above.
            let _ = open::that_detached(&self.url);
        }
        let shown = async {
            if check_only {
                check(&self.alice, &self.granted.kubeconfig, &self.look.kubeconfig).await
            } else {
                watch_keys(&self.alice, keys).await
            }
        };
        let done = tokio::select! {
            done = shown => done,
            () = interrupted() => Ok(()),
            error = self.operator.failed() => Err(error),
            error = self.gateway.failed() => Err(error),
        };
        tokio::join!(self.operator.stop(), self.gateway.stop());
        done
    }
}

/// Resolves on Ctrl-C or SIGTERM.
async fn interrupted() {
    match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        }
        _ => std::future::pending().await, // then a signal ends the process, and its children with it
    }
}

/// Starts the operator and the gateway, each with its own account's token.
async fn parts(
    sandbox: &Sandbox,
    files: &Files,
    admin: &Client,
    addr: SocketAddr,
) -> Result<(Part, Part)> {
    let mut kubeconfigs = Vec::new();
    for account in ["drawbridge-operator", "drawbridge-gateway"] {
        let token = token(admin, account).await?;
        let kubeconfig = sandbox.kubeconfig_of(&json!({"token": token}));
        kubeconfigs.push(files.write(&format!("{account}.kubeconfig"), &kubeconfig)?);
    }
    let pki = &sandbox.cluster().pki;
    let ca = files.write("ca.pem", &pki.authority)?;
    let server = pki.server(&["127.0.0.1", "localhost"])?;
    let certificate = files.write("gateway.crt", &server.certificate)?;
    let key = files.write("gateway.key", &server.key)?;
    let path = |path: &PathBuf| path.display().to_string();
    let operator = Part::start(
        "operator",
        files,
        &kubeconfigs[0],
        "--admin-addr",
        &[
            format!("--gateway-url=https://{addr}"),
            format!("--gateway-ca-file={}", path(&ca)),
            format!("--audit-spool={}", path(&files.path("operator.audit"))),
        ],
    )?;
    let gateway = Part::start(
        "gateway",
        files,
        &kubeconfigs[1],
        "--admin-listen",
        &[
            format!("--listen={addr}"),
            format!("--tls-cert={}", path(&certificate)),
            format!("--tls-key={}", path(&key)),
            format!("--spool={}", path(&files.path("gateway.spool"))),
            format!("--audit-spool={}", path(&files.path("gateway.audit"))),
            // Nobody else uses it.
            "--drain-pause=0s".to_owned(),
            "--drain=1s".to_owned(),
        ],
    )?;
    Ok((operator, gateway))
}

/// Revokes the session when `r` is typed; never ends otherwise.
async fn watch_keys(alice: &Client, keys: bool) -> Result<()> {
    if keys {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match line.trim() {
                "r" => {
                    session::revoke(alice).await?;
                    println!("demo: revoked; start again for another session");
                }
                "" => {}
                _ => println!("demo: r revokes the session, Ctrl-C ends the demo"),
            }
        }
    }
    std::future::pending().await
}

/// The address of the gateway, if nobody else has it.
fn free(port: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| {
        format!("port {port} of 127.0.0.1 is taken; choose another with `cargo demo --port 9443`, or `--port 0` for any that is free")
    })?;
    Ok(listener.local_addr()?)
}

/// Whether there is a desktop with a browser.
fn has_desktop() -> bool {
    cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some())
}

/// A client of whom a kubeconfig names.
pub(crate) async fn client(kubeconfig: &str) -> Result<Client> {
    let config = Kubeconfig::from_yaml(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn log_to(path: &std::path::Path) -> Result<()> {
    let file = private(path)?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(file))
        .try_init()
        .map_err(|error| anyhow::anyhow!("failed to set up logging: {error}"))
}
