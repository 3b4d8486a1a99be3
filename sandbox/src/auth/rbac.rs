//! Role-based access control, evaluated for every request.

use serde_json::Value;

use super::Identity;
use crate::cluster::Cluster;
use crate::request::Attributes;
use crate::status::Failure;

/// A decision and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// E.g. `RBAC: allowed by RoleBinding "x/y" of Role "y" to User "z"`; empty when denied.
    pub reason: String,
}

/// Whether somebody may do something, by the roles and bindings in the store.
#[must_use]
pub fn decide(_cluster: &Cluster, _who: &Identity, _what: &Attributes) -> Decision {
    todo!("rbac")
}

/// The same as a 403 with the API server's words:
/// `pods "x" is forbidden: User "y" cannot get resource "pods" in API group "" in the namespace "z"`.
///
/// # Errors
/// When denied.
pub fn require(_cluster: &Cluster, _who: &Identity, _what: &Attributes) -> Result<(), Failure> {
    todo!("rbac")
}

/// The escalation check: whoever writes a Role or ClusterRole must hold what it grants (or `escalate`), whoever writes a
/// binding what the role it names grants (or `bind`). Called for every write of these kinds with the object to be stored.
///
/// # Errors
/// 403 that names what is not held.
pub fn check_escalation(
    _cluster: &Cluster,
    _who: &Identity,
    _object: &Value,
) -> Result<(), Failure> {
    todo!("rbac")
}

/// Objects every cluster begins with: ClusterRoles `cluster-admin`, `admin`, `edit`, `view` (with aggregation),
/// `system:basic-user`, `system:discovery`, `system:public-info-viewer` and so on, and their bindings.
#[must_use]
pub fn bootstrap() -> Vec<Value> {
    todo!("rbac")
}
