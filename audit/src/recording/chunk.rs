//! Chunks: the unit of writing. A header that contains the hash of the chunk before, then some compressed lines.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Bytes, CipherError, Identities};
use crate::hash::{Running, Sha256};

/// Most text in a chunk, in bytes: bounds what a hostile one can make a reader hold.
pub(super) const MAX_TEXT: usize = 1 << 20;
/// Longest header: an argv may fill most of an HTTP request's first line.
const MAX_HEADER: u32 = 1 << 20;
/// Longest body: text that does not compress, and what age adds.
const MAX_BODY: u32 = 2 << 20;

/// A zstd skippable frame that holds a header.
const HEADER_MAGIC: u32 = 0x184D_2A50;
/// A zstd skippable frame that holds an encrypted body.
const CIPHER_MAGIC: u32 = 0x184D_2A51;

/// The header of a chunk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format: [`VERSION`](super::VERSION).
    pub v: u32,
    /// The recording it belongs to.
    pub recording: Uuid,
    /// The segment it is in, from 0.
    pub segment: u32,
    /// Its number in that segment, from 0.
    pub chunk: u32,
    /// The hash of the whole chunk before; of [`opening`](Self::opening) if this is the first.
    pub previous: Sha256,
    /// The facts, exactly as they were hashed: the first chunk has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Box<RawValue>>,
    /// How many lines it holds.
    pub lines: u64,
    /// How long they are, in bytes.
    pub text: u32,
    /// How long the frame after this one is, in bytes.
    pub body: u32,
    /// The time of its last line, in microseconds.
    pub micros: u64,
    /// What the streams carried until then.
    pub bytes: Bytes,
}

/// Why bytes are no chunk.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// They cannot be read.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// They end in the middle of one.
    #[error("ends too early")]
    Truncated,
    /// They do not begin as a chunk does.
    #[error("does not begin like a chunk")]
    Magic,
    /// A part is longer than any can be.
    #[error("says it is longer than any chunk can be")]
    Long,
    /// The header is none.
    #[error("its header does not parse: {0}")]
    Header(serde_json::Error),
    /// It is of a version that this program does not know.
    #[error("is of version {0}, which this program does not know")]
    Version(u32),
    /// Its text does not decompress.
    #[error("its text does not decompress")]
    Zstd(#[source] io::Error),
    /// It is encrypted, and not for us.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// Its text is not as long as its header says, or not as many lines.
    #[error("holds other lines than its header says")]
    Text,
}

/// A chunk as it was read: what it holds is still compressed.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Its header.
    pub header: Header,
    /// The hash of all of it.
    pub sha256: Sha256,
    /// The length of all of it.
    pub length: u64,
    encrypted: bool,
    body: Vec<u8>,
}

impl Chunk {
    /// Whether only somebody with a key can read it.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// Its lines, each with its line feed. At most 1 MiB.
    ///
    /// # Errors
    /// If it is encrypted and not for `identities`, or damaged.
    pub fn lines(&self, identities: &Identities) -> Result<Vec<u8>, ChunkError> {
        let text = self.header.text as usize;
        if text > MAX_TEXT {
            return Err(ChunkError::Long);
        }
        let decompress = |body: &[u8]| zstd::bulk::decompress(body, text).map_err(ChunkError::Zstd);
        let lines = if self.encrypted {
            decompress(&identities.decrypt(&self.body)?)?
        } else {
            decompress(&self.body)?
        };
        let count = memchr::memchr_iter(b'\n', &lines).count() as u64;
        if lines.len() == text && count == self.header.lines && lines.last() == Some(&b'\n') {
            Ok(lines)
        } else {
            Err(ChunkError::Text)
        }
    }

