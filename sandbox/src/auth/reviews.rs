//! Reviews: kinds that are asked and never stored.

use serde_json::Value;

use super::Identity;
use crate::cluster::Cluster;
use crate::status::Failure;

/// Answers a TokenReview, SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview,
/// SelfSubjectRulesReview or SelfSubjectReview: the object with its `status`. `namespace` is the path's.
///
/// # Errors
/// 400 or 422 for an object that makes no sense.
pub fn review(
    _cluster: &Cluster,
    _who: &Identity,
    _namespace: &str,
    _object: Value,
) -> Result<Value, Failure> {
    todo!("reviews")
}
