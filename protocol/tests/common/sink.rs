//! An outbox that keeps messages apart, for looking at them.

use drawbridge_protocol::frame::Opcode;
use drawbridge_protocol::transcode::Outbox;

/// What was written, message by message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sink(pub(crate) Vec<(Opcode, Vec<u8>)>);

impl Outbox for Sink {
    fn message(&mut self, opcode: Opcode, len: usize, fill: impl FnOnce(&mut [u8])) {
        assert!(len > 0, "an empty message kills kubectl");
        // A real outbox need not clear its memory, so what is not overwritten must show.
        let mut payload = vec![0xA5; len];
        fill(&mut payload);
        self.0.push((opcode, payload));
    }
}

impl Sink {
    /// What was written since the last call.
    pub(crate) fn take(&mut self) -> Vec<(Opcode, Vec<u8>)> {
        std::mem::take(&mut self.0)
    }
}
