//! Client certificate, bearer token (header or WebSocket subprotocol), impersonation: a request's identity.

#[cfg(test)]
mod tests;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};

use super::{ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED, account_of, rbac, tokens};
use crate::{cluster::Cluster, pki, request::Attributes, status::Failure};

/// What comes before a token that is offered as a WebSocket subprotocol.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

const OTHERS: &str = "only a user and groups can be impersonated here";

/// Who sent a request by his credential alone, as a kubelet sees it; `certificate` is what the client proved by TLS, in
/// DER. Takes the bearer subprotocol out, so that nobody answers with it.
///
/// # Errors
/// 401 for a credential that is no good; none at all is `system:anonymous`.
pub(crate) fn credential(
    cluster: &Cluster,
    certificate: Option<&[u8]>,
    headers: &mut HeaderMap,
) -> Result<Identity, Failure> {
    if let Some(identity) = certificate.and_then(pki::subject) {
        return Ok(identity);
    }
    let token = match bearer(headers) {
        None => subprotocol(headers)?,
        token => token,
    };
    let Some(token) = token else {
        return Ok(Identity {
            username: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Identity::default()
        });
    };
    let verified = tokens::verify(cluster, &token, &[]).map_err(|why| {
        // Why is for the log; whoever has no good token learns nothing.
        tracing::debug!(%why, "invalid bearer token");
        Failure::unauthorized()
    });
    Ok(verified?.0)
}

/// The token of `Authorization: Bearer`; another scheme, or no token, is no credential.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The token a WebSocket client offers as a subprotocol, of which there must be another one.
fn subprotocol(headers: &mut HeaderMap) -> Result<Option<String>, Failure> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    let lines = lines.join(",");
    let items = lines.split(',').map(str::trim);
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        items.partition(|item| item.len() > BEARER.len() && item.starts_with(BEARER));
    if tokens.is_empty() || !headers.contains_key(UPGRADE) {
        return Ok(None);
    }
    let token = URL_SAFE_NO_PAD.decode(&tokens[0][BEARER.len()..]).ok();
    let token = token.and_then(|token| String::from_utf8(token).ok());
    let others = HeaderValue::from_str(&others.join(",")).ok();
    let others = others.filter(|others| tokens.len() == 1 && !others.is_empty());
    let (token, others) = token.zip(others).ok_or_else(Failure::unauthorized)?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    Ok(Some(token))
}

/// Whom the `Impersonate-*` headers name, if the sender may act as all of it.
///
/// # Errors
/// 403 if he may not; 400 for headers that name no user, or something else of one.
pub(crate) fn impersonated(
    cluster: &Cluster,
    sender: &Identity,
    headers: &HeaderMap,
) -> Result<Option<Identity>, Failure> {
    let mut wanted = Identity::default();
    for (name, value) in headers {
        let Some(part) = name.as_str().strip_prefix("impersonate-") else {
            continue;
        };
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let (at, resource, name) = match (part, account_of(&value)) {
            ("user", Some((at, name))) => (at, "serviceaccounts", name),
            ("user", None) => ("", "users", &*value),
            ("group", _) => ("", "groups", &*value),
            _ => return Err(Failure::bad_request(OTHERS)),
        };
        let what = Attributes::about("impersonate", "", at, resource, name);
        rbac::require(cluster, sender, &what)?;
        match part {
            "user" => wanted.username = value,
            _ => wanted.groups.push(value),
        }
    }
    if wanted.username.is_empty() {
        let why = "requested an impersonation without impersonating a user name";
        let none = (wanted == Identity::default()).then_some(None);
        return none.ok_or_else(|| Failure::bad_request(why));
    }
    // Groups named by the sender take the place of a ServiceAccount's own.
    if let Some((namespace, name)) = account_of(&wanted.username)
        && wanted.groups.is_empty()
    {
        wanted.groups = Identity::account(namespace, name, "").groups;
    }
    let known = wanted.username != ANONYMOUS && !wanted.is_in(UNAUTHENTICATED);
    let everybody = [UNAUTHENTICATED, AUTHENTICATED][usize::from(known)];
    if !wanted.is_in(everybody) {
        wanted.groups.push(everybody.to_owned());
    }
    Ok(Some(wanted))
}
