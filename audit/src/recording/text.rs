//! Bytes in pieces that are text: no UTF-8 sequence is torn apart, wherever the bytes were.

use std::borrow::Cow;

/// Longest piece, in bytes. Escaped as JSON it is at most six times as long.
pub(crate) const MAX_PIECE: usize = 32 << 10;

/// Joins what was split between two calls.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// The beginning of a sequence whose end has not come: at most 3 bytes.
    held: Vec<u8>,
}

impl Joiner {
    /// Hands `bytes` to `piece`, piece by piece. A sequence that `bytes` does not end is kept for the next call.
    pub(crate) fn pieces(&mut self, bytes: &[u8], mut piece: impl FnMut(&[u8])) {
        let mut rest = if self.held.is_empty() {
            Cow::Borrowed(bytes)
        } else {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(bytes);
            Cow::Owned(joined)
        };
        let whole = rest.len() - incomplete(&rest);
        self.held.extend_from_slice(&rest[whole..]);
        match &mut rest {
            Cow::Borrowed(rest) => *rest = &rest[..whole],
            Cow::Owned(rest) => rest.truncate(whole),
        }
        let mut rest = &rest[..];
        while rest.len() > MAX_PIECE {
            let end = MAX_PIECE - incomplete(&rest[..MAX_PIECE]);
            piece(&rest[..end]);
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            piece(rest);
        }
    }

    /// What is kept for a call that will not come.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// How many bytes at the end of `bytes` begin a UTF-8 sequence that more bytes could end: 0 to 3.
fn incomplete(bytes: &[u8]) -> usize {
    for length in 1..=3.min(bytes.len()) {
        let tail = &bytes[bytes.len() - length..];
        match tail[0] {
            0x80..=0xbf => {}
            0xc2..=0xf4 => {
                let torn =
                    std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
                return if torn { length } else { 0 };
            }
            _ => return 0,
        }
    }
    0
}

/// Whether `bytes` are no text: they have a NUL, or are no UTF-8 even if more bytes followed.
pub(crate) fn is_binary(bytes: &[u8]) -> bool {
    bytes.contains(&0) || std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_some())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_torn_sequence_is_joined() {
        let mut joiner = Joiner::default();
        let mut pieces = Vec::new();
        for byte in "aé€😀z".bytes() {
            joiner.pieces(&[byte], |piece| pieces.push(piece.to_vec()));
        }
        assert_eq!(
            pieces,
            ["a", "é", "€", "😀", "z"].map(|text| text.as_bytes().to_vec())
        );
        assert!(joiner.rest().is_empty());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "€".repeat(MAX_PIECE);
        let mut whole = String::new();
        Joiner::default().pieces(text.as_bytes(), |piece| {
            assert!(piece.len() <= MAX_PIECE);
            whole.push_str(std::str::from_utf8(piece).unwrap());
        });
        assert_eq!(whole, text);
    }

    #[test]
    fn text_is_not_binary_only_because_it_ends_early() {
        assert!(!is_binary("plain".as_bytes()));
        assert!(!is_binary(&"€".as_bytes()[..2]));
        assert!(is_binary(b"nul\0"));
        assert!(is_binary(b"\xff"));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_held_for_long(parts in vec(vec(any::<u8>(), 0..40), 0..20)) {
            let mut joiner = Joiner::default();
            let mut out = Vec::new();
            for part in &parts {
                joiner.pieces(part, |piece| out.extend_from_slice(piece));
                prop_assert!(joiner.held.len() <= 3);
            }
            out.extend(joiner.rest());
            prop_assert_eq!(out, parts.concat());
        }
    }
}
