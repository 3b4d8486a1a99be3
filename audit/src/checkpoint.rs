//! Checkpoints: signed statements about how far a chain has come. A chain without them could be written anew from any
//! line on; with them, only by who has the key.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dsse::{self, Envelope};
use crate::event::{Component, Type};
use crate::keys::{KeyId, KeySet, SigningKey};

/// The type of the payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.drawbridge.audit.checkpoint.v1+json";

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Which program.
    pub component: Component,
    /// Which run of it.
    pub instance: String,
    /// Place of the last line vouched for: the one before the line that holds the checkpoint.
    pub seq: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// The line that holds this, which no later line may vouch for: its event's id,
    pub id: Uuid,
    /// its time,
    pub time: Timestamp,
    /// and its type. A chain ends with `Stopped`.
    #[serde(rename = "type")]
    pub kind: Type,
}

/// Why a checkpoint vouches for nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not signed by whom we trust.
    #[error(transparent)]
    Envelope(#[from] dsse::Error),
    /// Signed, but no statement.
    #[error("what is signed is no statement about a chain")]
    Statement(#[from] serde_json::Error),
}

impl Statement {
    /// Signed with `key`.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Envelope {
        let payload = serde_json::to_vec(self).unwrap_or_default(); // plain fields: cannot fail
        Envelope::sign(PAYLOAD_TYPE, &payload, key)
    }

    /// What `envelope` says, and which of `keys` vouches for it.
    ///
    /// # Errors
    /// When none does, or it says something else.
    pub fn verify(envelope: &Envelope, keys: &KeySet) -> Result<(Self, KeyId), Error> {
        let (payload, key) = envelope.verify(PAYLOAD_TYPE, keys)?;
        Ok((serde_json::from_slice(&payload)?, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_vouched_for_by_its_key_alone() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let statement = Statement {
            component: Component::Gateway,
            instance: "gateway-0/1".into(),
            seq: 7,
            sha256: "00".repeat(32),
            id: Uuid::nil(),
            time: Timestamp::UNIX_EPOCH,
            kind: Type::Checkpoint,
        };
        let envelope = statement.sign(&key);
        let keys: KeySet = [key.public()].into_iter().collect();
        let (read, by) = Statement::verify(&envelope, &keys).expect("signed");
        assert_eq!((read, by), (statement, key.id()));
        let others: KeySet = [other.public()].into_iter().collect();
        assert!(Statement::verify(&envelope, &others).is_err());
        let about_a_recording = Envelope::sign("application/json", b"{}", &key);
        assert!(Statement::verify(&about_a_recording, &keys).is_err());
    }
}
