//! `drawbridge-sandbox`: the sandbox by itself, until Ctrl-C.

use std::io::Write as _;

use anyhow::Context as _;
use clap::Parser as _;
use drawbridge_sandbox::{Options, Sandbox};
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let options = Options::parse();
    let own = options.dir.clone().filter(|dir| !dir.exists());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let sandbox = Sandbox::start(options).await?;
    let kubeconfig = sandbox.cluster().dir.join("kubeconfig");
    // Nobody else may read it.
    let mut file = NamedTempFile::new_in(&sandbox.cluster().dir)?;
    file.write_all(sandbox.kubeconfig("admin", &["system:masters"])?.as_bytes())?;
    file.persist(&kubeconfig)?;
    eprintln!(
        "\n  *** This is the Drawbridge sandbox. It is NOT a cluster and isolates NOTHING: every \"container\" is a process\n  \
         *** of yours on this machine, with all your rights. Use it to try and to test, with pods you trust.\n"
    );
    eprintln!("  serving   {}\n  stop      Ctrl-C\n", sandbox.url());
    println!("{}", kubeconfig.display());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    sandbox.stop().await;
    let _ = std::fs::remove_file(&kubeconfig); // gone already with a temporary directory
    if let Some(own) = own {
        let removed = std::fs::remove_dir_all(&own);
        removed.with_context(|| format!("failed to remove {}", own.display()))?;
    }
    Ok(())
}
