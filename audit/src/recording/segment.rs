//! Segments: files of chunks, and the chain that runs through them. No I/O: the caller writes what this returns.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;
use zstd::bulk::Compressor;

use super::chunk::{self, Chunk, ChunkError, Header};
use super::{
    Batch, Bytes, CipherError, End, Gap, Manifest, Opening, Recipients, Segment, Transfer, VERSION,
    Verdict, segment_name,
};
use crate::hash::{Running, Sha256};

/// zstd's fastest ordinary level: a recorder must not slow the session down, and terminal text compresses well anyway.
const LEVEL: i32 = 1;

thread_local! {
    /// Of each thread that writes, not of each recording: it keeps some hundred KiB from its first chunk on.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(lines: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(LEVEL)?),
        };
        compressor.compress(lines)
    })
}

/// Why a chunk cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A recipient of the settings is none.
    #[error(transparent)]
    Recipients(#[from] CipherError),
    /// The compression or encryption failed.
    #[error("failed to compress or encrypt")]
    Pack(#[from] io::Error),
    /// The chunk would be out of bounds.
    #[error("the chunk {0}")]
    Chunk(#[from] ChunkError),
    /// The facts have no JSON form.
    #[error("the opening has no JSON form")]
    Opening(#[from] serde_json::Error),
}

/// Turns batches into chunks, counts and chains them.
pub struct SegmentWriter {
    opening: Arc<Opening>,
    /// The opening as the first chunk will hold it; gone when that is written.
    facts: Option<Box<RawValue>>,
    recipients: Recipients,
    previous: Sha256,
    done: Vec<Segment>,
    open: Open,
    at: Duration,
    bytes: Bytes,
}

/// The segment that is being written.
#[derive(Default)]
struct Open {
    hash: Running,
    length: u64,
    chunks: u32,
    lines: u64,
}

/// How a recording is closed.
#[derive(Clone, Debug)]
pub struct Seal {
    /// Whether it tells the whole session.
    pub verdict: Verdict,
    /// How the session ended, if the recorder saw it.
    pub end: Option<End>,
    /// The streams that are told by length, hash and beginning.
    pub transfers: Vec<Transfer>,
    /// What the recorder missed.
    pub gaps: Vec<Gap>,
    /// Bytes that were cut off the last segment.
    pub cut: u64,
    /// Which gateway this is.
    pub sealed_by: String,
}

impl SegmentWriter {
    /// For the recording that `opening` describes; encrypted if its settings name recipients.
    ///
    /// # Errors
    /// If a recipient is none.
    pub fn new(opening: &Opening) -> Result<Self, WriteError> {
        let facts = serde_json::value::to_raw_value(opening)?;
        Ok(Self {
            opening: Arc::new(opening.clone()),
            recipients: Recipients::parse(&opening.settings.recipients)?,
            previous: Sha256::of(facts.get().as_bytes()),
            facts: Some(facts),
            done: Vec::new(),
            open: Open::default(),
            at: Duration::ZERO,
            bytes: Bytes::default(),
        })
    }

    /// The facts.
    #[must_use]
    pub fn opening(&self) -> &Arc<Opening> {
        &self.opening
    }

    /// The chunk that holds `batch`: the next bytes of the open segment.
    ///
    /// # Errors
    /// If it cannot be compressed or encrypted. Nothing has changed then.
    pub fn write(&mut self, batch: &Batch) -> Result<Vec<u8>, WriteError> {
        let packed = compress(&batch.lines)?;
        let encrypted = !self.recipients.is_empty();
        let body = if encrypted {
            self.recipients.encrypt(&packed)?
        } else {
            packed
        };
        let header = Header {
            v: VERSION,
            recording: self.opening.recording,
            segment: self.number(),
            chunk: self.open.chunks,
            previous: self.previous,
            opening: self.facts.clone(),
            lines: batch.count,
            text: u32::try_from(batch.lines.len()).map_err(|_| ChunkError::Long)?,
            body: 0,
            micros: u64::try_from(batch.at.as_micros()).unwrap_or(u64::MAX),
            bytes: batch.bytes,
        };
        if batch.lines.len() > chunk::MAX_TEXT {
            return Err(ChunkError::Long.into());
        }
        let chunk = chunk::write(header, &body, encrypted)?;
        self.append(
            &chunk,
            Sha256::of(&chunk),
            batch.count,
            batch.at,
            batch.bytes,
        );
        Ok(chunk)
    }

    fn append(&mut self, chunk: &[u8], sha256: Sha256, lines: u64, at: Duration, bytes: Bytes) {
        self.open.hash.update(chunk);
        self.open.length += chunk.len() as u64;
        self.open.chunks += 1;
        self.open.lines += lines;
        self.previous = sha256;
        self.facts = None;
        self.at = at;
        self.bytes = bytes;
    }

    /// Takes a chunk that was written before: why it cannot be the next one, if so. `raw` are its bytes.
    pub(super) fn resume(&mut self, chunk: &Chunk, raw: &[u8]) -> Result<(), &'static str> {
        let header = &chunk.header;
        let previous = if let Some(facts) = header.opening.as_deref() {
            if self.facts.is_none() {
                return Err("holds an opening, but is not the first");
            }
            let opening: Opening =
                serde_json::from_str(facts.get()).map_err(|_| "holds an opening that is none")?;
            if opening != *self.opening {
                return Err("holds another opening");
            }
            Sha256::of(facts.get().as_bytes())
        } else if self.facts.is_some() {
            return Err("is the first, but holds no opening");
        } else {
            self.previous
        };
        if (header.recording, header.segment, header.chunk)
            != (self.opening.recording, self.number(), self.open.chunks)
        {
            return Err("belongs elsewhere");
        }
        if header.previous != previous {
            return Err("does not continue the one before");
        }
        let at = Duration::from_micros(header.micros);
        self.append(raw, chunk.sha256, header.lines, at, header.bytes);
        Ok(())
    }

    /// The number of the open segment, from 0.
    ///
    /// # Panics
    /// Never: a segment takes a second, and 2³² seconds are 136 years.
    #[must_use]
    pub fn number(&self) -> u32 {
        u32::try_from(self.done.len()).expect("there are fewer than 2³² segments")
    }

    /// Bytes in the open segment.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.open.length
    }

    /// The hash of the last chunk: what the next one, or the manifest, will contain.
    #[must_use]
    pub fn chain_head(&self) -> Sha256 {
        self.previous
    }

    /// Closes the open segment, if it holds anything: what it is. The next chunk begins another.
    pub fn close(&mut self) -> Option<Segment> {
        if self.open.chunks == 0 {
            return None;
        }
        let name = segment_name(self.number());
        let open = std::mem::take(&mut self.open);
        let segment = Segment {
            name,
            bytes: open.length,
            sha256: open.hash.finish(),
            chunks: open.chunks,
            lines: open.lines,
        };
        self.done.push(segment.clone());
        Some(segment)
    }

    /// Closes the recording. What is left to do is to [sign](Manifest::sign) what this returns.
    #[must_use]
    pub fn seal(mut self, seal: Seal) -> Manifest {
        self.close();
        let Seal {
            verdict,
            end,
            transfers,
            gaps,
            cut,
            sealed_by,
        } = seal;
        Manifest {
            // A terminal has none.
            transfers_unknown: verdict != Verdict::Complete && !self.opening.tty,
            version: VERSION,
            ended_at: self
                .opening
                .started_at
                .checked_add(self.at)
                .unwrap_or(Timestamp::MAX),
            duration_seconds: self.at.as_secs_f64(),
            opening: Arc::unwrap_or_clone(self.opening),
            verdict,
            end,
            segments: self.done,
            chain_head: self.previous,
            bytes: self.bytes,
            transfers,
            gaps,
            cut,
            sealed_by,
        }
    }
}

impl fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("segment", &self.done.len())
            .field("chunk", &self.open.chunks)
            .finish_non_exhaustive()
    }
}
