//! The write-ahead spool: lines in numbered files, synced before anybody is told of them.
//!
//! ```text
//!   audit/lock                            held by the one process that writes here
//!   audit/00000000000000000007.jsonl      a segment: whole lines; only the last one grows
//!   audit/cursors/webhook-5f1c2b7a.json   how far that sink is: see `cursor`
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::chain::digest;
use crate::event::{MAX_LINE, Predecessor};

/// How a segment's name ends.
const EXTENSION: &str = "jsonl";

/// A place between two lines of a spool.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct Position {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Bytes into it.
    pub(crate) offset: u64,
}

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes there.
    #[error("{0} is in use by another process; give each its own directory")]
    Locked(PathBuf),
    /// The file system refuses.
    #[error("cannot use {path} for audit events")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    /// Bytes of a segment before the next is begun.
    segment_size: u64,
    /// Bytes in each segment that are whole and synced; the last one is `file`.
    segments: BTreeMap<u64, u64>,
    file: File,
    _lock: File,
}

/// What was found in a spool.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The last line of the last run; `None` when there is no line.
    pub(crate) predecessor: Option<Predecessor>,
    /// Bytes of a line that was not finished, and was removed: nobody had been told of it.
    pub(crate) torn: u64,
}

impl Spool {
    /// Opens, or makes, the spool in `dir`. Blocking.
    pub(crate) fn open(dir: &Path, segment_size: u64) -> Result<(Self, Found), OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(at(dir))?;
        let path = dir.join("lock");
        let lock = private()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(at(&path)(source)),
        }
        let mut segments = segments(dir).map_err(at(dir))?;
        let mut found = Found::default();
        if let Some((&last, len)) = segments.iter_mut().next_back() {
            let path = segment(dir, last);
            found.torn = mend(&path, len).map_err(at(&path))?;
        }
        for (&number, &len) in segments.iter().rev() {
            if len > 0 {
                let path = segment(dir, number);
                found.predecessor = last_line(&path, len).map_err(at(&path))?;
                break;
            }
        }
        // A file of its own for each run: what an earlier one wrote is never written to again.
        let number = segments.keys().next_back().map_or(1, |last| last + 1);
        let path = segment(dir, number);
        let file = begin(dir, number).map_err(at(&path))?;
        segments.insert(number, 0);
        let spool = Self {
            dir: dir.to_owned(),
            segment_size,
            segments,
            file,
            _lock: lock,
        };
        Ok((spool, found))
    }

    /// Adds whole lines and syncs them; afterwards they survive a crash. After an error the spool is as before, and the
    /// same lines may be added again. Blocking.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<Position> {
        let (mut number, mut len) = self.last();
        if len >= self.segment_size {
            self.file = begin(&self.dir, number + 1)?;
            (number, len) = (number + 1, 0);
            self.segments.insert(number, 0);
        }
        let written = self
            .file
            .write_all_at(lines, len)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What was written of it is behind the end as everybody knows it, and is overwritten by the next attempt.
            let _ = self.file.set_len(len);
            return Err(error);
        }
        len += lines.len() as u64;
        self.segments.insert(number, len);
        Ok(Position {
            segment: number,
            offset: len,
        })
    }

    /// The end of what is synced.
    pub(crate) fn end(&self) -> Position {
        let (segment, offset) = self.last();
        Position { segment, offset }
    }

    /// The beginning of what is kept.
    pub(crate) fn begin(&self) -> Position {
        Position {
            segment: self.segments.keys().next().copied().unwrap_or_default(),
            offset: 0,
        }
    }

    /// Bytes between `from` and the end.
    pub(crate) fn bytes_since(&self, from: Position) -> u64 {
        let bytes: u64 = self
            .segments
            .range(from.segment..)
            .map(|(_, len)| len)
            .sum();
        let begun = self.segments.contains_key(&from.segment);
        bytes.saturating_sub(if begun { from.offset } else { 0 })
    }

    /// Bytes kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    /// Removes the segments that lie wholly before `position`. One that cannot be removed stays for the next time.
    pub(crate) fn release(&mut self, position: Position) -> io::Result<()> {
        let (last, _) = self.last();
        while let Some((&first, _)) = self.segments.first_key_value() {
            if first >= position.segment || first == last {
                break;
            }
            std::fs::remove_file(segment(&self.dir, first))?;
            self.segments.remove(&first);
        }
        Ok(())
    }

    /// Where the second oldest segment begins; `None` when there is only one.
    pub(crate) fn after_oldest(&self) -> Option<Position> {
        self.segments
            .keys()
            .nth(1)
            .map(|&segment| Position { segment, offset: 0 })
    }

    fn last(&self) -> (u64, u64) {
        self.segments
            .last_key_value()
            .map_or((0, 0), |(number, len)| (*number, *len))
    }
}

