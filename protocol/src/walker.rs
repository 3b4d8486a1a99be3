//! A walk over frames where they lie.
//!
//! ```text
//!   chunk (whatever one read returned)      Walker::step
//!   ┌────────┬──────────────┬─────┐   ┌► Pass     whole frames to write on as they are
//!   │ frame  │ frame        │ fra │ ──┼► Message  a whole data message, unmasked
//!   └────────┴──────────────┴─────┘   ├► Control  a whole ping, pong or close
//!                           └─────────┴► More     keep these bytes, put what comes next behind them
//! ```
//!
//! The walker holds no copy of a frame that passes. Because a frame passes whole, another frame (a status, a pong)
//! can be written after every step. Only what must be rewritten and does not lie in one chunk is put together, up to
//! a bound.

use std::ops::Range;

use crate::frame::{Header, MAX_HEADER, Opcode, Sender, Violation, mask};

/// Longest payload, in bytes, that must lie whole in a chunk to pass; longer ones pass in pieces.
///
/// The servers and kubectl copy through 32 KiB buffers, so their frames carry at most that and a channel byte.
pub const WHOLE: usize = 48 * 1024;

/// Most bytes a step can leave unread at the end of a chunk. A chunk must be longer.
pub const MAX_TAIL: usize = MAX_HEADER + WHOLE - 1;

/// Where the payload of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In the chunk, unmasked where it lies.
    InChunk(Range<usize>),
    /// In [`Walker::assembled`].
    Assembled,
}

/// What one step over a chunk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write these bytes of the chunk exactly as they are: one frame, or a piece of one longer than [`WHOLE`].
    Pass {
        /// The bytes, header included.
        bytes: Range<usize>,
        /// How many of them, at the end, are payload.
        payload: usize,
    },
    /// A whole data message. It may be empty.
    Message {
        /// `Text` or `Binary`.
        opcode: Opcode,
        /// Where its payload is.
        payload: Payload,
    },
    /// A whole control frame.
    Control {
        /// `Close`, `Ping` or `Pong`.
        opcode: Opcode,
        /// Its payload in the chunk, unmasked. At most 125 bytes.
        payload: Range<usize>,
    },
    /// Nothing whole is left. What was not read (at most [`MAX_TAIL`] bytes) belongs in front of the next chunk.
    More,
}

/// Walks the frames of one direction of one connection, however the bytes are cut.
///
/// # Guarantees
/// Whatever the peer sends, no message of more than `max_message` bytes is held, and nothing once a message was
/// given back with [`Walker::release`].
#[derive(Debug)]
pub struct Walker {
    from: Sender,
    max_message: usize,
    state: State,
    /// The opcode of the fragmented message that is being put together.
    fragments: Option<Opcode>,
    assembled: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// At the start of a frame.
    Head,
    /// Inside a passing frame longer than [`WHOLE`].
    Pass { left: u64 },
    /// Inside a frame that is being put together; `got` bytes of its payload are.
    Collect { header: Header, got: usize },
}

impl Walker {
    /// A walker over what `from` sends. A message of more than `max_message` bytes is a violation, unless it passes.
    #[must_use]
    pub fn new(from: Sender, max_message: usize) -> Self {
        Self {
            from,
            max_message,
            state: State::Head,
            fragments: None,
            assembled: Vec::new(),
        }
    }

