//! Terminal output that can only draw: an allow-list of control sequences, written anew from what was parsed.
//!
//! What a recording holds was chosen by the one it watches. Played as it is, it could set the auditor's clipboard and
//! window title, ask the terminal for answers that then look as if they were typed, turn on mouse reports, print, or write
//! files in terminals that let it. None of this passes: not because it is known to be bad, but because it is not on the list.

use drawbridge_audit::terminal::Vt;
use vte::{Params, Perform};

use crate::words::is_printable;

/// Undoes what moves nothing: attributes, insert mode, wrapping, the hidden cursor, character sets.
const RESET: &[u8] = b"\x1b[0m\x1b[4l\x1b[?7h\x1b[?25h\x1b(B\x1b)B\x0f";
/// Leaves the alternate screen. Where there was none, terminals would move the cursor all the same.
const LEAVE: &[u8] = b"\x1b[?1049l";
/// Undoes scroll region and origin mode, which puts the cursor at the top; then to the bottom.
const UNCONFINE: &[u8] = b"\x1b[r\x1b[?6l\x1b[9999;1H";

/// Most of anything that a sequence may ask for, e.g. lines to scroll: more than any screen has.
const MAX_PARAMETER: u16 = 9999;

/// Modes that only concern what is drawn. Not 1 (cursor keys), 9 and 1000 to 1016 (mouse), 1004 (focus), 2004 (paste): they change what the
/// auditor's own keys send.
const PRIVATE_MODES: [u16; 8] = [6, 7, 12, 25, 47, 1047, 1048, 1049];

/// Lets drawing through.
#[derive(Default)]
pub(crate) struct Safe {
    vt: Vt,
    used: Used,
}

/// What has to be undone in the end.
#[derive(Clone, Copy, Default)]
struct Used {
    alternate: bool,
    confined: bool,
}

impl Safe {
    /// Appends to `out` what of `bytes` only draws.
    pub(crate) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let used = &mut self.used;
        self.vt.advance(&mut Drawing { out, used }, bytes);
    }

    /// What undoes everything that passed.
    pub(crate) fn reset(&self) -> Vec<u8> {
        let mut reset = RESET.to_vec();
        if self.used.alternate {
            reset.extend_from_slice(LEAVE);
        }
        if self.used.confined {
            reset.extend_from_slice(UNCONFINE);
        }
        reset
    }
}

struct Drawing<'a> {
    out: &'a mut Vec<u8>,
    used: &'a mut Used,
}

impl Drawing<'_> {
    fn csi(&mut self, marker: &str, params: &Params, action: char) {
        let params: Vec<String> = params
            .iter()
            .map(|param| {
                let parts: Vec<String> = param
                    .iter()
                    .map(|part| part.min(&MAX_PARAMETER).to_string())
                    .collect();
                parts.join(":")
            })
            .collect();
        let sequence = format!("\x1b[{marker}{}{action}", params.join(";"));
        self.out.extend_from_slice(sequence.as_bytes());
    }
}

