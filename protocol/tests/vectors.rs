//! Every vector of `exec-vectors.json`: frames that real servers sent and took, and what a gateway makes of them.
//!
//! Nothing is skipped: an event, an id or a section this file does not know fails, and so does a count that differs.

#[path = "common/sink.rs"]
mod sink;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use drawbridge_protocol::encoding::Encoding;
use drawbridge_protocol::frame::{self, Header, Opcode, Sender, Violation};
use drawbridge_protocol::resize::Size;
use drawbridge_protocol::status::Received;
use drawbridge_protocol::subprotocol::{
    Bearer, Offer, OfferError, StatusFormat, Subprotocol, UPSTREAM_OFFER, UpstreamOffer,
};
use drawbridge_protocol::transcode::{Input, Outcome, Output, Streams, Taken, UpstreamEnd};
use drawbridge_protocol::walker::{Payload, Step, Walker};
use serde::Deserialize;
use serde_json::Value;
use sink::Sink;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    schema_version: u32,
    #[serde(rename = "about")]
    _about: String,
    opcodes: BTreeMap<String, u8>,
    channels: BTreeMap<String, u8>,
    subprotocols: BTreeMap<String, Spoken>,
    malformed: Vec<Malformed>,
    handshake: Vec<Handshake>,
    bearer: Vec<BearerCase>,
    transcode: Vec<Transcode>,
}

#[derive(Deserialize)]
struct Spoken {
    encoding: String,
    status_format: String,
    stdin_close: bool,
    server_sends_opcode: u8,
    server_accepts_opcodes: Vec<u8>,
    supported_by: BTreeMap<String, Value>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    direction: String,
    event: String,
    frame_opcode: u8,
    payload_hex: String,
    #[serde(default)]
    expect: Value,
    #[serde(default)]
    also_accepted_opcodes: Vec<u8>,
}

#[derive(Deserialize)]
struct Malformed {
    id: String,
    subprotocol: String,
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(default = "yes")]
    fin: bool,
    #[serde(default = "yes")]
    masked: bool,
    side: Option<String>,
    #[serde(rename = "frame_opcode", default)]
    opcode: Option<u8>,
    #[serde(default)]
    payload_hex: String,
    event: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Handshake {
    offer: Option<String>,
    offer_header_lines: Option<Vec<String>>,
    server: String,
    status: u16,
    selected: Option<String>,
    sec_websocket_protocol_header: Option<String>,
    method: Option<String>,
    sec_websocket_version: Option<String>,
}

#[derive(Deserialize)]
struct BearerCase {
    token: Option<String>,
    subprotocol: Option<String>,
    offer: Option<String>,
    expect: Option<String>,
}

#[derive(Deserialize)]
struct Transcode {
    id: String,
    client: String,
    upstream: String,
    input: Vec<Frame>,
    output: Vec<Frame>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("exec-vectors.json"))
        .expect("the vectors have the shape above")
}

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).expect("hex")
}

fn protocol(name: &str) -> Subprotocol {
    Subprotocol::from_name(name).unwrap_or_else(|| panic!("{name:?} is a subprotocol"))
}

fn opcode(bits: u8) -> Opcode {
    [
        Opcode::Continuation,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Close,
        Opcode::Ping,
        Opcode::Pong,
    ]
    .into_iter()
    .find(|opcode| *opcode as u8 == bits)
    .unwrap_or_else(|| panic!("{bits} is an opcode"))
}

const ALL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};
const TTY: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: false,
    tty: true,
};

/// Frames of one peer, as bytes on the wire.
fn wire(frames: &[Frame], from: Sender) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        let payload = bytes(&frame.payload_hex);
        let key = (from == Sender::Client && frame.masked).then_some([0x12, 0x34, 0x56, 0x78]);
        let opcode = opcode(frame.opcode.expect("a frame"));
        Header {
            fin: frame.fin,
            opcode,
            mask: key,
            len: payload.len() as u64,
        }
        .write(&mut out);
        let start = out.len();
        out.extend_from_slice(&payload);
        if let Some(key) = key {
            frame::mask(&mut out[start..], key, 0);
        }
    }
    out
}

