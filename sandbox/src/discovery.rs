//! `/version`, `/api`, `/apis` and what is below them: which kinds there are, plain and aggregated. Pure.

use serde_json::Value;

use crate::kinds::Kind;
use crate::release::Release;
use std::sync::Arc;

/// The document at a path (`/version`, `/api`, `/apis`, `/api/v1`, `/apis/{group}`, `/apis/{group}/{version}`), and its
/// content type; `None` if there is none. `accept` chooses the aggregated form (`g=apidiscovery.k8s.io;v=v2` or
/// `v2beta1`) of `/api` and `/apis`, which releases before 1.26 do not have.
#[must_use]
pub fn document(
    _kinds: &[Arc<Kind>],
    _release: Release,
    _path: &str,
    _accept: &str,
    _address: &str,
) -> Option<(&'static str, Value)> {
    todo!("discovery")
}
