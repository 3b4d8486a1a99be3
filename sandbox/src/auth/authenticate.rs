//! Client certificate, bearer token (header or WebSocket subprotocol), impersonation: a request's identity.

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use super::{ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED, account_of, rbac, tokens};
use crate::cluster::Cluster;
use crate::pki;
use crate::request::Attributes;
use crate::status::Failure;

/// What comes before a token that is offered as a WebSocket subprotocol.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

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
    let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    if !upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket")) {
        return Ok(None);
    }
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    let lines = lines.join(",");
    let items = lines.split(',').map(str::trim);
    let (tokens, others): (Vec<&str>, Vec<&str>) = items
        .filter(|item| *item != BEARER)
        .partition(|item| item.starts_with(BEARER));
    let [token] = tokens.as_slice() else {
        let none = tokens.is_empty().then_some(None);
        return none.ok_or_else(Failure::unauthorized);
    };
    let token = URL_SAFE_NO_PAD.decode(&token[BEARER.len()..]).ok();
    let token = token.and_then(|token| String::from_utf8(token).ok());
    match (token, HeaderValue::from_str(&others.join(","))) {
        (Some(token), Ok(others)) if !others.is_empty() => {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
            Ok(Some(token))
        }
        _ => Err(Failure::unauthorized()),
    }
}

/// Whom the `Impersonate-*` headers name, if the sender may act as all of it.
///
/// # Errors
/// 403 if he may not; 400 for headers that name no user.
pub(crate) fn impersonated(
    cluster: &Cluster,
    sender: &Identity,
    headers: &HeaderMap,
) -> Result<Option<Identity>, Failure> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let mut wanted = Identity::default();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let part = name.as_str().strip_prefix("impersonate-");
        let part = part.unwrap_or_default();
        let key = part.strip_prefix("extra-").map(percent_decode_str);
        let key = key.map(|key| key.decode_utf8_lossy().into_owned());
        let extra = format!("userextras/{}", key.as_deref().unwrap_or_default());
        let (group, at, resource, name) = match (part, account_of(&value), &key) {
            ("user", Some((at, name)), _) => ("", at, "serviceaccounts", name),
            ("user", ..) => ("", "", "users", &*value),
            ("group", ..) => ("", "", "groups", &*value),
            ("uid", ..) => (AUTHENTICATION, "", "uids", &*value),
            (_, _, Some(_)) => (AUTHENTICATION, "", &*extra, &*value),
            _ => continue,
        };
        let what = Attributes::about("impersonate", group, at, resource, name);
        rbac::require(cluster, sender, &what)?;
        match (part, key) {
            (_, Some(key)) => wanted.extra.entry(key).or_default().push(value),
            ("user", _) => wanted.username = value,
            ("group", _) => wanted.groups.push(value),
            _ => wanted.uid = value,
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
