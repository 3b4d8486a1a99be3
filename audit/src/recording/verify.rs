//! Whether a recording is what its recorder wrote: every byte of it, in order, vouched for.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};

use super::chunk::{Chunk, ChunkError};
use super::{
    Bytes, Event, Identities, Lines, Manifest, Opening, Source, Stream, Transfer, Verdict,
    segment_name,
};
use crate::hash::{Running, Sha256};
use crate::keys::{KeyId, KeySet};

/// Where something is wrong. Everything is counted from 0, but lines from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The manifest, or what it says of the whole.
    Manifest,
    /// A segment.
    Segment(u32),
    /// A chunk of a segment.
    Chunk {
        /// The segment.
        segment: u32,
        /// The chunk.
        chunk: u32,
    },
    /// A line of a chunk.
    Line {
        /// The segment.
        segment: u32,
        /// The chunk.
        chunk: u32,
        /// The line.
        line: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => write!(f, "manifest"),
            Self::Segment(segment) => write!(f, "segment {segment}"),
            Self::Chunk { segment, chunk } => write!(f, "segment {segment}, chunk {chunk}"),
            Self::Line {
                segment,
                chunk,
                line,
            } => write!(f, "segment {segment}, chunk {chunk}, line {line}"),
        }
    }
}

/// What a recording proved to be.
#[derive(Debug)]
pub enum Verification {
    /// A trusted key vouches for it, and nothing was changed since. Whether the recorder saw the whole session is the
    /// manifest's [verdict](Manifest::verdict).
    Sealed(Box<Sealed>),
    /// There is no manifest: it is being written, or nobody sealed it. What is there fits together.
    Unsealed(Unsealed),
    /// It was changed, or is damaged.
    Broken(Broken),
}

/// A recording that somebody trusted vouches for.
#[derive(Debug)]
pub struct Sealed {
    /// What the recorder says of it.
    pub manifest: Manifest,
    /// Which key vouches for it.
    pub key: KeyId,
    /// Whether its lines were read as well; not if they are encrypted and not for us.
    pub read: bool,
}

/// A recording that nobody vouches for.
#[derive(Debug, Default)]
pub struct Unsealed {
    /// The facts it opens with, if there is a chunk.
    pub opening: Option<Box<Opening>>,
    /// How many segments there are.
    pub segments: u32,
    /// How many lines.
    pub lines: u64,
    /// Bytes at its end that are no whole chunk.
    pub cut: u64,
}

/// What is wrong with a recording, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub place: Place,
    /// What: continues a sentence that begins with the place.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

/// How far [`verify`] is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes of segments that were read.
    pub bytes: u64,
    /// Bytes that there are, if a manifest says so.
    pub total: Option<u64>,
}

