//! ServiceAccount tokens: JWTs, bound to an account and perhaps to an object, good while both exist.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{ACCOUNT, Identity};
use crate::status::{Cause, Failure};
use crate::{cluster::Cluster, object::uid, store::Key};

/// Who signs, and the audience of the API server itself.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Seconds by which clocks may differ.
const LEEWAY: i64 = 60;
/// Seconds a token may be good for: ten minutes to 2³² seconds, an hour if nobody says.
const SECONDS: std::ops::RangeInclusive<i64> = 600..=0x1_0000_0000;
const DEFAULT: i64 = 3600;

/// The key tokens are signed with.
#[derive(Debug)]
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Tokens {
    /// A key of its own.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn new() -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(key.serialize_pem().as_bytes())?,
            decoding: DecodingKey::from_ec_pem(key.public_key_pem().as_bytes())?,
        })
    }
}

/// Checks a token for `audiences` (empty: the API server's own): signature, times by the sandbox's clock, account and
/// bound object still there with the same UID. Returns whose it is, with `extra` for what it is bound to, and which of the
/// audiences it is good for. Nothing is remembered: a token that is revoked is refused at once, where an API server takes
/// up to ten seconds.
///
/// # Errors
/// Why not, as TokenReview's `status.error` says it.
pub(crate) fn verify(
    cluster: &Cluster,
    token: &str,
    audiences: &[String],
) -> Result<(Identity, Vec<String>), String> {
    let now = cluster.clock.now().as_second();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_exp = false; // by the sandbox's clock, below
    validation.validate_aud = false;
    let claims = jsonwebtoken::decode::<Value>(token, &cluster.tokens.decoding, &validation);
    let claims = claims.map_err(|error| format!("invalid bearer token: {error}"))?;
    // What this key signed has the form that `request` gave it.
    let claims = claims.claims;
    let mut common: Vec<String> = Vec::deserialize(&claims["aud"]).unwrap_or_default();
    common.retain(|one| audiences.contains(one) || audiences.is_empty() && one == ISSUER);
    if common.is_empty() {
        return Err("the token is for other audiences".to_owned());
    }
    let time = |claim: &str| claims[claim].as_i64().unwrap_or_default();
    if now - LEEWAY > time("exp") || now + LEEWAY < time("nbf") {
        return Err("service account token has expired or is not valid yet".to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bound = &claims["kubernetes.io"];
    let namespace = text(&bound["namespace"]);
    let account = &bound["serviceaccount"];
    let mut identity =
        Identity::account(&namespace, &text(&account["name"]), &text(&account["uid"]));
    let mut extra = |key: &str, value: String| {
        let key = format!("authentication.kubernetes.io/{key}");
        identity.extra.insert(key, vec![value]);
    };
    extra("credential-id", format!("JTI={}", text(&claims["jti"])));
    let objects = bound.as_object().into_iter().flatten();
    for (kind, reference) in objects.filter(|(_, one)| one.is_object()) {
        let (name, same) = (text(&reference["name"]), text(&reference["uid"]));
        let found = find(cluster, kind, &namespace, &name);
        if !found.is_ok_and(|found| uid(&found) == same) {
            return Err(format!(
                "service account token has been invalidated: {kind} {name:?} is not there any more"
            ));
        }
        if kind == "pod" || kind == "node" {
            extra(&format!("{kind}-name"), name);
            extra(&format!("{kind}-uid"), same);
        }
    }
    Ok((identity, common))
}

/// The object of a kind (in lower case) that tokens are bound to.
fn find(cluster: &Cluster, kind: &str, at: &str, name: &str) -> Result<Arc<Value>, Failure> {
    let (resource, at) = (format!("{kind}s"), if kind == "node" { "" } else { at });
    let found = cluster.store.get(&Key::new(&resource, at, name));
    found.ok_or_else(|| Failure::not_found("", &resource, name))
}

/// Answers `POST …/serviceaccounts/{name}/token` with a TokenRequest.
///
/// # Errors
/// 404 for an account or a bound object that is not there; 409 for one of another UID; 422 for an expiry under 600 s or
/// over 2³² s; 400 for what is no TokenRequest, and for an object that tokens cannot be bound to.
pub(crate) fn request(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    mut request: Value,
) -> Result<Value, Failure> {
    json_patch::merge(&mut request, &json!({"spec": {}}));
    let spec = TokenRequestSpec::deserialize(&request["spec"]);
    let mut spec = spec.map_err(|error| Failure::bad_request(error.to_string()))?;
    let there = find(cluster, "serviceaccount", namespace, account)?;
    let seconds = *spec.expiration_seconds.get_or_insert(DEFAULT);
    if !SECONDS.contains(&seconds) {
        let why = format!("Invalid value: {seconds}: must be 10 minutes to 2^32 seconds");
        let cause = Cause::new("FieldValueInvalid", "spec.expirationSeconds", why);
        let group = "authentication.k8s.io";
        return Err(Failure::invalid(group, "TokenRequest", "", &[cause]));
    }
    let there = json!({"name": account, "uid": uid(&there)});
    let mut objects = json!({"namespace": namespace, "serviceaccount": there});
    if let Some(reference) = spec.bound_object_ref.clone() {
        let kind = reference.kind.unwrap_or_default();
        let name = reference.name.unwrap_or_default();
        if !["Pod", "Secret", "Node"].contains(&&*kind) {
            let version = reference.api_version.unwrap_or_default();
            let why = format!("cannot bind token to object of type /{version}, Kind={kind}");
            return Err(Failure::bad_request(why));
        }
        let lower = kind.to_lowercase();
        let object = find(cluster, &lower, namespace, &name)?;
        if kind == "Pod" && object["spec"]["serviceAccountName"] != account {
            let other = "to pod running with different serviceaccount name.";
            let why = format!("cannot bind token for serviceaccount {account:?} {other}");
            return Err(Failure::bad_request(why));
        }
        let same = reference.uid.unwrap_or_default();
        if !same.is_empty() && same != uid(&object) {
            let other = "does not match the UID in record";
            let why = format!("the UID in the bound object reference ({same}) {other}");
            return Err(Failure::conflict("", &kind, &name, &why));
        }
        objects[lower] = json!({"name": name, "uid": uid(&object)});
    }
    if spec.audiences.is_empty() {
        spec.audiences.push(ISSUER.to_owned());
    }
    let now = cluster.clock.now();
    let (begin, end) = (now.as_second(), now.as_second() + seconds);
    let claims = json!({
        "aud": spec.audiences, "exp": end, "iat": begin, "nbf": begin, "iss": ISSUER,
        "jti": uuid::Uuid::new_v4().to_string(), "sub": format!("{ACCOUNT}{namespace}:{account}"),
        "kubernetes.io": objects,
    });
    let header = Header::new(Algorithm::ES256);
    let token = jsonwebtoken::encode(&header, &claims, &cluster.tokens.encoding);
    let token = token.map_err(|error| Failure::new(500, error.to_string()))?;
    let end = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
    let answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec,
        "metadata": {"name": account, "namespace": namespace, "creationTimestamp": format!("{now:.0}")},
        "status": {"token": token, "expirationTimestamp": end},
    });
    json_patch::merge(&mut request, &answer);
    Ok(request)
}
