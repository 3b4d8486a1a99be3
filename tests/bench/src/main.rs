//! `drawbridge-bench`: what a session through the gateway costs, next to other proxies in the same run.
//!
//! ```text
//!            load ──────► candidate ──────► fake-server
//!          (clients)   gateway | haproxy     (API server: TokenReview,
//!                      kubectl proxy | none   sessions, exec)
//!   run ── starts all three, pins them, alternates the candidates, reads /proc, writes the table
//!   real ─ the same clients against a real cluster: straight to the API server, and through the gateway
//! ```

mod client;
mod load;
mod net;
mod output;
mod pki;
mod proc;
mod real;
mod run;
mod server;
mod world;
mod ws;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

#[derive(Parser)]
#[command(version, about = "Measures the gateway beside other proxies")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A stand-in for an API server: TokenReview, sessions and exec, as cheap as it can be.
    FakeServer(server::Args),
    /// One measurement; its figures go to standard output as JSON.
    Load(load::Args),
    /// The whole comparison.
    Run(run::Args),
    /// The same clients against a real cluster.
    Real(real::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is already installed"))?;
    let args = Args::parse();
    proc::raise_open_files().context("cannot raise the limit of open files")?;
    match args.command {
        Command::FakeServer(args) => server::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Run(args) => interruptible(run::run(args)).await,
        Command::Real(args) => interruptible(real::run(args)).await,
    }
}

/// Ends early on SIGTERM and SIGINT, so that what was started is ended too.
async fn interruptible(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("asked to stop"),
    }
}
