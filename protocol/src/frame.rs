//! RFC 6455 frames: headers, masks and Close payloads.

use thiserror::Error;

/// Longest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// Longest frame header, in bytes: two, eight of extended length, four of mask.
pub(crate) const MAX_HEADER: usize = 14;

/// What a frame carries (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// The rest of a fragmented message.
    Continuation = 0,
    /// UTF-8 text. On exec streams its content is never checked: the servers do not, and one client sends bytes in it.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// A question whether the peer is there.
    Ping = 9,
    /// The answer to a ping.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether frames of this kind may stand between the fragments of a message.
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The end of the connection that sent a frame: it decides whether the frame must be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Masks every frame.
    Client,
    /// Masks no frame.
    Server,
}

/// A peer broke the protocol: what to tell it in the Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{reason} (close {code})")]
pub struct Violation {
    /// WebSocket close code: 1002 for a protocol error, 1009 for a message that is too big.
    pub code: u16,
    /// What was wrong, in words that hold none of the peer's bytes. At most 123 bytes, as in a Close frame.
    pub reason: &'static str,
}

impl Violation {
    /// A protocol error: close code 1002.
    #[must_use]
    pub const fn protocol(reason: &'static str) -> Self {
        Self { code: 1002, reason }
    }

    /// A message over the limit: close code 1009.
    #[must_use]
    pub const fn too_big() -> Self {
        Self {
            code: 1009,
            reason: "message too big",
        }
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the frame ends its message.
    pub fin: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The key its payload is masked with, if it is.
    pub mask: Option<[u8; 4]>,
    /// Payload length in bytes, at most 2^63 - 1.
    pub len: u64,
}

impl Header {
    /// Reads a header from the start of `bytes`: the header and its length, or `None` when it is not whole yet.
    ///
    /// # Errors
    /// A reserved bit or opcode, a mask where none may be or none where one must be, a control frame that is
    /// fragmented or longer than [`MAX_CONTROL_PAYLOAD`], a length of more than 63 bits.
    pub fn parse(bytes: &[u8], from: Sender) -> Result<Option<(Self, usize)>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else {
            // One byte is enough to refuse; waiting for the second would let a broken peer hold the connection.
            if let &[first] = bytes {
                opcode_of(first)?;
            }
            return Ok(None);
        };
        let opcode = opcode_of(first)?;
        let fin = first & 0x80 != 0;
        let masked = second & 0x80 != 0;
        match (from, masked) {
            (Sender::Client, false) => {
                return Err(Violation::protocol("client frame without a mask"));
            }
            (Sender::Server, true) => return Err(Violation::protocol("server frame with a mask")),
            _ => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!fin || usize::from(short) > MAX_CONTROL_PAYLOAD) {
            return Err(Violation::protocol(
                "control frame fragmented or longer than 125 bytes",
            ));
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(len) = rest.get(..extended) else {
            return Ok(None);
        };
        let len = match extended {
            0 => u64::from(short),
            _ => len.iter().fold(0, |len, &byte| len << 8 | u64::from(byte)),
        };
        if len >> 63 != 0 {
            return Err(Violation::protocol("frame length has its top bit set"));
        }
        let mut size = 2 + extended;
        let mask = if masked {
            let Some(key) = bytes.get(size..).and_then(|rest| rest.first_chunk()) else {
                return Ok(None);
            };
            size += key.len();
            Some(*key)
        } else {
            None
        };
        Ok(Some((
            Self {
                fin,
                opcode,
                mask,
                len,
            },
            size,
        )))
    }

    /// Appends the header in its shortest form.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (bytes, size) = self.bytes();
        out.extend_from_slice(&bytes[..size]);
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "each arm's pattern bounds the length it casts"
    )]
    fn bytes(&self) -> ([u8; MAX_HEADER], usize) {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] = u8::from(self.fin) << 7 | self.opcode as u8;
        let mut size = match self.len {
            len @ 0..=125 => {
                bytes[1] = len as u8;
                2
            }
            len @ 126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                4
            }
            len => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&len.to_be_bytes());
                10
            }
        };
        if let Some(key) = self.mask {
            bytes[1] |= 0x80;
            bytes[size..size + 4].copy_from_slice(&key);
            size += 4;
        }
        (bytes, size)
    }
}

