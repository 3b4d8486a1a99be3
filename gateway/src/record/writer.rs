//! From what a bridge was heard to say to files in the spool. Everything here blocks.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::time::Duration;

use drawbridge_audit::keys::SigningKey;
use drawbridge_audit::recording::{
    Carried, Directory, Encoder, End, Manifest, Opening, RecoverError, Recovered, Seal,
    SegmentWriter, Source as _, Verdict, WriteError, recover, segment_name,
};
use tokio::time::Instant;

use super::spool::Place;
use super::tap::{Batch, Heard};

/// A segment of this many bytes is closed, and goes to the store.
const SEGMENT_BYTES: u64 = 1 << 20;
/// A segment this old is closed, too.
const SEGMENT_AGE: Duration = Duration::from_mins(1);
/// What was written is on the disk after this time at the latest.
const SYNC: Duration = Duration::from_secs(1);

/// Why a recording cannot be written or sealed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or the bound of the spool.
    #[error("failed to write to the spool")]
    Spool(#[from] io::Error),
    /// The format.
    #[error("failed to make a chunk")]
    Chunk(#[from] WriteError),
    /// What a killed recorder left.
    #[error("failed to take up what was left")]
    Recover(#[from] RecoverError),
    /// A bug.
    #[error("the writer panicked")]
    Panicked,
}

/// Lines that are in the recording now.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The segment they are in.
    pub segment: u32,
    /// The chunk of that segment, from 0.
    pub chunk: u32,
    /// Whole lines of asciicast.
    pub lines: std::sync::Arc<[u8]>,
}

/// What came of one batch.
#[derive(Debug, Default)]
pub struct Written {
    /// What was added.
    pub pieces: Vec<Piece>,
    /// Names of segments that are complete.
    pub closed: Vec<String>,
}

/// A recording that is sealed, in the spool.
#[derive(Debug)]
pub struct Sealed {
    /// Where it lies.
    pub place: Place,
    /// What vouches for it.
    pub manifest: Manifest,
    /// What each stream without a terminal carried; nothing, if the recorder failed or was killed.
    pub carried: Vec<Carried>,
}

/// One recording, being written.
#[derive(Debug)]
pub struct Writer {
    place: Place,
    opening: Opening,
    encoder: Encoder,
    segments: SegmentWriter,
    file: Option<File>,
    /// Chunks in the open segment.
    chunks: u32,
    /// When the open segment was begun.
    began: Instant,
    /// Since when something is written that is not on the disk for sure.
    unsynced: Option<Instant>,
}

impl Writer {
    /// Begins a recording: its facts are on the disk when this returns.
    ///
    /// # Errors
    /// If the disk does not take them.
    pub fn begin(mut place: Place, opening: Opening) -> Result<Self, Error> {
        let segments = SegmentWriter::new(&opening)?;
        place.begin(&opening)?;
        Ok(Self {
            encoder: Encoder::new(&opening),
            segments,
            place,
            opening,
            file: None,
            chunks: 0,
            began: Instant::now(),
            unsynced: None,
        })
    }

    /// The facts.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Where it lies.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// When [`Writer::write`] has something to do even if nothing was heard.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let segment = self.file.as_ref().map(|_| self.began + SEGMENT_AGE);
        let sync = self.unsynced.map(|since| since + SYNC);
        segment.into_iter().chain(sync).min()
    }

    /// Writes what was heard.
    ///
    /// # Errors
    /// If the disk, or the bound of the spool, does not take it. The recording is then to be [salvaged](salvage).
    pub fn write(&mut self, batch: &Batch) -> Result<Written, Error> {
        for (at, heard) in batch.iter() {
            match heard {
                Heard::Data(stream, data) => {
                    self.encoder.data(at, stream, data);
                }
                Heard::Resize(columns, rows) => self.encoder.resize(at, columns, rows),
                Heard::Missed(stream, bytes) => self.encoder.gap(at, stream, bytes),
            }
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<Written, Error> {
        let mut written = Written::default();
        while let Some(batch) = self.encoder.take() {
            let chunk = self.segments.write(&batch)?;
            self.place.add(chunk.len() as u64)?;
            let number = self.segments.number();
            let file = match &mut self.file {
                Some(file) => file,
                none => {
                    self.began = Instant::now();
                    self.chunks = 0;
                    none.insert(self.place.segment(number)?)
                }
            };
            file.write_all(&chunk)?;
            self.unsynced.get_or_insert_with(Instant::now);
            written.pieces.push(Piece {
                segment: number,
                chunk: self.chunks,
                lines: batch.lines.into(),
            });
            self.chunks += 1;
            if self.segments.length() >= SEGMENT_BYTES {
                written.closed.extend(self.close()?);
            }
        }
        if self.file.is_some() && self.began.elapsed() >= SEGMENT_AGE {
            written.closed.extend(self.close()?);
        }
        if self.unsynced.is_some_and(|since| since.elapsed() >= SYNC) {
            self.sync()?;
        }
        Ok(written)
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        self.unsynced = None;
        Ok(())
    }

    fn close(&mut self) -> io::Result<Option<String>> {
        self.sync()?;
        self.file = None;
        Ok(self.segments.close().map(|segment| segment.name))
    }

    /// Ends and seals it.
    ///
    /// # Errors
    /// If the disk does not take the rest. The recording is then to be [salvaged](salvage).
    pub fn seal(
        mut self,
        at: Duration,
        end: Option<End>,
        key: &SigningKey,
        instance: &str,
    ) -> Result<(Sealed, Vec<Piece>), Error> {
        if let Some(end) = &end {
            self.encoder.end(at, end);
        }
        let written = self.settle()?;
        self.close()?;
        let verdict = match &end {
            Some(_) => Verdict::Complete,
            None => Verdict::Interrupted {
                reason: "the connection's task ended without a word".to_owned(),
            },
        };
        let manifest = self.segments.seal(Seal {
            verdict,
            end,
            transfers: self.encoder.transfers().to_vec(),
            gaps: self.encoder.gaps().to_vec(),
            cut: 0,
            sealed_by: instance.to_owned(),
        });
        self.place.seal(&manifest.sign(key))?;
        let sealed = Sealed {
            place: self.place,
            manifest,
            carried: self.encoder.carried(),
        };
        Ok((sealed, written.pieces))
    }

    /// Gives it up where it is.
    #[must_use]
    pub fn abandon(self) -> (Place, Opening) {
        (self.place, self.opening)
    }
}

/// Seals what is there of a recording whose writer failed or was killed: every whole chunk.
///
/// # Errors
/// If the disk does not take the manifest, or what is there is not what a recorder leaves.
pub fn salvage(
    place: Place,
    opening: &Opening,
    reason: String,
    end: Option<End>,
    key: &SigningKey,
    instance: &str,
) -> Result<Sealed, Error> {
    let names = Directory(place.dir().to_owned()).segments()?;
    let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
    let path = |number| place.dir().join(segment_name(number));
    let files = (0..count).map(|number| File::open(path(number)).map(io::BufReader::new));
    let Recovered { writer, cut } = recover(opening, files)?;
    if let Some(cut) = cut {
        if cut.keep == 0 {
            fs::remove_file(path(cut.segment))?;
        } else {
            let file = File::options().write(true).open(path(cut.segment))?;
            file.set_len(cut.keep)?;
            file.sync_all()?;
        }
    }
    let manifest = writer.seal(Seal {
        verdict: Verdict::Interrupted { reason },
        end,
        transfers: Vec::new(),
        gaps: Vec::new(),
        cut: cut.map_or(0, |cut| cut.lost),
        sealed_by: instance.to_owned(),
    });
    place.seal(&manifest.sign(key))?;
    Ok(Sealed {
        place,
        manifest,
        carried: Vec::new(),
    })
}
