//! Encryption to recipients (age, <https://age-encryption.org>): the gateway cannot read what it wrote.

use std::fmt;
use std::io::{self, Read, Write};

use age::x25519;

use super::chunk::MAX_TEXT;

/// Why a recipient or an identity is none, or does not fit.
#[derive(Debug, thiserror::Error)]
pub enum CipherError {
    /// It is no age public key.
    #[error("{0:?} is no age recipient (age1…)")]
    Recipient(String),
    /// It is no age private key. Its text is not repeated.
    #[error("line {0} is no age identity (AGE-SECRET-KEY-1…)")]
    Identity(usize),
    /// What should be encrypted for us is not.
    #[error("it cannot be decrypted with the given identities")]
    Decrypt(#[from] age::DecryptError),
    /// What should be encrypted is not age's.
    #[error("it is no encrypted chunk")]
    Io(#[from] io::Error),
}

/// Who may read a recording.
#[derive(Clone, Debug, Default)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Of the public keys `texts` (`age1…`).
    ///
    /// # Errors
    /// If one is no public key.
    pub fn parse(texts: &[String]) -> Result<Self, CipherError> {
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| CipherError::Recipient(text.clone()))
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is nobody: then nothing is encrypted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn encrypt(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let recipients = self.0.iter().map(|recipient| recipient as _);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let mut writer = encryptor.wrap_output(Vec::new())?;
        writer.write_all(plain)?;
        writer.finish()
    }
}

/// The private keys of somebody who reads recordings. Their `Debug` shows how many there are.
#[derive(Clone, Default)]
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// None: for recordings that are not encrypted, and to verify those that are.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// From an identity file as `age-keygen` writes it: one key a line, `#` comments.
    ///
    /// # Errors
    /// If a line is neither.
    pub fn parse(text: &str) -> Result<Self, CipherError> {
        text.lines()
            .map(str::trim)
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(index, line)| line.parse().map_err(|_| CipherError::Identity(index + 1)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn decrypt(&self, cipher: &[u8]) -> Result<Vec<u8>, CipherError> {
        let identities = self.0.iter().map(|identity| identity as _);
        let reader = age::Decryptor::new_buffered(cipher)?.decrypt(identities)?;
        let mut plain = Vec::new();
        // What is inside is compressed, and compression never adds that much.
        reader.take(2 * MAX_TEXT as u64).read_to_end(&mut plain)?;
        Ok(plain)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}
