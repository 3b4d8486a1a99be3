//! Recordings: what happened on one connection, in a form that players play and that shows every change.
//!
//! `docs/recording.md` describes the format for those who read it with tools of their own.

mod event;
mod manifest;
mod opening;

pub use event::{Bytes, End, Event, Gap, Stream, Timed, Transfer};
pub use manifest::{Manifest, ManifestError, PAYLOAD_TYPE, Segment, Verdict};
pub use opening::{Level, Mode, Opening, Settings, Subprotocols};

/// The file of a recording's manifest, beside its segments.
pub const MANIFEST: &str = "manifest.json";

/// The version of the format that this crate writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// The file of segment `number`.
#[must_use]
pub fn segment_name(number: u32) -> String {
    format!("{number:08}.seg")
}
