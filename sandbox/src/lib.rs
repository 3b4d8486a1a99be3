//! The part of Kubernetes that Drawbridge, `kubectl` and kube-rs use, in one process: for trying and for testing. It is
//! no cluster: its pods are local processes of the user who started it, in a scratch directory, with that user's rights.
//!
//! ```text
//!  client ─TLS─► server ──► request (what is asked)                                                  pure
//!                  │  ├───► auth ─────── who asks; may they (RBAC, read from the store)
//!                  │  ├───► faults ───── what a test wants to go wrong
//!                  │  └───► rest ──┬─── patch, apply (managed fields)                                pure
//!                  │               ├─── kinds, schema: what there is, defaults, validation           pure
//!                  │               ├─── admission: webhooks
//!                  │               └─── store: objects, revisions, watch
//!                  │        controllers: namespaces, owners, ServiceAccounts, CustomResourceDefinitions
//!                  └───► pods: containers as processes, exec, attach, log ◄── the kubelet's own port
//! ```
//!
//! There is one store, one router and one watch for every kind; code for a single kind only where Kubernetes has some.

// A test that panics has failed.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod apply;
pub mod auth;
pub mod clock;
pub mod cluster;
pub mod controllers;
mod discovery;
pub mod faults;
pub mod kinds;
mod object;
mod openapi;
pub mod patch;
pub mod pki;
pub mod pods;
pub mod release;
mod request;
mod rest;
pub mod schema;
pub mod selector;
pub mod server;
mod status;
pub mod store;
pub mod table;

pub use clock::Clock;
pub use cluster::{Cluster, Options, Sandbox};
pub use faults::Faults;
pub use release::Release;
pub use rest::{Call, Change};
