//! How far each sink is, on disk: a restart goes on where the last run stopped, and repeats a little rather than skip.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::log::spool::Position;

/// A sink's cursor file.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// The sink as the administrator wrote it, without what is secret; for people.
    sink: String,
    #[serde(flatten)]
    position: Position,
}

/// Where every sink is, in memory: what the writer must keep for them.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    by_sink: Mutex<BTreeMap<String, Position>>,
    /// Events each sink will not get, and has not been told of.
    dropped: Mutex<BTreeMap<String, u64>>,
    /// Told when one has moved.
    pub(crate) moved: Notify,
}

impl Cursors {
    /// `sink` is at `position`.
    pub(crate) fn set(&self, sink: &str, position: Position) {
        let mut by_sink = self.by_sink.lock().unwrap_or_else(PoisonError::into_inner);
        match by_sink.get_mut(sink) {
            Some(known) => *known = position,
            None => drop(by_sink.insert(sink.to_owned(), position)),
        }
        drop(by_sink);
        self.moved.notify_one();
    }

    /// `sink` will not get so many events.
    pub(crate) fn drop_for(&self, sink: &str, events: u64) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        *dropped.entry(sink.to_owned()).or_default() += events;
    }

    /// How many events `sink` did not get since this was last asked.
    pub(crate) fn take_dropped(&self, sink: &str) -> u64 {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.remove(sink).unwrap_or_default()
    }

    /// Where `sink` is.
    pub(crate) fn get(&self, sink: &str) -> Option<Position> {
        let by_sink = self.by_sink.lock().unwrap_or_else(PoisonError::into_inner);
        by_sink.get(sink).copied()
    }

    /// Every sink and its place.
    pub(crate) fn all(&self) -> Vec<(String, Position)> {
        let by_sink = self.by_sink.lock().unwrap_or_else(PoisonError::into_inner);
        by_sink
            .iter()
            .map(|(sink, position)| (sink.clone(), *position))
            .collect()
    }
}

/// Where the cursors of the spool in `dir` are.
fn directory(dir: &Path) -> PathBuf {
    dir.join("cursors")
}

/// Where `sink` was, in the spool in `dir`; `None` when it is new. Blocking.
pub(crate) fn load(dir: &Path, sink: &str) -> io::Result<Option<Position>> {
    match fs::read(file(dir, sink)) {
        // One that cannot be read is as good as none: everything is sent again.
        Ok(bytes) => Ok(serde_json::from_slice::<Stored>(&bytes)
            .ok()
            .map(|stored| stored.position)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps where `sink` is. Whole or not at all; if the machine itself fails, the one before may come back. Blocking.
pub(crate) fn store(dir: &Path, sink: &str, shown: &str, position: Position) -> io::Result<()> {
    let stored = Stored {
        sink: shown.to_owned(),
        position,
    };
    let path = file(dir, sink);
    let beside = path.with_extension("new");
    let mut new = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    new.write_all(&serde_json::to_vec(&stored)?)?;
    new.sync_data()?;
    fs::rename(&beside, &path)
}

/// Forgets the sinks that are not configured any more, and returns how they were written. Blocking.
pub(crate) fn forget_others(dir: &Path, sinks: &[&str]) -> io::Result<Vec<String>> {
    let dir = directory(dir);
    fs::create_dir_all(&dir)?;
    let mut forgotten = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let known = path
            .file_stem()
            .and_then(|name| name.to_str())
            .is_some_and(|name| sinks.contains(&name));
        if !known {
            let shown = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
            fs::remove_file(&path)?;
            forgotten.extend(shown.map(|stored| stored.sink));
        }
    }
    Ok(forgotten)
}

fn file(dir: &Path, sink: &str) -> PathBuf {
    directory(dir).join(format!("{sink}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_found_again_and_that_of_a_sink_that_is_gone_is_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        assert_eq!(forget_others(dir, &[]).expect("made"), [""; 0]);
        let at = Position {
            segment: 3,
            offset: 99,
        };
        assert_eq!(load(dir, "stdout-1").expect("read"), None);
        store(dir, "stdout-1", "stdout", at).expect("stored");
        store(dir, "file-2", "file:/log", at).expect("stored");
        let forgotten = forget_others(dir, &["stdout-1"]).expect("forgotten");
        assert_eq!(forgotten, ["file:/log"]);
        assert_eq!(load(dir, "stdout-1").expect("read"), Some(at));
        assert_eq!(load(dir, "file-2").expect("read"), None);
        fs::write(file(dir, "stdout-1"), "{").expect("written");
        assert_eq!(
            load(dir, "stdout-1").expect("read"),
            None,
            "sent again from the start"
        );
    }
}
