//! Reads a recording from its beginning, one event after the other, a chunk in memory at a time. Proves nothing.

use std::fmt;
use std::io::{self, Read};

use super::{ChunkError, Chunks, Identities, LineError, Lines, Opening, Place, Source, Timed};

/// Why a recording cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A segment cannot be opened.
    #[error("{0} cannot be opened")]
    Open(Place, #[source] io::Error),
    /// A chunk is none, or is encrypted and not for us.
    #[error("{0} {1}")]
    Chunk(Place, #[source] ChunkError),
    /// A line is none.
    #[error("{0}: {1}")]
    Line(Place, #[source] LineError),
}

impl ReadError {
    /// Whether the recording just ends in the middle of a chunk, as one does that is being written or was never sealed.
    #[must_use]
    pub fn truncated(&self) -> bool {
        matches!(self, Self::Chunk(_, ChunkError::Truncated))
    }
}

/// The events of a recording. After an error there is nothing more.
pub struct Reader<'a> {
    source: &'a dyn Source,
    identities: &'a Identities,
    lines: Lines,
    segment: u32,
    chunks: Option<Chunks<Box<dyn Read + 'a>>>,
    chunk: u32,
    text: Vec<u8>,
    position: usize,
    line: u64,
    done: bool,
}

impl<'a> Reader<'a> {
    /// Of the recording in `source`.
    #[must_use]
    pub fn new(source: &'a dyn Source, identities: &'a Identities) -> Self {
        Self {
            source,
            identities,
            lines: Lines::new(),
            segment: 0,
            chunks: None,
            chunk: 0,
            text: Vec::new(),
            position: 0,
            line: 0,
            done: false,
        }
    }

    /// The facts, once the first event was read.
    #[must_use]
    pub fn opening(&self) -> Option<&Opening> {
        self.lines.opening()
    }

    /// Columns and rows the recording begins with, once the first event was read.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        self.lines.size()
    }

    /// Where reading is.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::Line {
            segment: self.segment,
            chunk: self.chunk.saturating_sub(1),
            line: self.line,
        }
    }

    /// The next line, without its line feed, as it is in the recording; empty at the end.
    ///
    /// # Errors
    /// If the recording is damaged, encrypted and not for us, or cannot be opened.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, ReadError> {
        while self.position == self.text.len() {
            if !self.next_chunk()? {
                return Ok(None);
            }
        }
        let rest = &self.text[self.position..];
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let start = self.position;
        self.position = (start + length + 1).min(self.text.len());
        self.line += 1;
        Ok(Some(&self.text[start..start + length]))
    }

    fn next_chunk(&mut self) -> Result<bool, ReadError> {
        loop {
            let Some(chunks) = &mut self.chunks else {
                let place = Place::Segment(self.segment);
                let open = self.source.segment(self.segment);
                let Some(segment) = open.map_err(|error| ReadError::Open(place, error))? else {
                    return Ok(false);
                };
                self.chunks = Some(Chunks::new(segment));
                self.chunk = 0;
                continue;
            };
            let place = Place::Chunk {
                segment: self.segment,
                chunk: self.chunk,
            };
            let Some(chunk) = chunks.next() else {
                self.chunks = None;
                self.segment += 1;
                continue;
            };
            let text = chunk.and_then(|chunk| chunk.lines(self.identities));
            self.text = text.map_err(|error| ReadError::Chunk(place, error))?;
            self.position = 0;
            self.line = 0;
            self.chunk += 1;
            return Ok(true);
        }
    }

    fn next_event(&mut self) -> Result<Option<Timed>, ReadError> {
        let mut lines = std::mem::take(&mut self.lines);
        let event = loop {
            match self.next_line() {
                Ok(None) => break Ok(None),
                Err(error) => break Err(error),
                Ok(Some(line)) => match lines.read(line) {
                    Ok(None) => {}
                    Ok(Some(event)) => break Ok(Some(event)),
                    Err(error) => break Err(ReadError::Line(self.place(), error)),
                },
            }
        };
        self.lines = lines;
        event
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Timed, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let event = self.next_event().transpose();
        self.done = !matches!(event, Some(Ok(_)));
        event
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.place())
    }
}
