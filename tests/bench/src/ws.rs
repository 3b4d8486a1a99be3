//! The little of RFC 6455 that a client and a server of whole, small frames need.
//!
//! Written apart from the gateway's own code, so that a fault there is not mirrored here.

use std::ops::Range;

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::Stream;

/// RFC 6455 section 5.2.
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// `Sec-WebSocket-Key` of every client here: any 16 bytes do, nothing rests on their being random on loopback.
pub(crate) const KEY: &str = "ZHJhd2JyaWRnZS1iZW5jaA==";

/// The mask of every client frame. Not zero, so that whoever unmasks has to work.
pub(crate) const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A Close with code 1000.
pub(crate) const CLOSE_NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
pub(crate) fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finalize())
}

/// Appends one final frame to `out`.
pub(crate) fn encode(opcode: u8, mask: Option<[u8; 4]>, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    // 7 bits of length; 0x7E and 0x7F say that 16 or 64 more follow.
    match payload.len() {
        len @ 0..126 => out.push(masked | u8::try_from(len).unwrap_or(0)),
        len @ 126..65_536 => {
            out.push(masked | 0x7E);
            out.extend_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
        }
        len => {
            out.push(masked | 0x7F);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    match mask {
        None => out.extend_from_slice(payload),
        Some(mask) => {
            out.extend_from_slice(&mask);
            out.extend(
                payload
                    .iter()
                    .zip(mask.iter().cycle())
                    .map(|(byte, mask)| byte ^ mask),
            );
        }
    }
}

/// A frame header as it stands in a buffer.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    opcode: u8,
    mask: Option<[u8; 4]>,
    /// Bytes of header and of payload.
    head: usize,
    payload: usize,
}

/// The header at the start of `buf`, or `None` while it is not whole.
fn parse(buf: &[u8]) -> anyhow::Result<Option<Header>> {
    let &[first, second, ref rest @ ..] = buf else {
        return Ok(None);
    };
    ensure!(first & 0x70 == 0, "a frame with RSV bits set");
    ensure!(
        first & 0x80 != 0,
        "a fragment; nobody measured here sends any"
    );
    let (extra, payload) = match second & 0x7F {
        126 if rest.len() < 2 => return Ok(None),
        126 => (2, usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
        127 => bail!("a frame over 64 KiB; nobody measured here sends any"),
        short => (0, usize::from(short)),
    };
    let mask = match (second & 0x80 != 0, rest.get(extra..extra + 4)) {
        (false, _) => None,
        (true, None) => return Ok(None),
        (true, Some(mask)) => Some([mask[0], mask[1], mask[2], mask[3]]),
    };
    let head = 2 + extra + if mask.is_some() { 4 } else { 0 };
    Ok(Some(Header {
        opcode: first & 0x0F,
        mask,
        head,
        payload,
    }))
}

/// A frame that [`Socket::next`] found; its payload is at [`Socket::payload`] until the next call.
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    payload: Range<usize>,
}

/// A connection after its upgrade: one buffer for reading, one for writing, both kept.
pub(crate) struct Socket {
    stream: Stream,
    buf: Vec<u8>,
    /// Where unread bytes lie in `buf`.
    unread: Range<usize>,
    out: Vec<u8>,
    /// Set on clients: what they send must be masked.
    mask: Option<[u8; 4]>,
}

impl Socket {
    /// `early` is what was read beyond the upgrade; `size` is the largest frame that can be read, in bytes.
    pub(crate) fn new(stream: Stream, early: &[u8], size: usize, mask: Option<[u8; 4]>) -> Self {
        let mut buf = vec![0; size.max(early.len())];
        buf[..early.len()].copy_from_slice(early);
        Self {
            stream,
            buf,
            unread: 0..early.len(),
            out: Vec::new(),
            mask,
        }
    }

    /// The next frame, unmasked; `None` at the end of the stream. Losing the future loses no bytes.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            if let Some(header) = parse(&self.buf[self.unread.clone()])? {
                let start = self.unread.start + header.head;
                let payload = start..start + header.payload;
                if payload.end <= self.unread.end {
                    self.unread.start = payload.end;
                    if let Some(mask) = header.mask {
                        self.buf[payload.clone()]
                            .iter_mut()
                            .zip(mask.iter().cycle())
                            .for_each(|(byte, mask)| *byte ^= mask);
                    }
                    return Ok(Some(Frame {
                        opcode: header.opcode,
                        payload,
                    }));
                }
                ensure!(
                    header.head + header.payload <= self.buf.len(),
                    "a frame of {} bytes",
                    header.payload
                );
            }
            if self.unread.is_empty() {
                self.unread = 0..0;
            } else if self.unread.end == self.buf.len() {
                self.buf.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
            }
            match self.stream.read(&mut self.buf[self.unread.end..]).await? {
                0 => return Ok(None),
                read => self.unread.end += read,
            }
        }
    }

    /// The payload of the frame that was found last.
    pub(crate) fn payload(&self, frame: &Frame) -> &[u8] {
        &self.buf[frame.payload.clone()]
    }

    /// The next data frame with anything after its channel byte, answering pings on the way.
    ///
    /// # Errors
    /// The peer closed, or broke the framing.
    pub(crate) async fn data(&mut self) -> anyhow::Result<Frame> {
        loop {
            let frame = self.next().await?.context("the peer hung up")?;
            match frame.opcode {
                BINARY if frame.payload.len() > 1 => return Ok(frame),
                BINARY | PONG => {}
                PING => self.pong(&frame).await?,
                CLOSE => bail!("the peer closed: {:02x?}", self.payload(&frame)),
                other => bail!("unexpected opcode {other}"),
            }
        }
    }

    /// Answers a ping.
    pub(crate) async fn pong(&mut self, ping: &Frame) -> anyhow::Result<()> {
        self.out.clear();
        encode(
            PONG,
            self.mask,
            &self.buf[ping.payload.clone()],
            &mut self.out,
        );
        self.flush_out().await
    }

    /// Sends one frame of the parts of `payload`, in one write.
    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) -> anyhow::Result<()> {
        self.out.clear();
        encode(opcode, self.mask, payload, &mut self.out);
        self.flush_out().await
    }

    /// Sends the data of `frame` back on channel 1.
    pub(crate) async fn echo(&mut self, frame: &Frame) -> anyhow::Result<()> {
        self.buf[frame.payload.start] = 1;
        self.out.clear();
        encode(
            BINARY,
            self.mask,
            &self.buf[frame.payload.clone()],
            &mut self.out,
        );
        self.flush_out().await
    }

    /// Writes bytes that are frames already.
    pub(crate) async fn write(&mut self, frames: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(frames).await?;
        Ok(self.stream.flush().await?)
    }

    /// Ends the sending side.
    pub(crate) async fn shutdown(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    async fn flush_out(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out).await?;
        Ok(self.stream.flush().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_the_one_in_the_rfc() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_header_is_read_back_as_it_was_written_and_not_before_it_is_whole() {
        for (len, mask) in [
            (0, None),
            (1, Some(MASK)),
            (125, None),
            (126, Some(MASK)),
            (32_769, None),
            (65_535, Some(MASK)),
        ] {
            let mut frame = Vec::new();
            encode(BINARY, mask, &vec![0xA5; len], &mut frame);
            let head = frame.len() - len;
            for cut in 0..head {
                assert!(
                    parse(&frame[..cut]).is_ok_and(|header| header.is_none()),
                    "{len} bytes cut at {cut}"
                );
            }
            assert_eq!(
                parse(&frame).ok().flatten(),
                Some(Header {
                    opcode: BINARY,
                    mask,
                    head,
                    payload: len
                })
            );
        }
    }

    #[test]
    fn fragments_and_reserved_bits_are_refused() {
        for first in [0x02, 0xC2] {
            assert!(parse(&[first, 0x01, 0x00]).is_err());
        }
    }
}
