//! The end-to-end tests' own tools: a cluster, the two binaries under test with the rights they have in earnest, and the
//! clients people use.
//!
//! ```text
//!   Test ── one namespace, its pods and sessions; what a test function is given
//!     ├── Cluster       the Kubernetes it runs on (the sandbox or a real one), as administrator
//!     ├── Drawbridge    one operator and one gateway as child processes, each with its ServiceAccount's token;
//!     │                 shared by the tests of a binary, stopped when the last one is done
//!     └── Session       a granted ConsoleSession: token, kubeconfig
//!           ├── Kubectl     real kubectl with that kubeconfig and nothing else
//!           ├── Terminal    the same on a PTY, with a screen to look at
//!           ├── Console     a WebSocket client of any subprotocol
//!           └── Connection  bytes over TLS, for what no honest client sends
//! ```
//!
//! `cargo test -p drawbridge-tests` runs what needs only Rust, on the sandbox; `just e2e` all of it on a real cluster. What
//! can be set in the environment:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `DRAWBRIDGE_CLUSTER` | `sandbox`, or `real`: the cluster of `KUBECONFIG` | `sandbox` |
//! | `KUBECONFIG` | a cluster where you are administrator; read for `real` only | the one of `tests/cluster/cluster up` |
//! | `DRAWBRIDGE_SANDBOX_RELEASE` | `1.20`, `1.30` or `1.36`: what the sandbox behaves like | `1.36` |
//! | `KUBECTL` | kubectl 1.30 or newer | the one `tests/cluster/cluster up` brought, else the one on `PATH` |
//! | `DRAWBRIDGE_BIN_DIR` | where the operator and the gateway are | built by cargo, beside the test |
//! | `DRAWBRIDGE_TEST_IMAGE` | an image with a busybox | the cluster's own, else `busybox:1.37` |
//! | `DRAWBRIDGE_AUDIT_LOG` | the API server's audit log, as a file | the sandbox's or the project's own cluster's |
//! | `DRAWBRIDGE_SKIP` | `audit-log`, `restart`, `kubelet`, `faults`: what may be skipped where the cluster lacks it | nothing |
//! | `DRAWBRIDGE_TEST_LOG` | what the operator and the gateway log | `info` |
//! | `DRAWBRIDGE_KEEP` | if set, namespaces and logs are kept | logs of failed tests are |
//!
//! Nothing here uses the product's own wire code: a fault there must not hide itself.

mod audit;
mod checks;
mod cluster;
mod connection;
mod console;
mod drawbridge;
mod embedded;
mod end;
mod install;
mod kubectl;
mod manifest;
mod metrics;
mod pki;
mod process;
mod programs;
mod rights;
mod session;
mod terminal;
mod test;
mod timings;
mod untouched;
mod wait;

pub use audit::{Audit, Mark, Seen};
pub use checks::{contains, text};
pub use cluster::{Cluster, Needs};
pub use connection::{Answer, Connection, Request};
pub use console::{Console, Event, Opening, PROTOCOLS, Refused, frame};
pub use drawbridge::{Drawbridge, Gateway, Operator};
pub use end::End;
pub use install::SYSTEM_NAMESPACE;
pub use kubectl::{Kubectl, Output};
pub use metrics::Metrics;
pub use pki::Pki;
pub use process::Process;
pub use session::Session;
pub use terminal::Terminal;
pub use test::{Test, run, run_alone};
pub use timings::Timings;
pub use untouched::Nothing;
pub use wait::{soon, wait_for};

/// Tells the person running the tests something, past libtest's capture of the output of tests that pass.
pub fn note(text: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "      note: {text}");
}
