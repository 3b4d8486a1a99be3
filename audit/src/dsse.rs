//! Signed envelopes (DSSE, <https://github.com/secure-systems-lab/dsse>): a payload, its type, and who vouches for both.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::keys::{KeyId, KeySet, SigningKey};

/// An envelope, as it lies in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// What the payload is; signed along with it, so that one kind of statement cannot be passed off as another.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The payload in base64.
    pub payload: String,
    /// Who vouches for it. Ours have one.
    pub signatures: Vec<Signature>,
}

/// One signature of an [`Envelope`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Which key made it.
    pub keyid: KeyId,
    /// The Ed25519 signature in base64.
    pub sig: String,
}

/// Why an envelope proves nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is about something else.
    #[error("the payload is of type {found:?}, not {wanted:?}")]
    Type {
        /// What it says it is.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The payload or a signature is no base64.
    #[error("the {0} is no base64")]
    Base64(&'static str),
    /// None of its signatures is by a trusted key.
    #[error("it is signed by none of the trusted keys, but by {}", names(.0))]
    Untrusted(Vec<KeyId>),
    /// A trusted key's signature is not by that key.
    #[error("the signature by key {0} is wrong")]
    Forged(KeyId),
}

fn names(ids: &[KeyId]) -> String {
    if ids.is_empty() {
        return "nobody".to_owned();
    }
    let names: Vec<String> = ids.iter().map(KeyId::to_string).collect();
    names.join(", ")
}

impl Envelope {
    /// `payload` of type `payload_type`, signed by `key`.
    #[must_use]
    pub fn sign(payload_type: &str, payload: &[u8], key: &SigningKey) -> Self {
        let signature = key.sign(&pre_authentication(payload_type, payload));
        Self {
            payload_type: payload_type.to_owned(),
            payload: BASE64.encode(payload),
            signatures: vec![Signature {
                keyid: key.id(),
                sig: BASE64.encode(signature),
            }],
        }
    }

    /// The payload and the key that vouches for it. Every signature by a trusted key must be right, and there must be
    /// one; signatures by unknown keys count for nothing.
    ///
    /// # Errors
    /// If the envelope is of another type, or no trusted key vouches for it.
    pub fn verify(
        &self,
        payload_type: &'static str,
        keys: &KeySet,
    ) -> Result<(Vec<u8>, KeyId), Error> {
        if self.payload_type != payload_type {
            return Err(Error::Type {
                found: self.payload_type.clone(),
                wanted: payload_type,
            });
        }
        let payload = self.payload()?;
        let signed = pre_authentication(payload_type, &payload);
        let mut by = None;
        for Signature { keyid, sig } in &self.signatures {
            let Some(key) = keys.get(*keyid) else {
                continue;
            };
            let sig = BASE64.decode(sig).map_err(|_| Error::Base64("signature"))?;
            if !key.verify(&signed, &sig) {
                return Err(Error::Forged(*keyid));
            }
            by.get_or_insert(*keyid);
        }
        match by {
            Some(by) => Ok((payload, by)),
            None => Err(Error::Untrusted(
                self.signatures.iter().map(|s| s.keyid).collect(),
            )),
        }
    }

    /// The payload, whoever wrote it. Proves nothing.
    ///
    /// # Errors
    /// If it is no base64.
    pub fn payload(&self) -> Result<Vec<u8>, Error> {
        BASE64
            .decode(&self.payload)
            .map_err(|_| Error::Base64("payload"))
    }
}

/// What is signed: DSSE's pre-authentication encoding, which leaves no doubt where the type ends and the payload begins.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut signed = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    signed.extend_from_slice(payload);
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.example+json";

    #[test]
    fn what_is_signed_is_laid_out_as_the_standard_says() {
        assert_eq!(
            pre_authentication("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn a_signature_by_a_trusted_key_is_believed_and_no_other() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let envelope = Envelope::sign(TYPE, b"{}", &key);
        let trusted: KeySet = [key.public()].into_iter().collect();
        assert_eq!(
            envelope.verify(TYPE, &trusted),
            Ok((b"{}".to_vec(), key.id()))
        );
        let others: KeySet = [other.public()].into_iter().collect();
        assert_eq!(
            envelope.verify(TYPE, &others),
            Err(Error::Untrusted(vec![key.id()]))
        );
    }

    #[test]
    fn another_payload_type_or_signature_is_a_forgery() {
        let key = SigningKey::generate();
        let trusted: KeySet = [key.public()].into_iter().collect();
        let mut envelope = Envelope::sign(TYPE, b"{}", &key);
        assert!(matches!(
            envelope.verify("application/json", &trusted),
            Err(Error::Type { .. })
        ));
        envelope.payload = BASE64.encode(b"[]");
        assert_eq!(
            envelope.verify(TYPE, &trusted),
            Err(Error::Forged(key.id()))
        );
        envelope.payload = "?".to_owned();
        assert_eq!(
            envelope.verify(TYPE, &trusted),
            Err(Error::Base64("payload"))
        );
    }
}
