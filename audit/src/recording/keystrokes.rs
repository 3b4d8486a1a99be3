//! What was typed, if the terminal showed it.
//!
//! Nobody tells the gateway whether the terminal echoes. So a typed line is held until its end, and told only if each of
//! its printable characters was the next one to appear in the output after it was typed, before the output began a new
//! line. What is told as typed can therefore be read in the output as well. Everything else is told as a number of bytes:
//! passwords, and also what an editor takes as commands.

use std::collections::VecDeque;

use vte::{Params, Perform};

use crate::terminal::Vt;

/// How many typed bytes may wait for their echo: more than a terminal's line can hold (4095).
const MAX_HELD: usize = 4096;
/// How many lines may: a paste that the process reads slowly.
const MAX_LINES: usize = 256;

/// What became of a typed line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// It was shown.
    Shown(Vec<u8>),
    /// It was not, or not for sure: so many bytes.
    Hidden(u64),
}

/// Compares input with output.
pub(super) struct Keystrokes {
    input: Vt,
    output: Vt,
    /// Not empty; the last one is being typed.
    lines: VecDeque<Line>,
    held: usize,
}

#[derive(Default)]
struct Line {
    /// The bytes; none any more once the line is hidden.
    bytes: Vec<u8>,
    count: u64,
    /// Printable characters that have not appeared yet.
    expected: VecDeque<char>,
    shown: bool,
    hidden: bool,
    ended: bool,
}

impl Keystrokes {
    pub(super) fn new() -> Self {
        Self {
            input: Vt::new(),
            output: Vt::new(),
            lines: VecDeque::from([Line::default()]),
            held: 0,
        }
    }

    /// Takes typed bytes.
    pub(super) fn typed(&mut self, bytes: &[u8], tell: &mut impl FnMut(Typed)) {
        for byte in bytes {
            let mut seen = Input::default();
            self.input.advance(&mut seen, &[*byte]);
            let line = self.lines.back_mut().expect("a line is being typed");
            line.count += 1;
            line.expected.extend(seen.printed);
            line.ended = seen.ended;
            line.hidden |= seen.odd;
            if !line.hidden {
                line.bytes.push(*byte);
                self.held += 1;
            }
            if seen.ended {
                self.lines.push_back(Line::default());
            }
            if self.held > MAX_HELD || self.lines.len() > MAX_LINES {
                self.hide_all();
            }
            self.settle(tell);
        }
    }

    /// Takes output, after the input that came before it.
    pub(super) fn output(&mut self, bytes: &[u8], tell: &mut impl FnMut(Typed)) {
        // While nothing is expected, output only matters for where its escape sequences end.
        let mut parser = std::mem::take(&mut self.output);
        parser.advance(
            &mut Output {
                keystrokes: self,
                tell,
            },
            bytes,
        );
        self.output = parser;
    }

    /// The end: what was not shown until now never will be.
    pub(super) fn end(&mut self, tell: &mut impl FnMut(Typed)) {
        for line in &mut self.lines {
            line.hidden |= !line.expected.is_empty();
            line.ended |= line.count > 0;
        }
        self.settle(tell);
    }

    fn hide_all(&mut self) {
        for line in &mut self.lines {
            line.hidden = true;
        }
    }

    /// Tells the lines that are decided, in the order they were typed.
    fn settle(&mut self, tell: &mut impl FnMut(Typed)) {
        while let Some(line) = self.lines.front_mut() {
            if line.hidden {
                self.held -= line.bytes.len();
                line.bytes = Vec::new();
                line.expected = VecDeque::new();
            }
            if !line.ended || !line.expected.is_empty() {
                return;
            }
            let line = self.lines.pop_front().expect("it was there");
            self.held -= line.bytes.len();
            // A line of keys that print nothing may be a secret, too; an empty one is none.
            if !line.hidden && (line.shown || line.count == 1) {
                tell(Typed::Shown(line.bytes));
            } else {
                tell(Typed::Hidden(line.count));
            }
            if self.lines.is_empty() {
                self.lines.push_back(Line::default());
                return;
            }
        }
    }

