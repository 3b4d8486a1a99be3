//! What a recording tells, one thing at a time.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hash::Sha256;

/// A stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// From the user to the process.
    Stdin,
    /// From the process; with a terminal, everything.
    Stdout,
    /// From the process, without a terminal.
    Stderr,
}

/// An [`Event`] and when it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// Since the beginning; to the microsecond, never less than the event's before.
    pub at: Duration,
    /// What happened.
    pub event: Event,
}

/// Something that happened in a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Bytes of a stream, as they were.
    Data(Stream, Vec<u8>),
    /// Columns and rows of the terminal.
    Resize(u16, u16),
    /// A note: of the gateway, not of the user or the process.
    Marker(String),
    /// So many bytes were typed and are not told.
    Hidden(u64),
    /// A stream that is told by its length, hash and beginning.
    Transfer(Transfer),
    /// Bytes that the recorder missed.
    Gap(Gap),
    /// The end.
    End(End),
}

/// A stream that is told by its length, hash and beginning: of a `kubectl cp`, for instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Which stream.
    pub stream: Stream,
    /// How many bytes passed.
    pub bytes: u64,
    /// How many of them are in the recording as well.
    pub recorded: u64,
    /// The hash of all bytes; unknown if the recorder missed some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// The first bytes in base64: at most 1024.
    pub head: String,
}

/// What a stream without a terminal carried, whether it is told as text or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Which stream.
    pub stream: Stream,
    /// How many bytes passed; never 0.
    pub bytes: u64,
    /// The hash of all bytes; unknown if the recorder missed some.
    pub sha256: Option<Sha256>,
}

/// Bytes that the recorder missed, because it could not keep up and may not stop the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Of which stream.
    pub stream: Stream,
    /// How many.
    pub bytes: u64,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Why, in one word: `Completed`, `Expired`, `ClientLeft` …
    pub reason: String,
    /// The process's exit code, if it told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// How many bytes each stream carried, whether they are kept or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// From the user.
    pub stdin: u64,
    /// From the process.
    pub stdout: u64,
    /// From the process, without a terminal.
    pub stderr: u64,
}

impl Bytes {
    /// Those of `stream`.
    #[must_use]
    pub fn of(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdin => self.stdin,
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Counts `bytes` more of `stream`.
    pub fn add(&mut self, stream: Stream, bytes: u64) {
        let sum = match stream {
            Stream::Stdin => &mut self.stdin,
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        *sum = sum.saturating_add(bytes);
    }
}
