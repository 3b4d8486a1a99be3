//! Whole sessions as a gateway carries them: any bytes, cut anywhere, between any two subprotocols.

#[path = "common/sink.rs"]
mod sink;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use drawbridge_protocol::encoding::{Encoding, PIECE};
use drawbridge_protocol::frame::{self, Header, Opcode, Sender, Violation};
use drawbridge_protocol::resize::Size;
use drawbridge_protocol::subprotocol::{Bearer, Offer, Subprotocol, UpstreamOffer};
use drawbridge_protocol::transcode::{Input, Outcome, Output, Streams, UpstreamEnd};
use drawbridge_protocol::walker::{Payload, Step, Walker};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sink::Sink;

/// A state machine that a walker feeds.
trait Side {
    fn passes(&self, channel: u8, len: u64) -> bool;
    fn message(&mut self, payload: &[u8], to: &mut Sink) -> Result<(), Violation>;
}

impl Side for Input {
    fn passes(&self, channel: u8, len: u64) -> bool {
        Input::passes(self, channel, len)
    }
    fn message(&mut self, payload: &[u8], to: &mut Sink) -> Result<(), Violation> {
        Input::message(self, payload, to).map(|_| ())
    }
}

impl Side for Output {
    fn passes(&self, channel: u8, len: u64) -> bool {
        Output::passes(self, channel, len)
    }
    fn message(&mut self, payload: &[u8], to: &mut Sink) -> Result<(), Violation> {
        Output::message(self, payload, to);
        Ok(())
    }
}

/// The far end of a passed frame.
struct Far;

impl Side for Far {
    fn passes(&self, _: u8, _: u64) -> bool {
        false
    }
    fn message(&mut self, payload: &[u8], to: &mut Sink) -> Result<(), Violation> {
        to.0.push((Opcode::Binary, payload.to_vec()));
        Ok(())
    }
}

/// Walks `wire`, read in chunks of the given sizes; `to` gets what the far side sees.
fn relay(
    wire: &[u8],
    chunks: &[usize],
    from: Sender,
    side: &mut impl Side,
    to: &mut Sink,
) -> Result<(), Violation> {
    let (mut walker, mut far) = (Walker::new(from, 1 << 20), Walker::new(from, 1 << 20));
    let (mut rest, mut chunk, mut far_chunk) = (wire, Vec::new(), Vec::new());
    for size in chunks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (read, after) = rest.split_at(rest.len().min(*size));
        chunk.extend_from_slice(read);
        rest = after;
        let mut at = 0;
        loop {
            match walker.step(&mut chunk, &mut at, |channel, len| {
                side.passes(channel, len)
            })? {
                Step::More => break,
                Step::Control { .. } => {}
                Step::Message {
                    payload: Payload::InChunk(range),
                    ..
                } => side.message(&chunk[range], to)?,
                Step::Message {
                    payload: Payload::Assembled,
                    ..
                } => {
                    side.message(walker.assembled(), to)?;
                    walker.release();
                }
                Step::Pass { bytes, .. } => {
                    far_chunk.extend_from_slice(&chunk[bytes]);
                    let mut far_at = 0;
                    while let Step::Message { payload, .. } =
                        far.step(&mut far_chunk, &mut far_at, |_, _| false)?
                    {
                        match payload {
                            Payload::InChunk(range) => Far.message(&far_chunk[range], to)?,
                            Payload::Assembled => Far.message(far.assembled(), to)?,
                        }
                    }
                    far_chunk.drain(..far_at);
                }
            }
        }
        chunk.drain(..at);
    }
    Ok(())
}

/// A message as a peer may send it.
#[derive(Clone, Debug)]
struct Said {
    channel: u8,
    data: Vec<u8>,
    /// Where the payload is cut into fragments.
    cuts: Vec<prop::sample::Index>,
    /// The other opcode than the subprotocol's.
    odd: bool,
    /// A ping before each fragment.
    pings: bool,
    /// A line break in base64.
    lines: bool,
}

impl Said {
    fn payload(&self, protocol: Subprotocol) -> Vec<u8> {
        match protocol.encoding() {
            Encoding::Binary => [&[self.channel], &self.data[..]].concat(),
            Encoding::Base64 => {
                let mut text = format!("{}{}", self.channel, BASE64_STANDARD.encode(&self.data));
                if self.lines {
                    text.insert_str(text.len() / 2 + 1, "\r\n");
                }
                text.into_bytes()
            }
        }
    }

