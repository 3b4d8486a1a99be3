//! What a recorder left behind when it was killed: taken up where it ended.

use std::io::{self, Read};

use super::chunk::{Chunk, ChunkError};
use super::{Opening, SegmentWriter, WriteError};

/// A recording as its recorder left it.
#[derive(Debug)]
pub struct Recovered {
    /// Knows every whole chunk. What is left to do is to [seal](SegmentWriter::seal) it.
    pub writer: SegmentWriter,
    /// What follows the last whole chunk, and must be cut off first.
    pub cut: Option<Cut>,
}

/// The end of a segment that is no whole chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which segment.
    pub segment: u32,
    /// How many of its bytes are whole chunks. If 0, the file is to be removed.
    pub keep: u64,
    /// How many are not.
    pub lost: u64,
}

/// Why a recording cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A segment cannot be read.
    #[error("segment {segment} cannot be read")]
    Read {
        /// Which one.
        segment: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A segment that is not the last one is damaged: a recorder that was killed does not leave that.
    #[error("segment {segment} is damaged after {keep} bytes, and others follow")]
    Damaged {
        /// Which one.
        segment: u32,
        /// How many of its bytes are whole chunks.
        keep: u64,
    },
    /// The opening names recipients that are none.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads `segments`, in order, of the recording that `opening` describes. Nothing is decompressed or decrypted.
///
/// # Errors
/// If they cannot be read, or are damaged elsewhere than at the end.
pub fn recover<R: Read>(
    opening: &Opening,
    segments: impl IntoIterator<Item = io::Result<R>>,
) -> Result<Recovered, RecoverError> {
    let mut writer = SegmentWriter::new(opening)?;
    let mut cut = None;
    for (segment, reader) in (0..).zip(segments) {
        if let Some(Cut { segment, keep, .. }) = cut {
            return Err(RecoverError::Damaged { segment, keep });
        }
        let failed = |source| RecoverError::Read { segment, source };
        writer.close();
        let mut tee = Tee {
            from: reader.map_err(failed)?,
            read: Vec::new(),
        };
        loop {
            tee.read.clear();
            match Chunk::read(&mut tee) {
                Ok(Some(chunk)) if writer.resume(&chunk, &tee.read).is_ok() => continue,
                Ok(None) if writer.length() > 0 => break,
                Err(ChunkError::Io(source)) => return Err(failed(source)),
                // An empty file, a torn chunk, or what a file system left where one should be.
                Ok(_) | Err(_) => {}
            }
            let read = tee.read.len() as u64;
            let rest = io::copy(&mut tee.from, &mut io::sink()).map_err(failed)?;
            cut = Some(Cut {
                segment,
                keep: writer.length(),
                lost: read + rest,
            });
            break;
        }
    }
    Ok(Recovered { writer, cut })
}

/// Keeps what was read: a chunk at most.
struct Tee<R> {
    from: R,
    read: Vec<u8>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.read.extend_from_slice(&into[..read]);
        Ok(read)
    }
}