/// Lines of a spool, as they were written, without their newlines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The lines, each with its newline.
    pub(crate) bytes: Vec<u8>,
    /// How many.
    pub(crate) count: usize,
    /// The place behind the last of them.
    pub(crate) next: Position,
}

/// Reads whole lines between `from` and `end`: at most `max_lines` of them, and no more than `max_bytes` unless a single
/// line is longer. A segment that is gone is passed over. Blocking.
pub(crate) fn read(
    dir: &Path,
    from: Position,
    end: Position,
    max_lines: usize,
    max_bytes: usize,
) -> io::Result<Lines> {
    let mut lines = Lines {
        next: from,
        ..Lines::default()
    };
    while lines.next < end && lines.count < max_lines && lines.bytes.len() < max_bytes {
        let number = lines.next.segment;
        let file = match File::open(segment(dir, number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let next = segments(dir)?.into_keys().find(|&next| next > number);
                lines.next = Position {
                    segment: next.unwrap_or(end.segment),
                    offset: 0,
                };
                continue;
            }
            Err(error) => return Err(error),
        };
        let whole = if number == end.segment {
            end.offset
        } else {
            file.metadata()?.len()
        };
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(lines.next.offset))?;
        let mut reader = reader.take(whole.saturating_sub(lines.next.offset));
        loop {
            if lines.count >= max_lines {
                return Ok(lines);
            }
            let begin = lines.bytes.len();
            let read = (&mut reader)
                .take(MAX_LINE as u64)
                .read_until(b'\n', &mut lines.bytes)?;
            if read == 0 {
                break;
            }
            if lines.bytes.last() != Some(&b'\n') {
                lines.bytes.truncate(begin);
                return Err(io::Error::other(format!(
                    "segment {number} has a line without an end at byte {}",
                    lines.next.offset
                )));
            }
            if lines.bytes.len() > max_bytes && lines.count > 0 {
                lines.bytes.truncate(begin);
                return Ok(lines);
            }
            lines.count += 1;
            lines.next.offset += read as u64;
        }
        if number < end.segment {
            lines.next = Position {
                segment: number + 1,
                offset: 0,
            };
        }
    }
    Ok(lines)
}

/// Lines between two places.
pub(crate) fn count(dir: &Path, from: Position, end: Position) -> io::Result<u64> {
    let (mut at, mut count) = (from, 0);
    while at < end {
        let lines = read(dir, at, end, 4096, 1 << 20)?;
        count += lines.count as u64;
        at = lines.next;
    }
    Ok(count)
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{EXTENSION}"))
}

/// Whoever reads the log knows who did what: it is for its owner's eyes.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn begin(dir: &Path, number: u64) -> io::Result<File> {
    let file = private().create_new(true).open(segment(dir, number))?;
    File::open(dir)?.sync_all()?; // its name, too
    Ok(file)
}

/// Every segment and its length.
fn segments(dir: &Path) -> io::Result<BTreeMap<u64, u64>> {
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let number = path
            .extension()
            .filter(|extension| *extension == EXTENSION)
            .and_then(|_| path.file_stem()?.to_str()?.parse().ok());
        if let Some(number) = number {
            segments.insert(number, entry.metadata()?.len());
        }
    }
    Ok(segments)
}

/// Removes the line at the end that was not finished. How many bytes it had.
pub(crate) fn mend(path: &Path, len: &mut u64) -> io::Result<u64> {
    let file = private().open(path)?;
    let mut end = *len;
    let mut block = vec![0; 64 * 1024];
    let whole = loop {
        if end == 0 {
            break 0;
        }
        let begin = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - begin).unwrap_or_default()];
        file.read_exact_at(part, begin)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            break begin + at as u64 + 1;
        }
        end = begin;
    };
    let torn = *len - whole;
    if torn > 0 {
        file.set_len(whole)?;
        file.sync_all()?;
        *len = whole;
    }
    Ok(torn)
}

