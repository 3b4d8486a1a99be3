//! `drawbridge-sandbox`: the sandbox by itself, until Ctrl-C.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use clap::Parser as _;
use drawbridge_sandbox::{Options, Sandbox};
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