impl Perform for Drawing<'_> {
    fn print(&mut self, character: char) {
        if is_printable(character) {
            let mut bytes = [0; 4];
            let bytes = character.encode_utf8(&mut bytes);
            self.out.extend_from_slice(bytes.as_bytes());
        }
    }

    fn execute(&mut self, byte: u8) {
        // Backspace, tab, line feeds, carriage return, and the two that choose a character set. No bell.
        if matches!(byte, 0x08..=0x0f) {
            self.out.push(byte);
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore {
            return;
        }
        let mut values = params.iter().flatten();
        match (intermediates, action) {
            // Moving, and inserting and deleting characters and lines. Erasing, but not what scrolled away.
            (
                [],
                '@'
                | 'A'..='H'
                | 'K'
                | 'L'
                | 'M'
                | 'P'
                | 'S'
                | 'T'
                | 'X'
                | '`'
                | 'a'
                | 'b'
                | 'd'
                | 'e'
                | 'f'
                | 'm'
                | 's'
                | 'u',
            ) => self.csi("", params, action),
            ([], 'r') => {
                self.used.confined = true;
                self.csi("", params, action);
            }
            ([], 'J') if values.all(|value| *value <= 2) => self.csi("", params, action),
            ([], 'h' | 'l') if values.all(|value| *value == 4) => self.csi("", params, action),
            (b"?", 'h' | 'l') if values.all(|value| PRIVATE_MODES.contains(value)) => {
                let used = |modes: &[u16]| params.iter().flatten().any(|mode| modes.contains(mode));
                self.used.alternate |= used(&[47, 1047, 1049]);
                self.used.confined |= used(&[6]);
                self.csi("?", params, action);
            }
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        match (intermediates, byte) {
            _ if ignore => {}
            // Save and restore the cursor; to the next line, or the one before.
            ([], b'7' | b'8' | b'D' | b'E' | b'M') => self.out.extend_from_slice(&[0x1b, byte]),
            // A reset, which would also do what the sequence above must not: only its picture.
            ([], b'c') => self.out.extend_from_slice(b"\x1b[0m\x1b[r\x1b[2J\x1b[H"),
            // Line drawing, and back.
            ([set @ (b'(' | b')')], b'0' | b'B') => {
                self.out.extend_from_slice(&[0x1b, *set, byte]);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Safe::default().pass(bytes, &mut out);
        out
    }

    #[test]
    fn drawing_passes() {
        for drawing in [
            "text é€😀\r\n\t\x08",
            "\x1b[1;31mred\x1b[0m",
            "\x1b[38:2:1:2:3m",
            "\x1b[?1049h\x1b[2J\x1b[10;20H\x1b[?25l",
            "\x1b[3;20r\x1b7\x1b8\x1bM\x1b(0\x0e\x0f\x1b(B",
        ] {
            assert_eq!(pass(drawing.as_bytes()), drawing.as_bytes(), "{drawing:?}");
        }
    }

    #[test]
    fn nothing_else_does() {
        for hostile in [
            "\x1b]0;title\x07",
            "\x1b]2;title\x1b\\",
            "\x1b]52;c;Y2xpcGJvYXJk\x07",
            "\x1b]8;;https://example.com\x07",
            "\x1b]1337;File=name=YQ==:AAAA\x07",
            "\x1b]9;notify\x07",
            "\x1b]4;1;#000000\x07",
            "\x1bP+q544e\x1b\\",
            "\x1bPtmux;\x1b\x1b]0;x\x07\x1b\\",
            "\x1b_Gi=1;AAAA\x1b\\",
            "\x1b^private\x1b\\",
            "\x1b[6n",
            "\x1b[c",
            "\x1b[>c",
            "\x1b[21t",
            "\x1b[3J",
            "\x1b[?1000h",
            "\x1b[?2004h",
            "\x1b[?1h",
            "\x1b[?25;1000h",
            "\x1b[?25:1000h",
            "\x1b[5i",
            "\x1b[20h",
            "\x1b[!p",
            "\x1b[1$}",
            "\x1b[?5n",
            "\x1b=",
            "\x1bZ",
            "\x1b#8",
            "\x07",
            "\u{202e}",
        ] {
            assert_eq!(pass(hostile.as_bytes()), b"", "{hostile:?}");
        }
    }

    #[test]
    fn a_control_character_of_eight_bits_begins_nothing() {
        assert_eq!(pass("\u{9b}6n".as_bytes()), b"6n");
        assert_eq!(pass(b"\x9b6n"), b"6n");
    }

    #[test]
    fn only_what_was_used_is_undone() {
        let reset = |bytes: &[u8]| {
            let mut safe = Safe::default();
            safe.pass(bytes, &mut Vec::new());
            safe.reset()
        };
        assert_eq!(reset(b"text\x1b[1;31m\x1b[2J"), RESET);
        assert_eq!(reset(b"\x1b[?25;1049h"), [RESET, LEAVE].concat());
        let both = [RESET, LEAVE, UNCONFINE].concat();
        assert_eq!(reset(b"\x1b[?1047h\x1b[2;9r"), both);
    }

    #[test]
    fn an_exaggeration_is_cut() {
        assert_eq!(pass(b"\x1b[65535b"), b"\x1b[9999b");
    }

    /// What a terminal would do that is not on the list.
    #[derive(Default)]
    struct Strict(Vec<String>);

    impl Perform for Strict {
        fn hook(&mut self, _: &Params, _: &[u8], _: bool, action: char) {
            self.0.push(format!("DCS {action}"));
        }

        fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
            self.0.push(format!("OSC {params:?}"));
        }

        fn execute(&mut self, byte: u8) {
            if !matches!(byte, 0x08..=0x0f) {
                self.0.push(format!("control {byte}"));
            }
        }

        fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _: bool, action: char) {
            let modes = params.iter().flatten().all(|mode| {
                PRIVATE_MODES.contains(mode) || (intermediates.is_empty() && *mode == 4)
            });
            let known = match action {
                'h' | 'l' => modes && matches!(intermediates, [] | [b'?']),
                'c' | 'n' | 't' | 'i' | 'p' | 'q' | 'y' | 'x' | 'g' => false,
                _ => intermediates.is_empty(),
            };
            if !known {
                self.0.push(format!("CSI {intermediates:?} {action}"));
            }
        }

        fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
            let known = matches!(
                (intermediates, byte),
                ([], b'7' | b'8' | b'D' | b'E' | b'M') | ([b'(' | b')'], b'0' | b'B')
            );
            if !known {
                self.0.push(format!("ESC {intermediates:?} {byte}"));
            }
        }
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let parts = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..8),
            "\u{1b}[\\[\\]P_^XN(#=][?>!0-9;:$ ]{0,8}[@-~]".prop_map(String::into_bytes),
            "\u{1b}\\][0-9]{1,4};[ -~]{0,12}(\u{7}|\u{1b}\\\\)?".prop_map(String::into_bytes),
            "[\u{80}-\u{9f}a-z;0-9]{0,8}".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(parts, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn whatever_comes_only_drawing_passes_however_it_is_split(
            bytes in hostile(), splits in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        ) {
            let whole = pass(&bytes);
            let mut strict = Strict::default();
            vte::Parser::new().advance(&mut strict, &whole);
            prop_assert!(strict.0.is_empty(), "{:?}", strict.0);
            prop_assert_eq!(pass(&whole), whole.clone());

            let mut at: Vec<usize> = splits.iter().map(|split| split.index(bytes.len() + 1)).collect();
            at.sort_unstable();
            let (mut safe, mut parts, mut start) = (Safe::default(), Vec::new(), 0);
            for end in at.into_iter().chain([bytes.len()]) {
                safe.pass(&bytes[start..end], &mut parts);
                start = end;
            }
            prop_assert_eq!(parts, whole);
        }
    }
}
