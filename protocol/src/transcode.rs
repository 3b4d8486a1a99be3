//! Two state machines that carry one session between a client and an upstream that may speak different subprotocols.
//!
//! They work on whole data messages: unmasked, put together from their fragments, of either opcode. What they write is
//! never fragmented, never empty, and at most 32 KiB of data long; a status alone may be longer, since clients read it
//! message by message.

mod input;
mod output;

pub use input::{Input, Taken};
pub use output::{Outcome, Output, UpstreamEnd};

use crate::encoding::{self, BadBase64, Encoding, PIECE};
use crate::frame::Opcode;
use crate::subprotocol::Subprotocol;

/// The channels of exec and attach, the same in every subprotocol.
pub mod channel {
    /// Client to server: bytes for the process.
    pub const STDIN: u8 = 0;
    /// Server to client.
    pub const STDOUT: u8 = 1;
    /// Server to client; never with a TTY.
    pub const STDERR: u8 = 2;
    /// Server to client: how it ended.
    pub const ERROR: u8 = 3;
    /// Client to server: the size of the terminal.
    pub const RESIZE: u8 = 4;
    /// Client to server, v5 only: a channel is closed.
    pub const CLOSE: u8 = 255;
}

/// Longest payload of a binary data message that may pass untouched towards the upstream: a channel byte and [`PIECE`].
pub const MAX_PASSING: u64 = PIECE as u64 + 1;

/// Where messages go: usually a buffer that puts a frame header in front of each.
pub trait Outbox {
    /// Appends one unfragmented data message of exactly `len` payload bytes, 1 at least, which `fill` writes.
    /// `fill` gets a slice of that length and overwrites all of it, whatever it held.
    fn message(&mut self, opcode: Opcode, len: usize, fill: impl FnOnce(&mut [u8]));

    /// Hears what the next message says: `data` of `channel` (see [`channel`]), never empty, before it is encoded. For whoever
    /// keeps a record; others need not listen.
    fn hear(&mut self, channel: u8, data: &[u8]) {
        let _ = (channel, data);
    }
}

/// What the request asked for, as the upstream was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are the four booleans of the request"
)]
pub struct Streams {
    /// Whether the client may write to the process.
    pub stdin: bool,
    /// Whether the client wants stdout.
    pub stdout: bool,
    /// Whether the client wants stderr. Means nothing with `tty`: a terminal has one output.
    pub stderr: bool,
    /// Whether the process runs on a terminal.
    pub tty: bool,
}

/// Splits a payload that is not empty into channel and data, the data still encoded.
fn read(protocol: Subprotocol, payload: &[u8]) -> Option<(u8, &[u8])> {
    let (first, data) = payload.split_first()?;
    Some(match protocol.encoding() {
        Encoding::Binary => (*first, data),
        // Go subtracts without a check, so what is no digit becomes a channel that does not exist.
        Encoding::Base64 => (first.wrapping_sub(b'0'), data),
    })
}

/// Decodes data and hands it out in pieces of 1 to [`PIECE`] bytes; returns how many bytes there were.
fn pieces(
    protocol: Subprotocol,
    data: &[u8],
    piece: impl FnMut(&[u8]),
) -> Result<usize, BadBase64> {
    match protocol.encoding() {
        Encoding::Binary => {
            data.chunks(PIECE).for_each(piece);
            Ok(data.len())
        }
        Encoding::Base64 => encoding::decode(data, piece),
    }
}

/// Writes one message.
fn write(protocol: Subprotocol, channel: u8, data: &[u8], to: &mut impl Outbox) {
    if !data.is_empty() {
        to.hear(channel, data);
    }
    match protocol.encoding() {
        Encoding::Binary => to.message(Opcode::Binary, 1 + data.len(), |payload| {
            payload[0] = channel;
            payload[1..].copy_from_slice(data);
        }),
        Encoding::Base64 => to.message(
            Opcode::Text,
            1 + encoding::encoded_len(data.len()),
            |payload| {
                payload[0] = b'0' + channel;
                encoding::encode(data, &mut payload[1..]);
            },
        ),
    }
}

/// Whether a data message of one side means the same to the other, byte for byte.
fn same_layout(one: Subprotocol, other: Subprotocol) -> bool {
    one.encoding() == Encoding::Binary && other.encoding() == Encoding::Binary
}