/// What the far end of a connection makes of those bytes: whole data messages and control frames.
fn walk(mut wire: Vec<u8>, from: Sender) -> Result<Vec<(Opcode, Vec<u8>)>, Violation> {
    let mut walker = Walker::new(from, 4 << 20);
    let (mut seen, mut at) = (Vec::new(), 0);
    loop {
        match walker.step(&mut wire, &mut at, |_, _| false)? {
            Step::More => return Ok(seen),
            Step::Control { opcode, payload } => seen.push((opcode, wire[payload].to_vec())),
            Step::Message {
                opcode,
                payload: Payload::InChunk(range),
            } => seen.push((opcode, wire[range].to_vec())),
            Step::Message {
                opcode,
                payload: Payload::Assembled,
            } => {
                seen.push((opcode, walker.assembled().to_vec()));
                walker.release();
            }
            Step::Pass { .. } => panic!("nothing may pass"),
        }
    }
}

/// A data message written by hand, without the code under test.
fn message(protocol: Subprotocol, channel: u8, data: &[u8]) -> (Opcode, Vec<u8>) {
    match protocol.encoding() {
        Encoding::Binary => (Opcode::Binary, [&[channel], data].concat()),
        Encoding::Base64 => (
            Opcode::Text,
            format!("{channel}{}", BASE64_STANDARD.encode(data)).into_bytes(),
        ),
    }
}

/// The same backwards, for well-formed messages.
fn channel_and_data(protocol: Subprotocol, payload: &[u8]) -> (u8, Vec<u8>) {
    match protocol.encoding() {
        Encoding::Binary => (payload[0], payload[1..].to_vec()),
        Encoding::Base64 => (
            payload[0] - b'0',
            BASE64_STANDARD.decode(&payload[1..]).expect("base64"),
        ),
    }
}

#[test]
fn no_vector_is_left_out() {
    let vectors = vectors();
    assert_eq!(vectors.schema_version, 1);
    let frames: Vec<_> = vectors
        .subprotocols
        .values()
        .map(|spoken| spoken.vectors.len())
        .collect();
    assert_eq!((frames.len(), frames.iter().sum()), (6, 165));
    assert_eq!(vectors.malformed.len(), 26);
    assert_eq!(vectors.handshake.len(), 12);
    assert_eq!(vectors.bearer.len(), 7);
    assert_eq!(vectors.transcode.len(), 50);
}

#[test]
fn numbers_and_names_are_those_of_the_protocol() {
    use drawbridge_protocol::transcode::channel::{CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT};
    let vectors = vectors();
    let opcodes = [
        ("text", Opcode::Text),
        ("binary", Opcode::Binary),
        ("close", Opcode::Close),
        ("ping", Opcode::Ping),
        ("pong", Opcode::Pong),
    ];
    assert_eq!(
        vectors.opcodes,
        opcodes
            .into_iter()
            .map(|(name, opcode)| (name.to_owned(), opcode as u8))
            .collect()
    );
    let channels = [
        ("stdin", STDIN),
        ("stdout", STDOUT),
        ("stderr", STDERR),
        ("error", ERROR),
        ("resize", RESIZE),
        ("close_signal", CLOSE),
    ];
    assert_eq!(
        vectors.channels,
        channels
            .into_iter()
            .map(|(name, number)| (name.to_owned(), number))
            .collect()
    );
    for (name, spoken) in &vectors.subprotocols {
        let ours = protocol(name);
        assert_eq!(ours.name(), name);
        assert_eq!(
            format!("{:?}", ours.encoding()).to_lowercase(),
            spoken.encoding,
            "{name}"
        );
        assert_eq!(
            format!("{:?}", ours.status_format()).to_lowercase(),
            spoken.status_format,
            "{name}"
        );
        assert_eq!(ours.has_stdin_close(), spoken.stdin_close, "{name}");
        assert_eq!(
            ours.data_opcode() as u8,
            spoken.server_sends_opcode,
            "{name}"
        );
        assert_eq!(
            spoken.server_accepts_opcodes,
            [Opcode::Text as u8, Opcode::Binary as u8],
            "{name}"
        );
    }
    // Whatever the server is, it supports something of what we offer it.
    let servers: Vec<_> = vectors.subprotocols["v4.channel.k8s.io"]
        .supported_by
        .keys()
        .collect();
    assert!(servers.len() >= 3);
    for server in servers {
        let supports = |ours: &Subprotocol| {
            vectors.subprotocols[ours.name()].supported_by[server] != Value::Bool(false)
        };
        assert!(UPSTREAM_OFFER.iter().any(supports), "{server}");
    }
}