    /// Whether everything that passed so far ends at the end of a frame: only then may another frame be written.
    ///
    /// Always true but inside a frame longer than [`WHOLE`].
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        !matches!(self.state, State::Pass { .. })
    }

    /// The message a step called [`Payload::Assembled`].
    #[must_use]
    pub fn assembled(&self) -> &[u8] {
        &self.assembled
    }

    /// Gives the memory of an assembled message back. Call it once the message was used.
    pub fn release(&mut self) {
        self.assembled = Vec::new();
    }

    /// Looks at `chunk` from `at` on and moves `at` past what it told.
    ///
    /// `passes` is asked for each unfragmented, non-empty binary frame, with the channel (first payload byte) and the
    /// payload length: `true` lets the frame through as it is. Other frames are unmasked where they lie, or put
    /// together when the chunk ends inside them.
    ///
    /// # Errors
    /// What [`Header::parse`] refuses, a continuation without a beginning or a beginning without an end, and a
    /// message of more than the limit. The walk cannot go on after an error.
    pub fn step(
        &mut self,
        chunk: &mut [u8],
        at: &mut usize,
        passes: impl Fn(u8, u64) -> bool,
    ) -> Result<Step, Violation> {
        loop {
            let step = match self.state {
                State::Head => self.head(chunk, at, &passes)?,
                State::Pass { left } => Some(self.pass(left, chunk.len(), at)),
                State::Collect { header, got } => self.collect(header, got, chunk, at),
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    fn pass(&mut self, left: u64, end: usize, at: &mut usize) -> Step {
        let rest = end - *at;
        if rest == 0 {
            return Step::More;
        }
        let payload = usize::try_from(left).map_or(rest, |left| left.min(rest));
        let bytes = *at..*at + payload;
        *at = bytes.end;
        let left = left - payload as u64;
        self.state = if left == 0 {
            State::Head
        } else {
            State::Pass { left }
        };
        Step::Pass { bytes, payload }
    }

    fn collect(
        &mut self,
        header: Header,
        got: usize,
        chunk: &mut [u8],
        at: &mut usize,
    ) -> Option<Step> {
        let want = usize::try_from(header.len).unwrap_or(usize::MAX) - got;
        let take = want.min(chunk.len() - *at);
        let bytes = &mut chunk[*at..*at + take];
        if let Some(key) = header.mask {
            mask(bytes, key, got);
        }
        self.assembled.extend_from_slice(bytes);
        *at += take;
        if take < want {
            self.state = State::Collect {
                header,
                got: got + take,
            };
            return Some(Step::More);
        }
        self.state = State::Head;
        if !header.fin {
            return None;
        }
        let opcode = self.fragments.take().unwrap_or(header.opcode);
        Some(Step::Message {
            opcode,
            payload: Payload::Assembled,
        })
    }

    fn head(
        &mut self,
        chunk: &mut [u8],
        at: &mut usize,
        passes: impl Fn(u8, u64) -> bool,
    ) -> Result<Option<Step>, Violation> {
        let chunk_end = chunk.len();
        let rest = &mut chunk[*at..];
        let Some((header, size)) = Header::parse(rest, self.from)? else {
            return Ok(Some(Step::More));
        };
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let end = size.saturating_add(len);
        let whole = end <= rest.len();

        if header.opcode.is_control() {
            if !whole {
                return Ok(Some(Step::More));
            }
            if let Some(key) = header.mask {
                mask(&mut rest[size..end], key, 0);
            }
            let payload = *at + size..*at + end;
            *at = payload.end;
            return Ok(Some(Step::Control {
                opcode: header.opcode,
                payload,
            }));
        }
        match (header.opcode, self.fragments) {
            (Opcode::Continuation, None) => {
                return Err(Violation::protocol("continuation of no message"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::protocol("new message inside a fragmented one"));
            }
            _ => {}
        }
        if header.fin && header.opcode == Opcode::Binary && len > 0 {
            let Some(&first) = rest.get(size) else {
                return Ok(Some(Step::More));
            };
            if passes(first ^ header.mask.map_or(0, |key| key[0]), header.len) {
                if whole {
                    let bytes = *at..*at + end;
                    *at = bytes.end;
                    return Ok(Some(Step::Pass {
                        bytes,
                        payload: len,
                    }));
                }
                if len <= WHOLE {
                    return Ok(Some(Step::More));
                }
                let payload = rest.len() - size;
                let bytes = *at..chunk_end;
                *at = bytes.end;
                self.state = State::Pass {
                    left: header.len - payload as u64,
                };
                return Ok(Some(Step::Pass { bytes, payload }));
            }
        }

        let held = if self.fragments.is_some() {
            self.assembled.len()
        } else {
            0
        };
        if len > self.max_message - held {
            return Err(Violation::too_big());
        }
        if header.fin && whole && self.fragments.is_none() {
            if let Some(key) = header.mask {
                mask(&mut rest[size..end], key, 0);
            }
            let payload = *at + size..*at + end;
            *at = payload.end;
            return Ok(Some(Step::Message {
                opcode: header.opcode,
                payload: Payload::InChunk(payload),
            }));
        }
        *at += size;
        if header.opcode != Opcode::Continuation {
            self.assembled.clear();
            if !header.fin {
                self.fragments = Some(header.opcode);
            }
        }
        self.state = State::Collect { header, got: 0 };
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::write;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    #[derive(Clone, Debug, PartialEq)]
    enum Seen {
        Message(Opcode, Vec<u8>),
        Control(Opcode, Vec<u8>),
    }

    /// Walks `bytes` in chunks of the given sizes; passed bytes are parsed again, as the far side would.
    fn walk(
        bytes: &[u8],
        cuts: &[usize],
        from: Sender,
        passes: &dyn Fn(u8, u64) -> bool,
    ) -> Result<Vec<Seen>, Violation> {
        let mut walker = Walker::new(from, 1 << 20);
        let mut far = Walker::new(from, 1 << 20);
        let (mut seen, mut tail) = (Vec::new(), Vec::new());
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let size = cuts
                .next()
                .map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
            let (chunk, after) = rest.split_at(size);
            rest = after;
            tail.extend_from_slice(chunk);
            tail = one_chunk(&mut walker, &tail, passes, &mut seen, Some(&mut far))?;
            assert!(tail.len() <= MAX_TAIL);
        }
        Ok(seen)
    }

    fn one_chunk(
        walker: &mut Walker,
        chunk: &[u8],
        passes: &dyn Fn(u8, u64) -> bool,
        seen: &mut Vec<Seen>,
        mut far: Option<&mut Walker>,
    ) -> Result<Vec<u8>, Violation> {
        let mut chunk = chunk.to_vec();
        let mut at = 0;
        loop {
            match walker.step(&mut chunk, &mut at, passes)? {
                Step::More => return Ok(chunk.split_off(at)),
                Step::Control { opcode, payload } => {
                    seen.push(Seen::Control(opcode, chunk[payload].to_vec()));
                }
                Step::Message {
                    opcode,
                    payload: Payload::InChunk(range),
                } => {
                    seen.push(Seen::Message(opcode, chunk[range].to_vec()));
                }
                Step::Message {
                    opcode,
                    payload: Payload::Assembled,
                } => {
                    seen.push(Seen::Message(opcode, walker.assembled().to_vec()));
                    walker.release();
                }
                Step::Pass { bytes, payload } => {
                    let far = far.as_mut().expect("the far walker passes nothing");
                    assert!(payload > 0 && payload <= bytes.len());
                    let left = one_chunk(far, &chunk[bytes], &|_, _| false, seen, None)?;
                    assert!(
                        left.is_empty() && far.at_frame_start(),
                        "a frame passes whole"
                    );
                }
            }
        }
    }

    impl Walker {
        fn at_frame_start(&self) -> bool {
            matches!(self.state, State::Head)
        }
    }

    fn client(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(opcode, payload, Some(KEY), &mut out);
        out
    }

    #[test]
    fn the_examples_of_rfc_6455_decode() {
        // Section 5.7: an unmasked and a masked "Hello", a fragmented one, a ping.
        let masked = hex::decode("818537fa213d7f9f4d5158").expect("hex");
        let hello = vec![Seen::Message(Opcode::Text, b"Hello".to_vec())];
        assert_eq!(
            walk(&masked, &[99], Sender::Client, &|_, _| false),
            Ok(hello.clone())
        );
        assert_eq!(
            walk(b"\x81\x05Hello", &[99], Sender::Server, &|_, _| false),
            Ok(hello.clone())
        );
        assert_eq!(
            walk(b"\x01\x03Hel\x80\x02lo", &[99], Sender::Server, &|_, _| {
                false
            }),
            Ok(hello.clone())
        );
        let ping = vec![Seen::Control(Opcode::Ping, b"Hello".to_vec())];
        assert_eq!(
            walk(b"\x89\x05Hello", &[99], Sender::Server, &|_, _| false),
            Ok(ping.clone())
        );
        let between = vec![ping[0].clone(), hello[0].clone()];
        assert_eq!(
            walk(
                b"\x01\x03Hel\x89\x05Hello\x80\x02lo",
                &[2],
                Sender::Server,
                &|_, _| false
            ),
            Ok(between)
        );
    }

    #[test]
    fn what_no_peer_may_send_is_refused_with_1002() {
        for (what, bytes, from) in [
            ("unmasked client frame", &b"\x82\x01a"[..], Sender::Client),
            ("masked server frame", b"\x82\x81aaaaa", Sender::Server),
            ("reserved bit", b"\xc2\x01a", Sender::Server),
            ("reserved opcode 3", b"\x83\x01a", Sender::Server),
            ("ping of 126 bytes", b"\x89\x7e\x00\x7e", Sender::Server),
            ("fragmented ping", b"\x09\x00", Sender::Server),
            ("continuation of nothing", b"\x80\x00", Sender::Server),
            (
                "message inside a message",
                b"\x02\x01a\x82\x01a",
                Sender::Server,
            ),
            (
                "64-bit length",
                b"\x82\x7f\xff\x00\x00\x00\x00\x00\x00\x00a",
                Sender::Server,
            ),
        ] {
            for cut in [1, 99] {
                let refused = walk(bytes, &[cut], from, &|_, _| true).expect_err(what);
                assert_eq!(refused.code, 1002, "{what}");
            }
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_held() {
        let mut walker = Walker::new(Sender::Server, 10);
        let mut seen = Vec::new();
        let whole = b"\x82\x0bhello world";
        let refused = one_chunk(&mut walker, whole, &|_, _| false, &mut seen, None);
        assert_eq!(refused, Err(Violation::too_big()));
        let mut walker = Walker::new(Sender::Server, 10);
        let fragments = b"\x02\x06hello \x80\x05world";
        let refused = one_chunk(&mut walker, fragments, &|_, _| false, &mut seen, None);
        assert_eq!(refused, Err(Violation::too_big()));
        assert!(seen.is_empty() && walker.assembled().len() <= 10);
    }

    fn frames() -> impl Strategy<Value = (Vec<Seen>, Vec<u8>, Vec<u8>)> {
        let message = (
            vec(any::<u8>(), 0..300),
            vec(1usize..80, 0..4),
            any::<bool>(),
            any::<bool>(),
        );
        vec(message, 1..8).prop_map(|messages| {
            let (mut seen, mut as_client, mut as_server) = (Vec::new(), Vec::new(), Vec::new());
            for (payload, cuts, ping, text) in messages {
                let opcode = if text { Opcode::Text } else { Opcode::Binary };
                let mut rest = &payload[..];
                let mut kind = opcode;
                for cut in cuts {
                    let (part, tail) = rest.split_at(cut.min(rest.len()));
                    rest = tail;
                    for (out, key) in [(&mut as_client, Some(KEY)), (&mut as_server, None)] {
                        Header {
                            fin: false,
                            opcode: kind,
                            mask: key,
                            len: part.len() as u64,
                        }
                        .write(out);
                        let start = out.len();
                        out.extend_from_slice(part);
                        if let Some(key) = key {
                            mask(&mut out[start..], key, 0);
                        }
                        if ping {
                            write(Opcode::Ping, b"?", key, out);
                        }
                    }
                    if ping {
                        seen.push(Seen::Control(Opcode::Ping, b"?".to_vec()));
                    }
                    kind = Opcode::Continuation;
                }
                write(kind, rest, Some(KEY), &mut as_client);
                write(kind, rest, None, &mut as_server);
                seen.push(Seen::Message(opcode, payload.clone()));
            }
            (seen, as_client, as_server)
        })
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_events((seen, client, server) in frames(), cuts in vec(1usize..90, 1..6), pass in any::<u8>()) {
            for passes in [&(|_, _| false) as &dyn Fn(u8, u64) -> bool, &|_, _| true] {
                prop_assert_eq!(&walk(&client, &cuts, Sender::Client, passes).expect("valid"), &seen);
                prop_assert_eq!(&walk(&server, &cuts, Sender::Server, passes).expect("valid"), &seen);
            }
            let some = move |channel: u8, len: u64| channel > pass && len.is_multiple_of(2);
            prop_assert_eq!(&walk(&client, &cuts, Sender::Client, &some).expect("valid"), &seen);
        }

        #[test]
        fn no_bytes_make_it_panic_or_hold_more_than_its_bound(raw in vec(any::<u8>(), 0..400), cut in 1usize..40) {
            for from in [Sender::Client, Sender::Server] {
                let mut walker = Walker::new(from, 64);
                let mut chunk = Vec::new();
                for more in raw.chunks(cut) {
                    chunk.extend_from_slice(more);
                    let mut at = 0;
                    let walked = loop {
                        match walker.step(&mut chunk, &mut at, |channel, _| channel == 1) {
                            Ok(Step::More) => break true,
                            Ok(_) => {}
                            Err(_) => break false,
                        }
                        prop_assert!(walker.assembled().len() <= 64);
                    };
                    if !walked {
                        break;
                    }
                    chunk.drain(..at);
                }
            }
        }
    }

    #[test]
    fn a_client_frame_keeps_its_mask_when_it_passes() {
        let bytes = client(Opcode::Binary, b"\0ls\n");
        let mut chunk = bytes.clone();
        let mut at = 0;
        let mut walker = Walker::new(Sender::Client, 64);
        let step = walker
            .step(&mut chunk, &mut at, |channel, len| channel == 0 && len == 4)
            .expect("valid");
        let Step::Pass {
            bytes: range,
            payload: 4,
        } = step
        else {
            panic!("{step:?}")
        };
        assert_eq!(&chunk[range], &bytes[..]);
    }

    #[test]
    fn a_frame_longer_than_a_chunk_passes_in_pieces_and_tells_so() {
        let mut bytes = Vec::new();
        let payload: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8 | 1).collect();
        write(Opcode::Binary, &payload, None, &mut bytes);
        let mut walker = Walker::new(Sender::Server, 1024);
        let mut passed = Vec::new();
        for chunk in bytes.chunks(60_000) {
            let mut chunk = chunk.to_vec();
            let mut at = 0;
            while let Step::Pass { bytes, .. } = walker
                .step(&mut chunk, &mut at, |_, _| true)
                .expect("valid")
            {
                passed.extend_from_slice(&chunk[bytes]);
            }
            assert_eq!(walker.at_boundary(), passed.len() == bytes.len());
        }
        assert_eq!(passed, bytes);
    }
}