    /// A character appeared.
    fn appeared(&mut self, character: char, tell: &mut impl FnMut(Typed)) {
        let Some(line) = self.lines.front_mut() else {
            return;
        };
        let Some(expected) = line.expected.pop_front() else {
            return;
        };
        // U+FFFD stands for any byte that is no text: it cannot be compared.
        if expected == character && character != char::REPLACEMENT_CHARACTER {
            line.shown = true;
        } else {
            line.hidden = true;
        }
        self.settle(tell);
    }

    /// A new line began.
    fn line_feed(&mut self, tell: &mut impl FnMut(Typed)) {
        if let Some(line) = self.lines.front_mut()
            && !line.expected.is_empty()
        {
            line.hidden = true;
            self.settle(tell);
        }
    }
}

impl std::fmt::Debug for Keystrokes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keystrokes")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// What one typed byte completed.
#[derive(Default)]
struct Input {
    printed: Option<char>,
    ended: bool,
    /// Something that no key sends, or that could carry text past the comparison.
    odd: bool,
}

impl Perform for Input {
    fn print(&mut self, character: char) {
        // The key that deletes is no character.
        if character != '\x7f' {
            // Two at once: the first was torn text.
            self.odd |= self.printed.replace(character).is_some();
        }
    }

    fn execute(&mut self, byte: u8) {
        // What ends a line for the terminal: LF, CR, and ^C, ^D, ^Z, ^\ which throw it away or hand it over.
        self.ended |= matches!(byte, b'\n' | b'\r' | 0x03 | 0x04 | 0x1a | 0x1c);
    }

    fn hook(&mut self, _: &Params, _: &[u8], _: bool, _: char) {
        self.odd = true;
    }

    fn put(&mut self, _: u8) {
        self.odd = true;
    }

    fn unhook(&mut self) {
        self.odd = true;
    }

    fn osc_dispatch(&mut self, _: &[&[u8]], _: bool) {
        self.odd = true;
    }

    fn esc_dispatch(&mut self, _: &[u8], _: bool, _: u8) {
        self.odd = true;
    }
}

struct Output<'a, F> {
    keystrokes: &'a mut Keystrokes,
    tell: &'a mut F,
}

