//! A walk over frames where they lie.
//!
//! ```text
//!   chunk (whatever one read returned)      Walker::step
//!   ┌────────┬──────────────┬─────┐   ┌► Pass     bytes to write on as they are
//!   │ frame  │ frame        │ fra │ ──┼► Message  a whole data message, unmasked
//!   └────────┴──────────────┴─────┘   ├► Control  a whole ping, pong or close
//!                                     └► More     read again; the walk remembers where it was
//! ```
//!
//! The walker holds no copy of a frame that passes. Only what must be rewritten (fragments, frames cut by the
//! edge of a chunk that do not pass) is assembled, up to a bound.

use std::ops::Range;

use crate::frame::{Header, MAX_CONTROL_PAYLOAD, MAX_HEADER, Opcode, Sender, Violation, mask};

/// The first bytes of a frame that a chunk's edge cut, kept until the frame's fate can be decided.
///
/// Room for a header and the channel byte behind it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stash {
    bytes: [u8; MAX_HEADER + 1],
    len: u8,
}

impl Stash {
    /// The bytes, in the order they came.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.len)] = byte;
        self.len += 1;
    }
}

/// Where the payload of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In the chunk, unmasked where it lies.
    InChunk(Range<usize>),
    /// In [`Walker::assembled`].
    Assembled,
}

/// A whole control frame.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// `Close`, `Ping` or `Pong`.
    pub opcode: Opcode,
    bytes: [u8; MAX_CONTROL_PAYLOAD],
    len: u8,
}

impl Control {
    /// The payload, unmasked.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What one step over a chunk found.
#[derive(Clone, Debug)]
pub enum Step {
    /// Write `before`, then these bytes of the chunk, exactly as they are.
    Pass {
        /// Bytes of earlier chunks that belong in front. Empty unless a chunk's edge cut a header.
        before: Stash,
        /// Bytes of this chunk.
        bytes: Range<usize>,
    },
    /// A whole data message. It may be empty.
    Message {
        /// `Text` or `Binary`.
        opcode: Opcode,
        /// Where its payload is.
        payload: Payload,
    },
    /// A whole control frame.
    Control(Control),
    /// The chunk is used up.
    More,
}

/// Walks the frames of one direction of one connection, however the bytes are cut.
///
/// # Guarantees
/// Whatever the peer sends, no more than `max_message` bytes are held, and none once a message was taken with
/// [`Walker::release`].
#[derive(Debug)]
pub struct Walker {
    from: Sender,
    max_message: usize,
    state: State,
    /// The opcode of the fragmented message that is being put together.
    fragments: Option<Opcode>,
    assembled: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Head(Stash),
    Pass {
        left: u64,
    },
    Collect {
        header: Header,
        got: usize,
    },
    Control {
        header: Header,
        control: Box<Control>,
    },
}

impl Walker {
    /// A walker over what `from` sends. A message of more than `max_message` bytes is a violation, unless it passes.
    #[must_use]
    pub fn new(from: Sender, max_message: usize) -> Self {
        Self {
            from,
            max_message,
            state: State::Head(Stash::default()),
            fragments: None,
            assembled: Vec::new(),
        }
    }

