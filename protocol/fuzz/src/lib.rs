//! What the fuzz targets share: a session chosen by the fuzzer, and an outbox that checks what is written.

use arbitrary::Arbitrary;
use drawbridge_protocol::frame::Opcode;
use drawbridge_protocol::subprotocol::Subprotocol;
use drawbridge_protocol::transcode::{Outbox, Streams};

/// Subprotocols and streams of one session.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Session {
    client: u8,
    upstream: u8,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Session {
    /// What the client speaks.
    pub fn client(self) -> Subprotocol {
        protocol(self.client)
    }

    /// What the upstream speaks.
    pub fn upstream(self) -> Subprotocol {
        protocol(self.upstream)
    }

    /// What was requested.
    pub fn streams(self) -> Streams {
        let Self {
            stdin,
            stdout,
            stderr,
            tty,
            ..
        } = self;
        Streams {
            stdin,
            stdout,
            stderr,
            tty,
        }
    }
}

fn protocol(index: u8) -> Subprotocol {
    Subprotocol::ALL[usize::from(index) % Subprotocol::ALL.len()]
}

/// Checks every message, keeps the last and the sum.
pub struct Checked {
    protocol: Subprotocol,
    /// Longest payload allowed.
    limit: usize,
    /// The message written last.
    pub last: Vec<u8>,
    /// Messages written.
    pub count: usize,
    /// Bytes of payload written.
    pub bytes: usize,
}

impl Checked {
    /// An outbox to a peer that speaks `protocol` and takes payloads up to `limit` bytes.
    pub fn new(protocol: Subprotocol, limit: usize) -> Self {
        Self {
            protocol,
            limit,
            last: Vec::new(),
            count: 0,
            bytes: 0,
        }
    }
}

impl Outbox for Checked {
    fn message(&mut self, opcode: Opcode, len: usize, fill: impl FnOnce(&mut [u8])) {
        assert!((1..=self.limit).contains(&len), "message of {len} bytes");
        assert_eq!(opcode, self.protocol.data_opcode());
        self.last.clear();
        self.last.resize(len, 0xA5);
        fill(&mut self.last);
        self.count += 1;
        self.bytes += len;
    }
}