    /// Reads one chunk; `None` at the end of `from`.
    ///
    /// # Errors
    /// If `from` does not hold a chunk next, or cannot be read.
    pub fn read(from: &mut impl Read) -> Result<Option<Self>, ChunkError> {
        let mut hash = Running::new();
        let mut start = [0; 8];
        match fill(from, &mut start)? {
            0 => return Ok(None),
            8 => {}
            _ => return Err(ChunkError::Truncated),
        }
        hash.update(&start);
        let (magic, length) = split(start);
        if magic != HEADER_MAGIC {
            return Err(ChunkError::Magic);
        }
        let head = part(from, length, MAX_HEADER)?;
        hash.update(&head);
        let header: Header = serde_json::from_slice(&head).map_err(ChunkError::Header)?;
        if header.v != super::VERSION {
            return Err(ChunkError::Version(header.v));
        }
        let mut body = part(from, header.body, MAX_BODY)?;
        hash.update(&body);
        let encrypted = body.len() >= 8 && body[..4] == CIPHER_MAGIC.to_le_bytes();
        if encrypted {
            body.drain(..8);
        }
        Ok(Some(Self {
            sha256: hash.finish(),
            length: 8 + u64::from(length) + u64::from(header.body),
            header,
            encrypted,
            body,
        }))
    }
}

/// The bytes of a chunk with this header and this body, which is compressed and, if so, encrypted. The header's `body`
/// is set here.
pub(super) fn write(
    mut header: Header,
    body: &[u8],
    encrypted: bool,
) -> Result<Vec<u8>, ChunkError> {
    let frame = if encrypted { 8 } else { 0 };
    header.body = bounded(body.len() + frame, MAX_BODY)?;
    let head = serde_json::to_vec(&header).map_err(ChunkError::Header)?;
    let mut chunk = Vec::with_capacity(8 + head.len() + frame + body.len());
    chunk.extend_from_slice(&HEADER_MAGIC.to_le_bytes());
    chunk.extend_from_slice(&bounded(head.len(), MAX_HEADER)?.to_le_bytes());
    chunk.extend_from_slice(&head);
    if encrypted {
        chunk.extend_from_slice(&CIPHER_MAGIC.to_le_bytes());
        chunk.extend_from_slice(&bounded(body.len(), MAX_BODY)?.to_le_bytes());
    }
    chunk.extend_from_slice(body);
    Ok(chunk)
}

fn bounded(length: usize, bound: u32) -> Result<u32, ChunkError> {
    u32::try_from(length)
        .ok()
        .filter(|length| *length <= bound)
        .ok_or(ChunkError::Long)
}

fn split(start: [u8; 8]) -> (u32, u32) {
    // Little-endian: the first four bytes are the lower half.
    let both = u64::from_le_bytes(start);
    ((both & 0xffff_ffff) as u32, (both >> 32) as u32)
}

/// The next `length` bytes.
fn part(from: &mut impl Read, length: u32, bound: u32) -> Result<Vec<u8>, ChunkError> {
    if length > bound {
        return Err(ChunkError::Long);
    }
    let mut bytes = vec![0; length as usize];
    if fill(from, &mut bytes)? == bytes.len() {
        Ok(bytes)
    } else {
        Err(ChunkError::Truncated)
    }
}

/// Fills `into` as far as `from` reaches; how far that is.
fn fill(from: &mut impl Read, into: &mut [u8]) -> Result<usize, ChunkError> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ChunkError::Io(error)),
        }
    }
    Ok(filled)
}

/// The chunks of one segment, in order. After an error there is nothing more.
#[derive(Debug)]
pub struct Chunks<R> {
    from: Option<R>,
}

impl<R: Read> Chunks<R> {
    /// Of the segment that `from` reads.
    pub fn new(from: R) -> Self {
        Self { from: Some(from) }
    }
}

impl<R: Read> Iterator for Chunks<R> {
    type Item = Result<Chunk, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = Chunk::read(self.from.as_mut()?).transpose();
        if !matches!(chunk, Some(Ok(_))) {
            self.from = None;
        }
        chunk
    }
}
