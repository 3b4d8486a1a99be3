//! Recordings: what happened on one connection, in a form that players play and that shows every change.
//!
//! `docs/recording.md` describes the format for those who read it with tools of their own.

mod chunk;
mod cipher;
mod encoder;
mod event;
mod keystrokes;
mod line;
mod manifest;
mod opening;
mod reader;
mod recover;
mod segment;
mod source;
mod stream;
pub(crate) mod text;
mod verify;

pub use chunk::{Chunk, ChunkError, Chunks, Header};
pub use cipher::{CipherError, Identities, Recipients};
pub use encoder::{Batch, Encoder};
pub use event::{Bytes, Carried, End, Event, Gap, Stream, Timed, Transfer};
pub use line::{LineError, Lines};
pub use manifest::{Manifest, ManifestError, PAYLOAD_TYPE, Segment, Verdict};
pub use opening::{Level, Mode, Opening, Settings, Subprotocols};
pub use reader::{ReadError, Reader};
pub use recover::{Cut, RecoverError, Recovered, recover};
pub use segment::{Seal, SegmentWriter, WriteError};
pub use source::{Directory, Source, is_segment};
pub use stream::is_tar;
pub use verify::{Broken, Place, Progress, Sealed, Unsealed, Verification, verify};

/// The file of a recording's manifest, beside its segments.
pub const MANIFEST: &str = "manifest.json";

/// The version of the format that this crate writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// The file of segment `number`.
#[must_use]
pub fn segment_name(number: u32) -> String {
    format!("{number:08}.seg")
}
