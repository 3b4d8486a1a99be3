//! What both binaries need around their real job: an admin port, logging, signals.
//!
//! ```text
//!   kubelet ─────► /livez    200 while the process can answer at all
//!   Endpoints ───► /readyz   200 when every condition of `Ready` is met, else 503 and the list of what is not
//!   Prometheus ──► /metrics  OpenMetrics text of the registry it was given
//! ```
//!
//! The port answers anybody who reaches it and tells no names, tokens or payload: bind it to loopback or to the pod
//! network, never to the outside.

pub mod logging;
mod ready;
mod server;
mod signal;

pub use ready::{Condition, Ready};
pub use server::Server;
pub use signal::shutdown_signal;
