//! Client certificate, bearer token (header or WebSocket subprotocol), impersonation: a request's identity.

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use super::{ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED, account_of, rbac, tokens};
use crate::cluster::Cluster;
use crate::pki;
use crate::request::Attributes;
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
/// 400 for one that names no user.
pub fn authenticate(
    cluster: &Cluster,
    certificate: Option<&[u8]>,
    parts: &mut Parts,
) -> Result<Authenticated, Failure> {
    let sender = credential(cluster, certificate, parts)?;
    let (identity, impersonated_by) = match impersonated(cluster, &sender, &mut parts.headers)? {
        Some(wanted) => (wanted, Some(sender)),
        None => (sender, None),
    };
    Ok(Authenticated {
        identity,
        impersonated_by,
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
    let verify = |token: &str| match tokens::verify(cluster, token, &[]) {
        Ok(verified) => Ok(verified.identity),
        Err(why) => {
            // Why is for the log; whoever has no good token learns nothing.
            tracing::debug!(%why, "invalid bearer token");
            Err(Failure::unauthorized())
        }
    };
    let authorization = parts.headers.remove(AUTHORIZATION);
    if let Some((user, groups)) = certificate.and_then(pki::subject) {
        Ok(Identity::user(&user, groups))
    } else if let Some(token) = authorization
        .as_ref()
        .and_then(|value| bearer(value.to_str().ok()?))
    {
        verify(token)
    } else if let Some((token, others)) = subprotocol(&parts.headers)? {
        let others = others.parse().map_err(|_| Failure::unauthorized())?;
        parts.headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
        verify(&token)
    } else {
        Ok(Identity {
            username: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Identity::default()
        })
    }
}

/// The token of `Authorization: Bearer`; another scheme, or no token, is no credential.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, rest) = authorization.trim().split_once(' ')?;
    let token = rest.split(' ').next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token a WebSocket client offers as a subprotocol, and the other subprotocols, of which there must be one.
fn subprotocol(headers: &HeaderMap) -> Result<Option<(String, String)>, Failure> {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    if !upgrade.is_some_and(|value| value.trim().eq_ignore_ascii_case("websocket")) {
        return Ok(None);
    }
    let (mut tokens, mut others) = (Vec::new(), Vec::new());
    for line in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let line = line.to_str().map_err(|_| Failure::unauthorized())?;
        for item in line.split(',').map(str::trim) {
            match item.strip_prefix(BEARER) {
                None => others.push(item),
                Some("") => {}
                Some(token) => tokens.push(token),
            }
        }
    }
    let token = match tokens.as_slice() {
        [] => return Ok(None),
        [token] if !others.is_empty() => URL_SAFE_NO_PAD.decode(token).ok(),
        _ => None,
    };
    let token = token.and_then(|token| String::from_utf8(token).ok());
    let token = token.ok_or_else(Failure::unauthorized)?;
    Ok(Some((token, others.join(","))))
}

/// Whom the `Impersonate-*` headers name, if the sender may act as all of it; takes them out.
fn impersonated(
    cluster: &Cluster,
    sender: &Identity,
    headers: &mut HeaderMap,
) -> Result<Option<Identity>, Failure> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let mut wanted = Identity::default();
    let mut seen: Vec<HeaderName> = Vec::new();
    let may = |group: &str, namespace: &str, resource: &str, name: &str| {
        let what = Attributes::about("impersonate", group, namespace, resource, name);
        rbac::require(cluster, sender, &what)
    };
    for (name, value) in headers.iter() {
        let Some(part) = name.as_str().strip_prefix("impersonate-") else {
            continue;
        };
        seen.push(name.clone());
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if part == "user" {
            match account_of(&value) {
                Some((namespace, name)) => may("", namespace, "serviceaccounts", name)?,
                None => may("", "", "users", &value)?,
            }
            wanted.username = value;
        } else if part == "uid" {
            may(AUTHENTICATION, "", "uids", &value)?;
            wanted.uid = value;
        } else if part == "group" {
            may("", "", "groups", &value)?;
            wanted.groups.push(value);
        } else if let Some(key) = part.strip_prefix("extra-") {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            may(AUTHENTICATION, "", &format!("userextras/{key}"), &value)?;
            wanted.extra.entry(key).or_default().push(value);
        }
    }
    for name in &seen {
        headers.remove(name);
    }
    if wanted.username.is_empty() {
        let why = "requested an impersonation without impersonating a user name";
        let none = wanted == Identity::default();
        return none
            .then_some(None)
            .ok_or_else(|| Failure::bad_request(why));
    }
    // Groups named by the sender take the place of a ServiceAccount's own.
    if let Some((namespace, name)) = account_of(&wanted.username)
        && wanted.groups.is_empty()
    {
        wanted.groups = Identity::account(namespace, name, "").groups;
    }
    let anonymous = wanted.username == ANONYMOUS || wanted.is_in(UNAUTHENTICATED);
    wanted.join(if anonymous {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    });
    Ok(Some(wanted))
}
