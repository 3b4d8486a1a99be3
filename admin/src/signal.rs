//! The signals that mean "stop".

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Installs handlers for SIGTERM and SIGINT at once, and returns a future that resolves to the name of the first one.
///
/// Call it before the first `await` of the program: a signal that comes earlier kills the process.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn shutdown_signal() -> anyhow::Result<impl Future<Output = &'static str> + Send> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
