//! From what a bridge was heard to say to files in the spool. Everything here blocks.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use drawbridge_audit::keys::SigningKey;
use drawbridge_audit::recording::{
    Carried, Directory, Encoder, End, Manifest, Opening, RecoverError, Recovered, Seal,
    SegmentWriter, Source as _, Subprotocols, Verdict, WriteError, recover, segment_name,
};
use tokio::time::Instant;
use tracing::warn;

use super::chain;
use super::live::Live;
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

impl Error {
    /// Whether there was no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Spool(error) = self else {
            return false;
        };
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
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
    encoder: Encoder,
    segments: SegmentWriter,
    file: Option<File>,
    /// Whether the name of the open segment is on the disk for sure.
    named: bool,
    /// Chunks in the open segment.
    chunks: u32,
    /// When the open segment was begun.
    began: Instant,
    /// Since when something is written that is not on the disk for sure.
    unsynced: Option<Instant>,
}

impl Writer {
    /// Begins a recording at a place whose facts lacked these subprotocols: they were not agreed on yet.
    ///
    /// # Errors
    /// If there can be no chunks.
    pub fn begin(
        mut place: Place,
        mut opening: Opening,
        subprotocols: Subprotocols,
    ) -> Result<Self, Error> {
        let first = std::mem::replace(&mut opening.subprotocols, subprotocols);
        if let Err(error) = place.describe(&opening) {
            // The pod's side is open by now: better a recording that lacks this than none.
            warn!(%error, "a recording will not say which subprotocols were spoken");
            opening.subprotocols = first;
        }
        let segments = SegmentWriter::new(&opening)?;
        place.keep();
        Ok(Self {
            encoder: Encoder::new(&opening),
            segments,
            place,
            file: None,
            named: false,
            chunks: 0,
            began: Instant::now(),
            unsynced: None,
        })
    }

    /// The facts.
    #[must_use]
    pub fn opening(&self) -> &Arc<Opening> {
        self.segments.opening()
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

    /// Writes what was heard, and tells `live`. Returns the names of segments that are complete.
    ///
    /// # Errors
    /// If the disk, or the bound of the spool, does not take it. The recording is then to be [given up](Writer::abandon).
    pub fn write(&mut self, batch: &Batch, live: &Live) -> Result<Vec<String>, Error> {
        for (at, heard) in batch.iter() {
            match heard {
                Heard::Data(stream, data) => {
                    self.encoder.data(at, stream, data);
                }
                Heard::Resize(columns, rows) => self.encoder.resize(at, columns, rows),
                Heard::Missed(stream, bytes) => self.encoder.gap(at, stream, bytes),
            }
        }
        self.settle(live)
    }

    fn settle(&mut self, live: &Live) -> Result<Vec<String>, Error> {
        let mut closed = Vec::new();
        while let Some(batch) = self.encoder.take() {
            let chunk = self.segments.write(&batch)?;
            self.place.add(chunk.len() as u64)?;
            let number = self.segments.number();
            let file = match &mut self.file {
                Some(file) => file,
                none => {
                    self.began = Instant::now();
                    self.chunks = 0;
                    self.named = false;
                    none.insert(self.place.segment(number)?)
                }
            };
            file.write_all(&chunk)?;
            self.unsynced.get_or_insert_with(Instant::now);
            live.tell(number, self.chunks, batch.lines);
            self.chunks += 1;
            if self.segments.length() >= SEGMENT_BYTES {
                closed.extend(self.close()?);
            }
        }
        if self.file.is_some() && self.began.elapsed() >= SEGMENT_AGE {
            closed.extend(self.close()?);
        }
        if self.unsynced.is_some_and(|since| since.elapsed() >= SYNC) {
            self.sync()?;
        }
        Ok(closed)
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            // The names first: no segment may be there without the facts it was written under.
            if !self.named {
                self.place.sync()?;
                self.named = true;
            }
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
    /// If the disk does not take the rest: what is left to be sealed.
    pub fn seal(
        mut self,
        at: Duration,
        end: Option<End>,
        key: &SigningKey,
        instance: &str,
        live: &Live,
    ) -> Result<Sealed, Failed> {
        if let Err(error) = self.end(at, end.as_ref(), live) {
            return Err(Box::new((self.abandon(&error, end), error)));
        }
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
        match self.place.seal(&manifest.sign(key)) {
            Ok(()) => Ok(Sealed {
                place: self.place,
                manifest,
                carried: self.encoder.carried(),
            }),
            Err(error) => {
                let unsealed = Unsealed::Whole(self.place, Box::new(manifest));
                Err(Box::new((unsealed, error.into())))
            }
        }
    }

    fn end(&mut self, at: Duration, end: Option<&End>, live: &Live) -> Result<(), Error> {
        if let Some(end) = end {
            self.encoder.end(at, end);
        }
        self.settle(live)?;
        self.close()?;
        Ok(())
    }

    /// Gives it up where it is, and says why; `end`: how the connection ended, if it did.
    #[must_use]
    pub fn abandon(self, why: &Error, end: Option<End>) -> Unsealed {
        let reason = format!("the recorder failed: {}", chain(why));
        let opening = Box::new(Opening::clone(self.opening()));
        Unsealed::Broken(self.place, opening, reason, end)
    }
}

/// What is left to be sealed, and why it is not.
pub type Failed = Box<(Unsealed, Error)>;

/// A recording that nobody writes any more, and that has no manifest yet.
#[derive(Debug)]
pub enum Unsealed {
    /// It lacks nothing else.
    Whole(Place, Box<Manifest>),
    /// Its writer failed or was killed: its facts, the reason, and how the connection ended, if that is known.
    Broken(Place, Box<Opening>, String, Option<End>),
}

impl Unsealed {
    /// Seals it: what is broken, as every whole chunk that is there. May be tried again.
    ///
    /// # Errors
    /// If the disk does not take the manifest, or what is there is not what a recorder leaves.
    pub fn seal(&self, key: &SigningKey, instance: &str) -> Result<Manifest, Error> {
        match self {
            Self::Whole(place, manifest) => {
                place.seal(&manifest.sign(key))?;
                Ok(Manifest::clone(manifest))
            }
            Self::Broken(place, opening, reason, end) => {
                salvage(place, opening, reason, end.clone(), key, instance)
            }
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn into_place(self) -> Place {
        match self {
            Self::Whole(place, _) | Self::Broken(place, ..) => place,
        }
    }
}

fn salvage(
    place: &Place,
    opening: &Opening,
    reason: &str,
    end: Option<End>,
    key: &SigningKey,
    instance: &str,
) -> Result<Manifest, Error> {
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
        verdict: Verdict::Interrupted {
            reason: reason.to_owned(),
        },
        end,
        transfers: Vec::new(),
        gaps: Vec::new(),
        cut: cut.map_or(0, |cut| cut.lost),
        sealed_by: instance.to_owned(),
    });
    place.seal(&manifest.sign(key))?;
    Ok(manifest)
}
