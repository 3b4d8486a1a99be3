//! A file that is rotated: `audit.jsonl`, then `audit.jsonl.1`, which is the next older one, and so on.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::log::blocking;
use crate::log::spool::{last_line, mend};
use crate::sink::address::FileAt;
use crate::sink::{Batch, Delivered, Head, Sink, SinkError};

/// The file.
#[derive(Debug)]
pub(crate) struct File {
    /// Lent to a blocking thread during a write.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    at: FileAt,
    file: fs::File,
    len: u64,
    /// Whose line is the last one, and its place: what is delivered again after a crash is not written again.
    last: Option<(String, u64)>,
}

impl File {
    /// Opens it, or makes it and the directories above. A last line that was not finished is removed.
    pub(crate) async fn open(at: FileAt) -> Result<Self, SinkError> {
        let path = at.path.clone();
        let open = blocking(move || Open::new(at)).await;
        let open = open.map_err(|source| SinkError::File { path, source })?;
        Ok(Self { open: Some(open) })
    }
}

impl Sink for File {
    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> Delivered<'a> {
        let batch = batch.clone();
        let lent = self.open.take();
        Box::pin(async move {
            let Some(mut open) = lent else {
                return Err(SinkError::Refused("the file is in use".into())); // never: deliveries are one by one
            };
            let path = open.at.path.clone();
            let (open, written) = blocking(move || {
                let written = open.append(&batch);
                (open, written)
            })
            .await;
            self.open = Some(open);
            written.map_err(|source| SinkError::File { path, source })
        })
    }

    /// A write that was begun cannot be taken back, and the next one would follow half a line.
    fn timeout(&self) -> Option<Duration> {
        None
    }
}

impl Open {
    fn new(at: FileAt) -> io::Result<Self> {
        if let Some(parent) = at.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = append(&at.path)?;
        let mut len = file.metadata()?.len();
        mend(&at.path, &mut len)?;
        let mut last = last_line(&at.path, len)?;
        let older = numbered(&at.path, 1);
        if last.is_none() && older.exists() {
            last = last_line(&older, fs::metadata(&older)?.len())?;
        }
        Ok(Self {
            at,
            file,
            len,
            last: last.map(|last| (last.instance, last.seq)),
        })
    }

    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(batch.bytes.len());
        let mut last = self.last.clone();
        for line in batch.lines() {
            let Ok(Head { instance, seq, .. }) = Head::of(&line) else {
                return Err(io::Error::other("the spool holds a line that is no event"));
            };
            let known = last
                .as_ref()
                .is_some_and(|(whose, place)| *whose == instance && seq <= *place);
            if !known {
                bytes.extend_from_slice(&line);
                bytes.push(b'\n');
                last = Some((instance, seq));
            }
        }
        self.settle()?;
        let written = self
            .file
            .write_all(&bytes)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.len)?; // no half line in front of the next attempt
            return Err(error);
        }
        self.len += bytes.len() as u64;
        self.last = last;
        Ok(())
    }

    /// Begins a new file when this one is long enough, or when somebody has moved it away.
    fn settle(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        let there = fs::metadata(&self.at.path).is_ok_and(|there| there.ino() == ours.ino());
        if there && self.len < self.at.rotate {
            return Ok(());
        }
        if there {
            let path = &self.at.path;
            for number in (1..self.at.keep).rev() {
                let from = numbered(path, number);
                if from.exists() {
                    fs::rename(from, numbered(path, number + 1))?;
                }
            }
            fs::rename(path, numbered(path, 1))?;
        }
        self.file = append(&self.at.path)?;
        self.len = self.file.metadata()?.len();
        Ok(())
    }
}

/// Whoever reads the log knows who did what: it is for its owner's eyes.
fn append(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(instance: &str, seq: u64) -> String {
        format!("{{\"id\":\"x\",\"instance\":\"{instance}\",\"seq\":{seq}}}\n")
    }

    fn batch(lines: &[String]) -> Batch {
        Batch {
            bytes: lines.concat().into(),
            count: lines.len(),
        }
    }

    fn at(dir: &Path, rotate: u64, keep: u32) -> FileAt {
        FileAt {
            path: dir.join("deep/audit.jsonl"),
            rotate,
            keep,
        }
    }

    #[tokio::test]
    async fn files_are_rotated_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = at(dir.path(), 1, 2);
        let mut file = File::open(at.clone()).await.expect("opens");
        for seq in 1..=5 {
            let batch = batch(&[line("a", seq)]);
            file.deliver(&batch).await.expect("written");
        }
        for (path, seq) in [
            (at.path.clone(), 5),
            (numbered(&at.path, 1), 4),
            (numbered(&at.path, 2), 3),
        ] {
            let text = fs::read_to_string(&path).expect("there");
            assert_eq!(text, line("a", seq), "{}", path.display());
        }
        assert!(!numbered(&at.path, 3).exists());
    }

    #[tokio::test]
    async fn what_is_delivered_again_after_a_crash_is_not_written_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = at(dir.path(), 1 << 20, 2);
        let mut file = File::open(at.clone()).await.expect("opens");
        let first = batch(&[line("a", 1), line("a", 2)]);
        file.deliver(&first).await.expect("written");
        drop(file);
        fs::OpenOptions::new()
            .append(true)
            .open(&at.path)
            .and_then(|mut file| file.write_all(b"{\"id\""))
            .expect("half a line");
        let mut file = File::open(at.clone()).await.expect("opens");
        let again = batch(&[line("a", 2), line("a", 3), line("b", 1)]);
        file.deliver(&again).await.expect("written");
        let text = fs::read_to_string(&at.path).expect("there");
        let wanted = [line("a", 1), line("a", 2), line("a", 3), line("b", 1)];
        assert_eq!(text, wanted.concat());
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = at(dir.path(), 1 << 20, 2);
        let mut file = File::open(at.clone()).await.expect("opens");
        let one = batch(&[line("a", 1)]);
        file.deliver(&one).await.expect("written");
        fs::rename(&at.path, dir.path().join("elsewhere")).expect("moved");
        let two = batch(&[line("a", 2)]);
        file.deliver(&two).await.expect("written");
        assert_eq!(fs::read_to_string(&at.path).expect("there"), line("a", 2));
    }
}
