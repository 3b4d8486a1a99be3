//! Admission webhooks, called over TLS as their configurations in the store say.

use serde_json::Value;

use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::status::Failure;

/// A write on its way.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`
    pub operation: &'static str,
    /// Of the object.
    pub kind: &'a Kind,
    /// `status`, `exec`; empty for none.
    pub subresource: &'a str,
    /// Empty for what is in none.
    pub namespace: &'a str,
    /// Empty for a `generateName` not yet made.
    pub name: &'a str,
    /// What there is now; `None` for `CREATE`.
    pub before: Option<&'a Value>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The request's `CreateOptions`, `UpdateOptions`, …
    pub options: &'a Value,
    /// Who writes.
    pub who: &'a Identity,
}

/// Passes an object (`Null` for `DELETE`) through the mutating webhooks that want to see it. Returns it with warnings.
///
/// # Errors
/// What a webhook refused, or 500 when it could not be asked and its `failurePolicy` is `Fail`.
pub async fn mutate(
    _cluster: &Cluster,
    _write: Write<'_>,
    _object: Value,
) -> Result<(Value, Vec<String>), Failure> {
    todo!("admission")
}

/// Shows an object to the validating webhooks that want to see it. Returns their warnings.
///
/// # Errors
/// As [`mutate`].
pub async fn validate(
    _cluster: &Cluster,
    _write: Write<'_>,
    _object: &Value,
) -> Result<Vec<String>, Failure> {
    todo!("admission")
}
