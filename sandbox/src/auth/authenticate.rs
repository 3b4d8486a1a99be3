//! Client certificate, bearer token (header or WebSocket subprotocol), impersonation: a request's identity.

use http::request::Parts;

use super::Identity;
use crate::cluster::Cluster;
use crate::status::Failure;

/// Who sent a request, impersonation included; `certificate` is what the client proved by TLS, in DER. Takes the bearer
/// subprotocol and the `Authorization` and `Impersonate-*` headers out, as the API server does before it passes a request on.
///
/// # Errors
/// 401 for a credential that is no good (none at all is `system:anonymous`); 403 for an impersonation that is not allowed.
pub fn authenticate(
    _cluster: &Cluster,
    _certificate: Option<&[u8]>,
    _parts: &mut Parts,
) -> Result<Identity, Failure> {
    todo!("auth")
}
