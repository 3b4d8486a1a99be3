//! One stream without a terminal: text is told as it is, anything else by its length, hash and beginning.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::text::{Joiner, MAX_PIECE, is_binary};
use super::{Carried, Opening, Stream, Transfer, line};
use crate::hash::{Running, Sha256};

/// How much of a summarised stream is shown, in bytes: enough to see what it is.
const HEAD: usize = 1024;

/// A stream of a process without a terminal.
#[derive(Debug)]
pub(super) struct Plain {
    stream: Stream,
    joiner: Joiner,
    binary: bool,
    keep: Keep,
    hash: Option<Running>,
    /// Of all bytes, once the stream is closed; unknown if the recorder missed some.
    sum: Option<Sha256>,
    head: Vec<u8>,
    bytes: u64,
    recorded: u64,
    closed: bool,
}

/// What is told byte for byte.
#[derive(Clone, Copy, Debug)]
struct Keep {
    text: bool,
    binary: bool,
}

impl Plain {
    pub(super) fn new(stream: Stream, opening: &Opening) -> Self {
        let settings = &opening.settings;
        Self {
            stream,
            keep: Keep {
                text: stream != Stream::Stdin || settings.keystrokes,
                binary: settings.payloads,
            },
            joiner: Joiner::default(),
            binary: stream != Stream::Stderr && is_tar(&opening.argv),
            hash: Some(Running::new()),
            sum: None,
            head: Vec::new(),
            bytes: 0,
            recorded: 0,
            closed: false,
        }
    }

    /// Takes `bytes` and writes to `out` what is told of them.
    pub(super) fn data(&mut self, out: &mut Vec<u8>, at: Duration, bytes: &[u8]) {
        if self.closed {
            return;
        }
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        let missing = HEAD - self.head.len();
        self.head
            .extend_from_slice(&bytes[..missing.min(bytes.len())]);
        self.bytes += bytes.len() as u64;
        let code = line::code(self.stream);
        if self.binary {
            self.payload(out, at, bytes);
            return;
        }
        let (keep, recorded, binary) = (self.keep.text, &mut self.recorded, &mut self.binary);
        let mut payload = Vec::new();
        self.joiner.pieces(bytes, |piece| {
            *binary = *binary || is_binary(piece);
            if *binary {
                payload.extend_from_slice(piece);
            } else if keep {
                *recorded += piece.len() as u64;
                line::write_bytes(out, at, code, piece);
            }
        });
        if self.binary {
            payload.extend(self.joiner.rest());
            self.payload(out, at, &payload);
        }
    }

    fn payload(&mut self, out: &mut Vec<u8>, at: Duration, bytes: &[u8]) {
        if self.keep.binary {
            self.recorded += bytes.len() as u64;
            for piece in bytes.chunks(MAX_PIECE) {
                line::write_payload(out, at, line::code(self.stream), piece);
            }
        }
    }

    /// Takes note that `bytes` were missed.
    pub(super) fn gap(&mut self, out: &mut Vec<u8>, at: Duration, bytes: u64) {
        self.flush(out, at);
        self.hash = None;
        self.bytes += bytes;
    }

    /// The end of the stream. Returns what it was, if it is not told as text.
    pub(super) fn close(&mut self, out: &mut Vec<u8>, at: Duration) -> Option<Transfer> {
        if std::mem::replace(&mut self.closed, true) {
            return None;
        }
        self.flush(out, at);
        self.sum = self.hash.take().map(Running::finish);
        if self.bytes == 0 || !(self.binary || self.stream == Stream::Stdin) {
            return None;
        }
        let transfer = Transfer {
            stream: self.stream,
            bytes: self.bytes,
            recorded: self.recorded,
            sha256: self.sum,
            head: BASE64.encode(&self.head),
        };
        line::write_json(out, at, 'x', &transfer);
        Some(transfer)
    }

    /// What it carried, once it is closed; `None` if that was nothing.
    pub(super) fn carried(&self) -> Option<Carried> {
        (self.closed && self.bytes > 0).then_some(Carried {
            stream: self.stream,
            bytes: self.bytes,
            sha256: self.sum,
        })
    }

    /// Tells the beginning of a sequence whose end will not come.
    fn flush(&mut self, out: &mut Vec<u8>, at: Duration) {
        let rest = self.joiner.rest();
        if !rest.is_empty() && self.keep.text {
            self.recorded += rest.len() as u64;
            line::write_bytes(out, at, line::code(self.stream), &rest);
        }
    }
}

/// Whether the argv is of a program that writes or reads archives: `kubectl cp` runs tar.
#[must_use]
pub fn is_tar(argv: &[String]) -> bool {
    argv.first()
        .is_some_and(|program| program.rsplit('/').next() == Some("tar"))
}
