//! `drawbridge-operator`.

use anyhow::Context;
use clap::Parser;
use drawbridge_operator::args::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider was installed before ours")?;
    Box::pin(Args::parse().run()).await
}
