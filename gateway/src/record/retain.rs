//! What is deleted from the store: what is too old, or more than there is room for, and nobody wants kept.

use std::collections::BTreeMap;
use std::time::Duration;

use drawbridge_audit::recording::{MANIFEST, Manifest};
use drawbridge_audit::store::{Object, Store};
use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};
use uuid::Uuid;

use super::ledger::Ledger;

/// How often the store is looked through.
pub(super) const EVERY: Duration = Duration::from_hours(1);
/// Longest manifest read, in bytes; the format's own bound.
const MAX_MANIFEST: u64 = 16 << 20;

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

/// The directories that may go, oldest first.
fn due(found: &BTreeMap<String, Stored>, retention: Retention, now: Timestamp) -> Vec<&str> {
    let mut all: Vec<_> = found.iter().collect();
    all.sort_by_key(|(_, stored)| stored.began);
    let mut total: u64 = all.iter().map(|(_, stored)| stored.bytes).sum();
    let age = retention
        .age
        .and_then(|age| SignedDuration::try_from(age).ok());
    let mut due = Vec::new();
    for (dir, stored) in all {
        let old = age.is_some_and(|age| now.duration_since(stored.began) > age);
        // One without a manifest may still be going on.
        let over = stored.sealed && retention.bytes.is_some_and(|most| total > most);
        if old || over {
            total = total.saturating_sub(stored.bytes);
            due.push(dir.as_str());
        }
    }
    due
}

/// Deletes what is due and not held; how many recordings that were.
pub(super) async fn sweep(
    store: &Store,
    ledger: &dyn Ledger,
    retention: Retention,
    now: Timestamp,
) -> Result<usize, drawbridge_audit::store::Error> {
    let found = recordings(store.list("recordings").try_collect().await?);
    let mut deleted = 0;
    for dir in due(&found, retention, now) {
        match held(store, ledger, dir, found[dir].sealed).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                warn!(dir, error, "kept: cannot tell whether it is held");
                continue;
            }
        }
        // The manifest first: what is left of a recording must not look like a whole one that was tampered with.
        let (manifests, others): (Vec<_>, Vec<_>) = found[dir]
            .files
            .iter()
            .partition(|file| file.ends_with(MANIFEST));
        for file in manifests.into_iter().chain(others) {
            store.delete(file).await?;
        }
        info!(dir, "deleted a recording: its time is over");
        deleted += 1;
    }
    Ok(deleted)
}

/// Whether a recording is to be kept: its session was labelled so when it began, or is now.
async fn held(store: &Store, ledger: &dyn Ledger, dir: &str, sealed: bool) -> Result<bool, String> {
    if !sealed {
        return Ok(false); // nobody knows whose it was
    }
    let manifest = store.get(&format!("{dir}/{MANIFEST}"), MAX_MANIFEST).await;
    let manifest = manifest.map_err(|error| error.to_string())?;
    let opening = Manifest::read(&manifest)
        .map_err(|error| error.to_string())?
        .opening;
    if opening.legal_hold {
        return Ok(true);
    }
    let holds = ledger.holds(&opening.session).await;
    holds.map_err(|error| error.to_string())
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
                .map(|dir| ids.iter().position(|id| dir.ends_with(id)).expect("known"))
                .collect::<Vec<_>>()
        };
        assert_eq!(due(None, None), [0; 0]);
        assert_eq!(due(Some(2), None), [0, 1]);
        assert_eq!(due(None, Some(430)), [0; 0]);
        assert_eq!(due(None, Some(320)), [0]);
        assert_eq!(due(None, Some(0)), [0, 2, 3], "the second has no manifest");
        assert_eq!(due(Some(30), Some(0)), [0, 2, 3]);
    }
}