    fn write(&self, protocol: Subprotocol, key: Option<[u8; 4]>, out: &mut Vec<u8>) {
        let payload = self.payload(protocol);
        let mut cuts: Vec<_> = self
            .cuts
            .iter()
            .map(|cut| cut.index(payload.len() + 1))
            .collect();
        cuts.extend([0, payload.len()]);
        cuts.sort_unstable();
        let usual = protocol.data_opcode();
        let other = if usual == Opcode::Text {
            Opcode::Binary
        } else {
            Opcode::Text
        };
        let mut opcode = if self.odd { other } else { usual };
        for (index, cut) in cuts.windows(2).enumerate() {
            if self.pings {
                frame::write(Opcode::Ping, b"?", key, out);
            }
            let part = &payload[cut[0]..cut[1]];
            Header {
                fin: index + 2 == cuts.len(),
                opcode,
                mask: key,
                len: part.len() as u64,
            }
            .write(out);
            let start = out.len();
            out.extend_from_slice(part);
            if let Some(key) = key {
                frame::mask(&mut out[start..], key, 0);
            }
            opcode = Opcode::Continuation;
        }
    }
}

fn said(channels: &'static [u8]) -> impl Strategy<Value = Vec<Said>> {
    let data = prop_oneof![
        8 => vec(any::<u8>(), 0..200),
        1 => (PIECE - 2..2 * PIECE + 3, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ];
    let cuts = prop_oneof![2 => Just(vec![]), 1 => vec(any::<prop::sample::Index>(), 1..4)];
    let one = (
        select(channels),
        data,
        cuts,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(channel, data, cuts, odd, pings, lines)| Said {
            channel,
            data,
            cuts,
            odd,
            pings,
            lines,
        });
    vec(one, 0..12)
}

fn any_protocol() -> impl Strategy<Value = Subprotocol> {
    select(&Subprotocol::ALL[..])
}

/// Chunk sizes: from single bytes to more than a frame.
fn chunks() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1usize..40, 1000usize..70_000], 1..5)
}

fn read(protocol: Subprotocol, payload: &[u8]) -> (u8, Vec<u8>) {
    match protocol.encoding() {
        Encoding::Binary => (payload[0], payload[1..].to_vec()),
        Encoding::Base64 => (
            payload[0] - b'0',
            BASE64_STANDARD.decode(&payload[1..]).expect("base64"),
        ),
    }
}

/// Neighbours on one channel joined: what is left is what a user can tell apart.
fn streams_of(messages: impl IntoIterator<Item = (u8, Vec<u8>)>) -> Vec<(u8, Vec<u8>)> {
    let mut joined: Vec<(u8, Vec<u8>)> = Vec::new();
    for (channel, data) in messages.into_iter().filter(|(_, data)| !data.is_empty()) {
        match joined.last_mut() {
            Some((last, so_far)) if *last == channel => so_far.extend(data),
            _ => joined.push((channel, data)),
        }
    }
    joined
}