impl<F: FnMut(Typed)> Perform for Output<'_, F> {
    fn print(&mut self, character: char) {
        self.keystrokes.appeared(character, self.tell);
    }

    fn execute(&mut self, byte: u8) {
        if byte == b'\n' {
            self.keystrokes.line_feed(self.tell);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Input (`<`) and output (`>`) in turn; what is told.
    fn told(exchange: &[(char, &[u8])]) -> Vec<Typed> {
        let mut keystrokes = Keystrokes::new();
        let mut told = Vec::new();
        for (direction, bytes) in exchange {
            match direction {
                '<' => keystrokes.typed(bytes, &mut |typed| told.push(typed)),
                _ => keystrokes.output(bytes, &mut |typed| told.push(typed)),
            }
        }
        keystrokes.end(&mut |typed| told.push(typed));
        told
    }

    fn shown(line: &[u8]) -> Typed {
        Typed::Shown(line.to_vec())
    }

    #[test]
    fn a_line_that_was_echoed_is_told() {
        let told = told(&[
            ('>', b"$ "),
            ('<', b"l"),
            ('>', b"l"),
            ('<', b"s"),
            ('>', b"\x1b[32ms\x1b[0m"),
            ('<', b"\r"),
            ('>', b"\r\nfile\r\n$ "),
        ]);
        assert_eq!(told, [shown(b"ls\r")]);
    }

    #[test]
    fn an_echo_that_comes_late_counts_too() {
        let told = told(&[
            ('<', "sé\r".as_bytes()),
            ('>', b"s\xc3"),
            ('>', b"\xa9\r\n"),
        ]);
        assert_eq!(told, [shown("sé\r".as_bytes())]);
    }

    #[test]
    fn a_password_is_told_as_a_number() {
        let told = told(&[
            ('>', b"Password: "),
            ('<', b"secret"),
            ('<', b"\r"),
            ('>', b"\r\nsecret is what it began with\r\n$ "),
        ]);
        assert_eq!(told, [Typed::Hidden(7)]);
    }

    #[test]
    fn keys_that_print_nothing_are_told_only_with_something_that_was_shown() {
        assert_eq!(told(&[('<', b"\x1b[A\r")]), [Typed::Hidden(4)]);
        assert_eq!(told(&[('<', b"\x01\x02\r")]), [Typed::Hidden(3)]);
        assert_eq!(
            told(&[('<', b"\x03"), ('<', b"\r")]),
            [shown(b"\x03"), shown(b"\r")]
        );
        assert_eq!(
            told(&[('<', b"x\x1b[D\x7f"), ('>', b"x\x08"), ('<', b"\r")]),
            [shown(b"x\x1b[D\x7f\r")]
        );
    }

    #[test]
    fn text_inside_a_sequence_cannot_slip_through() {
        for line in [
            &b"a\x1b]secret\x07\r"[..],
            b"a\x1bPsecret\x1b\\\r",
            b"a\x1bs\r",
        ] {
            let told = told(&[('<', line), ('>', b"a\r\n")]);
            assert!(matches!(told[..], [Typed::Hidden(_)]), "{told:?}");
        }
    }

    #[test]
    fn a_flood_that_nobody_echoes_is_bounded_and_counted() {
        let mut keystrokes = Keystrokes::new();
        let mut hidden = 0;
        let mut tell = |typed| match typed {
            Typed::Hidden(bytes) => hidden += bytes,
            Typed::Shown(line) => panic!("shown: {line:?}"),
        };
        for _ in 0..100 {
            keystrokes.typed(&[b'x'; 1000], &mut tell);
            keystrokes.typed(b"y\ry\r\x1bz\r", &mut tell);
            assert!(keystrokes.held <= MAX_HELD && keystrokes.lines.len() <= MAX_LINES);
        }
        keystrokes.end(&mut tell);
        assert_eq!(hidden, 100 * 1007);
    }

    proptest! {
        #[test]
        fn nothing_typed_without_echo_is_told(
            secrets in vec("[a-zA-Z0-9 .,;!§€-]{1,20}", 1..5),
            noise in vec("[#%&()*+/:<=>?@^_`|~\r\n]{0,10}", 5),
        ) {
            let mut exchange: Vec<(char, Vec<u8>)> = Vec::new();
            for (secret, noise) in secrets.iter().zip(&noise) {
                exchange.push(('>', b"Password: ".to_vec()));
                exchange.extend(secret.chars().map(|key| ('<', key.to_string().into_bytes())));
                exchange.push(('<', b"\r".to_vec()));
                exchange.push(('>', noise.clone().into_bytes()));
                exchange.push(('>', b"\r\n".to_vec()));
            }
            let exchange: Vec<_> = exchange.iter().map(|(d, b)| (*d, &b[..])).collect();
            let told = told(&exchange);
            prop_assert!(told.iter().all(|typed| matches!(typed, Typed::Hidden(_))), "{told:?}");
        }

        #[test]
        fn every_typed_byte_is_told_or_counted(
            exchange in vec((any::<bool>(), vec(any::<u8>(), 0..50)), 0..50),
        ) {
            let exchange: Vec<_> = exchange.iter()
                .map(|(typed, bytes)| (if *typed { '<' } else { '>' }, &bytes[..]))
                .collect();
            let typed: usize = exchange.iter().filter(|(d, _)| *d == '<').map(|(_, b)| b.len()).sum();
            let told: usize = told(&exchange).iter().map(|typed| match typed {
                Typed::Shown(line) => line.len(),
                Typed::Hidden(bytes) => usize::try_from(*bytes).unwrap(),
            }).sum();
            prop_assert_eq!(told, typed);
        }
    }
}
