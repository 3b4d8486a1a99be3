//! What is deleted from the store: what is too old, or more than there is room for, and nobody wants kept.

use std::collections::BTreeMap;
use std::time::Duration;

use drawbridge_audit::log::{Log, Unwritten};
use drawbridge_audit::recording::{Chunk, MANIFEST, Manifest, Opening, segment_name};
use drawbridge_audit::store::{self, Object, Store};
use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::ledger::Ledger;
use super::spool::Spool;
use crate::clock::Clock;
use crate::told;

/// How often the store is looked through.
pub(super) const EVERY: Duration = Duration::from_hours(1);
/// Longest manifest read, in bytes; the format's own bound.
const MAX_MANIFEST: u64 = 16 << 20;
/// Longest segment read, in bytes. They are closed at 1 MiB, and the last message may be of 4.
const MAX_SEGMENT: u64 = 16 << 20;
/// A recording without a manifest is kept this much longer: its gateway may be about to seal it.
const UNSEALED: SignedDuration = SignedDuration::from_hours(24);
/// A wall clock this far ahead of the one that nobody sets is told.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// What may be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Recordings that began longer ago. Default: none.
    pub age: Option<Duration>,
    /// The oldest finished ones, while all together have more bytes. Default: none.
    pub bytes: Option<u64>,
}

impl Retention {
    /// Whether anything may ever be deleted.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::default()
    }
}

/// The wall clock, but never further ahead than the time since the start says: who sets it ahead by a month must not
/// have everything deleted.
#[derive(Debug)]
pub(super) struct Steady {
    wall: Clock,
    began: Timestamp,
    since: Instant,
}

impl Steady {
    pub(super) fn new(wall: Clock) -> Self {
        Self {
            began: wall.now(),
            since: Instant::now(),
            wall,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let wall = self.wall.now();
        let steady = self.began.checked_add(self.since.elapsed()).unwrap_or(wall);
        if wall.duration_since(steady) > AHEAD {
            warn!(%wall, %steady, "the clock was set ahead; nothing is deleted for its age on that account until the next start");
        }
        wall.min(steady)
    }
}

/// What a sweep works with.
#[derive(Clone, Copy)]
pub(super) struct Sweep<'a> {
    pub(super) store: &'a Store,
    pub(super) ledger: &'a dyn Ledger,
    pub(super) spool: &'a Spool,
    pub(super) log: &'a Log,
    pub(super) retention: Retention,
    pub(super) now: Timestamp,
}

/// Why nothing more was deleted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("failed to look through the store, or to delete from it")]
    Store(#[from] store::Error),
    #[error("a deletion cannot be put on record")]
    Unlogged(#[from] Unwritten),
}

/// One recording in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored {
    began: Timestamp,
    bytes: u64,
    sealed: bool,
    files: Vec<String>,
}

/// The recordings among the files of a store, by directory.
fn recordings(objects: Vec<Object>) -> BTreeMap<String, Stored> {
    let mut found = BTreeMap::<String, Stored>::new();
    for object in objects {
        let Some((dir, name)) = object.key.rsplit_once('/') else {
            continue;
        };
        let began = dir.rsplit('/').next().and_then(began);
        let (Some(began), 4) = (began, dir.split('/').count()) else {
            continue; // not ours
        };
        let stored = found.entry(dir.to_owned()).or_default();
        stored.began = began;
        stored.bytes += object.bytes;
        stored.sealed |= name == MANIFEST;
        stored.files.push(object.key);
    }
    found
}

