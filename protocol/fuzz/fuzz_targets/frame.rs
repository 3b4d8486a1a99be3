//! Frames: any cut of any bytes gives the same events, and never holds more than its bound.
#![no_main]

use drawbridge_protocol::frame::{self, Opcode, Sender, Violation};
use drawbridge_protocol::walker::{Payload, Step, Walker};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1024;

/// What a stream of frames is to its reader; passed frames are told by their payload bytes.
fn walk(
    bytes: &[u8],
    chunk_size: usize,
    from: Sender,
) -> (Vec<(Option<Opcode>, Vec<u8>)>, Option<Violation>) {
    let mut walker = Walker::new(from, LIMIT);
    let (mut seen, mut chunk) = (Vec::new(), Vec::new());
    for read in bytes.chunks(chunk_size) {
        chunk.extend_from_slice(read);
        let mut at = 0;
        loop {
            match walker.step(&mut chunk, &mut at, |channel, _| channel == 1) {
                Err(violation) => return (seen, Some(violation)),
                Ok(Step::More) => break,
                Ok(Step::Control { opcode, payload }) => {
                    assert!(opcode.is_control() && payload.len() <= frame::MAX_CONTROL_PAYLOAD);
                    let payload = &chunk[payload];
                    if opcode == Opcode::Close {
                        let _ = frame::close_code(payload);
                    }
                    seen.push((Some(opcode), payload.to_vec()));
                }
                Ok(Step::Message {
                    opcode,
                    payload: Payload::InChunk(range),
                }) => {
                    assert!(range.len() <= LIMIT);
                    seen.push((Some(opcode), chunk[range].to_vec()));
                }
                Ok(Step::Message {
                    opcode,
                    payload: Payload::Assembled,
                }) => {
                    seen.push((Some(opcode), walker.assembled().to_vec()));
                    walker.release();
                }
                Ok(Step::Pass { bytes, payload }) => {
                    assert!(payload <= bytes.len());
                    match seen.last_mut() {
                        // A frame of more than `walker::WHOLE` bytes passes in pieces.
                        Some((None, passed)) => passed.extend_from_slice(&chunk[bytes]),
                        _ => seen.push((None, chunk[bytes].to_vec())),
                    }
                }
            }
            assert!(walker.assembled().len() <= LIMIT);
        }
        chunk.drain(..at);
    }
    (seen, None)
}

fuzz_target!(|fuzzed: (bool, u8, &[u8])| {
    let (client, chunk_size, bytes) = fuzzed;
    let from = if client {
        Sender::Client
    } else {
        Sender::Server
    };
    let whole = walk(bytes, bytes.len().max(1), from);
    let cut = walk(bytes, usize::from(chunk_size).max(1), from);
    assert_eq!(whole, cut);
});
