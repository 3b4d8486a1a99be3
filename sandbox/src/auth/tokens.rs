//! ServiceAccount tokens: JWTs, bound to an account and perhaps to an object, good while both exist.

mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Identity;
use crate::cluster::Cluster;
use crate::object::{meta, uid};
use crate::store::Key;

pub use self::request::request;

/// Who signs, and the audience of the API server itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Seconds by which clocks may differ, and for which what is being deleted still counts.
const LEEWAY: i64 = 60;

/// The key tokens are signed with.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
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

#[derive(Deserialize, Serialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    nbf: i64,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

/// What a token is bound to.
#[derive(Deserialize, Serialize)]
struct Bound {
    namespace: String,
    /// By kind: `serviceaccount`, and perhaps `pod`, `secret` or `node`.
    #[serde(flatten)]
    objects: BTreeMap<String, Ref>,
}

#[derive(Deserialize, Serialize)]
struct Ref {
    name: String,
    uid: String,
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

    fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &self.encoding)
    }

    /// The claims of a token this key signed; times and the rest are not looked at.
    fn read(&self, token: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false; // by the sandbox's clock, later
        validation.validate_aud = false;
        jsonwebtoken::decode(token, &self.decoding, &validation).map(|data| data.claims)
    }
}

/// Checks a token for `audiences` (empty: the API server's own): signature, times by the sandbox's clock, account and
/// bound object still there with the same UID. Nothing is remembered: a token that is revoked is refused at once, where an
/// API server takes up to ten seconds.
///
/// # Errors
/// Why not, as TokenReview's `status.error` says it.
pub fn verify(cluster: &Cluster, token: &str, audiences: &[String]) -> Result<Verified, String> {
    let now = cluster.clock.now().as_second();
    let claims = cluster.tokens.read(token);
    let claims = claims.map_err(|error| format!("invalid bearer token: {error}"))?;
    let mut common = claims.aud;
    common.retain(|one| audiences.contains(one) || audiences.is_empty() && one == ISSUER);
    if common.is_empty() {
        return Err("the token is for other audiences".to_owned());
    }
    if now - LEEWAY > claims.exp || now + LEEWAY < claims.nbf {
        return Err("service account token has expired or is not valid yet".to_owned());
    }
    let Bound { namespace, objects } = &claims.bound;
    let account = objects.get("serviceaccount").ok_or("it is no account's")?;
    let mut identity = Identity::account(namespace, &account.name, &account.uid);
    let mut extra = |key: &str, value: String| {
        let key = format!("authentication.kubernetes.io/{key}");
        identity.extra.insert(key, vec![value]);
    };
    extra("credential-id", format!("JTI={}", claims.jti));
    for (kind, Ref { name, uid: same }) in objects {
        let namespace = if kind == "node" { "" } else { namespace };
        let found = cluster
            .store
            .get(&Key::new(&format!("{kind}s"), namespace, name));
        if !found.is_some_and(|found| uid(&found) == same && !gone(&found, now)) {
            return Err(format!(
                "service account token has been invalidated: {kind} {name:?} is not there any more"
            ));
        }
        if kind == "pod" || kind == "node" {
            extra(&format!("{kind}-name"), name.clone());
            extra(&format!("{kind}-uid"), same.clone());
        }
    }
    Ok(Verified {
        identity,
        audiences: common,
    })
}

/// Whether an object should have been deleted for a while.
fn gone(object: &Value, now: i64) -> bool {
    let at = meta(object, "deletionTimestamp").parse();
    at.is_ok_and(|at: jiff::Timestamp| at.as_second() < now - LEEWAY)
}