    /// Whether everything written so far, as the steps told, ends at the end of a frame.
    ///
    /// Only then may another frame be written between what passes.
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
    /// payload length: `true` lets the frame through as it is, whatever its length. Other frames are unmasked where
    /// they lie, or put together when a chunk's edge cuts them.
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
            let rest = chunk.len() - *at;
            match &mut self.state {
                State::Head(stash) => {
                    let parsed = if stash.len == 0 {
                        match Header::parse(&chunk[*at..], self.from)? {
                            // The channel byte must be there to decide about a data frame.
                            Some((header, size))
                                if header.len == 0 || header.opcode.is_control() || size < rest =>
                            {
                                Some((header, size))
                            }
                            _ => None,
                        }
                    } else {
                        None
                    };
                    let (header, size, before) = match parsed {
                        Some((header, size)) => (header, size, Stash::default()),
                        None => match self.stash(chunk, at)? {
                            Some((header, before)) => (header, 0, before),
                            None => return Ok(Step::More),
                        },
                    };
                    if let Some(step) = self.begin(header, size, before, chunk, at, &passes)? {
                        return Ok(step);
                    }
                }
                State::Pass { left } => {
                    if rest == 0 {
                        return Ok(Step::More);
                    }
                    let take = usize::try_from(*left).map_or(rest, |left| left.min(rest));
                    let bytes = *at..*at + take;
                    *at += take;
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = State::Head(Stash::default());
                    }
                    return Ok(Step::Pass {
                        before: Stash::default(),
                        bytes,
                    });
                }
                State::Collect { header, got } => {
                    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
                    let take = (len - *got).min(rest);
                    let bytes = &mut chunk[*at..*at + take];
                    if let Some(key) = header.mask {
                        mask(bytes, key, *got);
                    }
                    self.assembled.extend_from_slice(bytes);
                    *at += take;
                    *got += take;
                    if *got < len {
                        return Ok(Step::More);
                    }
                    let fin = header.fin;
                    let opcode = header.opcode;
                    self.state = State::Head(Stash::default());
                    if fin {
                        let opcode = self.fragments.take().unwrap_or(opcode);
                        return Ok(Step::Message {
                            opcode,
                            payload: Payload::Assembled,
                        });
                    }
                }
                State::Control { header, control } => {
                    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
                    let got = usize::from(control.len);
                    let take = (len - got).min(rest);
                    let bytes = &mut chunk[*at..*at + take];
                    if let Some(key) = header.mask {
                        mask(bytes, key, got);
                    }
                    control.bytes[got..got + take].copy_from_slice(bytes);
                    *at += take;
                    #[allow(
                        clippy::cast_possible_truncation,
                        reason = "a control frame has at most 125 bytes"
                    )]
                    {
                        control.len = (got + take) as u8;
                    }
                    if got + take < len {
                        return Ok(Step::More);
                    }
                    let control = **control;
                    self.state = State::Head(Stash::default());
                    return Ok(Step::Control(control));
                }
            }
        }
    }

    /// Moves bytes of a cut header into the stash until header and channel byte are there.
    fn stash(
        &mut self,
        chunk: &[u8],
        at: &mut usize,
    ) -> Result<Option<(Header, Stash)>, Violation> {
        let State::Head(stash) = &mut self.state else {
            return Ok(None);
        };
        loop {
            if let Some((header, size)) = Header::parse(stash.as_slice(), self.from)?
                && (header.len == 0 || header.opcode.is_control() || size < stash.as_slice().len())
            {
                return Ok(Some((header, *stash)));
            }
            let Some(&byte) = chunk.get(*at) else {
                return Ok(None);
            };
            stash.push(byte);
            *at += 1;
        }
    }

    /// Decides about the frame whose header was just read: `size` bytes of it are in the chunk at `at`, or, when
    /// the header was cut, all of it (and the channel byte, if the frame has a payload) is in `before`.
    fn begin(
        &mut self,
        header: Header,
        size: usize,
        before: Stash,
        chunk: &mut [u8],
        at: &mut usize,
        passes: impl Fn(u8, u64) -> bool,
    ) -> Result<Option<Step>, Violation> {
        let stashed_payload = match before.as_slice() {
            [] => 0,
            bytes => bytes.len() - header.bytes_on_wire(bytes),
        };
        if header.opcode.is_control() {
            *at += size;
            let control = Box::new(Control {
                opcode: header.opcode,
                bytes: [0; MAX_CONTROL_PAYLOAD],
                len: 0,
            });
            self.state = State::Control { header, control };
            return Ok(None);
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
        if header.fin && header.opcode == Opcode::Binary && header.len > 0 {
            let first = if stashed_payload == 0 {
                chunk[*at + size]
            } else {
                before.as_slice()[before.as_slice().len() - 1]
            };
            let channel = first ^ header.mask.map_or(0, |key| key[0]);
            if passes(channel, header.len) {
                let rest = chunk.len() - (*at + size);
                let left = header.len - stashed_payload as u64;
                let take = usize::try_from(left).map_or(rest, |left| left.min(rest));
                let bytes = *at..*at + size + take;
                *at = bytes.end;
                let left = left - take as u64;
                self.state = if left == 0 {
                    State::Head(Stash::default())
                } else {
                    State::Pass { left }
                };
                return Ok(Some(Step::Pass { before, bytes }));
            }
        }
        let held = if self.fragments.is_some() {
            self.assembled.len()
        } else {
            0
        };
        if header.len > (self.max_message - held) as u64 {
            return Err(Violation::too_big());
        }
        let whole = usize::try_from(header.len)
            .ok()
            .filter(|len| size + len <= chunk.len() - *at);
        if let (true, 0, None, Some(len)) = (header.fin, stashed_payload, self.fragments, whole)
            && before.len == 0
        {
            let payload = *at + size..*at + size + len;
            *at = payload.end;
            if let Some(key) = header.mask {
                mask(&mut chunk[payload.clone()], key, 0);
            }
            self.state = State::Head(Stash::default());
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
        if stashed_payload == 1 {
            let first = before.as_slice()[before.as_slice().len() - 1];
            self.assembled
                .push(first ^ header.mask.map_or(0, |key| key[0]));
        }
        self.state = State::Collect {
            header,
            got: stashed_payload,
        };
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
        let mut seen = Vec::new();
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let size = cuts
                .next()
                .map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
            let (chunk, tail) = rest.split_at(size);
            rest = tail;
            one_chunk(&mut walker, chunk, passes, &mut seen, Some(&mut far))?;
        }
        Ok(seen)
    }

    fn one_chunk(
        walker: &mut Walker,
        chunk: &[u8],
        passes: &dyn Fn(u8, u64) -> bool,
        seen: &mut Vec<Seen>,
        mut far: Option<&mut Walker>,
    ) -> Result<(), Violation> {
        let mut chunk = chunk.to_vec();
        let mut at = 0;
        loop {
            match walker.step(&mut chunk, &mut at, passes)? {
                Step::More => return Ok(()),
                Step::Control(control) => {
                    seen.push(Seen::Control(control.opcode, control.payload().to_vec()))
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
                Step::Pass { before, bytes } => {
                    let far = far.as_mut().expect("the far walker passes nothing");
                    let out = [before.as_slice(), &chunk[bytes]].concat();
                    one_chunk(far, &out, &|_, _| false, seen, None)?;
                    assert_eq!(
                        walker.at_boundary(),
                        far.at_frame_start(),
                        "the boundary is told right"
                    );
                }
            }
        }
    }

    impl Walker {
        fn at_frame_start(&self) -> bool {
            matches!(&self.state, State::Head(stash) if stash.len == 0)
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
            let some = move |channel: u8, len: u64| channel > pass && len % 2 == 0;
            prop_assert_eq!(&walk(&client, &cuts, Sender::Client, &some).expect("valid"), &seen);
        }

        #[test]
        fn no_bytes_make_it_panic_or_hold_more_than_its_bound(raw in vec(any::<u8>(), 0..400), cut in 1usize..40) {
            for from in [Sender::Client, Sender::Server] {
                let mut walker = Walker::new(from, 64);
                for chunk in raw.chunks(cut) {
                    let mut chunk = chunk.to_vec();
                    let mut at = 0;
                    while let Ok(step) = walker.step(&mut chunk, &mut at, |channel, _| channel == 1) {
                        prop_assert!(walker.assembled().len() <= 64);
                        if matches!(step, Step::More) {
                            break;
                        }
                    }
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
            before,
            bytes: range,
        } = step
        else {
            panic!("{step:?}")
        };
        assert!(before.as_slice().is_empty());
        assert_eq!(&chunk[range], &bytes[..]);
    }
}
