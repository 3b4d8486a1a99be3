//! The one credential of a request: a bearer token in `Authorization`, or among the subprotocols. Pure.
//!
//! If both are there, `Authorization` counts, as it does at a Kubernetes API server. Neither is ever passed on.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use drawbridge_crds::names;
use drawbridge_protocol::subprotocol::{Bearer, Offer};
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use serde::Deserialize;

use crate::refusal::{Kind, Refusal};

/// Longest token taken, in bytes. Session tokens have about 1 KiB; the subprotocol has room for 12.
const MAX_TOKEN: usize = 12 * 1024;

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// What the subprotocol headers say.
///
/// # Errors
/// 401 for what is wrong about a token, 400 for too many or too long ones.
pub fn offer(headers: &HeaderMap) -> Result<Offer, Refusal> {
    let lines = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .map(http::HeaderValue::as_bytes);
    Offer::parse(lines).map_err(|error| {
        let kind = if error.is_about_bearer() {
            Kind::Unauthenticated
        } else {
            Kind::Malformed
        };
        Refusal::new(kind, error.to_string())
    })
}

/// A token, and whose it says it is. Nothing is proved yet.
#[derive(Debug)]
pub struct Claim {
    /// The token.
    pub token: Bearer,
    /// UID of the session whose account it names as its subject.
    pub session: String,
}

/// The token of a request, of the right shape to belong to a session of `sessions_namespace`.
///
/// A session token is a JWT whose subject is the session's account. Reading that before anybody is asked lets the gate
/// refuse tokens of sessions that do not exist at no cost to the API server; guessing one that does takes a UID.
///
/// # Errors
/// 401, saying what is missing.
pub fn token(
    headers: &HeaderMap,
    offer: &Offer,
    sessions_namespace: &str,
) -> Result<Claim, Refusal> {
    match read(headers, offer, sessions_namespace)? {
        Credential::Session(claim) => Ok(claim),
        Credential::Other(_) => Err(unauthenticated(
            "this is not a session's token: take it from the Secret that the session's status names",
        )),
    }
}

/// A token of whatever kind. Nothing is proved yet.
#[derive(Debug)]
pub enum Credential {
    /// Of the shape of a session's.
    Session(Claim),
    /// Any other: an ordinary identity's, if it is any.
    Other(Bearer),
}

/// The token of a request.
///
/// # Errors
/// 401, when there is none, or what is there is none.
pub fn read(
    headers: &HeaderMap,
    offer: &Offer,
    sessions_namespace: &str,
) -> Result<Credential, Refusal> {
    let token = match authorization(headers)? {
        Some(token) => token,
        None => offer.bearer.clone().ok_or_else(|| {
            unauthenticated("no token: send the session's token as `Authorization: Bearer …`")
        })?,
    };
    if token.expose().len() > MAX_TOKEN {
        return Err(unauthenticated(
            "the token is longer than any that is taken",
        ));
    }
    Ok(match claimed(token.expose(), sessions_namespace) {
        Some(session) => Credential::Session(Claim { token, session }),
        None => Credential::Other(token),
    })
}

fn authorization(headers: &HeaderMap) -> Result<Option<Bearer>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(unauthenticated(
            "more than one Authorization header: send one",
        ));
    }
    let malformed =
        || unauthenticated("the Authorization header is not of the form `Bearer TOKEN`");
    let (scheme, token) = value
        .to_str()
        .map_err(|_| malformed())?
        .trim_ascii()
        .split_once(' ')
        .ok_or_else(malformed)?;
    let token = token.trim_ascii();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(malformed());
    }
    Ok(Some(Bearer::from(token.to_owned())))
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

/// The session whose account a token says it is of. It may lie.
fn claimed(token: &str, sessions_namespace: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if header.is_empty() || signature.is_empty() || parts.next().is_some() {
        return None;
    }
    let json = BASE64.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&json).ok()?;
    names::session_uid(sessions_namespace, &claims.sub).map(str::to_owned)
}

fn unauthenticated(message: &'static str) -> Refusal {
    Refusal::new(Kind::Unauthenticated, message)
}

