//! How fast one core carries data between subprotocols: `cargo bench -p drawbridge-protocol`.
//!
//! Each line is one direction of one pair: whole messages in, complete frames out (header written, payload masked
//! towards the upstream). MB/s counts the bytes of the process, not those of base64 or frames; the best of several
//! rounds is printed, since everything that disturbs a round makes it slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use drawbridge_protocol::frame::{self, Header, Opcode};
use drawbridge_protocol::subprotocol::Subprotocol;
use drawbridge_protocol::transcode::{Input, Outbox, Output, Streams};

const ALL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

/// What the servers and kubectl put in one message.
const BULK: usize = 32 * 1024;

/// Frames behind one another, as a gateway would write them to a socket.
struct Frames {
    out: Vec<u8>,
    key: Option<[u8; 4]>,
}

impl Outbox for Frames {
    fn message(&mut self, opcode: Opcode, len: usize, fill: impl FnOnce(&mut [u8])) {
        Header {
            fin: true,
            opcode,
            mask: self.key,
            len: len as u64,
        }
        .write(&mut self.out);
        let start = self.out.len();
        self.out.resize(start + len, 0);
        fill(&mut self.out[start..]);
        if let Some(key) = self.key {
            frame::mask(&mut self.out[start..], key, 0);
        }
    }
}

fn payload(protocol: Subprotocol, channel: u8, data: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    match protocol.data_opcode() {
        Opcode::Text => {
            format!("{channel}{}", base64::prelude::BASE64_STANDARD.encode(data)).into_bytes()
        }
        _ => [&[channel], data].concat(),
    }
}

/// Runs `one` for a while and returns the shortest time for one call seen in any round.
fn fastest(mut one: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    let until = Instant::now() + Duration::from_millis(600);
    while Instant::now() < until {
        let start = Instant::now();
        for _ in 0..64 {
            one();
        }
        best = best.min(start.elapsed() / 64);
    }
    best
}

fn report(what: &str, client: Subprotocol, upstream: Subprotocol, bytes: usize, one: impl FnMut()) {
    let time = fastest(one);
    let speed = f64::from(u32::try_from(bytes).expect("a message")) / time.as_secs_f64() / 1e6;
    let names = [client, upstream].map(|protocol| match protocol.name() {
        "" => "(none)",
        name => name,
    });
    println!(
        "{what:<7} {:>24} {:>24} {bytes:>6} B {:>9} ns {speed:>8.0} MB/s",
        names[0],
        names[1],
        time.as_nanos()
    );
}

fn main() {
    // Started by a test run over all targets: measuring means nothing there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "{:<7} {:>24} {:>24} {:>8} {:>12} {:>13}",
        "way", "client", "upstream", "data", "a message", "speed"
    );
    let data: Vec<u8> = (0u32..)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .take(BULK)
        .collect();
    for size in [BULK, 1] {
        for (client, upstream) in [
            (Subprotocol::V4Base64, Subprotocol::V5),
            (Subprotocol::V5, Subprotocol::V4Base64),
            (Subprotocol::V4Base64, Subprotocol::V4Base64),
            (Subprotocol::V5, Subprotocol::V5),
        ] {
            let stdout = payload(upstream, 1, &data[..size]);
            let mut to = Frames {
                out: Vec::new(),
                key: None,
            };
            let mut output = Output::new(client, upstream, ALL);
            output.opened(&mut to);
            report("output", client, upstream, size, || {
                to.out.clear();
                assert_eq!(output.message(black_box(&stdout), &mut to), size);
                black_box(&to.out);
            });
            let stdin = payload(client, 0, &data[..size]);
            let mut to = Frames {
                out: Vec::new(),
                key: Some([0x37, 0xfa, 0x21, 0x3d]),
            };
            let mut input = Input::new(client, upstream, ALL);
            report("input", client, upstream, size, || {
                to.out.clear();
                assert!(input.message(black_box(&stdin), &mut to).is_ok());
                black_box(&to.out);
            });
        }
    }
}