/// When a recording began: its ID says it, and nobody can change that later.
fn began(id: &str) -> Option<Timestamp> {
    let (seconds, nanos) = Uuid::parse_str(id).ok()?.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

/// The directories that may go, oldest first, and why.
fn due(
    found: &BTreeMap<String, Stored>,
    retention: Retention,
    now: Timestamp,
) -> Vec<(&str, &'static str)> {
    let mut all: Vec<_> = found.iter().collect();
    all.sort_by_key(|(_, stored)| stored.began);
    let mut total: u64 = all.iter().map(|(_, stored)| stored.bytes).sum();
    let age = retention
        .age
        .and_then(|age| SignedDuration::try_from(age).ok());
    let mut due = Vec::new();
    for (dir, stored) in all {
        let old = age.is_some_and(|age| {
            let more = if stored.sealed {
                SignedDuration::ZERO
            } else {
                UNSEALED
            };
            now.duration_since(stored.began) > age.saturating_add(more)
        });
        // One without a manifest may still be going on.
        let over = stored.sealed && retention.bytes.is_some_and(|most| total > most);
        if old || over {
            total = total.saturating_sub(stored.bytes);
            due.push((dir.as_str(), if old { "age" } else { "size" }));
        }
    }
    due
}

/// Deletes what is due, over and not held; how many recordings that were.
pub(super) async fn sweep(sweep: Sweep<'_>) -> Result<usize, Error> {
    let store = sweep.store;
    let found = recordings(store.list("recordings").try_collect().await?);
    let mut deleted = 0;
    for (dir, why) in due(&found, sweep.retention, sweep.now) {
        let stored = &found[dir];
        match removable(sweep, dir, stored).await {
            Ok(None) => continue,
            Ok(Some(Known::Nobody)) => {}
            Ok(Some(Known::Whose(opening, manifest))) => {
                let event = told::removed(&opening, manifest.as_deref(), why);
                sweep.log.record(event).await?;
            }
            Err(error) => {
                warn!(dir, error, "kept: cannot tell whether it is held");
                continue;
            }
        }
        // The manifest first: what is left of a recording must not look like a whole one that was tampered with.
        let (manifests, others): (Vec<_>, Vec<_>) = stored
            .files
            .iter()
            .partition(|file| file.ends_with(MANIFEST));
        for file in manifests.into_iter().chain(others) {
            store.delete(file).await?;
        }
        info!(dir, why, "deleted a recording");
        deleted += 1;
    }
    Ok(deleted)
}

/// What is known of a recording.
enum Known {
    /// Its facts, and its manifest if it has one.
    Whose(Box<Opening>, Option<Box<Manifest>>),
    /// What was left of it when it was deleted.
    Nobody,
}

/// What is known of a recording, if it may be deleted: its session was not labelled to be kept when it began, nor is now;
/// and it is sealed, or its session is over. What is in the spool is not delivered yet.
async fn removable(sweep: Sweep<'_>, dir: &str, stored: &Stored) -> Result<Option<Known>, String> {
    if sweep.spool.holds(dir) {
        return Ok(None);
    }
    let (opening, manifest) = if stored.sealed {
        let key = format!("{dir}/{MANIFEST}");
        let manifest = sweep.store.get(&key, MAX_MANIFEST).await;
        let manifest = manifest.map_err(|error| error.to_string())?;
        let manifest = Manifest::read(&manifest).map_err(|error| error.to_string())?;
        (manifest.opening.clone(), Some(Box::new(manifest)))
    } else {
        let first = format!("{dir}/{}", segment_name(0));
        let segment = match sweep.store.get(&first, MAX_SEGMENT).await {
            Ok(segment) => segment,
            Err(error) if error.is_not_found() => return Ok(Some(Known::Nobody)),
            Err(error) => return Err(error.to_string()),
        };
        let opening = Chunk::read(&mut &segment[..]).ok().flatten();
        let facts = opening.and_then(|chunk| chunk.header.opening);
        let facts = facts.ok_or("its first segment tells no facts")?;
        let opening = serde_json::from_str(facts.get()).map_err(|error| error.to_string())?;
        (opening, None)
    };
    if opening.legal_hold {
        return Ok(None);
    }
    let standing = sweep.ledger.standing(&opening.session).await;
    let standing = standing.map_err(|error| error.to_string())?;
    let kept = standing.held || (standing.open && !stored.sealed);
    Ok((!kept).then(|| Known::Whose(Box::new(opening), manifest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `days` after 2026-01-01.
    fn id(days: u64) -> String {
        let seconds = 1_767_225_600 + days * 86_400;
        let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
        Uuid::new_v7(time).to_string()
    }

    fn object(id: &str, name: &str, bytes: u64) -> Object {
        Object {
            key: format!("recordings/shop/6f1c/{id}/{name}"),
            bytes,
            modified: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_oldest_first_but_nothing_that_goes_on() {
        let ids: Vec<_> = (0..4).map(id).collect();
        let mut objects = vec![Object {
            key: "recordings/notes.txt".to_owned(),
            bytes: 1_000_000,
            modified: Timestamp::UNIX_EPOCH,
        }];
        for (number, id) in ids.iter().enumerate() {
            objects.push(object(id, "00000000.seg", 100));
            if number != 1 {
                objects.push(object(id, MANIFEST, 10));
            }
        }
        let found = recordings(objects);
        assert_eq!(found.len(), 4);
        let now: Timestamp = "2026-01-05T00:00:00Z".parse().expect("a time");
        let due = |age: Option<u64>, bytes| {
            let retention = Retention {
                age: age.map(|days| Duration::from_hours(24 * days)),
                bytes,
            };
            let due = due(&found, retention, now);
            due.iter()
                .map(|(dir, _)| ids.iter().position(|id| dir.ends_with(id)).expect("known"))
                .collect::<Vec<_>>()
        };
        assert_eq!(due(None, None), [0; 0]);
        assert_eq!(due(Some(3), None), [0], "the second may be sealed yet");
        assert_eq!(due(Some(1), None), [0, 1, 2]);
        assert_eq!(due(None, Some(430)), [0; 0]);
        assert_eq!(due(None, Some(320)), [0]);
        assert_eq!(due(None, Some(0)), [0, 2, 3], "the second has no manifest");
        assert_eq!(due(Some(30), Some(0)), [0, 2, 3]);
    }
}