#[cfg(test)]
pub(crate) mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// A token that claims to be of the session with this UID. `seal` stands for the signature.
    pub(crate) fn jwt(uid: &str, seal: &str) -> String {
        let sub = names::account_username(names::SESSIONS_NAMESPACE, uid);
        let claims = serde_json::json!({"sub": sub, "aud": [names::TOKEN_AUDIENCE]}).to_string();
        format!("{}.{}.{seal}", BASE64.encode("{}"), BASE64.encode(claims))
    }

    fn find(authorization: &[&str], protocols: &[&str]) -> Result<String, (u16, String)> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(
                AUTHORIZATION,
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        for value in protocols {
            headers.append(SEC_WEBSOCKET_PROTOCOL, value.parse().expect("a value"));
        }
        let found =
            offer(&headers).and_then(|offer| token(&headers, &offer, names::SESSIONS_NAMESPACE));
        found
            .map(|claim| {
                assert_eq!(claim.session, "6f1c");
                claim.token.expose().to_owned()
            })
            .map_err(|refusal| (refusal.code(), refusal.public().to_owned()))
    }

    #[test]
    fn a_token_is_found_in_either_place_and_authorization_goes_first() {
        let (one, two) = (jwt("6f1c", "one"), jwt("6f1c", "two"));
        let item = format!(
            "base64url.bearer.authorization.k8s.io.{}, v4.channel.k8s.io",
            BASE64.encode(&two)
        );
        let header = format!("Bearer {one}");
        assert_eq!(find(&[&header], &[]), Ok(one.clone()));
        assert_eq!(find(&[&format!("bEARER   {one} ")], &[]), Ok(one.clone()));
        assert_eq!(find(&[], &[&item]), Ok(two));
        assert_eq!(find(&[&header], &[&item]), Ok(one));
    }

    #[test]
    fn everything_else_is_unauthenticated() {
        let good = jwt("6f1c", "s");
        let header = format!("Bearer {good}");
        let item = format!(
            "base64url.bearer.authorization.k8s.io.{}",
            BASE64.encode(&good)
        );
        let other = format!(
            "{}.{}.s",
            BASE64.encode("{}"),
            BASE64.encode(r#"{"sub":"system:serviceaccount:default:cs-1"}"#)
        );
        let long = jwt("6f1c", &"s".repeat(MAX_TOKEN));
        for (authorization, protocols) in [
            (&[][..], &[][..]),
            (&[], &["v4.channel.k8s.io"]),
            (
                &[],
                &["base64url.bearer.authorization.k8s.io., v4.channel.k8s.io"],
            ),
            (&[], &[item.as_str()]),
            (&[], &[item.as_str(), item.as_str(), "v4.channel.k8s.io"]),
            (
                &[],
                &["base64url.bearer.authorization.k8s.io.a=, v4.channel.k8s.io"],
            ),
            (&[header.as_str(), header.as_str()], &[]),
            (&["Basic YTpi"], &[]),
            (&["Bearer"], &[]),
            (&["Bearer "], &[]),
            (&["Bearer \u{e9}"], &[]),
            (&["Bearer garbage"], &[]),
            (&["Bearer a.b.c"], &[]),
            (&[&format!("Bearer {other}")], &[]),
            (&[&format!("{header}.more")], &[]),
            (&[&format!("Bearer {long}")], &[]),
        ] {
            let (code, text) = find(authorization, protocols).expect_err("refused");
            assert_eq!(code, 401, "{authorization:?} {protocols:?}: {text}");
            assert!(!text.contains(&good[..20]), "the token is not repeated");
        }
    }

    #[test]
    fn a_flood_of_subprotocols_is_malformed() {
        let many = "x,".repeat(100);
        assert_eq!(find(&[], &[&many]).expect_err("refused").0, 400);
    }

    proptest! {
        #[test]
        fn no_header_value_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.insert(AUTHORIZATION, value.clone());
                headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
            }
            let _ = offer(&headers).and_then(|offer| token(&headers, &offer, names::SESSIONS_NAMESPACE));
        }
    }
}