#[test]
fn what_servers_send_reaches_clients_of_every_subprotocol() {
    let mut same: BTreeMap<String, (u8, Vec<u8>)> = BTreeMap::new();
    let mut seen = 0;
    for (name, spoken) in vectors().subprotocols {
        for vector in spoken
            .vectors
            .iter()
            .filter(|vector| vector.direction == "s2c")
        {
            seen += 1;
            let frame = Frame {
                fin: true,
                masked: false,
                side: None,
                opcode: Some(vector.frame_opcode),
                payload_hex: vector.payload_hex.clone(),
                event: None,
            };
            let received = walk(wire(&[frame], Sender::Server), Sender::Server).expect(&vector.id);
            let [(got, payload)] = &received[..] else {
                panic!("{}: {received:?}", vector.id)
            };
            assert_eq!(*got as u8, vector.frame_opcode, "{}", vector.id);
            match vector.event.as_str() {
                "close_normal" => assert_eq!(frame::close_code(payload), Ok(1000)),
                "pong_empty" => assert_eq!(payload, b""),
                "pong_payload" => assert_eq!(payload, b"hello"),
                event => {
                    let upstream = protocol(&name);
                    assert_eq!(*got, upstream.data_opcode(), "{}", vector.id);
                    let said = channel_and_data(upstream, payload);
                    if !event.starts_with("status") {
                        // One event is the same bytes in every subprotocol.
                        assert_eq!(
                            same.entry(event.to_owned()).or_insert_with(|| said.clone()),
                            &said,
                            "{}",
                            vector.id
                        );
                    }
                    for client in Subprotocol::ALL {
                        server_event(event, client, upstream, payload, &said);
                    }
                }
            }
        }
    }
    assert_eq!(
        seen,
        vectors()
            .subprotocols
            .values()
            .flat_map(|s| &s.vectors)
            .filter(|v| v.direction == "s2c")
            .count()
    );
    assert_eq!(same["stdout_hi"], (1, b"hi\n".to_vec()));
    assert_eq!(
        [
            &same["stdout_utf8_split_1"].1[..],
            &same["stdout_utf8_split_2"].1
        ]
        .concat(),
        "€".as_bytes()
    );
}

