//! The two encodings of data messages: `[channel] bytes`, and a channel digit followed by base64.
//!
//! The base64 rules are those of Go's `encoding/base64.StdEncoding`, which every exec server uses: standard alphabet,
//! padding required, CR and LF skipped wherever they stand, nothing after the padding, non-zero trailing bits allowed.
//! Each message is encoded alone; nothing carries over to the next.

use std::cell::Cell;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::Simd;
use base64::engine::general_purpose::GeneralPurposeConfig;

/// Most data bytes in one message we write: what Go's `io.Copy` moves at once, and what kubectl's buffers are made for.
pub const PIECE: usize = 32 * 1024;

/// Characters decoded at once when a message is too long for one piece. Whole quads, and no more bytes than [`PIECE`].
const WINDOW: usize = PIECE / 3 * 4;

/// Longest text decoded in one go: what [`PIECE`] bytes encode to.
const WHOLE: usize = encoded_len(PIECE);

/// How the payload of a data message is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The channel as a byte, then the data as it is. Sent in binary messages.
    Binary,
    /// The channel as an ASCII digit, then the data in padded standard base64. Sent in text messages.
    Base64,
}

/// Base64 that a Go server would not accept either. The message it came in is dropped whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is not padded standard base64")]
pub struct BadBase64;

/// `Simd` falls back to scalar code where the processor has no AVX2 or NEON; it asks once.
static ENGINE: LazyLock<Simd> = LazyLock::new(|| {
    Simd::standard(GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true))
});

/// Buffers for decoding, one set per thread: they are needed only inside one call, and an idle session should not
/// own 32 KiB or more because it once decoded a frame.
#[derive(Default)]
struct Scratch {
    /// Decoded bytes of one window, at most `WHOLE / 4 * 3`.
    decoded: Vec<u8>,
    /// One window without CR and LF, at most `WINDOW`. Empty until a message needs it.
    gathered: Vec<u8>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch { decoded: Vec::new(), gathered: Vec::new() }) };
}

/// Length of `data` bytes in padded base64.
#[must_use]
pub const fn encoded_len(data: usize) -> usize {
    data.div_ceil(3) * 4
}

/// Encodes `data` into `text`.
///
/// # Assumptions
/// `text` has exactly [`encoded_len`] bytes.
pub fn encode(data: &[u8], text: &mut [u8]) {
    let written = ENGINE.encode_slice(data, text);
    debug_assert_eq!(written, Ok(encoded_len(data.len())));
}

/// Decodes `text` and hands it out in order, in pieces of 1 to [`PIECE`] bytes; returns how many bytes there were.
///
/// # Guarantees
/// All or nothing: `piece` is not called at all when any part of `text` is malformed. Nothing is allocated once the
/// thread has decoded a long message before; never more than 128 KiB for each thread, whatever the length of `text`.
///
/// # Errors
/// [`BadBase64`] when `text` breaks the rules above.
pub fn decode(text: &[u8], mut piece: impl FnMut(&[u8])) -> Result<usize, BadBase64> {
    let mut scratch = SCRATCH.take();
    let result = if text.len() <= WHOLE {
        scratch
            .whole(text)
            .inspect(|data| data.chunks(PIECE).for_each(&mut piece))
            .map(<[u8]>::len)
    } else {
        // A long message is decoded twice, so that nothing is forwarded of one that turns out bad at its end.
        scratch
            .windows(text, &mut |_| ())
            .and_then(|_| scratch.windows(text, &mut piece))
    };
    SCRATCH.set(scratch);
    result
}

impl Scratch {
    /// Decodes at most `WHOLE` characters.
    fn whole(&mut self, text: &[u8]) -> Result<&[u8], BadBase64> {
        let Self { decoded, gathered } = self;
        reserve(decoded, text.len() / 4 * 3 + 3);
        if let Ok(length) = ENGINE.decode_slice(text, decoded) {
            return Ok(&decoded[..length]);
        }
        // Line breaks are rare, so they are looked for only once the direct way has failed.
        if !text.iter().copied().any(is_break) {
            return Err(BadBase64);
        }
        gathered.clear();
        gathered.extend(text.iter().copied().filter(|byte| !is_break(*byte)));
        let length = ENGINE
            .decode_slice(gathered, decoded)
            .map_err(|_| BadBase64)?;
        Ok(&decoded[..length])
    }

    /// Decodes text of any length, window by window.
    fn windows(&mut self, text: &[u8], piece: &mut impl FnMut(&[u8])) -> Result<usize, BadBase64> {
        let Self { decoded, gathered } = self;
        reserve(decoded, WHOLE / 4 * 3);
        let end = text
            .iter()
            .rposition(|byte| !is_break(*byte))
            .map_or(0, |last| last + 1);
        let mut rest = &text[..end];
        let mut total = 0;
        while !rest.is_empty() {
            let (window, after) = rest.split_at(rest.len().min(WINDOW));
            let mut last = (window.last(), after);
            let length = ENGINE.decode_slice(window, decoded).or_else(|_| {
                let taken = gather(rest, gathered);
                last = (gathered.last(), &rest[taken..]);
                ENGINE
                    .decode_slice(&*gathered, decoded)
                    .map_err(|_| BadBase64)
            })?;
            // Padding ends the text (RFC 4648 §3.3 lets a decoder reject what follows, and Go does).
            let (character, after) = last;
            if character == Some(&b'=') && !after.is_empty() {
                return Err(BadBase64);
            }
            if length > 0 {
                piece(&decoded[..length]);
            }
            total += length;
            rest = after;
        }
        Ok(total)
    }
}

