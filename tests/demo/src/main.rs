//! From nothing to a shell in the browser with one command, on the sandbox: `cargo demo`.
//!
//! ```text
//!   demo ─┬─ sandbox    in this process: the API, and pods as local processes
//!         ├─ operator   this program again, with its ServiceAccount's token and nothing else
//!         └─ gateway    likewise
//! ```
//!
//! Both children run what `drawbridge-operator` and `drawbridge-gateway` run, with the rights of `deploy/`. They end when
//! their standard input closes, so that nothing is left however the demo ends.

mod check;
mod files;
mod install;
mod part;
mod session;
mod stage;
mod summary;

use std::process::ExitCode;

use clap::Parser as _;

/// Starts the sandbox, the operator and the gateway, lets alice@example.com into a pod, and says how to get a shell there.
///
/// The sandbox is no cluster: the commands of its pods run on this machine, as you.
#[derive(clap::Parser, Debug)]
#[command(name = "demo", bin_name = "cargo demo", version)]
struct Args {
    /// Port of the gateway on 127.0.0.1; 0 for any that is free.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Do not open a browser.
    #[arg(long)]
    no_open: bool,
    /// Run a command through the gateway, revoke the session, and exit 0 if all of it went as it should.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program runs as when the demo starts it again.
#[derive(clap::Subcommand, Debug)]
enum Part {
    #[command(hide = true)]
    Operator(Box<drawbridge_operator::args::Args>),
    #[command(hide = true)]
    Gateway(Box<drawbridge_gateway::args::Args>),
}

fn main() -> ExitCode {
    let args = Args::parse();
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("demo: a TLS crypto provider was installed before main");
        return ExitCode::FAILURE;
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        port,
        no_open,
        check,
        part,
    } = args;
    match part {
        None => Box::pin(stage::play(port, !no_open && !check, check)).await,
        Some(part) => {
            part::end_with_parent();
            match part {
                Part::Operator(args) => Box::pin(args.run()).await,
                Part::Gateway(args) => Box::pin(args.run()).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_sound() {
        Args::command().debug_assert();
    }
}
