//! What a container wrote: a file per start of it, in the format of the container runtimes, of bounded size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

/// Size at which a file is put aside and the one put aside before is forgotten: the kubelet's `containerLogMaxSize`.
pub(super) const MAX_FILE: u64 = 10 << 20;
/// Longest line kept whole, as containerd has it; a longer one is written in parts.
const MAX_LINE: usize = 16 << 10;

/// The log of one start of a container.
pub(super) struct Log {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// Grows with every write; `None` once nothing more will come.
    written: watch::Sender<Option<u64>>,
}

struct Inner {
    file: File,
    size: u64,
    /// How many files were put aside.
    generation: u64,
    /// The line each stream has begun.
    partial: [Vec<u8>; 2],
}

/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    generation: u64,
    offset: u64,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) time: Timestamp,
    /// With the newline, unless it is the first part of a long line.
    pub(super) text: Vec<u8>,
    /// Bytes it takes in the file.
    stored: u64,
}

impl Line {
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }
}

impl Place {
    pub(super) fn back(self, bytes: u64) -> Self {
        Self {
            offset: self.offset.saturating_sub(bytes),
            ..self
        }
    }

    pub(super) fn forward(self, bytes: u64) -> Self {
        Self {
            offset: self.offset + bytes,
            ..self
        }
    }
}

impl Log {
    /// An empty log in a new file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        Ok(Self {
            path: path.to_owned(),
            inner: Mutex::new(Inner {
                file: File::create(path)?,
                size: 0,
                generation: 0,
                partial: [Vec::new(), Vec::new()],
            }),
            written: watch::Sender::new(Some(0)),
        })
    }

    /// Adds what was read from standard output (0) or standard error (1).
    pub(super) fn append(&self, stream: usize, data: &[u8], now: Timestamp) {
        let mut inner = self.lock();
        let mut out = Vec::with_capacity(data.len() + 64);
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(MAX_LINE) {
                let partial = &mut inner.partial[stream];
                partial.extend_from_slice(part);
                if partial.ends_with(b"\n") || partial.len() >= MAX_LINE {
                    entry(&mut out, stream, partial, now);
                    partial.clear();
                }
            }
        }
        self.store(&mut inner, &out);
    }

    /// Writes lines that were begun, and tells who follows that this was all.
    pub(super) fn finish(&self, now: Timestamp) {
        let mut inner = self.lock();
        for stream in 0..2 {
            let partial = std::mem::take(&mut inner.partial[stream]);
            if !partial.is_empty() {
                let mut out = Vec::new();
                entry(&mut out, stream, &partial, now);
                self.store(&mut inner, &out);
            }
        }
        self.written.send_replace(None);
    }

    /// For waiting until there is more.
    pub(super) fn written(&self) -> watch::Receiver<Option<u64>> {
        self.written.subscribe()
    }

    /// Entries from `place` on, up to about `limit` bytes of the file, and the place after them. A place that was
    /// forgotten meanwhile is the beginning of what is kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(&self, place: Place, limit: u64) -> io::Result<(Vec<Line>, Place)> {
        let inner = self.lock();
        let oldest = inner.generation.saturating_sub(1);
        let mut place = if place.generation < oldest {
            Place {
                generation: oldest,
                offset: 0,
            }
        } else {
            place
        };
        loop {
            let path = if place.generation == inner.generation {
                self.path.clone()
            } else {
                aside(&self.path)
            };
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(place.offset))?;
            let mut data = Vec::new();
            file.take(limit).read_to_end(&mut data)?;
            let whole = data
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            if whole > 0 {
                place.offset += whole as u64;
                let lines = data[..whole]
                    .split_inclusive(|byte| *byte == b'\n')
                    .filter_map(parse)
                    .collect();
                return Ok((lines, place));
            }
            if place.generation == inner.generation {
                return Ok((Vec::new(), place));
            }
            place = Place {
                generation: place.generation + 1,
                offset: 0,
            };
        }
    }

    /// Removes its files.
    pub(super) fn forget(&self) {
        for path in [&self.path, &aside(&self.path)] {
            let _ = std::fs::remove_file(path); // the one put aside is often not there
        }
    }

    fn store(&self, inner: &mut Inner, data: &[u8]) {
        if inner.size > 0 && inner.size + data.len() as u64 > MAX_FILE {
            let fresh = std::fs::rename(&self.path, aside(&self.path)).and_then(|()| {
                OpenOptions::new()
                    .create_new(true)
                    .append(true)
                    .open(&self.path)
            });
            match fresh {
                Ok(file) => {
                    inner.file = file;
                    inner.size = 0;
                    inner.generation += 1;
                }
                Err(error) => tracing::warn!(%error, "failed to rotate a container's log"),
            }
        }
        if let Err(error) = inner.file.write_all(data) {
            tracing::warn!(%error, "failed to write a container's log");
        }
        inner.size += data.len() as u64;
        self.written
            .send_modify(|written| *written = written.map(|so_far| so_far + data.len() as u64));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// `time stream F|P text`
fn entry(out: &mut Vec<u8>, stream: usize, text: &[u8], now: Timestamp) {
    let name = ["stdout", "stderr"][stream];
    let whole = text.ends_with(b"\n");
    let tag = if whole { 'F' } else { 'P' };
    out.extend_from_slice(format!("{now:.9} {name} {tag} ").as_bytes());
    out.extend_from_slice(text);
    if !whole {
        out.push(b'\n');
    }
}

fn parse(entry: &[u8]) -> Option<Line> {
    let mut fields = entry.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let whole = fields.nth(1)? == b"F";
    let mut text = fields.next()?.to_vec();
    if !whole {
        text.pop();
    }
    Some(Line {
        time,
        text,
        stored: entry.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(&dir.path().join("app-0.log")).unwrap();
        (dir, log)
    }

    fn text(log: &Log) -> Vec<u8> {
        let (lines, _) = log.read(Place::default(), u64::MAX).unwrap();
        lines.into_iter().flat_map(|line| line.text).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_in_any_pieces_is_read_back(pieces in prop::collection::vec(prop::collection::vec(
            prop_oneof![Just(b'\n'), any::<u8>()], 0..60), 0..4), long in 0..40_000usize) {
            let mut pieces = pieces;
            pieces.push(vec![b'x'; long]);
            let (_dir, log) = log();
            for piece in &pieces {
                log.append(0, piece, Timestamp::UNIX_EPOCH);
            }
            log.finish(Timestamp::UNIX_EPOCH);
            prop_assert_eq!(text(&log), pieces.concat());
        }
    }

    #[test]
    fn a_log_never_keeps_more_than_two_files() {
        let (dir, log) = log();
        let line = [&[b'x'; 9_999][..], b"\n"].concat();
        for _ in 0..4_000 {
            log.append(0, &line, Timestamp::UNIX_EPOCH);
        }
        let sizes: Vec<u64> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size <= MAX_FILE), "{sizes:?}");
    }

    #[test]
    fn who_follows_a_log_across_a_rotation_misses_nothing() {
        let (_dir, log) = log();
        let (mut place, mut read) = (Place::default(), 0);
        let line = [&[b'x'; 9_999][..], b"\n"].concat();
        for _ in 0..2_500 {
            log.append(0, &line, Timestamp::UNIX_EPOCH);
            let (lines, next) = log.read(place, 1 << 20).unwrap();
            read += lines.len();
            place = next;
        }
        assert_eq!(read, 2_500);
    }
}
