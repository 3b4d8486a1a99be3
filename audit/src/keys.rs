//! Ed25519 keys: one to sign with, any number to verify with.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use pem::{EncodeConfig, LineEnding, Pem};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hash::Sha256;

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

/// Which key: the first 8 bytes of the SHA-256 of its public half in DER (`SubjectPublicKeyInfo`). Written as 16
/// hexadecimal digits: `openssl pkey -pubin -outform DER | sha256sum | cut -c1-16`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut id = [0; 8];
        let text = String::deserialize(deserializer)?;
        match hex::decode_to_slice(&text, &mut id) {
            // One spelling only: nobody may change a letter unnoticed.
            Ok(()) if hex::encode(id) == text => Ok(Self(id)),
            _ => Err(de::Error::custom(
                "a key id is 16 lower-case hexadecimal digits",
            )),
        }
    }
}

/// Why a text is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not PEM.
    #[error("it is no PEM")]
    Pem(#[from] pem::PemError),
    /// It holds something else.
    #[error("it holds a {found:?}, not a {wanted:?}")]
    Tag {
        /// What it says it holds.
        found: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// What it holds is no Ed25519 key.
    #[error("it holds no Ed25519 key")]
    Key,
}

/// The private half. Its `Debug` shows which key it is and nothing more.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// A new one, of the operating system's randomness.
    ///
    /// # Panics
    /// If the system has none to give.
    #[must_use]
    pub fn generate() -> Self {
        let pair = Ed25519KeyPair::generate().expect("the system has randomness");
        Self::from_pair(pair).expect("a new key is an Ed25519 key")
    }

    /// From PKCS#8 in PEM.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der = der(text, PRIVATE)?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| Error::Key)?;
        Self::from_pair(pair)
    }

    /// As PKCS#8 in PEM. Secret.
    ///
    /// # Panics
    /// Never: the key was made or read by this type.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let der = self
            .pair
            .to_pkcs8v1()
            .expect("an Ed25519 key has a PKCS#8 form");
        encode(PRIVATE, der.as_ref())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.public.id
    }

    /// The signature of `message`: 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    fn from_pair(pair: Ed25519KeyPair) -> Result<Self, Error> {
        let der = pair.public_key().as_der().map_err(|_| Error::Key)?;
        let public = PublicKey::from_der(der.as_ref())?;
        Ok(Self { pair, public })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public.id).finish()
    }
}

/// The public half.
#[derive(Clone, Debug)]
pub struct PublicKey {
    id: KeyId,
    der: Vec<u8>,
    key: ParsedPublicKey,
}

impl PublicKey {
    /// From `SubjectPublicKeyInfo` in PEM.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        Self::from_der(&der(text, PUBLIC)?)
    }

    /// As `SubjectPublicKeyInfo` in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        encode(PUBLIC, self.der.as_slice())
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether `signature` is this key's, of `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }

    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let key = ParsedPublicKey::new(&ED25519, der).map_err(|_| Error::Key)?;
        // A bare 32-byte key parses, too; the id is of the standard form alone.
        if der.len() != SPKI_LENGTH {
            return Err(Error::Key);
        }
        let mut id = [0; 8];
        id.copy_from_slice(&Sha256::of(der).as_bytes()[..8]);
        Ok(Self {
            id: KeyId(id),
            der: der.to_vec(),
            key,
        })
    }
}

/// Bytes of an Ed25519 `SubjectPublicKeyInfo`: 12 of algorithm, 32 of key (RFC 8410).
const SPKI_LENGTH: usize = 44;

/// The keys somebody trusts.
#[derive(Clone, Debug, Default)]
pub struct KeySet(BTreeMap<KeyId, PublicKey>);

impl KeySet {
    /// Every public key in `text`, which is PEM blocks one after the other with anything between them.
    ///
    /// # Errors
    /// If a block is no public Ed25519 key.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        pem::parse_many(text)?
            .iter()
            .map(|block| match block.tag() {
                PUBLIC => PublicKey::from_der(block.contents()),
                tag => Err(Error::Tag {
                    found: tag.to_owned(),
                    wanted: PUBLIC,
                }),
            })
            .collect()
    }

    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&PublicKey> {
        self.0.get(&id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<PublicKey> for KeySet {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id, key)).collect())
    }
}

impl Extend<PublicKey> for KeySet {
    fn extend<I: IntoIterator<Item = PublicKey>>(&mut self, keys: I) {
        self.0.extend(keys.into_iter().map(|key| (key.id, key)));
    }
}

impl IntoIterator for KeySet {
    type Item = PublicKey;
    type IntoIter = std::collections::btree_map::IntoValues<KeyId, PublicKey>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values()
    }
}

/// One PEM block, as openssl writes it.
fn encode(tag: &str, der: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(tag, der), config)
}

/// The contents of the one PEM block in `text`.
fn der(text: &str, tag: &'static str) -> Result<Vec<u8>, Error> {
    let block = pem::parse(text)?;
    if block.tag() == tag {
        Ok(block.into_contents())
    } else {
        Err(Error::Tag {
            found: block.tag().to_owned(),
            wanted: tag,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem() {
        let key = SigningKey::generate();
        let again = SigningKey::from_pem(&key.to_pem()).unwrap();
        let public = PublicKey::from_pem(&key.public().to_pem()).unwrap();
        assert_eq!(again.id(), key.id());
        assert_eq!(public.id(), key.id());
        let signature = again.sign(b"message");
        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"massage", &signature));
    }

    #[test]
    fn the_id_is_what_openssl_and_sha256sum_say() {
        // RFC 8410, section 10.1.
        let public = "-----BEGIN PUBLIC KEY-----\n\
                      MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                      -----END PUBLIC KEY-----\n";
        let key = PublicKey::from_pem(public).unwrap();
        assert_eq!(key.id().to_string(), "a1e9156054e04fac");
        assert_eq!(key.to_pem(), public);
    }

    #[test]
    fn neither_half_passes_for_the_other() {
        let key = SigningKey::generate();
        assert!(matches!(
            SigningKey::from_pem(&key.public().to_pem()),
            Err(Error::Tag { .. })
        ));
        assert!(matches!(
            PublicKey::from_pem(&key.to_pem()),
            Err(Error::Tag { .. })
        ));
        assert!(matches!(
            KeySet::from_pem(&key.to_pem()),
            Err(Error::Tag { .. })
        ));
        assert!(matches!(SigningKey::from_pem("no key"), Err(Error::Pem(_))));
    }

    #[test]
    fn a_bundle_of_keys_is_read_whole() {
        let keys = [SigningKey::generate(), SigningKey::generate()];
        let bundle: String = keys.iter().map(|key| key.public().to_pem()).collect();
        let set = KeySet::from_pem(&format!("first and second\n{bundle}")).unwrap();
        assert_eq!(set.len(), 2);
        assert!(keys.iter().all(|key| set.get(key.id()).is_some()));
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let key = SigningKey::generate();
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.id()));
    }
}
