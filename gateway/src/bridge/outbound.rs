//! Bytes on their way to one peer: written at once as far as its socket takes them, the rest kept.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use drawbridge_protocol::frame::{self, Header, Opcode};
use drawbridge_protocol::transcode::Outbox;
use tokio::io::AsyncWrite;

/// What one peer has not taken yet.
///
/// # Guarantees
/// Holds no memory once everything was taken. It never asks for more than it was given: the relay reads from one
/// side only while the other side's `Outbound` is empty, so it holds what came of one chunk and no more.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pending: Vec<u8>,
    /// How much of `pending` was taken.
    sent: usize,
    /// Whether frames made here are masked, as a client's must be.
    masked: bool,
    /// Whether bytes were written since the last flush (a TLS stream keeps them until then).
    dirty: bool,
}

impl Outbound {
    pub(super) fn to_client() -> Self {
        Self::default()
    }

    pub(super) fn to_upstream() -> Self {
        Self {
            masked: true,
            ..Self::default()
        }
    }

    /// Whether the peer's socket took everything. A TLS stream that could not flush has not: it takes what it is given
    /// into a buffer of its own.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && !self.dirty
    }

    /// Writes `bytes` behind what is waiting.
    pub(super) fn put<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut rest = bytes;
        while self.pending.is_empty() && !rest.is_empty() {
            match Pin::new(&mut *io).poll_write(cx, rest) {
                Poll::Ready(taken) => rest = &rest[at_least_one(taken?)?..],
                Poll::Pending => break,
            }
            self.dirty = true;
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Appends one control frame.
    pub(super) fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        frame::write(opcode, payload, self.mask(), &mut self.pending);
    }

    /// Writes what is waiting. `Ready` once the peer's socket has it all.
    pub(super) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.pending.len() {
            let taken = ready!(Pin::new(&mut *io).poll_write(cx, &self.pending[self.sent..]))?;
            self.sent += at_least_one(taken)?;
            self.dirty = true;
        }
        if !self.pending.is_empty() {
            self.pending = Vec::new();
            self.sent = 0;
        }
        if self.dirty {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// A fresh mask for each frame, from a generator that cannot be predicted (RFC 6455, section 5.3).
    fn mask(&self) -> Option<[u8; 4]> {
        self.masked.then(rand::random)
    }
}

fn at_least_one(taken: usize) -> io::Result<usize> {
    if taken == 0 {
        Err(io::ErrorKind::WriteZero.into())
    } else {
        Ok(taken)
    }
}

impl Outbox for Outbound {
    fn message(&mut self, opcode: Opcode, len: usize, fill: impl FnOnce(&mut [u8])) {
        let key = self.mask();
        Header {
            fin: true,
            opcode,
            mask: key,
            len: len as u64,
        }
        .write(&mut self.pending);
        let start = self.pending.len();
        self.pending.resize(start + len, 0);
        let payload = &mut self.pending[start..];
        fill(payload);
        if let Some(key) = key {
            frame::mask(payload, key, 0);
        }
    }
}
