//! Turns `ConsoleSession`s into access and takes it away again.
//!
//! ```text
//!   API server ──watch──► Watches (caches) ──queue of sessions──► session::reconcile, one at a time per session
//!        ▲                                                            │
//!        │                                    gather ──► plan ──► apply ──► report
//!        │                                    (reads)   (pure)   (writes)  (status, Events)
//!        └──────────────────────────────────────────────────────────┴────────┘
//!   Lease ──► Elector      only its holder runs passes; the others keep their caches warm and write nothing
//!   session gone, account left ──► sweep
//! ```
//!
//! | object | where | name | removed by |
//! |---|---|---|---|
//! | `ServiceAccount`, anchor `Secret` | sessions namespace | `cs-<uid>` | finalizer, else sweep |
//! | `Role`, `RoleBinding` for the account | the session's namespace | `<session>-<8 of uid>` | end of the session, else owner reference |
//! | `Secret`, `Role`, `RoleBinding` for the user | the session's namespace | the same, the last two with `-user` | the same |
//!
//! The leader also keeps the key that records are signed with (`signing`).
//!
//! At rest it makes no write to the API server but the renewals of its Lease.

pub mod args;
pub mod cache;
#[cfg(test)]
mod fake;
pub mod grant;
pub mod lease;
pub mod metrics;
pub mod session;
pub mod signing;
pub mod sweep;
pub mod watches;

use drawbridge_crds::v1alpha1::ConsoleSession;
use kube::core::DeserializeGuard;

/// A session as it is watched: one that cannot be parsed is an error value, not the end of the watch.
pub type Guarded = DeserializeGuard<ConsoleSession>;

/// Owner of every field the operator writes.
pub const FIELD_MANAGER: &str = "drawbridge-operator";
