//! Reads what a program sends to a terminal, however hostile, in bounded memory.

use vte::{Params, Parser, Perform};

use crate::recording::text::Joiner;

/// Bytes of one escape sequence that are held at most: hyperlinks and window titles are far below.
const MAX_SEQUENCE: usize = 64 << 10;

/// vte's parser with two things mended: it collects an operating system command (OSC) for as long as the sender likes, and
/// (0.15) swallows what follows a character that was split between two calls if that is no text.
#[derive(Default)]
pub struct Vt {
    joiner: Joiner,
    parser: Parser,
    /// Bytes since the parser last said something.
    silent: usize,
}

impl Vt {
    /// In the ground state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses `bytes` and tells `perform` what they mean. Of an escape sequence without an end, the beginning is
    /// forgotten; it is still one when its end comes.
    pub fn advance<P: Perform>(&mut self, perform: &mut P, bytes: &[u8]) {
        let Self {
            joiner,
            parser,
            silent,
        } = self;
        joiner.pieces(bytes, |bytes| {
            let mut heard = Heard {
                perform,
                anything: false,
            };
            parser.advance(&mut heard, bytes);
            *silent = if heard.anything {
                0
            } else {
                *silent + bytes.len()
            };
            if *silent > MAX_SEQUENCE {
                *parser = Parser::new();
                parser.advance(perform, b"\x1b]");
                *silent = 0;
            }
        });
    }
}

impl std::fmt::Debug for Vt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vt")
    }
}

/// Passes everything on and notes that there was something.
struct Heard<'a, P> {
    perform: &'a mut P,
    anything: bool,
}

impl<P: Perform> Perform for Heard<'_, P> {
    fn print(&mut self, character: char) {
        self.anything = true;
        self.perform.print(character);
    }

    fn execute(&mut self, byte: u8) {
        self.anything = true;
        self.perform.execute(byte);
    }

    fn hook(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        self.anything = true;
        self.perform.hook(params, intermediates, ignore, action);
    }

    fn put(&mut self, byte: u8) {
        self.anything = true;
        self.perform.put(byte);
    }

    fn unhook(&mut self) {
        self.anything = true;
        self.perform.unhook();
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], bell_terminated: bool) {
        self.anything = true;
        self.perform.osc_dispatch(params, bell_terminated);
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        self.anything = true;
        self.perform
            .csi_dispatch(params, intermediates, ignore, action);
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        self.anything = true;
        self.perform.esc_dispatch(intermediates, ignore, byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        text: String,
        longest: usize,
    }

    impl Perform for Seen {
        fn print(&mut self, character: char) {
            self.text.push(character);
        }

        fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
            let length = params.iter().map(|param| param.len()).sum();
            self.longest = self.longest.max(length);
        }
    }

    #[test]
    fn a_sequence_without_an_end_is_not_held_and_does_not_become_text() {
        let (mut vt, mut seen) = (Vt::new(), Seen::default());
        vt.advance(&mut seen, b"before\x1b]52;c;");
        for _ in 0..1000 {
            vt.advance(&mut seen, &[b'A'; 1000]);
        }
        vt.advance(&mut seen, b"\x07after");
        assert_eq!(seen.text, "beforeafter");
        assert!(seen.longest <= 2 * MAX_SEQUENCE, "{}", seen.longest);
    }

    #[test]
    fn what_follows_a_split_character_is_not_swallowed() {
        for (first, second, text) in [
            (&b"\xc3"[..], &b"\xa9a\x80b"[..], "éab"),
            (b"\xe2", b"\x82\xac\x1b[0m\xffz", "€\u{fffd}z"),
            (b"\xe2", b"x", "\u{fffd}x"),
        ] {
            let (mut vt, mut seen) = (Vt::new(), Seen::default());
            vt.advance(&mut seen, first);
            vt.advance(&mut seen, second);
            assert_eq!(seen.text, text);
        }
    }

    #[test]
    fn text_of_any_length_is_text() {
        let (mut vt, mut seen) = (Vt::new(), Seen::default());
        vt.advance(&mut seen, &vec![b'x'; 3 * MAX_SEQUENCE]);
        assert_eq!(seen.text.len(), 3 * MAX_SEQUENCE);
    }
}
