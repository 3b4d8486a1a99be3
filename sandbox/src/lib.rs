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

mod admission;
mod apply;
pub mod auth;
mod clock;
mod cluster;
mod controllers;
mod discovery;
pub mod faults;
mod kinds;
mod object;
mod openapi;
mod patch;
mod pki;
mod pods;
mod release;
mod request;
mod rest;
mod schema;
mod selector;
mod server;
mod status;
pub mod store;
mod table;

pub use cluster::{Cluster, Options, Sandbox};
pub use faults::Faults;
pub use release::Release;
pub use rest::{Call, Change};
