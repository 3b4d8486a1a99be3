//! What lies in the store of recordings, read for those who may look.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use drawbridge_audit::keys::KeySet;
use drawbridge_audit::recording::{Broken, MANIFEST, Manifest, Opening, Verdict};
use drawbridge_audit::store::{self, Store};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tracing::warn;
use uuid::Uuid;

use super::Watched;
use super::proof::{self, Keys, Proof};
use crate::body::Pieces;

/// Recordings told of one session: the newest.
const MAX_LISTED: usize = 64;
/// Recordings of one session that are looked for at all; a session has few.
const MAX_FOUND: usize = 100_000;
/// Manifests read at the same time.
const READ_AHEAD: usize = 8;
/// Longest manifest read, in bytes: a line for each of 50,000 segments.
const MAX_MANIFEST: u64 = 8 << 20;
/// Longest segment read, in bytes. They are closed at 1 MiB, and the last message may be of 4.
const MAX_SEGMENT: u64 = 16 << 20;
/// Bytes of a cast that are sent at once.
const PIECE: usize = 64 * 1024;
/// Pieces that may wait for a client.
const PIECES: usize = 4;
/// A client that takes nothing for so long is given up.
const STALL: Duration = Duration::from_mins(1);

/// Reads recordings out of a store.
#[derive(Clone, Debug)]
pub struct Library {
    store: Store,
    keys: Keys,
}

/// Why something could not be read. The texts are for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("failed to read the store of recordings")]
    Store(#[from] store::Error),
    /// It was changed, or is damaged.
    #[error("recording {0} is broken: {1}")]
    Broken(Uuid, Broken),
    /// Not even its beginning can be shown.
    #[error("recording {0} cannot be read from its first segment on")]
    Unreadable(Uuid, #[source] io::Error),
    /// There is none.
    #[error("there is no recording {0}")]
    NotFound(Uuid),
    /// Only the holder of a key can read it.
    #[error("recording {0} is encrypted")]
    Encrypted(Uuid),
}

/// One recording, as the list tells it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its id.
    pub id: Uuid,
    /// `Complete` or `Interrupted`, if a published key vouches for that; `Unverified` if none does; `Broken`; `Open`; or
    /// `Unsealed`: not finished yet, or its gateway ended and no other has taken it over.
    pub state: &'static str,
    /// Why it is interrupted, unverified or broken, and where.
    pub reason: Option<String>,
    /// The key that vouches for it.
    pub signed_by: Option<String>,
    /// Where it lies, once it is sealed.
    pub location: Option<String>,
    /// Whether it can be followed here, now.
    pub live: bool,
    /// What its manifest tells; nothing before it is sealed.
    #[serde(flatten)]
    pub facts: Option<serde_json::Value>,
}

/// The files of one recording.
#[derive(Debug, Default)]
struct Files {
    manifest: bool,
    /// Names and lengths.
    segments: BTreeMap<String, u64>,
}

impl Library {
    /// Reads out of `store`, and believes `keys`.
    #[must_use]
    pub fn new(store: Store, keys: Keys) -> Self {
        Self { store, keys }
    }

    /// The recordings of a session, newest first, and whether there are more.
    ///
    /// # Errors
    /// When the store fails. A manifest that cannot be read is told as such, and hides no other.
    pub async fn list(&self, of: &Watched) -> Result<(Vec<Item>, bool), Error> {
        let found = self.files(&directory(of)).await?;
        let more = found.len() > MAX_LISTED;
        // The ids begin with the time.
        let newest = found.into_iter().rev().take(MAX_LISTED);
        let keys = &self.keys().await;
        let items = stream::iter(newest).map(|(id, files)| async move {
            if !files.manifest {
                return Item::unsealed(id);
            }
            let item = match self.manifest(of, id, keys, &files.segments).await {
                Ok((manifest, proof)) => Item::sealed(id, &manifest, proof),
                Err(Error::Broken(_, broken)) => {
                    warn!(%id, %broken, "a recording is broken");
                    Item {
                        state: "Broken",
                        reason: Some(broken.to_string()),
                        ..Item::unsealed(id)
                    }
                }
                Err(error) => {
                    warn!(%id, error = &error as &dyn std::error::Error, "a manifest could not be read");
                    Item {
                        reason: Some("its manifest cannot be read".to_owned()),
                        ..Item::unsealed(id)
                    }
                }
            };
            Item {
                location: Some(self.store.location(&format!("{}/{id}", directory(of)))),
                ..item
            }
        });
        Ok((items.buffered(READ_AHEAD).collect().await, more))
    }

