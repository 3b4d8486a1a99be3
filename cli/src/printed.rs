//! What a recording printed, as lines of text: what was overwritten within a line is gone, as it was for the eye.

use std::time::Duration;

use drawbridge_audit::recording::{Event, ReadError, Reader, Stream};
use drawbridge_audit::terminal::Vt;
use vte::{Params, Perform};

/// Longest line, in characters; a longer one is told in pieces. A screen is far narrower.
const MAX_LINE: usize = 16 << 10;
/// Columns between tab stops.
const TAB: usize = 8;

/// Tells every line that a recording printed, and when it began: stdout's and stderr's in the order they ended. Returns
/// what kept it from the end, if anything did.
pub(crate) fn lines(reader: Reader<'_>, told: &mut dyn FnMut(Duration, &str)) -> Option<ReadError> {
    let (mut stdout, mut stderr) = (Printed::default(), Printed::default());
    let mut end = None;
    for event in reader {
        match event.map(|timed| (timed.at, timed.event)) {
            Ok((at, Event::Data(Stream::Stdout, bytes))) => stdout.output(at, &bytes, told),
            Ok((at, Event::Data(Stream::Stderr, bytes))) => stderr.output(at, &bytes, told),
            Ok(_) => {}
            Err(error) => end = Some(error),
        }
    }
    stdout.end(told);
    stderr.end(told);
    end
}

/// Collects the lines of one stream.
#[derive(Default)]
struct Printed {
    vt: Vt,
    line: Line,
}

#[derive(Default)]
struct Line {
    characters: Vec<char>,
    column: usize,
    /// When the first character came.
    at: Option<Duration>,
    now: Duration,
}

impl Printed {
    /// Takes output.
    fn output(&mut self, at: Duration, bytes: &[u8], told: &mut dyn FnMut(Duration, &str)) {
        self.line.now = at;
        let line = &mut self.line;
        self.vt.advance(&mut Printer { line, told }, bytes);
    }

    /// The last line, which nothing ended.
    fn end(&mut self, told: &mut dyn FnMut(Duration, &str)) {
        let line = &mut self.line;
        Printer { line, told }.tell();
    }
}

struct Printer<'a> {
    line: &'a mut Line,
    told: &'a mut dyn FnMut(Duration, &str),
}

impl Printer<'_> {
    fn tell(&mut self) {
        let line = &mut *self.line;
        let at = line.at.take().unwrap_or(line.now);
        let text: String = line.characters.drain(..).collect();
        line.column = 0;
        let text = text.trim_end();
        if !text.is_empty() {
            (self.told)(at, text);
        }
    }
}

impl Perform for Printer<'_> {
    fn print(&mut self, character: char) {
        if !crate::words::is_printable(character) {
            return;
        }
        if self.line.column >= MAX_LINE {
            self.tell();
        }
        let line = &mut *self.line;
        line.at.get_or_insert(line.now);
        while line.characters.len() <= line.column {
            line.characters.push(' ');
        }
        line.characters[line.column] = character;
        line.column += 1;
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' | 0x0b | 0x0c => self.tell(),
            b'\r' => self.line.column = 0,
            0x08 => self.line.column = self.line.column.saturating_sub(1),
            b'\t' => self.line.column = (self.line.column / TAB + 1) * TAB,
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _: bool, action: char) {
        if !intermediates.is_empty() {
            return;
        }
        let first = params
            .iter()
            .next()
            .and_then(|param| param.first().copied());
        let count = usize::from(first.unwrap_or(0).max(1));
        let line = &mut *self.line;
        match action {
            'C' => line.column = (line.column + count).min(MAX_LINE),
            'D' => line.column = line.column.saturating_sub(count),
            'G' | '`' => line.column = (count - 1).min(MAX_LINE),
            'K' => match first.unwrap_or(0) {
                0 => line.characters.truncate(line.column),
                2 => line.characters.clear(),
                _ => {}
            },
            'P' => {
                let start = line.column.min(line.characters.len());
                let end = (start + count).min(line.characters.len());
                line.characters.drain(start..end);
            }
            // To another row: what was on this one is said.
            'A' | 'B' | 'E' | 'F' | 'H' | 'J' | 'L' | 'M' | 'S' | 'T' | 'd' | 'f' => self.tell(),
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        if intermediates.is_empty() && matches!(byte, b'D' | b'E' | b'M' | b'c' | b'8') {
            self.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(output: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut printed = Printed::default();
        let mut told = |_, line: &str| lines.push(line.to_owned());
        printed.output(Duration::ZERO, output, &mut told);
        printed.end(&mut told);
        lines
    }

    #[test]
    fn a_line_is_what_the_eye_saw_at_its_end() {
        for (output, line) in [
            ("\x1b[1mbold\x1b[0m\r\n", "bold"),
            ("10%\r20%\r100%\n", "100%"),
            ("lsx\x08 \x08 -l\n", "ls -l"),
            ("a\tb\n", "a       b"),
            ("long line\r\x1b[Kshort\n", "short"),
            ("\x1b]0;title\x07text", "text"),
            ("abc\x1b[2Dx\n", "axc"),
        ] {
            assert_eq!(lines(output.as_bytes()), [line], "{output:?}");
        }
        assert_eq!(lines(b"\x1b[Hone\x1b[2;1Htwo\n\n"), ["one", "two"]);
    }

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let lines = lines(&vec![b'x'; 3 * MAX_LINE]);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == MAX_LINE));
    }

    proptest! {
        #[test]
        fn nothing_a_terminal_obeys_is_ever_told(output in proptest::collection::vec(any::<u8>(), 0..400)) {
            for line in lines(&output) {
                prop_assert!(line.chars().all(crate::words::is_printable));
                prop_assert!(line.chars().count() <= 2 * MAX_LINE);
            }
        }
    }
}