/// Reads the recording in `source` from its first to its last byte. Believes `keys`, and nobody else. With `identities`
/// an encrypted one is read as well; without, everything else is checked. Holds a chunk in memory at a time.
///
/// # Errors
/// If `source` cannot be read. That says nothing about the recording.
pub fn verify(
    source: &dyn Source,
    keys: &KeySet,
    identities: &Identities,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<Verification> {
    let sealed = match source.manifest()? {
        None => None,
        Some(file) => match Manifest::verify(&file, keys) {
            Ok(sealed) => Some(sealed),
            Err(error) => return Ok(Verification::Broken(broken(Place::Manifest, error))),
        },
    };
    let mut walk = Walk {
        manifest: sealed.as_ref().map(|(manifest, _)| manifest),
        identities,
        opening: None,
        head: None,
        last: Place::Manifest,
        suspect: None,
        altered: None,
        micros: 0,
        bytes: Bytes::default(),
        contents: Contents::default(),
        unsealed: Unsealed::default(),
        progress: Progress {
            bytes: 0,
            total: sealed
                .as_ref()
                .map(|(manifest, _)| manifest.segments.iter().map(|s| s.bytes).sum()),
        },
    };
    match walk.run(source, progress) {
        Ok(()) => {}
        Err(Stop::Broken(broken)) => return Ok(Verification::Broken(broken)),
        Err(Stop::Io(error)) => return Err(error),
    }
    let Walk {
        contents,
        opening,
        unsealed,
        ..
    } = walk;
    Ok(match sealed {
        Some((manifest, key)) => Verification::Sealed(Box::new(Sealed {
            manifest,
            key,
            read: !contents.unread,
        })),
        None => Verification::Unsealed(Unsealed {
            opening: opening.map(Box::new),
            ..unsealed
        }),
    })
}

enum Stop {
    Broken(Broken),
    Io(io::Error),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

fn broken(place: Place, why: impl fmt::Display) -> Broken {
    Broken {
        place,
        why: why.to_string(),
    }
}

struct Walk<'a> {
    manifest: Option<&'a Manifest>,
    identities: &'a Identities,
    opening: Option<Opening>,
    /// The hash of the last chunk.
    head: Option<Sha256>,
    /// Where that is.
    last: Place,
    /// A chunk whose hash is not what the next one says. Which of the two was changed, the one after that tells.
    suspect: Option<Place>,
    /// A segment whose hash is not what the manifest says. Which chunk was changed, the next one tells.
    altered: Option<u32>,
    micros: u64,
    bytes: Bytes,
    contents: Contents,
    unsealed: Unsealed,
    progress: Progress,
}

impl Walk<'_> {
    fn run(&mut self, source: &dyn Source, progress: &mut dyn FnMut(Progress)) -> Result<(), Stop> {
        let count = self.names(source)?;
        for number in 0..count {
            let place = Place::Segment(number);
            let Some(segment) = source.segment(number).map_err(Stop::Io)? else {
                return Err(broken(place, "is missing").into());
            };
            self.segment(number, number + 1 == count, segment, progress)?;
        }
        self.unsealed.segments = count;
        if let Some(manifest) = self.manifest {
            self.finish(manifest)?;
        } else if let Some(suspect) = self.suspect {
            return Err(broken(suspect, "is not what the next chunk continues").into());
        }
        Ok(())
    }

    /// How many segments there should be. None but those may be there.
    fn names(&self, source: &dyn Source) -> Result<u32, Stop> {
        let mut names: BTreeSet<String> =
            source.segments().map_err(Stop::Io)?.into_iter().collect();
        let there = names.len();
        let should = match self.manifest {
            Some(manifest) => manifest.segments.len(),
            None => there,
        };
        let should = u32::try_from(should)
            .map_err(|_| broken(Place::Manifest, "lists more segments than there can be"))?;
        for number in 0..should {
            let name = segment_name(number);
            if let Some(manifest) = self.manifest
                && manifest.segments[number as usize].name != name
            {
                let why = format!("does not list segment {number} under its name");
                return Err(broken(Place::Manifest, why).into());
            }
            if !names.remove(&name) {
                return Err(broken(Place::Segment(number), "is missing").into());
            }
        }
        match names.first() {
            None => Ok(should),
            Some(name) => {
                let why = format!("does not list {name}, which is there");
                Err(broken(Place::Manifest, why).into())
            }
        }
    }

    fn segment(
        &mut self,
        number: u32,
        is_last: bool,
        segment: Box<dyn Read + '_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Stop> {
        let expected = self
            .manifest
            .map(|manifest| &manifest.segments[number as usize]);
        let mut reader = Hashing {
            from: segment,
            hash: Running::new(),
            bytes: 0,
        };
        let (mut whole, mut lines) = (0, 0);
        for chunk in 0.. {
            let place = Place::Chunk {
                segment: number,
                chunk,
            };
            match Chunk::read(&mut reader) {
                Ok(None) => {
                    if let Some(expected) = expected
                        && chunk != expected.chunks
                    {
                        let why = format!(
                            "ends after {chunk} chunks; the manifest lists {}",
                            expected.chunks
                        );
                        return Err(broken(Place::Segment(number), why).into());
                    }
                    break;
                }
                Ok(Some(read)) => {
                    if expected.is_some_and(|expected| chunk >= expected.chunks) {
                        return Err(broken(place, "is more than the manifest lists").into());
                    }
                    lines += read.header.lines;
                    self.chunk(place, (number, chunk), &read)?;
                }
                Err(ChunkError::Io(error)) => return Err(Stop::Io(error)),
                Err(ChunkError::Truncated) if self.manifest.is_none() && is_last => {
                    self.unsealed.cut = reader.bytes - whole;
                    break;
                }
                Err(error) => return Err(self.blame(place, error).into()),
            }
            self.progress.bytes += reader.bytes - std::mem::replace(&mut whole, reader.bytes);
            progress(self.progress);
        }
        self.unsealed.lines += lines;
        if let Some(expected) = expected {
            if (reader.bytes, lines) != (expected.bytes, expected.lines) {
                let why = "is not as long as the manifest says";
                return Err(broken(Place::Segment(number), why).into());
            }
            if reader.hash.finish() != expected.sha256 && self.altered.is_none() {
                self.altered = Some(number);
            }
        }
        Ok(())
    }

    fn chunk(&mut self, place: Place, numbers: (u32, u32), chunk: &Chunk) -> Result<(), Stop> {
        let header = &chunk.header;
        if (header.segment, header.chunk) != numbers {
            let why = format!(
                "was written as segment {}, chunk {}",
                header.segment, header.chunk
            );
            return Err(self.blame(place, why).into());
        }
        if let Some(head) = self.head {
            self.link(header.previous, head)?;
            if header.opening.is_some() {
                return Err(self.blame(place, "opens the recording again").into());
            }
        } else {
            self.open(place, chunk)?;
        }
        if self
            .opening
            .as_ref()
            .is_some_and(|opening| opening.recording != header.recording)
        {
            return Err(self.blame(place, "belongs to another recording").into());
        }
        if header.micros < self.micros {
            return Err(self.blame(place, "is earlier than the one before").into());
        }
        self.micros = header.micros;
        self.bytes = header.bytes;
        self.contents
            .chunk(place, chunk, self.identities)
            .map_err(|(place, why)| self.blame(place, why))?;
        self.head = Some(chunk.sha256);
        self.last = place;
        Ok(())
    }

    /// The first chunk.
    fn open(&mut self, place: Place, chunk: &Chunk) -> Result<(), Broken> {
        let Some(facts) = chunk.header.opening.as_deref() else {
            return Err(broken(place, "is the first, but tells no facts"));
        };
        if chunk.header.previous != Sha256::of(facts.get().as_bytes()) {
            return Err(broken(place, "does not continue the facts it tells"));
        }
        let opening: Opening = serde_json::from_str(facts.get())
            .map_err(|error| broken(place, format!("its facts do not parse: {error}")))?;
        if let Some(manifest) = self.manifest
            && manifest.opening != opening
        {
            return Err(broken(place, "tells other facts than the manifest"));
        }
        self.contents.opening = Some(opening.clone());
        self.opening = Some(opening);
        Ok(())
    }

    /// The next chunk, or the manifest, says that the last chunk's hash is `says`; it is `is`.
    fn link(&mut self, says: Sha256, is: Sha256) -> Result<(), Broken> {
        let changed = "was changed: its hash is not what follows from it";
        match (self.suspect.take(), says == is) {
            // The suspect's successor is as it was written, so the suspect is not.
            (Some(suspect), true) => Err(broken(suspect, changed)),
            (Some(_), false) => Err(broken(self.last, changed)),
            (None, true) => match self.altered {
                None => Ok(()),
                Some(number) => {
                    let why = "was changed: its hash is not what the manifest says";
                    Err(broken(Place::Segment(number), why))
                }
            },
            (None, false) if self.altered.is_some() => Err(broken(self.last, changed)),
            (None, false) => {
                self.suspect = Some(self.last);
                Ok(())
            }
        }
    }

    /// What is wrong at `place`, or before it, if that is known already.
    fn blame(&self, place: Place, why: impl fmt::Display) -> Broken {
        match self.suspect {
            None => broken(place, why),
            Some(suspect) => broken(suspect, "was changed: its hash is not what follows from it"),
        }
    }

    /// After the last chunk: what the manifest says of the whole.
    fn finish(&mut self, manifest: &Manifest) -> Result<(), Broken> {
        let head = match self.head {
            Some(head) => head,
            None => match serde_json::to_vec(&manifest.opening) {
                Ok(facts) => Sha256::of(&facts),
                Err(error) => return Err(broken(Place::Manifest, error)),
            },
        };
        self.link(manifest.chain_head, head)?;
        if self.suspect.is_some() {
            return Err(broken(Place::Manifest, "lists another end of the chain"));
        }
        if self.bytes != manifest.bytes {
            let why = "counts other bytes than the last chunk";
            return Err(broken(Place::Manifest, why));
        }
        self.contents
            .finish(manifest)
            .map_err(|why| broken(Place::Manifest, why))
    }
}

