//! `drawbridge-sandbox`: the sandbox by itself, until Ctrl-C.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use drawbridge_sandbox::{Options, Release, Sandbox};
use tokio::signal::unix::{SignalKind, signal};

/// Serves the part of the Kubernetes API that Drawbridge uses, with pods as local processes. For trying and testing: it
/// is no cluster, and whoever reaches it runs commands as you.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where the API server listens; loopback only, port 0 for any.
    #[arg(long, env, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the kubelet listens; loopback only, port 0 for any.
    #[arg(long, env, default_value = "127.0.0.1:0")]
    kubelet_listen: SocketAddr,
    /// Kubernetes release to behave like.
    #[arg(long, env, value_enum, default_value = "1.36")]
    release: Release,
    /// Directory for containers, logs and the kubeconfig. One that is not there yet is made, and removed at the end.
    /// Default: a temporary one.
    #[arg(long, env)]
    dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let own = args.dir.clone().filter(|dir| !dir.exists());
    let options = Options {
        listen: args.listen,
        kubelet_listen: args.kubelet_listen,
        release: args.release,
        dir: args.dir,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let sandbox = Sandbox::start(options).await?;
    let kubeconfig = sandbox.cluster().dir.join("kubeconfig");
    let text = sandbox.kubeconfig("admin", &["system:masters"])?;
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&kubeconfig);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("failed to write {}", kubeconfig.display()))?;
    eprintln!(
        "\n  *** This is the Drawbridge sandbox. It is NOT a cluster and isolates NOTHING: every \"container\" is a process\n  \
         *** of yours on this machine, with all your rights. Use it to try and to test, with pods you trust.\n"
    );
    eprintln!("  serving   {}", sandbox.url());
    eprintln!("  stop      Ctrl-C\n");
    println!("{}", kubeconfig.display());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    sandbox.stop().await;
    let _ = std::fs::remove_file(&kubeconfig); // gone already with a temporary directory
    if let Some(own) = own {
        std::fs::remove_dir_all(&own)
            .with_context(|| format!("failed to remove {}", own.display()))?;
    }
    Ok(())
}