const ALL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn output_arrives_byte_for_byte_in_order_whatever_the_framing(
        client in any_protocol(), upstream in any_protocol(), said in said(&[1, 2]), chunks in chunks(),
    ) {
        let mut wire = Vec::new();
        for said in &said {
            said.write(upstream, None, &mut wire);
        }
        let (mut output, mut to) = (Output::new(client, upstream, ALL), Sink::default());
        relay(&wire, &chunks, Sender::Server, &mut output, &mut to).expect("a well-formed stream");
        prop_assert_eq!(output.finish(UpstreamEnd::Lost, &mut to), Outcome::Lost);
        let seen: Vec<_> = to.take().iter().map(|(_, payload)| read(client, payload)).collect();
        let Some((opening, rest)) = seen.split_first() else { panic!("at least an opening") };
        prop_assert_eq!(opening, &(1, vec![]));
        prop_assert!(rest.iter().all(|(_, data)| !data.is_empty()));
        let Some(((3, _), rest)) = rest.split_last() else { panic!("the status is last") };
        let expected = streams_of(said.iter().map(|said| (said.channel, said.data.clone())));
        prop_assert!(streams_of(rest.to_vec()) == expected);
        prop_assert_eq!(output.dropped(), 0);
    }

    #[test]
    fn stdin_arrives_byte_for_byte_in_order_whatever_the_framing(
        client in any_protocol(), upstream in any_protocol(), said in said(&[0]), chunks in chunks(), key: [u8; 4],
    ) {
        let mut wire = Vec::new();
        for said in &said {
            said.write(client, Some(key), &mut wire);
        }
        let (mut input, mut to) = (Input::new(client, upstream, ALL), Sink::default());
        relay(&wire, &chunks, Sender::Client, &mut input, &mut to).expect("a well-formed stream");
        let seen: Vec<_> = to.take().iter().map(|(_, payload)| read(upstream, payload)).collect();
        prop_assert!(seen.iter().all(|(channel, data)| *channel == 0 && (1..=PIECE).contains(&data.len())));
        let expected = streams_of(said.iter().map(|said| (0, said.data.clone())));
        prop_assert!(streams_of(seen) == expected);
        prop_assert_eq!(input.dropped(), 0);
    }

    #[test]
    fn no_stream_of_messages_makes_a_side_panic_or_write_what_peers_reject(
        client in any_protocol(), upstream in any_protocol(),
        (stdin, stdout, stderr, tty) in any::<(bool, bool, bool, bool)>(),
        messages in vec((any::<bool>(), prop_oneof![
            vec(any::<u8>(), 0..40),
            (0u8..6, vec(any::<u8>(), 0..40)).prop_map(|(channel, data)| [&[channel], &data[..]].concat()),
            "[0-5][A-Za-z+/\r\n]{0,20}={0,2}".prop_map(String::into_bytes),
            r#"[4\x04][{}"WidthHeg:,0-9]{0,30}"#.prop_map(String::into_bytes),
        ]), 0..30),
    ) {
        let streams = Streams { stdin, stdout, stderr, tty };
        let (mut input, mut output) = (Input::new(client, upstream, streams), Output::new(client, upstream, streams));
        let (mut up, mut down) = (Sink::default(), Sink::default());
        for (from_client, payload) in &messages {
            if *from_client {
                let _ = input.message(payload, &mut up);
                if let Some(size) = input.take_resize() {
                    prop_assert!(tty);
                    input.encode_resize(size, &mut up);
                }
            } else {
                output.message(payload, &mut down);
            }
        }
        output.finish(UpstreamEnd::Closed(1000), &mut down);
        for (opcode, payload) in up.take() {
            prop_assert_eq!(opcode, upstream.data_opcode());
            if payload != b"\xff\0" {
                let (channel, data) = read(upstream, &payload);
                prop_assert!(matches!(channel, 0 | 4) && !data.is_empty());
                prop_assert!(channel == 0 && stdin || channel == 4 && tty);
            }
        }
        for (index, (opcode, payload)) in down.take().into_iter().enumerate() {
            prop_assert_eq!(opcode, client.data_opcode());
            let (channel, data) = read(client, &payload);
            prop_assert!(matches!(channel, 1..=3));
            prop_assert_eq!(data.is_empty(), index == 0);
            prop_assert!(index == 0 || channel != 1 || stdout);
            prop_assert!(channel != 2 || stderr && !tty);
        }
    }

    #[test]
    fn whatever_is_written_for_one_subprotocol_reads_back_in_it(protocol in any_protocol(), data in vec(any::<u8>(), 1..2000), (width, height) in (1u16.., 1u16..)) {
        // Client to client, upstream to upstream: the second machine reads what the first wrote.
        let mut to = Sink::default();
        let payload = Said { channel: 0, data: data.clone(), cuts: vec![], odd: false, pings: false, lines: false }.payload(protocol);
        for _ in 0..2 {
            let mut input = Input::new(protocol, protocol, Streams { tty: true, ..ALL });
            prop_assert!(input.message(&payload, &mut to).is_ok());
            prop_assert_eq!(&to.take(), &[(protocol.data_opcode(), payload.clone())]);
            let size = Size::new(width, height).expect("a size");
            input.encode_resize(size, &mut to);
            prop_assert!(input.message(&to.take()[0].1, &mut to).is_ok());
            prop_assert_eq!(input.take_resize(), Some(size));
        }
    }

    #[test]
    fn no_offer_makes_it_panic_and_a_good_token_comes_out_whole(
        token in "[ -~é]{1,60}", names in vec("[a-z0-9.]{1,20}|v[1-6]\\.(base64\\.)?channel\\.k8s\\.io", 1..6), at in any::<prop::sample::Index>(), lines in 1usize..4,
        junk in vec(vec(any::<u8>(), 0..60), 0..4),
    ) {
        let _ = Offer::parse(junk.iter().map(Vec::as_slice)).map(|offer| offer.negotiate(|_| true));
        let _ = String::from_utf8_lossy(&junk.concat()).parse::<UpstreamOffer>();
        let mut items = names.clone();
        let encoded = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(&token);
        items.insert(at.index(names.len() + 1), format!("base64url.bearer.authorization.k8s.io.{encoded}"));
        let lines: Vec<_> = items.chunks(lines).map(|items| items.join(", ")).collect();
        let offer = Offer::parse(lines.iter().map(String::as_bytes)).expect("a good offer");
        prop_assert_eq!(offer.bearer.as_ref().map(Bearer::expose), Some(&token[..]));
        let first = names.iter().find_map(|name| Subprotocol::from_name(name));
        prop_assert_eq!(offer.negotiate(|_| true), first);
    }
}
