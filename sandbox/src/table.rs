//! `meta.k8s.io/v1` Tables: what `kubectl get` prints. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::Kind;

/// How much of each object a row carries (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata, as `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// The Table of some objects. `metadata` is the list's (`resourceVersion`, `continue`).
#[must_use]
pub fn table(
    _kind: &Kind,
    _objects: &[Arc<Value>],
    _metadata: Value,
    _include: Include,
    _now: Timestamp,
) -> Value {
    todo!("table")
}
