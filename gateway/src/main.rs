//! The gateway's process.

use clap::Parser;
use drawbridge_gateway::args::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS crypto provider was installed before main"))?;
    Args::parse().run().await
}