/// Copies characters that are no line break until a window is full; returns how many bytes of `text` that took.
fn gather(text: &[u8], gathered: &mut Vec<u8>) -> usize {
    gathered.clear();
    let mut taken = 0;
    for byte in text {
        if gathered.len() == WINDOW {
            break;
        }
        taken += 1;
        if !is_break(*byte) {
            gathered.push(*byte);
        }
    }
    taken
}

/// Grows, never shrinks: the bytes beyond the new ones keep what an earlier message left there and are not read.
fn reserve(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn decoded(text: &[u8]) -> Result<Vec<u8>, BadBase64> {
        let mut all = Vec::new();
        let total = decode(text, |piece| {
            assert!(
                (1..=PIECE).contains(&piece.len()),
                "piece of {}",
                piece.len()
            );
            all.extend_from_slice(piece);
        })?;
        assert_eq!(total, all.len());
        Ok(all)
    }

    fn encoded(data: &[u8]) -> Vec<u8> {
        let mut text = vec![0; encoded_len(data.len())];
        encode(data, &mut text);
        text
    }

    #[test]
    fn base64_is_read_as_go_reads_it() {
        for (text, data) in [
            (&b""[..], Ok(&b""[..])),
            (b"bHMK", Ok(b"ls\n")),
            (b"b\rH\n\r\nMK\n", Ok(b"ls\n")),
            (b"YQ=\n=", Ok(b"a")),
            (b"YQ==\r\n", Ok(b"a")),
            (b"\n", Ok(b"")),
            (b"YR==", Ok(b"a")), // trailing bits
            (b"+/8=", Ok(b"\xfb\xff")),
            (b"-_8=", Err(BadBase64)),
            (b"aGkKCg", Err(BadBase64)), // no padding
            (b"YQ=", Err(BadBase64)),
            (b"YQ", Err(BadBase64)),
            (b"Y", Err(BadBase64)),
            (b"=", Err(BadBase64)),
            (b"====", Err(BadBase64)),
            (b"Y===", Err(BadBase64)),
            (b"YQ==YQ==", Err(BadBase64)),
            (b"YQ==\nYQ==", Err(BadBase64)),
            (b"aG kK", Err(BadBase64)),
            (b"@@@@", Err(BadBase64)),
            (b"aGk\0", Err(BadBase64)),
        ] {
            assert_eq!(
                decoded(text),
                data.map(<[u8]>::to_vec),
                "{}",
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn a_long_message_is_forwarded_whole_or_not_at_all() {
        let data: Vec<u8> = (0u8..=250).cycle().take(5 * PIECE + 1).collect();
        let good = encoded(&data);
        assert_eq!(decoded(&good).as_deref(), Ok(&data[..]));
        for position in [0, WINDOW - 1, WINDOW, 3 * WINDOW + 7, good.len() - 3] {
            let mut bad = good.clone();
            bad[position] = b'*';
            decode(&bad, |_| panic!("forwarded part of a bad message"))
                .expect_err("a star is no base64");
        }
        let padded_inside = [&encoded(&data[..PIECE / 3 * 3 - 1])[..], &good].concat();
        assert_eq!(padded_inside[WINDOW - 1], b'=');
        assert_eq!(decoded(&padded_inside), Err(BadBase64));
    }

    #[test]
    fn a_message_of_just_over_one_piece_is_split() {
        for length in [PIECE - 1, PIECE, PIECE + 1, PIECE + 2] {
            let data = vec![7; length];
            assert_eq!(decoded(&encoded(&data)), Ok(data));
        }
    }

    #[test]
    fn the_longest_message_needs_no_more_memory_than_a_piece() {
        let text: Vec<u8> = encoded(&vec![7; 1 << 20])
            .chunks(76)
            .flat_map(|line| [line, b"\r\n"].concat())
            .collect();
        assert_eq!(decode(&text, |_| ()), Ok(1 << 20));
        let scratch = SCRATCH.take();
        assert!(scratch.decoded.capacity() + scratch.gathered.capacity() <= 128 * 1024);
        let before = (scratch.decoded.as_ptr(), scratch.gathered.as_ptr());
        SCRATCH.set(scratch);
        assert_eq!(decode(&text, |_| ()), Ok(1 << 20));
        let scratch = SCRATCH.take();
        assert_eq!(
            (scratch.decoded.as_ptr(), scratch.gathered.as_ptr()),
            before,
            "nothing was allocated anew"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn line_breaks_anywhere_change_nothing(data in vec(any::<u8>(), 0..3 * PIECE), every in 1usize..100, crlf: bool) {
            let mut text = Vec::new();
            for chunk in encoded(&data).chunks(every) {
                text.extend_from_slice(chunk);
                text.extend_from_slice(if crlf { b"\r\n" } else { b"\n" });
            }
            prop_assert_eq!(decoded(&text), Ok(data));
        }

        #[test]
        fn whatever_encodes_decodes_back(data in vec(any::<u8>(), 0..3 * PIECE)) {
            prop_assert_eq!(decoded(&encoded(&data)), Ok(data));
        }

        #[test]
        fn no_text_makes_it_panic(text in vec(prop::sample::select(b"AZaz09+/=\r\n -_\0\xff".to_vec()), 0..400)) {
            let _ = decoded(&text);
        }
    }
}
