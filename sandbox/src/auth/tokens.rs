//! ServiceAccount tokens: JWTs, bound to an account and perhaps to an object, good while both exist.

mod request;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::Identity;

pub use self::request::request;
pub use self::verify::verify;

/// Who signs, and the audience of the API server itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Seconds for which a good token is not looked at again, as in the API server: who is revoked is out after these.
pub const CACHED: i64 = 10;

/// Tokens remembered at most; with more good ones within [`CACHED`] the rest are looked at every time.
const REMEMBERED: usize = 4096;

/// The key tokens are signed with, and those found good of late.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    id: String,
    good: Mutex<HashMap<Asked, Found>>,
}

/// A token and the audiences asked for.
type Asked = (String, Vec<String>);

/// Until when (seconds since 1970), and the answer.
type Found = (i64, Verified);

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
            id: uuid::Uuid::new_v4().to_string(),
            good: Mutex::default(),
        })
    }

    fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding)
    }

    /// The claims of a token this key signed; times and the rest are not looked at.
    fn read(&self, token: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false; // by the sandbox's clock, later
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode(token, &self.decoding, &validation).map(|data| data.claims)
    }

    /// What was found of a token within the last [`CACHED`] seconds.
    fn remembered(&self, token: &str, audiences: &[String], now: i64) -> Option<Verified> {
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, verified) = good.get(&(token.to_owned(), audiences.to_vec()))?;
        // A clock that was turned back makes nothing last longer.
        (now < *until && *until <= now + CACHED).then(|| verified.clone())
    }

    fn remember(&self, token: &str, audiences: &[String], now: i64, verified: &Verified) {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED {
            good.retain(|_, (until, _)| now < *until);
        }
        if good.len() < REMEMBERED {
            let key = (token.to_owned(), audiences.to_vec());
            good.insert(key, (now + CACHED, verified.clone()));
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Bound,
    nbf: i64,
    sub: String,
}

/// What a token is bound to.
#[derive(Debug, Deserialize, Serialize)]
struct Bound {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Ref>,
    serviceaccount: Ref,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Ref {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}
