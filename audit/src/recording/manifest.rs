//! The manifest: what a recording consists of, how it ended, and who vouches for it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bytes, End, Gap, Opening, Transfer};
use crate::dsse::{self, Envelope};
use crate::hash::Sha256;
use crate::keys::{KeyId, KeySet, SigningKey};

/// What a manifest's envelope says it holds.
pub const PAYLOAD_TYPE: &str = "application/vnd.drawbridge.recording.manifest.v1+json";

/// Everything about a finished recording but what happened in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The version of the format: [`VERSION`](super::VERSION).
    pub version: u32,
    /// What was known before the first byte.
    pub opening: Opening,
    /// When it ended: its beginning plus its duration.
    pub ended_at: Timestamp,
    /// How long it lasted, by a clock that nobody sets.
    pub duration_seconds: f64,
    /// Whether all of it is here.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How the session ended; unknown if the recorder ended before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Its segments, in order.
    pub segments: Vec<Segment>,
    /// The hash of the last chunk, which contains that of the one before, and so on; of the opening if there is none.
    pub chain_head: Sha256,
    /// How many bytes each stream carried, as far as the recorder knows.
    pub bytes: Bytes,
    /// The streams that are told by length, hash and beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transfers: Vec<Transfer>,
    /// Whether there may be others: the recorder ended before the streams did, whose hashes it took with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transfers_unknown: bool,
    /// What the recorder missed: one for each stream that misses something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Bytes of a last chunk that was not written to its end, and was cut off. 0 unless interrupted.
    #[serde(default)]
    pub cut: u64,
    /// Which gateway sealed it: after an interruption, another one than the opening's.
    pub sealed_by: String,
}

/// Whether a sealed recording tells the whole session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict")]
pub enum Verdict {
    /// From its beginning to its end.
    Complete,
    /// From its beginning, but not to its end.
    Interrupted {
        /// Why.
        reason: String,
    },
}

/// One segment: a file of chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The file's name.
    pub name: String,
    /// The file's length.
    pub bytes: u64,
    /// The file's hash.
    pub sha256: Sha256,
    /// How many chunks it holds.
    pub chunks: u32,
    /// How many lines they hold.
    pub lines: u64,
}

/// Why a manifest is none, or proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no JSON, or not what it should be.
    #[error("it does not parse")]
    Parse(#[from] serde_json::Error),
    /// Nobody trusted vouches for it.
    #[error(transparent)]
    Envelope(#[from] dsse::Error),
    /// It is of a version that this program does not know.
    #[error("it is of version {0}, which this program does not know")]
    Version(u32),
}

impl Manifest {
    /// The manifest in an envelope signed by `key`, as it lies in its file.
    ///
    /// # Panics
    /// Never: a manifest has a JSON form.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let payload = serde_json::to_vec(self).expect("a manifest has a JSON form");
        let envelope = Envelope::sign(PAYLOAD_TYPE, &payload, key);
        serde_json::to_vec(&envelope).expect("an envelope has a JSON form")
    }

    /// The manifest in `file` and the key that vouches for it.
    ///
    /// # Errors
    /// If it is no manifest, or none of `keys` vouches for it.
    pub fn verify(file: &[u8], keys: &KeySet) -> Result<(Self, KeyId), ManifestError> {
        let envelope: Envelope = serde_json::from_slice(file)?;
        let (payload, by) = envelope.verify(PAYLOAD_TYPE, keys)?;
        Ok((Self::from_payload(&payload)?, by))
    }

    /// The manifest in `file`, whoever wrote it. Proves nothing.
    ///
    /// # Errors
    /// If it is no manifest.
    pub fn read(file: &[u8]) -> Result<Self, ManifestError> {
        let envelope: Envelope = serde_json::from_slice(file)?;
        Self::from_payload(&envelope.payload()?)
    }

    fn from_payload(payload: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(payload)?;
        if manifest.version == super::VERSION {
            Ok(manifest)
        } else {
            Err(ManifestError::Version(manifest.version))
        }
    }
}
