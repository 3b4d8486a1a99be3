//! `drawbridge-sandbox`: the sandbox by itself, until Ctrl-C.

use std::io::Write as _;

use clap::Parser as _;
use drawbridge_sandbox::{Options, Sandbox};
use tempfile::NamedTempFile;
use tokio::signal::{ctrl_c, unix};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let sandbox = Sandbox::start(Options::parse()).await?;
    let kubeconfig = sandbox.cluster().dir.join("kubeconfig");
    // Nobody else may read it.
    let mut file = NamedTempFile::new_in(&sandbox.cluster().dir)?;
    file.write_all(sandbox.kubeconfig("admin", &["system:masters"])?.as_bytes())?;
    file.persist(&kubeconfig)?;
    eprintln!(
        "\n  *** This is the Drawbridge sandbox. It is NOT a cluster and isolates NOTHING: every \"container\" is a process\n  \
         *** of yours on this machine, with all your rights. Use it to try and to test, with pods you trust.\n\n  \
         serving   {}\n  stop      Ctrl-C\n",
        sandbox.url()
    );
    println!("{}", kubeconfig.display());
    tokio::select! {
        _ = ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    sandbox.stop().await;
    Ok(())
}
