//! The way up: no client message makes it panic, or write anything an upstream would choke on.
#![no_main]

use drawbridge_protocol::encoding::{PIECE, encoded_len};
use drawbridge_protocol::transcode::Input;
use drawbridge_protocol_fuzz::{Checked, Session};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|fuzzed: (Session, Vec<(u16, &[u8])>)| {
    let (session, messages) = fuzzed;
    let mut input = Input::new(session.client(), session.upstream(), session.streams());
    let mut to = Checked::new(session.upstream(), 1 + encoded_len(PIECE));
    for (repeat, payload) in messages {
        // Some are made long enough to be split.
        let long = if repeat % 64 == 1 {
            payload.repeat(usize::from(repeat) / 4)
        } else {
            payload.to_vec()
        };
        let before = to.bytes;
        let taken = input.message(&long, &mut to);
        // Base64 adds a third and padding, each piece a channel byte; an end of stdin two bytes.
        assert!(
            to.bytes - before <= long.len() / 3 * 4 + (long.len() / PIECE + 1) * 8,
            "{taken:?}"
        );
        if let Some(size) = input.take_resize() {
            assert!(session.streams().tty);
            input.encode_resize(size, &mut to);
        }
        if taken.is_err() {
            break;
        }
    }
    input.hang_up(&mut to);
});