/// Whose the last line of a file is.
pub(crate) fn last_line(path: &Path, len: u64) -> io::Result<Option<Predecessor>> {
    #[derive(Deserialize)]
    struct Head {
        instance: String,
        seq: u64,
    }
    let file = File::open(path)?;
    let begin = len.saturating_sub(MAX_LINE as u64 + 1);
    let mut bytes = vec![0; usize::try_from(len - begin).unwrap_or_default()];
    file.read_exact_at(&mut bytes, begin)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.rsplit(|byte| *byte == b'\n').next().unwrap_or(line);
    Ok(serde_json::from_slice::<Head>(line)
        .ok()
        .map(|head| Predecessor {
            instance: head.instance,
            seq: head.seq,
            sha256: digest(line),
        }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn texts(lines: &Lines) -> Vec<String> {
        let text = String::from_utf8(lines.bytes.clone()).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn one_process_at_a_time_writes_to_a_spool() {
        let dir = tempfile::tempdir().expect("a directory");
        let (spool, _) = Spool::open(dir.path(), 1024).expect("opens");
        assert!(matches!(
            Spool::open(dir.path(), 1024),
            Err(OpenError::Locked(_))
        ));
        drop(spool);
        Spool::open(dir.path(), 1024).expect("free again");
    }

    #[test]
    fn a_line_that_was_not_finished_is_removed_and_the_one_before_is_the_predecessor() {
        let dir = tempfile::tempdir().expect("a directory");
        let line = r#"{"instance":"gateway-0/1","seq":41}"#;
        {
            let (mut spool, found) = Spool::open(dir.path(), 1024).expect("opens");
            assert_eq!(found.predecessor, None);
            spool
                .append(format!("{{}}\n{line}\n").as_bytes())
                .expect("written");
            (&spool.file)
                .seek(SeekFrom::End(0))
                .and_then(|_| (&spool.file).write_all(b"{\"half"))
                .expect("written");
        }
        let (spool, found) = Spool::open(dir.path(), 1024).expect("opens");
        assert_eq!(found.torn, 6);
        let predecessor = found.predecessor.expect("there is one");
        assert_eq!(
            (predecessor.instance.as_str(), predecessor.seq),
            ("gateway-0/1", 41)
        );
        assert_eq!(predecessor.sha256, digest(line.as_bytes()));
        let lines = read(dir.path(), spool.begin(), spool.end(), 10, 1024).expect("read");
        assert_eq!(texts(&lines), ["{}", line]);
    }

    #[test]
    fn a_failed_append_changes_nothing_and_can_be_repeated() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut spool, _) = Spool::open(dir.path(), 4).expect("opens");
        spool.append(b"one\n").expect("written");
        let end = spool.end();
        // The next segment cannot be made while something else has its name.
        let taken = segment(dir.path(), end.segment + 1);
        std::fs::create_dir(&taken).expect("made");
        assert!(spool.append(b"two\n").is_err());
        assert_eq!(spool.end(), end);
        std::fs::remove_dir(&taken).expect("removed");
        spool.append(b"two\n").expect("written");
        let lines = read(dir.path(), spool.begin(), spool.end(), 10, 1024).expect("read");
        assert_eq!(texts(&lines), ["one", "two"]);
    }

    #[test]
    fn what_everybody_has_is_removed_and_a_reader_behind_goes_on_with_what_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut spool, _) = Spool::open(dir.path(), 4).expect("opens");
        let begin = spool.begin();
        for line in ["a\n", "b\n", "c\n", "d\n", "e\n", "f\n"] {
            spool.append(line.as_bytes()).expect("written");
        }
        assert_eq!(spool.bytes_since(begin), 12);
        let second = spool.after_oldest().expect("three segments");
        spool.release(second).expect("released");
        assert_eq!((spool.begin(), spool.bytes_since(begin)), (second, 8));
        let lines = read(dir.path(), begin, spool.end(), 10, 1024).expect("read");
        assert_eq!(texts(&lines), ["c", "d", "e", "f"]);
        spool.release(spool.end()).expect("released");
        assert_eq!(
            spool.bytes_since(spool.begin()),
            4,
            "the last segment stays"
        );
    }

    proptest! {
        #[test]
        fn every_line_is_read_once_in_order_however_it_is_cut_into_segments_and_reads(
            lengths in prop::collection::vec(1_usize..40, 1..60), segment_size in 1_u64..120,
            max_lines in 1_usize..9, max_bytes in 1_usize..100, restart in 0_usize..60,
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let (mut spool, _) = Spool::open(dir.path(), segment_size).expect("opens");
            let begin = spool.begin();
            let mut wanted = Vec::new();
            for (at, length) in lengths.into_iter().enumerate() {
                if at == restart {
                    drop(spool);
                    spool = Spool::open(dir.path(), segment_size).expect("opens").0;
                }
                let line = format!("{at}{}", "x".repeat(length));
                spool.append(format!("{line}\n").as_bytes()).expect("written");
                wanted.push(line);
            }
            prop_assert_eq!(count(dir.path(), begin, spool.end()).expect("read"), wanted.len() as u64);
            let (mut at, mut got) = (begin, Vec::new());
            while at < spool.end() {
                let lines = read(dir.path(), at, spool.end(), max_lines, max_bytes).expect("read");
                prop_assert!(lines.count <= max_lines && (lines.bytes.len() <= max_bytes || lines.count == 1));
                prop_assert!(lines.next > at);
                got.extend(texts(&lines));
                at = lines.next;
            }
            prop_assert_eq!(got, wanted);
        }
    }
}
