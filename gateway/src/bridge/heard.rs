//! What a bridge lets its recorder hear, from the very bytes that it sends on.

use drawbridge_audit::recording::Stream;
use drawbridge_protocol::frame::Opcode;
use drawbridge_protocol::transcode::{Outbox, channel};

use super::outbound::Outbound;
use crate::record::Tap;

/// An [`Outbound`] and who listens to what is written to it.
pub(super) struct Heard<'a> {
    to: &'a mut Outbound,
    tap: Option<&'a mut Tap>,
}

impl<'a> Heard<'a> {
    pub(super) fn new(to: &'a mut Outbound, tap: Option<&'a mut Tap>) -> Self {
        Self { to, tap }
    }
}

impl Outbox for Heard<'_> {
    fn message(&mut self, opcode: Opcode, len: usize, fill: impl FnOnce(&mut [u8])) {
        self.to.message(opcode, len, fill);
    }

    fn hear(&mut self, channel: u8, data: &[u8]) {
        if let Some(tap) = &mut self.tap
            && let Some(stream) = stream(channel)
        {
            tap.data(stream, data, None);
        }
    }
}

/// The stream a channel carries; `None` for a status or a size.
fn stream(channel: u8) -> Option<Stream> {
    match channel {
        channel::STDIN => Some(Stream::Stdin),
        channel::STDOUT => Some(Stream::Stdout),
        channel::STDERR => Some(Stream::Stderr),
        _ => None,
    }
}

/// The frame that passes one way as it is: where its pieces belong, and what they are masked with.
#[derive(Debug, Default)]
pub(super) struct Passing {
    stream: Option<Stream>,
    key: [u8; 4],
    /// Bytes of the payload that have passed.
    offset: usize,
}

impl Passing {
    /// Hears one piece of a passing frame: its last `payload` bytes are payload, those before are the header.
    pub(super) fn hear(&mut self, piece: &[u8], payload: usize, masked: bool, tap: &mut Tap) {
        let (header, mut data) = piece.split_at(piece.len() - payload);
        if let (false, Some(&first)) = (header.is_empty(), data.first()) {
            // A mask is the last field of a header (RFC 6455, section 5.2).
            self.key = match header.last_chunk() {
                Some(key) if masked => *key,
                _ => [0; 4],
            };
            self.stream = stream(first ^ self.key[0]);
            self.offset = 1;
            data = &data[1..];
        }
        if let (Some(stream), false) = (self.stream, data.is_empty()) {
            let key = masked.then_some((self.key, self.offset));
            tap.data(stream, data, key);
        }
        self.offset = self.offset.wrapping_add(data.len());
    }
}
