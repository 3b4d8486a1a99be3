//! The way down: no upstream message makes it panic, and no silence becomes a success.
#![no_main]

use drawbridge_protocol::encoding::encoded_len;
use drawbridge_protocol::subprotocol::StatusFormat;
use drawbridge_protocol::transcode::{Outcome, Output, UpstreamEnd};
use drawbridge_protocol_fuzz::{Checked, Session};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|fuzzed: (Session, Vec<(u16, &[u8])>, Option<u16>)| {
    let (session, messages, closed) = fuzzed;
    let mut output = Output::new(session.client(), session.upstream(), session.streams());
    // Three bytes for each that is not UTF-8 in 64 KiB of prose, in base64.
    let mut to = Checked::new(session.client(), 1 + encoded_len(3 << 16));
    for (repeat, payload) in messages {
        let long = if repeat % 64 == 1 {
            payload.repeat(usize::from(repeat) / 4)
        } else {
            payload.to_vec()
        };
        let forwarded = output.message(&long, &mut to);
        assert!(forwarded <= long.len());
    }
    let silent = !output.has_status();
    let end = closed.map_or(UpstreamEnd::Lost, UpstreamEnd::Closed);
    let outcome = output.finish(end, &mut to);
    assert!(to.count >= 1, "at least the opening");
    if silent {
        let succeeds = session.upstream().status_format() == StatusFormat::Text
            && end == UpstreamEnd::Closed(1000);
        assert_eq!(
            outcome,
            if succeeds {
                Outcome::Success
            } else {
                Outcome::Lost
            }
        );
    }
    let count = to.count;
    output.finish(end, &mut to);
    output.notice("late", &mut to);
    assert_eq!(to.count, count, "nothing after the end");
});
