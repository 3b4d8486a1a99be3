//! What the commands of the fake server print, and the load expects.

use std::fmt::Write;

use anyhow::bail;
use clap::ValueEnum;

use crate::server::CHUNK;

/// Bytes after which the output begins again: more than is ever compressed at once, so that no compressor sees it.
const PERIOD: usize = 64 * CHUNK;

/// A kind of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Bytes that are no text, as `kubectl cp` moves them.
    Binary,
    /// Lines as a program logs them on a terminal, with colours.
    Text,
    /// Lines of text that do not compress well: base64 of noise.
    Base64,
}

impl Output {
    /// The kind with this name.
    pub(super) fn of(name: &str) -> anyhow::Result<Self> {
        match Self::from_str(name, false) {
            Ok(kind) => Ok(kind),
            Err(error) => bail!("{error}"),
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Text => "text",
            Self::Base64 => "base64",
        }
    }

    /// What is printed again and again: a multiple of [`CHUNK`] in bytes. The same on either side.
    pub(crate) fn period(self) -> Vec<u8> {
        let mut noise = Noise(0x5EED);
        match self {
            Self::Binary => (0..=250).cycle().take(PERIOD).collect(),
            Self::Text => lines(|line| {
                let (level, colour) =
                    [("INFO", 32), ("WARN", 33), ("DEBUG", 34), ("ERROR", 31)][noise.below(4)];
                let path = ["orders", "carts", "users", "stock/items", "payments/open"];
                let _ = write!(
                    line,
                    "2026-05-04T12:{:02}:{:02}.{:06}Z \x1b[{colour}m{level:>5}\x1b[0m worker-{:02} GET /api/v1/{}/{} \
                     status={} bytes={} trace={:016x}\r\n",
                    noise.below(60),
                    noise.below(60),
                    noise.below(1_000_000),
                    noise.below(24),
                    path[noise.below(path.len())],
                    noise.below(100_000),
                    [200, 200, 200, 304, 404, 500][noise.below(6)],
                    noise.below(65_536),
                    noise.next(),
                );
            }),
            Self::Base64 => lines(|line| {
                const DIGITS: &[u8; 64] =
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                line.extend((0..76).map(|_| char::from(DIGITS[noise.below(64)])));
                line.push_str("\r\n");
            }),
        }
    }
}

/// Lines until there are enough; the last one is cut.
fn lines(mut add: impl FnMut(&mut String)) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < PERIOD {
        add(&mut text);
    }
    let mut bytes = text.into_bytes();
    bytes.truncate(PERIOD);
    bytes
}

/// Numbers without a pattern that matters here, the same in every run: splitmix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap_or(0) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_fills_whole_frames_and_is_what_it_says() {
        for kind in Output::value_variants() {
            assert_eq!(Output::of(kind.name()).expect("known"), *kind);
            let period = kind.period();
            assert_eq!(period.len() % CHUNK, 0);
            assert_eq!(period, kind.period(), "the same again");
            let text = std::str::from_utf8(&period).is_ok();
            assert_eq!(text, *kind != Output::Binary, "{}", kind.name());
        }
    }
}
