//! `drawbridge-audit`: what an auditor does with recordings, offline, trusting nothing but public keys.
//!
//! ```text
//!  path or URL ──► place ──► recordings ──┬─► verify, ls          what they are
//!                                         ├─► search, export      printed: what was on the screen, as text
//!                                         └─► replay ──► safe     what the screen did, and nothing else
//!  files ──► log ──► verify               which line of an audit log is wrong
//! ```
//!
//! A recording is written by whoever was watched: every text of it is hostile until it went through `safe` or `printed`.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that panics has failed")
)]

mod args;
mod export;
mod keyboard;
mod log;
mod ls;
mod place;
mod printed;
mod progress;
mod replay;
mod safe;
mod search;
mod trust;
mod verify;
mod words;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Of the store's HTTPS, should there be one. Only a second call fails.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match args::Args::parse().run() {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drawbridge-audit: {}", words::plain(&format!("{error:#}")));
            ExitCode::from(args::TROUBLE)
        }
    }
}

/// Whether nobody reads on, as `head` does when it has enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