    async fn keys(&self) -> Result<KeySet, String> {
        let keys = self.keys.read().await;
        keys.inspect_err(|error| {
            warn!(
                error,
                "the keys that recordings are signed with cannot be read"
            );
        })
    }

    /// What the manifest of a recording says, and who vouches for it.
    async fn manifest(
        &self,
        of: &Watched,
        id: Uuid,
        keys: &Result<KeySet, String>,
        segments: &BTreeMap<String, u64>,
    ) -> Result<(Manifest, Proof), Error> {
        let file = self.manifest_file(of, id).await?;
        proof::check(&file, keys, of, id, segments).map_err(|broken| Error::Broken(id, broken))
    }

    /// The manifest's file: an envelope with its signatures, for whoever verifies it.
    ///
    /// # Errors
    /// When there is none (yet), or the store fails.
    pub async fn manifest_file(&self, of: &Watched, id: Uuid) -> Result<Bytes, Error> {
        let key = format!("{}/{id}/{MANIFEST}", directory(of));
        self.store
            .get(&key, MAX_MANIFEST)
            .await
            .map_err(|error| match error {
                error if error.is_not_found() => Error::NotFound(id),
                error => error.into(),
            })
    }

    /// What happened, as one asciicast file, piece by piece; of an unsealed recording as much as is there. It breaks off
    /// with an error where a segment is not what the manifest says.
    ///
    /// # Errors
    /// When there is nothing of it, it is encrypted, its manifest or its first segment is broken, or the store fails.
    pub async fn cast(&self, of: &Watched, id: Uuid) -> Result<Pieces, Error> {
        let directory = format!("{}/{id}", directory(of));
        let files = self.files(&directory).await?.remove(&id);
        let files = files.ok_or(Error::NotFound(id))?;
        let mut expected = HashMap::new();
        if files.manifest {
            let keys = self.keys().await;
            let (manifest, _) = self.manifest(of, id, &keys, &files.segments).await?;
            if !manifest.opening.settings.recipients.is_empty() {
                return Err(Error::Encrypted(id));
            }
            // Every segment the manifest names, in its order: one that is gone ends the replay.
            for segment in &manifest.segments {
                expected.insert(segment.name.clone(), segment.sha256);
            }
        }
        let names: Vec<String> = files.segments.into_keys().collect(); // those of the manifest, if there is one
        let sealed = files.manifest;
        let (pieces, mut received) = mpsc::channel(PIECES);
        let store = self.store.clone();
        tokio::spawn(async move {
            for name in names {
                let told = expected.get(&name);
                let segment = match store.get(&format!("{directory}/{name}"), MAX_SEGMENT).await {
                    Ok(segment) => segment,
                    Err(error) => {
                        warn!(%id, name, error = &error as &dyn std::error::Error, "a replay breaks off");
                        return send(&pieces, Err(io::Error::other(error))).await;
                    }
                };
                let is = Sha256::digest(&segment);
                if sealed && told.is_none_or(|told| told.as_bytes()[..] != is[..]) {
                    warn!(%id, name, "a replay breaks off: the segment is not the one its manifest names");
                    let error = io::Error::other("a segment is not the one its manifest names");
                    return send(&pieces, Err(error)).await;
                }
                if !unpack(segment, &pieces).await {
                    return;
                }
            }
        });
        // What is broken from the start is refused, not begun.
        let first = received.recv().await.transpose();
        let first = first.map_err(|error| Error::Unreadable(id, error))?;
        Ok(Pieces::new(first, received))
    }

