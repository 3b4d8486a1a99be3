//! Client certificate, bearer token (header or WebSocket subprotocol), impersonation: a request's identity.

mod impersonate;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;

use super::{ANONYMOUS, Identity, UNAUTHENTICATED, tokens};
use crate::cluster::Cluster;
use crate::pki;
use crate::status::Failure;

/// What comes before a token that is offered as a WebSocket subprotocol.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// Whose a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who it is for.
    pub identity: Identity,
    /// Who sent it, if he acts for somebody else: for the audit log.
    pub impersonated_by: Option<Identity>,
}

/// Who sent a request, impersonation included; `certificate` is what the client proved by TLS, in DER. Takes the bearer
/// subprotocol and the `Authorization` and `Impersonate-*` headers out, as the API server does before it passes a request on.
///
/// # Errors
/// 401 for a credential that is no good (none at all is `system:anonymous`); 403 for an impersonation that is not allowed;
/// 400 for one that names no user, 500 before 1.36.
pub fn authenticate(
    cluster: &Cluster,
    certificate: Option<&[u8]>,
    parts: &mut Parts,
) -> Result<Authenticated, Failure> {
    let sender = credential(cluster, certificate, parts)?;
    let identity = impersonate::impersonate(cluster, &sender, parts)?;
    Ok(match identity {
        Some(identity) => Authenticated {
            identity,
            impersonated_by: Some(sender),
        },
        None => Authenticated {
            identity: sender,
            impersonated_by: None,
        },
    })
}

/// Who sent a request by his credential alone, as a kubelet sees it; `Impersonate-*` headers mean nothing to it. Takes
/// out what [`authenticate`] does of credentials.
///
/// # Errors
/// 401 for a credential that is no good.
pub fn credential(
    cluster: &Cluster,
    certificate: Option<&[u8]>,
    parts: &mut Parts,
) -> Result<Identity, Failure> {
    let identity = if let Some((user, groups)) = certificate.and_then(pki::subject) {
        Identity::user(&user, groups)
    } else if let Some(token) = header_token(&parts.headers) {
        check(cluster, &token)?
    } else if let Some((token, others)) = subprotocol_token(&parts.headers)? {
        let identity = check(cluster, &token)?;
        let others = others.parse().map_err(|_| Failure::unauthorized())?;
        parts.headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
        identity
    } else {
        Identity {
            username: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Identity::default()
        }
    };
    parts.headers.remove(AUTHORIZATION);
    Ok(identity)
}

fn check(cluster: &Cluster, token: &str) -> Result<Identity, Failure> {
    // Why is for the log; whoever has no good token learns nothing.
    tokens::verify(cluster, token, &[])
        .map(|verified| verified.identity)
        .map_err(|why| {
            tracing::debug!(%why, "invalid bearer token");
            Failure::unauthorized()
        })
}

/// The token of `Authorization: Bearer`; another scheme, or no token, is no credential.
fn header_token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.trim().split_once(' ')?;
    let token = rest.split(' ').next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The token a WebSocket client offers as a subprotocol, and the other subprotocols.
fn subprotocol_token(headers: &HeaderMap) -> Result<Option<(String, String)>, Failure> {
    if !is_websocket(headers) {
        return Ok(None);
    }
    let mut token = None;
    let mut others: Vec<&str> = Vec::new();
    for line in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let line = line.to_str().map_err(|_| Failure::unauthorized())?;
        for item in line.split(',').map(str::trim) {
            match item.strip_prefix(BEARER) {
                None => others.push(item),
                Some(encoded) => {
                    let decoded = URL_SAFE_NO_PAD.decode(encoded).ok();
                    let decoded = decoded.and_then(|raw| String::from_utf8(raw).ok());
                    let one = decoded.ok_or_else(Failure::unauthorized)?;
                    if token.replace(one).is_some() {
                        return Err(Failure::unauthorized());
                    }
                }
            }
        }
    }
    match token {
        Some(token) if !token.is_empty() => {
            if others.is_empty() {
                return Err(Failure::unauthorized());
            }
            Ok(Some((token, others.join(","))))
        }
        _ => Ok(None),
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let lists = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(wanted))
    };
    lists(CONNECTION, "upgrade") && lists(UPGRADE, "websocket")
}
