//! ServiceAccount tokens: JWTs, bound to an account and perhaps to an object, good while both exist.

use serde_json::Value;

use super::Identity;
use crate::cluster::Cluster;
use crate::status::Failure;

/// The key tokens are signed with, and the issuer's name.
pub struct Tokens {}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// A key of its own.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn new() -> anyhow::Result<Self> {
        todo!("tokens")
    }
}

/// What a token says, once everything about it was checked.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Whose it is, with `extra` for what it is bound to.
    pub identity: Identity,
    /// Of those asked for, the ones it is good for.
    pub audiences: Vec<String>,
}

/// Checks a token for `audiences` (empty: the API server's own): signature, times by the sandbox's clock, account and
/// bound object still there with the same UID.
///
/// # Errors
/// Why not, as TokenReview's `status.error` says it.
pub fn verify(_cluster: &Cluster, _token: &str, _audiences: &[String]) -> Result<Verified, String> {
    todo!("tokens")
}

/// Answers `POST …/serviceaccounts/{name}/token` with a TokenRequest.
///
/// # Errors
/// 404 for an account that is not there; 409 or 422 for a bound object that is not there or of another UID, or an expiry
/// under 600 s.
pub fn request(
    _cluster: &Cluster,
    _namespace: &str,
    _account: &str,
    _request: Value,
) -> Result<Value, Failure> {
    todo!("tokens")
}