fn opcode_of(first: u8) -> Result<Opcode, Violation> {
    if first & 0x70 != 0 {
        return Err(Violation::protocol(
            "reserved bit set, no extension was negotiated",
        ));
    }
    Opcode::from_bits(first & 0x0f).ok_or(Violation::protocol("reserved opcode"))
}

/// Applies a mask, or takes it off. `offset` is the position of `data` in the payload it belongs to.
pub fn mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let wide = u64::from(u32::from_ne_bytes(key));
    let wide = wide << 32 | wide;
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(bytes) = <&mut [u8; 8]>::try_from(chunk) {
            *bytes = (u64::from_ne_bytes(*bytes) ^ wide).to_ne_bytes();
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends one whole frame, masked when `key` is given.
pub fn write(opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    Header {
        fin: true,
        opcode,
        mask: key,
        len: payload.len() as u64,
    }
    .write(out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[start..], key, 0);
    }
}

/// The payload of a Close frame: the code, then the reason cut to 123 bytes on a character boundary.
#[must_use]
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let end = reason.floor_char_boundary(MAX_CONTROL_PAYLOAD - 2);
    [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat()
}

/// The code of a Close frame's payload; 1005 (none was sent) when it is empty.
///
/// # Errors
/// A payload of one byte, a code that no peer may send, a reason that is not UTF-8 (close 1007).
pub fn close_code(payload: &[u8]) -> Result<u16, Violation> {
    match payload {
        [] => Ok(1005),
        [_] => Err(Violation::protocol("close frame of one byte")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // RFC 6455, section 7.4: these are reserved for the API or were never given a meaning.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Violation::protocol("close code that may not be sent"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(Violation {
                    code: 1007,
                    reason: "close reason is not UTF-8",
                });
            }
            Ok(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn close_codes_are_read_and_checked() {
        assert_eq!(close_code(&[]), Ok(1005));
        assert_eq!(close_code(&close_payload(1000, "bye")), Ok(1000));
        assert_eq!(close_code(&close_payload(4000, "")), Ok(4000));
        for bad in [
            &b"\x03"[..],
            b"\x03\xed",
            b"\x03\xee",
            b"\x00\x00",
            b"\xff\xff",
        ] {
            assert_eq!(close_code(bad).expect_err("refused").code, 1002, "{bad:?}");
        }
        assert_eq!(close_code(b"\x03\xe8\xff").expect_err("refused").code, 1007);
        assert_eq!(
            close_payload(1000, &"é".repeat(100)).len(),
            124,
            "cut on a character boundary"
        );
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_back(raw in vec(any::<u8>(), 0..16)) {
            for from in [Sender::Client, Sender::Server] {
                if let Ok(Some((header, size))) = Header::parse(&raw, from) {
                    let mut out = Vec::new();
                    header.write(&mut out);
                    // Only a length written longer than needed comes out shorter.
                    prop_assert!(out.len() <= size);
                    prop_assert_eq!(Header::parse(&out, from), Ok(Some((header, out.len()))));
                    if out.len() == size {
                        prop_assert_eq!(&out[..], &raw[..size]);
                    }
                }
            }
        }

        #[test]
        fn a_mask_taken_off_in_parts_is_the_mask_taken_off_at_once(data in vec(any::<u8>(), 0..100), key in any::<[u8; 4]>(), cut in 0usize..100) {
            let mut whole = data.clone();
            mask(&mut whole, key, 0);
            let plain: Vec<u8> = data.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
            prop_assert_eq!(&whole, &plain);
            let mut parts = data.clone();
            let cut = cut.min(parts.len());
            let (left, right) = parts.split_at_mut(cut);
            mask(left, key, 0);
            mask(right, key, cut);
            prop_assert_eq!(&parts, &plain);
        }
    }
}