    async fn files(&self, directory: &str) -> Result<BTreeMap<Uuid, Files>, Error> {
        let mut found = BTreeMap::<Uuid, Files>::new();
        let mut objects = self.store.list(directory);
        while let Some(object) = objects.try_next().await? {
            let mut parts = object.key.rsplit('/');
            let (Some(name), Some(id)) = (parts.next(), parts.next()) else {
                continue;
            };
            let Ok(id) = Uuid::try_parse(id) else {
                continue;
            };
            if found.len() >= MAX_FOUND && !found.contains_key(&id) {
                break;
            }
            let files = found.entry(id).or_default();
            if name == MANIFEST {
                files.manifest = true;
            } else if name.strip_suffix(".seg").is_some() {
                files.segments.insert(name.to_owned(), object.bytes);
            }
        }
        Ok(found)
    }
}

/// Where the recordings of a session are.
fn directory(of: &Watched) -> String {
    format!("recordings/{}/{}", of.namespace, of.uid)
}

async fn send(pieces: &mpsc::Sender<io::Result<Bytes>>, piece: io::Result<Bytes>) {
    let _ = pieces.send_timeout(piece, STALL).await; // nobody may be listening any more
}

/// Sends what a segment holds. `false`: nobody listens any more, or it is broken, which was told.
async fn unpack(segment: Bytes, pieces: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    let mut decoder = match zstd::Decoder::with_buffer(io::Cursor::new(segment)) {
        Ok(decoder) => decoder,
        Err(error) => {
            send(pieces, Err(error)).await;
            return false;
        }
    };
    loop {
        // Decoding is CPU work of a millisecond at most: as much as one piece holds.
        let mut piece = vec![0; PIECE];
        let mut filled = 0;
        while filled < PIECE {
            match decoder.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) => {
                    send(pieces, Err(error)).await;
                    return false;
                }
            }
        }
        if filled == 0 {
            return true;
        }
        piece.truncate(filled);
        if pieces.send_timeout(Ok(piece.into()), STALL).await.is_err() {
            return false;
        }
    }
}

impl Item {
    /// A recording that is being made.
    pub(crate) fn open(opening: &Opening) -> Self {
        Self {
            id: opening.recording,
            state: "Open",
            reason: None,
            signed_by: None,
            location: None,
            live: true,
            facts: Some(about(opening)),
        }
    }

    fn unsealed(id: Uuid) -> Self {
        let started = id
            .get_timestamp()
            .map(|time| time.to_unix())
            .and_then(|(seconds, _)| jiff::Timestamp::from_second(seconds.try_into().ok()?).ok());
        Self {
            id,
            state: "Unsealed",
            reason: None,
            signed_by: None,
            location: None,
            live: false,
            facts: started.map(|started| json!({ "startedAt": started })),
        }
    }

    fn sealed(id: Uuid, manifest: &Manifest, proof: Proof) -> Self {
        let (state, reason, signed_by) = match (proof, &manifest.verdict) {
            // What nobody vouches for has no verdict, whatever it says of itself.
            (Proof::Unverified(why), _) => (
                "Unverified",
                Some(format!("signature not verified: {why}")),
                None,
            ),
            (Proof::Signed(key), Verdict::Complete) => ("Complete", None, Some(key)),
            (Proof::Signed(key), Verdict::Interrupted { reason }) => {
                ("Interrupted", Some(reason.clone()), Some(key))
            }
        };
        let mut facts = about(&manifest.opening);
        facts["durationSeconds"] = manifest.duration_seconds.into();
        facts["bytes"] = json!(manifest.bytes);
        facts["end"] = json!(manifest.end);
        facts["transfers"] = manifest.transfers.len().into();
        facts["gaps"] = manifest.gaps.len().into();
        Self {
            id,
            state,
            reason,
            signed_by: signed_by.map(|key| key.to_string()),
            location: None,
            live: false,
            facts: Some(facts),
        }
    }
}

/// What is known of a recording from its beginning.
fn about(opening: &Opening) -> serde_json::Value {
    json!({
        "user": opening.user,
        "pod": opening.pod.name,
        "container": opening.pod.container,
        "mode": opening.mode,
        "argv": opening.argv,
        "tty": opening.tty,
        "startedAt": opening.started_at,
        "keystrokes": opening.settings.keystrokes,
        "encrypted": !opening.settings.recipients.is_empty(),
    })
}