/// One data message from an upstream, seen by one client.
fn server_event(
    event: &str,
    client: Subprotocol,
    upstream: Subprotocol,
    payload: &[u8],
    said: &(u8, Vec<u8>),
) {
    let what = format!("{event}: {upstream:?} to {client:?}");
    let streams = match event {
        "init_stderr_only" => Streams {
            stdout: false,
            ..ALL
        },
        "init_error_only" => Streams {
            stdout: false,
            stderr: false,
            ..ALL
        },
        _ => ALL,
    };
    let (mut output, mut to) = (Output::new(client, upstream, streams), Sink::default());
    let (channel, data) = said;
    if event.starts_with("init_") {
        assert_eq!(output.message(payload, &mut to), 0, "{what}");
        output.opened(&mut to);
        assert_eq!(to.take(), [message(client, *channel, b"")], "{what}");
        assert!(!output.has_status(), "{what}");
        return;
    }
    output.opened(&mut to);
    to.take();
    let forwarded = output.message(payload, &mut to);
    if matches!(channel, 1 | 2) {
        assert_eq!(forwarded, data.len(), "{what}");
        assert_eq!(to.take(), [message(client, *channel, data)], "{what}");
        return;
    }
    assert_eq!(
        (to.take(), output.has_status()),
        (vec![], true),
        "{what}: held until the end"
    );
    let outcome = output.finish(UpstreamEnd::Closed(1000), &mut to);
    let words = match upstream.status_format() {
        StatusFormat::Text => String::from_utf8(data.clone()).expect("prose"),
        StatusFormat::Json => serde_json::from_slice::<Value>(data).expect("JSON")["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    match event {
        "status_success" | "status_success_metav1" => {
            assert_eq!(outcome, Outcome::Success, "{what}");
        }
        "status_exit_3" | "status_exit_3_metav1" => assert_eq!(outcome, Outcome::Exit(3), "{what}"),
        "status_exit_137" => assert_eq!(outcome, Outcome::Exit(137), "{what}"),
        "status_container_not_found" | "status_command_not_found" => {
            assert_eq!(
                outcome,
                Outcome::Error {
                    reason: "InternalError".into(),
                    message: words.clone()
                },
                "{what}"
            );
        }
        other => panic!("unknown event {other}"),
    }
    let told = to.take();
    match (client.status_format(), upstream.status_format()) {
        (StatusFormat::Text, _) if outcome == Outcome::Success => assert_eq!(told, [], "{what}"),
        (StatusFormat::Text, _) => {
            assert_eq!(told, [message(client, 3, words.as_bytes())], "{what}");
        }
        (StatusFormat::Json, StatusFormat::Json) => {
            assert_eq!(told, [message(client, 3, data)], "{what}: verbatim");
        }
        (StatusFormat::Json, StatusFormat::Text) => {
            let [(got, payload)] = &told[..] else {
                panic!("{what}: {told:?}")
            };
            assert_eq!(*got, client.data_opcode(), "{what}");
            let (channel, json) = channel_and_data(client, payload);
            assert_eq!(
                (channel, Received::parse(&json)),
                (3, Some(Received::from_prose(data))),
                "{what}"
            );
        }
    }
}

#[test]
fn what_clients_send_reaches_upstreams_of_every_subprotocol() {
    let mut seen = 0;
    for (name, spoken) in vectors().subprotocols {
        let client = protocol(&name);
        for vector in spoken
            .vectors
            .iter()
            .filter(|vector| vector.direction == "c2s")
        {
            seen += 1;
            for bits in std::iter::once(vector.frame_opcode)
                .chain(vector.also_accepted_opcodes.iter().copied())
            {
                let frame = Frame {
                    fin: true,
                    masked: true,
                    side: None,
                    opcode: Some(bits),
                    payload_hex: vector.payload_hex.clone(),
                    event: None,
                };
                let received =
                    walk(wire(&[frame], Sender::Client), Sender::Client).expect(&vector.id);
                let [(got, payload)] = &received[..] else {
                    panic!("{}: {received:?}", vector.id)
                };
                assert_eq!(
                    (*got as u8, payload),
                    (bits, &bytes(&vector.payload_hex)),
                    "{}",
                    vector.id
                );
                match (vector.event.as_str(), got) {
                    ("ping_empty" | "ping_payload", Opcode::Ping) => {
                        // The answer is the payload again.
                        assert_eq!(vector.expect["pong_hex"], hex::encode(payload));
                    }
                    ("close_1000", Opcode::Close) => {
                        assert_eq!(frame::close_code(payload), Ok(1000));
                    }
                    ("close_empty", Opcode::Close) => {
                        assert_eq!(frame::close_code(payload), Ok(1005));
                    }
                    (_, Opcode::Text | Opcode::Binary) => {
                        for upstream in Subprotocol::ALL {
                            for streams in [ALL, TTY] {
                                client_event(vector, client, upstream, streams, payload);
                            }
                        }
                    }
                    other => panic!("unknown event {other:?}"),
                }
            }
        }
    }
    assert_eq!(
        seen,
        vectors()
            .subprotocols
            .values()
            .flat_map(|s| &s.vectors)
            .filter(|v| v.direction == "c2s")
            .count()
    );
}

/// One data message from a client, seen by one upstream.
fn client_event(
    vector: &Vector,
    client: Subprotocol,
    upstream: Subprotocol,
    streams: Streams,
    payload: &[u8],
) {
    let what = format!("{} to {upstream:?}, {streams:?}", vector.id);
    let (mut input, mut to) = (Input::new(client, upstream, streams), Sink::default());
    let taken = input.message(payload, &mut to);
    let sent = to.take();
    let expect = &vector.expect;
    if let Some(stdin) = expect["stdin_hex"].as_str().map(bytes) {
        if stdin.is_empty() {
            assert_eq!((taken, sent), (Ok(Taken::Nothing), vec![]), "{what}");
        } else {
            assert_eq!(taken, Ok(Taken::Stdin(stdin.len())), "{what}");
            assert_eq!(sent, [message(upstream, 0, &stdin)], "{what}");
        }
        assert_eq!(input.dropped(), 0, "{what}");
    } else if let Some(size) = expect["resize"].as_array() {
        let [width, height] =
            [0, 1].map(|at| u16::try_from(size[at].as_u64().expect("cells")).expect("a u16"));
        assert_eq!(sent, [], "{what}: remembered, not sent");
        let size = Size::new(width, height).expect("a size");
        assert_eq!(
            input.take_resize(),
            Some(size).filter(|_| streams.tty),
            "{what}"
        );
        input.encode_resize(size, &mut to);
        let json = format!(r#"{{"Width":{width},"Height":{height}}}"#);
        assert_eq!(to.take(), [message(upstream, 4, json.as_bytes())], "{what}");
    } else if expect["stdin"]
        .as_str()
        .is_some_and(|stdin| stdin.starts_with("EOF"))
    {
        match (upstream, streams.tty) {
            (Subprotocol::V5, _) => {
                assert_eq!(sent, [(Opcode::Binary, b"\xff\0".to_vec())], "{what}");
            }
            (_, true) => assert_eq!(sent, [message(upstream, 0, b"\x04")], "{what}"),
            (_, false) => assert_eq!((sent, input.dropped()), (vec![], 1), "{what}"),
        }
        assert_eq!(
            input.message(b"\0late", &mut to),
            Ok(Taken::Nothing),
            "{what}"
        );
        assert_eq!(to.take(), [], "{what}: nothing after the end");
    } else if expect["server"] == "ignored" {
        assert_eq!(
            (taken, sent, input.dropped()),
            (Ok(Taken::Nothing), vec![], 1),
            "{what}"
        );
        assert!(
            matches!(
                input.message(&message(client, 0, b"x").1, &mut to),
                Ok(Taken::Stdin(1))
            ),
            "{what}"
        );
    } else {
        panic!("unknown expectation {expect}");
    }
}

#[test]
fn malformed_frames_do_the_least_harm() {
    // What goes upstream, how many messages are dropped, and the size left to send.
    let size = |width, height| Size::new(width, height);
    for case in vectors().malformed {
        let id = case.id.as_str();
        let client = protocol(&case.subprotocol);
        let (mut input, mut to) = (Input::new(client, client, TTY), Sink::default());
        let messages = match walk(wire(&case.frames, Sender::Client), Sender::Client) {
            Ok(messages) => messages,
            Err(violation) => {
                assert_eq!((id, violation.code), ("unmasked", 1002));
                continue;
            }
        };
        let taken: Result<Vec<_>, _> = messages
            .iter()
            .map(|(_, payload)| input.message(payload, &mut to))
            .collect();
        if let "v5_close_bad_length_1" | "v5_close_bad_length_3" = id {
            assert_eq!(taken.expect_err(id).code, 1002, "{id}");
            assert_eq!(to.take(), [], "{id}");
            continue;
        }
        taken.expect(id);
        let (stdin, dropped, resize): (&[&[u8]], _, _) = match id {
            "fragmented_stdin" => (&[b"abcd"], 0, None),
            "fragmented_stdin_channel_prefix" => (&[b"ab\0cd"], 0, None),
            "b64_std_plus_slash" => (&[b"\xfb\xff"], 0, None),
            "b64_nonzero_trailing_bits" => (&[b"a"], 0, None),
            "zero_length_message" | "v5_close_output_channels" => (&[], 0, None),
            "unknown_channel_5"
            | "unknown_channel_99"
            | "client_writes_error"
            | "b64_nopad"
            | "b64_urlsafe"
            | "b64_space_inside"
            | "b64_garbage"
            | "b64_concatenated"
            | "b64_channel_slash"
            | "v5_close_as_utf8_text" => (&[], 1, None),
            "resize_bad_then_good"
            | "resize_overflow_then_good"
            | "resize_negative_then_good"
            | "resize_float_then_good"
            | "resize_array_then_good" => (&[], 0, size(1, 1)),
            "resize_two_objects" => (&[], 0, size(81, 25)),
            "v5_double_close" => {
                assert_eq!(
                    to.take(),
                    [(Opcode::Binary, b"\xff\0".to_vec())],
                    "{id}: once"
                );
                (&[], 0, None)
            }
            other => panic!("unknown id {other}"),
        };
        let expected: Vec<_> = stdin.iter().map(|data| message(client, 0, data)).collect();
        assert_eq!(
            (to.take(), input.dropped(), input.take_resize()),
            (expected, dropped, resize),
            "{id}"
        );
        // And the session lives on.
        let after = input
            .message(&message(client, 0, b"next").1, &mut to)
            .expect(id);
        assert_eq!(after == Taken::Stdin(4), id != "v5_double_close", "{id}");
    }
}

#[test]
fn handshakes_go_as_with_the_servers() {
    for (index, case) in vectors().handshake.iter().enumerate() {
        let what = format!("handshake {index}");
        // Both servers choose as we do; they differ in what they can speak.
        let speaks = |ours: Subprotocol| match case.server.as_str() {
            "cri-streaming" => ours != Subprotocol::V5,
            "translator(v5 only)" => ours == Subprotocol::V5,
            other => panic!("unknown server {other}"),
        };
        let lines = case
            .offer_header_lines
            .clone()
            .unwrap_or_else(|| case.offer.iter().cloned().collect());
        // They read the first line only.
        let as_server =
            Offer::parse(lines.iter().take(1).map(String::as_bytes)).expect("no token in it");
        let chosen = as_server.negotiate(speaks);
        let ours = UpstreamOffer::default();
        match (&case.method, &case.sec_websocket_version, case.status) {
            // Refused before any subprotocol is looked at; whoever serves HTTP tests it.
            (Some(_), None, 405) => assert_eq!(chosen, Some(Subprotocol::V4), "{what}"),
            (None, Some(_), 400) => assert_eq!(chosen, Some(Subprotocol::Unnamed), "{what}"),
            (None, None, 101) => {
                let selected = case.selected.as_deref().unwrap_or_default();
                assert_eq!(chosen.map(Subprotocol::name), Some(selected), "{what}");
                let header = case
                    .sec_websocket_protocol_header
                    .as_ref()
                    .map_or(selected, |_| "");
                let offered: UpstreamOffer = lines.concat().parse().expect("known names");
                assert_eq!(
                    offered.selected(Some(header.as_bytes())),
                    Ok(protocol(selected)),
                    "{what}"
                );
                // Our own offer is never answered with an empty header; if it is, that is an error.
                assert_eq!(
                    ours.selected(Some(header.as_bytes())).is_ok(),
                    matches!(selected, "v4.channel.k8s.io" | "v5.channel.k8s.io")
                );
            }
            (None, None, 403) => {
                assert_eq!(chosen, None, "{what}");
                // We read all lines from a client, and send one to a server, so neither meets this refusal for it.
                let as_gateway =
                    Offer::parse(lines.iter().map(String::as_bytes)).expect("no token in it");
                assert_eq!(
                    as_gateway.negotiate(speaks).is_some(),
                    lines.len() > 1,
                    "{what}"
                );
                let header = ours.header().expect("offers something");
                assert!(
                    Offer::parse([header.as_bytes()])
                        .expect("ours")
                        .negotiate(speaks)
                        .is_some(),
                    "{what}"
                );
            }
            other => panic!("unknown handshake {other:?}"),
        }
    }
}

#[test]
fn bearer_items_are_judged_as_the_api_server_judges_them() {
    for (index, case) in vectors().bearer.iter().enumerate() {
        let parse = |lines: &[&str]| Offer::parse(lines.iter().map(|line| line.as_bytes()));
        let token = |offer: &Offer| offer.bearer.as_ref().map(Bearer::expose).map(str::to_owned);
        match (
            &case.subprotocol,
            &case.offer,
            &case.token,
            case.expect.as_deref(),
        ) {
            (Some(item), None, Some(expected), None) => {
                let offer = parse(&[item, "v4.channel.k8s.io"]).expect("a good token");
                assert_eq!(
                    (token(&offer).as_ref(), offer.protocols()),
                    (Some(expected), &[Subprotocol::V4][..])
                );
                assert_eq!(parse(&[item]), Err(OfferError::BearerAlone));
            }
            (Some(item), None, Some(_), Some(expect))
                if expect.starts_with("treated as absent") =>
            {
                assert_eq!(
                    token(&parse(&[item, "v4.channel.k8s.io"]).expect("no token")),
                    None
                );
            }
            (Some(item), None, None, Some(expect))
                if expect.starts_with("401 (decodes to ff: not UTF-8)") =>
            {
                assert_eq!(
                    parse(&[item, "v4.channel.k8s.io"]),
                    Err(OfferError::BearerNotText)
                );
            }
            (None, Some(offer), None, Some("401 missing additional subprotocol")) => {
                assert_eq!(parse(&[offer]), Err(OfferError::BearerAlone));
            }
            (None, Some(offer), None, Some("401 multiple tokens")) => {
                assert_eq!(parse(&[offer]), Err(OfferError::ManyBearers));
            }
            (None, Some(offer), None, Some(expect))
                if expect.starts_with("header becomes 'v4.channel.k8s.io'") =>
            {
                let offer = parse(&[offer]).expect("a good token");
                assert_eq!(token(&offer).as_deref(), Some("mytoken"));
                assert_eq!(
                    offer.negotiate(|_| true).map(Subprotocol::name),
                    Some("v4.channel.k8s.io")
                );
            }
            _ => panic!("unknown bearer case {index}"),
        }
    }
}

#[test]
fn every_pair_of_subprotocols_is_carried_over() {
    for case in vectors().transcode {
        let id = case.id.as_str();
        let (client, upstream) = (protocol(&case.client), protocol(&case.upstream));
        let streams = if id.ends_with("/resize") { TTY } else { ALL };
        let (mut input, mut output) = (
            Input::new(client, upstream, streams),
            Output::new(client, upstream, streams),
        );
        let (mut up, mut down) = (Sink::default(), Sink::default());
        output.opened(&mut down);
        down.take();
        let mut end = None;
        for frame in &case.input {
            let from = if frame.side.as_deref() == Some("client") {
                Sender::Client
            } else {
                Sender::Server
            };
            if frame.opcode.is_none() {
                assert_eq!(
                    frame.event.as_deref(),
                    Some("tcp_eof_without_close_or_status"),
                    "{id}"
                );
                end = Some(UpstreamEnd::Lost);
                continue;
            }
            for (opcode, payload) in walk(wire(std::slice::from_ref(frame), from), from).expect(id)
            {
                match (from, opcode) {
                    (Sender::Server, Opcode::Close) => {
                        end = Some(UpstreamEnd::Closed(frame::close_code(&payload).expect(id)));
                    }
                    (Sender::Server, _) => _ = output.message(&payload, &mut down),
                    (Sender::Client, _) => _ = input.message(&payload, &mut up).expect(id),
                }
            }
        }
        if let Some(size) = input.take_resize() {
            input.encode_resize(size, &mut up);
        }
        if let Some(end) = end {
            let outcome = output.finish(end, &mut down);
            let expected = match id.rsplit('/').next() {
                Some("success") => Outcome::Success,
                Some("exit3") => Outcome::Exit(3),
                Some("upstream_lost") => Outcome::Lost,
                other => panic!("unknown end {other:?}"),
            };
            assert_eq!(outcome, expected, "{id}");
            // After an end the caller closes with 1000 and no reason.
            down.0.push((Opcode::Close, frame::close_payload(1000, "")));
        }
        let expected = |side: &str| -> Vec<_> {
            let frames = case
                .output
                .iter()
                .filter(|frame| frame.side.as_deref() == Some(side));
            frames
                .map(|frame| {
                    named(
                        client,
                        opcode(frame.opcode.expect(id)),
                        bytes(&frame.payload_hex),
                    )
                })
                .collect()
        };
        assert_eq!(up.0, expected("upstream"), "{id}");
        assert_eq!(down.0, expected("client"), "{id}");
        assert_eq!(
            case.output.len(),
            up.0.len() + down.0.len(),
            "{id}: every expected frame has a side"
        );
    }
}

/// The vectors' statuses are signed by a nameless gateway; ours bear the product's name.
fn named(client: Subprotocol, opcode: Opcode, payload: Vec<u8>) -> (Opcode, Vec<u8>) {
    if opcode != Opcode::Close && payload.first().is_some_and(|first| first & 0x0f == 3) {
        let (channel, data) = channel_and_data(client, &payload);
        let text = String::from_utf8(data)
            .expect("a status")
            .replace("exec-gateway", "drawbridge");
        return message(client, channel, text.as_bytes());
    }
    (opcode, payload)
}