/// What the lines say.
#[derive(Default)]
struct Contents {
    opening: Option<Opening>,
    lines: Lines,
    unread: bool,
    told: Bytes,
    transfers: Vec<Transfer>,
    end: Option<super::End>,
}

impl Contents {
    fn chunk(
        &mut self,
        place: Place,
        chunk: &Chunk,
        identities: &Identities,
    ) -> Result<(), (Place, String)> {
        if chunk.encrypted() && identities.is_empty() {
            self.unread = true;
            return Ok(());
        }
        let text = chunk
            .lines(identities)
            .map_err(|error| (place, error.to_string()))?;
        let Place::Chunk { segment, chunk } = place else {
            return Ok(());
        };
        for (line, text) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
            let place = Place::Line {
                segment,
                chunk,
                line,
            };
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            let timed = self
                .lines
                .read(text)
                .map_err(|error| (place, error.to_string()))?;
            if self.lines.opening() != self.opening.as_ref() {
                return Err((place, "tells other facts than the chunk".to_owned()));
            }
            match timed.map(|timed| timed.event) {
                Some(Event::Data(stream, bytes)) => self.told.add(stream, bytes.len() as u64),
                Some(Event::Hidden(bytes)) => self.told.add(Stream::Stdin, bytes),
                Some(Event::Gap(gap)) => self.told.add(gap.stream, gap.bytes),
                Some(Event::Transfer(transfer)) => self.transfers.push(transfer),
                Some(Event::End(end)) => self.end = Some(end),
                Some(Event::Resize(..) | Event::Marker(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Whether the lines tell what the manifest says.
    fn finish(&self, manifest: &Manifest) -> Result<(), String> {
        if self.unread {
            return Ok(());
        }
        // Whoever seals for a recorder that was killed knows no more than the chunks' headers, even if all were written.
        if manifest.verdict != Verdict::Complete {
            return Ok(());
        }
        if !self.lines.ended() {
            return Err("says Complete, but the lines tell no end".to_owned());
        }
        if self.end != manifest.end || self.transfers != manifest.transfers {
            return Err("tells another end, or other transfers, than the lines".to_owned());
        }
        let settings = &manifest.opening.settings;
        for stream in [Stream::Stdin, Stream::Stdout, Stream::Stderr] {
            let transfer = self
                .transfers
                .iter()
                .find(|transfer| transfer.stream == stream);
            let kept = stream != Stream::Stdin || settings.keystrokes;
            let told = self.told.of(stream);
            let gap = manifest.gaps.iter().find(|gap| gap.stream == stream);
            let gap = gap.map_or(0, |gap| gap.bytes);
            let right = match transfer {
                Some(transfer) => {
                    transfer.bytes == manifest.bytes.of(stream) && told == transfer.recorded + gap
                }
                None => !kept || told == manifest.bytes.of(stream),
            };
            if !right {
                return Err(format!("counts other bytes of {stream:?} than the lines"));
            }
        }
        Ok(())
    }
}

struct Hashing<R> {
    from: R,
    hash: Running,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.hash.update(&into[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}
