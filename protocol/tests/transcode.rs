//! What `Input` and `Output` promise for every pair of subprotocols.

#[path = "common/sink.rs"]
mod sink;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use drawbridge_protocol::encoding::{Encoding, PIECE};
use drawbridge_protocol::frame::Opcode;
use drawbridge_protocol::resize::Size;
use drawbridge_protocol::status::{MAX_JSON, Reason, Received, Status};
use drawbridge_protocol::subprotocol::{StatusFormat, Subprotocol};
use drawbridge_protocol::transcode::{
    Input, MAX_PASSING, Outcome, Output, Streams, Taken, UpstreamEnd,
};
use sink::Sink;

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
const EXIT_3: &str = r#"{"metadata":{},"status":"Failure","message":"command terminated with exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
const FORBIDDEN: &str =
    r#"{ "status":"Failure", "message":"not you", "reason":"Forbidden", "code":403, "extra":[1] }"#;

fn pairs() -> impl Iterator<Item = (Subprotocol, Subprotocol)> {
    Subprotocol::ALL
        .into_iter()
        .flat_map(|client| Subprotocol::ALL.map(|upstream| (client, upstream)))
}

/// A data message written without the code under test.
fn message(protocol: Subprotocol, channel: u8, data: &[u8]) -> (Opcode, Vec<u8>) {
    match protocol.encoding() {
        Encoding::Binary => (Opcode::Binary, [&[channel], data].concat()),
        Encoding::Base64 => (
            Opcode::Text,
            format!("{channel}{}", BASE64_STANDARD.encode(data)).into_bytes(),
        ),
    }
}

fn payload(protocol: Subprotocol, channel: u8, data: &[u8]) -> Vec<u8> {
    message(protocol, channel, data).1
}

/// Channel and data of a message.
fn read(protocol: Subprotocol, (opcode, payload): &(Opcode, Vec<u8>)) -> (u8, Vec<u8>) {
    assert_eq!(*opcode, protocol.data_opcode());
    match protocol.encoding() {
        Encoding::Binary => (payload[0], payload[1..].to_vec()),
        Encoding::Base64 => (
            payload[0] - b'0',
            BASE64_STANDARD.decode(&payload[1..]).expect("base64"),
        ),
    }
}

/// A session whose client was told that it is connected.
fn opened(client: Subprotocol, upstream: Subprotocol, streams: Streams) -> (Output, Sink) {
    let (mut output, mut to) = (Output::new(client, upstream, streams), Sink::default());
    output.opened(&mut to);
    to.take();
    (output, to)
}

/// What the one status message to a client says.
fn told(client: Subprotocol, to: &mut Sink) -> Received {
    let sent = to.take();
    let [status] = &sent[..] else {
        panic!("one status, not {sent:?}")
    };
    let (channel, data) = read(client, status);
    assert_eq!(channel, 3);
    assert!(!data.is_empty());
    match client.status_format() {
        StatusFormat::Json => Received::parse(&data).expect("a status"),
        StatusFormat::Text => Received::from_prose(&data),
    }
}

#[test]
fn stdin_of_any_length_arrives_in_pieces_the_servers_take() {
    for (client, upstream) in pairs() {
        for length in [1, PIECE - 1, PIECE, PIECE + 1, 1 << 20] {
            let data: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let (mut input, mut to) = (Input::new(client, upstream, ALL), Sink::default());
            assert_eq!(
                input.message(&payload(client, 0, &data), &mut to),
                Ok(Taken::Stdin(length))
            );
            let mut arrived = Vec::new();
            for sent in to.take() {
                let (channel, piece) = read(upstream, &sent);
                assert!(channel == 0 && (1..=PIECE).contains(&piece.len()));
                arrived.extend(piece);
            }
            assert!(
                arrived == data,
                "{client:?} to {upstream:?}, {length} bytes"
            );
        }
    }
}

#[test]
fn what_a_client_may_not_send_is_dropped_and_counted() {
    for (client, upstream) in pairs() {
        let (mut input, mut to) = (Input::new(client, upstream, ALL), Sink::default());
        let mut dropped = 0;
        for channel in [1, 2, 3, 5, 9] {
            assert_eq!(
                input.message(&payload(client, channel, b"x"), &mut to),
                Ok(Taken::Nothing)
            );
            dropped += 1;
            assert_eq!(input.dropped(), dropped);
        }
        // Harmless and expected of clients: nothing, heartbeats, sizes without a terminal.
        for harmless in [
            vec![],
            payload(client, 0, b""),
            payload(client, 4, br#"{"Width":1,"Height":1}"#),
        ] {
            assert_eq!(input.message(&harmless, &mut to), Ok(Taken::Nothing));
        }
        assert_eq!((input.dropped(), input.take_resize()), (dropped, None));
        let without = Streams {
            stdin: false,
            ..ALL
        };
        let mut input = Input::new(client, upstream, without);
        assert_eq!(
            input.message(&payload(client, 0, b"x"), &mut to),
            Ok(Taken::Nothing)
        );
        assert_eq!(input.dropped(), 1);
        assert_eq!(to.take(), []);
    }
    let (mut input, mut to) = (
        Input::new(Subprotocol::V4Base64, Subprotocol::V5, ALL),
        Sink::default(),
    );
    let mut long = payload(Subprotocol::V4Base64, 0, &vec![7; 200_000]);
    *long.last_mut().expect("not empty") = b'*';
    assert_eq!(input.message(&long, &mut to), Ok(Taken::Nothing));
    assert_eq!(
        (to.take(), input.dropped()),
        (vec![], 1),
        "a long bad message is not begun"
    );
    assert_eq!(input.message(b"4*", &mut to), Ok(Taken::Nothing));
}

#[test]
fn the_end_of_stdin_is_told_once_or_never() {
    for (client, upstream) in pairs() {
        for streams in [ALL, TTY] {
            let (mut input, mut to) = (Input::new(client, upstream, streams), Sink::default());
            let first = input.message(b"\xff\0", &mut to).expect("well-formed");
            let sent = to.take();
            if client != Subprotocol::V5 {
                assert_eq!((first, sent, input.dropped()), (Taken::Nothing, vec![], 1));
                continue;
            }
            match (upstream, streams.tty) {
                (Subprotocol::V5, _) => assert_eq!(sent, [(Opcode::Binary, vec![255, 0])]),
                (_, true) => assert_eq!(sent, [message(upstream, 0, &[4])]),
                (_, false) => assert_eq!((first, &sent[..]), (Taken::Nothing, &[][..])),
            }
            assert_eq!(first == Taken::StdinEnd, !sent.is_empty());
            let dropped = input.dropped();
            assert_eq!(input.message(b"\xff\0", &mut to), Ok(Taken::Nothing));
            assert_eq!(input.message(b"\0late", &mut to), Ok(Taken::Nothing));
            assert_eq!(input.dropped(), dropped + 1, "the late data");
            input.hang_up(&mut to);
            assert!(!input.passes(0, 2));
            assert_eq!(to.take(), []);
        }
    }
    let without = Streams {
        stdin: false,
        ..ALL
    };
    let (mut input, mut to) = (
        Input::new(Subprotocol::V5, Subprotocol::V5, without),
        Sink::default(),
    );
    assert_eq!(input.message(b"\xff\0", &mut to), Ok(Taken::Nothing));
    input.hang_up(&mut to);
    assert_eq!((to.take(), input.dropped()), (vec![], 1));
}

#[test]
fn a_malformed_close_message_ends_a_v5_session_and_no_other() {
    for bad in [&b"\xff"[..], b"\xff\0\0", b"\xff\x05", b"\xff\xff"] {
        let (mut input, mut to) = (
            Input::new(Subprotocol::V5, Subprotocol::V5, ALL),
            Sink::default(),
        );
        assert_eq!(input.message(bad, &mut to).expect_err("refused").code, 1002);
        let mut input = Input::new(Subprotocol::V4, Subprotocol::V5, ALL);
        assert_eq!(
            (input.message(bad, &mut to), input.dropped()),
            (Ok(Taken::Nothing), 1)
        );
        assert_eq!(to.take(), []);
    }
    for harmless in 1..=4 {
        let (mut input, mut to) = (
            Input::new(Subprotocol::V5, Subprotocol::V5, ALL),
            Sink::default(),
        );
        assert_eq!(input.message(&[255, harmless], &mut to), Ok(Taken::Nothing));
        assert_eq!((to.take(), input.dropped()), (vec![], 0));
        assert!(input.passes(0, 2), "stdin is still open");
    }
}

#[test]
fn a_client_that_leaves_ends_what_can_be_ended() {
    for upstream in Subprotocol::ALL {
        for (streams, expected) in [
            (TTY, vec![message(upstream, 0, &[4])]),
            (
                ALL,
                if upstream == Subprotocol::V5 {
                    vec![(Opcode::Binary, vec![255, 0])]
                } else {
                    vec![]
                },
            ),
        ] {
            let (mut input, mut to) = (
                Input::new(Subprotocol::V4, upstream, streams),
                Sink::default(),
            );
            input.hang_up(&mut to);
            assert_eq!(to.take(), expected, "{upstream:?}");
            input.hang_up(&mut to);
            assert_eq!(to.take(), [], "once");
        }
    }
}

#[test]
fn the_newest_size_waits_until_it_is_taken() {
    for (client, upstream) in pairs() {
        let (mut input, mut to) = (Input::new(client, upstream, TTY), Sink::default());
        for (json, taken) in [
            (r#"{"Width":80,"Height":24}"#, Taken::Resize),
            (r#"{"height":25,"width":81}"#, Taken::Resize),
            (r#"{"Width":70000,"Height":24}"#, Taken::Nothing),
            ("not json", Taken::Nothing),
        ] {
            assert_eq!(
                input.message(&payload(client, 4, json.as_bytes()), &mut to),
                Ok(taken),
                "{json}"
            );
        }
        assert_eq!(to.take(), [], "nothing is sent unasked");
        let size = Size::new(81, 25).expect("a size");
        assert_eq!(
            (input.take_resize(), input.take_resize()),
            (Some(size), None)
        );
        input.encode_resize(size, &mut to);
        assert_eq!(
            to.take(),
            [message(upstream, 4, br#"{"Width":81,"Height":25}"#)]
        );
        assert_eq!(input.dropped(), 0);
    }
}

#[test]
fn the_client_is_told_that_it_is_connected_exactly_once_and_first() {
    for (client, upstream) in pairs() {
        let none = Streams::default();
        for (streams, first) in [
            (ALL, 1),
            (TTY, 1),
            (
                Streams {
                    stdout: false,
                    ..ALL
                },
                2,
            ),
            (none, 3),
        ] {
            // Told by the caller, by any empty message of the upstream, by the first data, or by the end.
            let empty = |channel| payload(upstream, channel, b"");
            for start in [
                vec![],
                vec![empty(1)],
                vec![empty(2), empty(1)],
                vec![empty(3), empty(3)],
                vec![vec![], empty(1)],
            ] {
                let (mut output, mut to) =
                    (Output::new(client, upstream, streams), Sink::default());
                for payload in &start {
                    output.message(payload, &mut to);
                }
                let data = output.message(&payload(upstream, 1, b"hi"), &mut to);
                assert_eq!(data, if streams.stdout { 2 } else { 0 });
                output.message(&empty(1), &mut to);
                output.opened(&mut to);
                output.finish(UpstreamEnd::Lost, &mut to);
                let sent = to.take();
                assert_eq!(
                    sent[0],
                    message(client, first, b""),
                    "{client:?} {upstream:?} {start:?}"
                );
                assert!(
                    sent[1..]
                        .iter()
                        .all(|sent| !read(client, sent).1.is_empty()),
                    "{sent:?}"
                );
            }
        }
    }
}

#[test]
fn what_was_not_requested_does_not_reach_the_client() {
    for (client, upstream) in pairs() {
        for (streams, channel) in [
            (TTY, 2),
            (Streams { tty: true, ..ALL }, 2),
            (
                Streams {
                    stdout: false,
                    ..ALL
                },
                1,
            ),
            (ALL, 4),
            (ALL, 5),
            (ALL, 0),
        ] {
            let (mut output, mut to) = opened(client, upstream, streams);
            assert_eq!(
                output.message(&payload(upstream, channel, b"x"), &mut to),
                0
            );
            assert_eq!(
                (to.take(), output.dropped()),
                (vec![], 1),
                "{streams:?} {channel}"
            );
            assert!(!output.passes(channel, 2));
        }
        if upstream.encoding() == Encoding::Base64 {
            let (mut output, mut to) = opened(client, upstream, ALL);
            output.message(b"1***", &mut to);
            output.message(b"3***", &mut to);
            assert_eq!(
                (to.take(), output.dropped(), output.has_status()),
                (vec![], 2, false)
            );
        }
    }
}

/// How a session ends whose upstream says `said` on channel 3 and then ends.
fn ended(
    client: Subprotocol,
    upstream: Subprotocol,
    said: &str,
    end: UpstreamEnd,
) -> (Outcome, Sink) {
    let (mut output, mut to) = opened(client, upstream, ALL);
    if !said.is_empty() {
        output.message(&payload(upstream, 3, said.as_bytes()), &mut to);
    }
    assert_eq!((to.take(), output.has_status()), (vec![], !said.is_empty()));
    (output.finish(end, &mut to), to)
}

#[test]
fn silence_is_success_only_from_an_upstream_that_says_success_so() {
    for (client, upstream) in pairs() {
        let what = format!("{upstream:?} to {client:?}");
        for how in [
            UpstreamEnd::Lost,
            UpstreamEnd::Closed(1006),
            UpstreamEnd::Closed(1005),
            UpstreamEnd::Closed(1000),
        ] {
            let (outcome, mut to) = ended(client, upstream, "", how);
            if upstream.status_format() == StatusFormat::Text && how == UpstreamEnd::Closed(1000) {
                assert_eq!(outcome, Outcome::Success, "{what}");
                if client.status_format() == StatusFormat::Json {
                    assert_eq!(told(client, &mut to), Received::Success, "{what}");
                }
                assert_eq!(to.take(), [], "{what}");
            } else {
                assert_eq!(outcome, Outcome::Lost, "{what}");
                let Received::Failure { message, .. } = told(client, &mut to) else {
                    panic!("{what}")
                };
                assert!(
                    message.contains("drawbridge: upstream "),
                    "{what}: {message}"
                );
            }
        }
    }
}

#[test]
fn a_json_status_reaches_each_client_in_its_own_form() {
    let error = Outcome::Error {
        reason: "Forbidden".into(),
        message: "not you".into(),
    };
    for (client, upstream) in
        pairs().filter(|(_, upstream)| upstream.status_format() == StatusFormat::Json)
    {
        let what = format!("{upstream:?} to {client:?}");
        for how in [UpstreamEnd::Closed(1000), UpstreamEnd::Lost] {
            for (said, expected) in [
                (r#"{"status":"Success"}"#, &Outcome::Success),
                (EXIT_3, &Outcome::Exit(3)),
                (FORBIDDEN, &error),
            ] {
                let (outcome, mut to) = ended(client, upstream, said, how);
                assert_eq!(&outcome, expected, "{what}");
                match (client.status_format(), outcome) {
                    (StatusFormat::Json, _) => {
                        assert_eq!(
                            to.take(),
                            [message(client, 3, said.as_bytes())],
                            "{what}: byte for byte"
                        );
                    }
                    (StatusFormat::Text, Outcome::Success) => assert_eq!(to.take(), [], "{what}"),
                    (StatusFormat::Text, Outcome::Exit(3)) => {
                        assert!(
                            matches!(told(client, &mut to), Received::Exit { code: 3, .. }),
                            "{what}"
                        );
                    }
                    (StatusFormat::Text, _) => {
                        assert_eq!(to.take(), [message(client, 3, b"not you")], "{what}");
                    }
                }
            }
        }
        for said in [
            "{",
            "null",
            "ok",
            r#"{"status":"Great"}"#,
            r#"{"status":"Success"}{"status":"Success"}"#,
        ] {
            let (outcome, mut to) = ended(client, upstream, said, UpstreamEnd::Closed(1000));
            assert!(matches!(outcome, Outcome::Error { .. }), "{what}: {said}");
            assert!(
                matches!(told(client, &mut to), Received::Failure { .. }),
                "{what}: {said}"
            );
        }
    }
}

#[test]
fn words_reach_each_client_in_its_own_form() {
    for (client, upstream) in
        pairs().filter(|(_, upstream)| upstream.status_format() == StatusFormat::Text)
    {
        let (outcome, mut to) = ended(
            client,
            upstream,
            "it broke, exit code 9",
            UpstreamEnd::Closed(1000),
        );
        assert_eq!(outcome, Outcome::Exit(9));
        assert_eq!(
            told(client, &mut to),
            Received::Exit {
                code: 9,
                message: "it broke, exit code 9".into()
            }
        );
        let (outcome, mut to) = ended(client, upstream, "no such file", UpstreamEnd::Lost);
        let (reason, message) = ("InternalError".to_owned(), "no such file".to_owned());
        assert_eq!(
            outcome,
            Outcome::Error {
                reason: reason.clone(),
                message: message.clone()
            }
        );
        assert_eq!(told(client, &mut to), Received::Failure { reason, message });
    }
}

#[test]
fn a_status_is_joined_bounded_and_comes_last() {
    for (client, upstream) in
        pairs().filter(|(_, upstream)| upstream.status_format() == StatusFormat::Json)
    {
        let (mut output, mut to) = opened(client, upstream, ALL);
        let (first, second) = EXIT_3.split_at(40);
        output.message(&payload(upstream, 3, first.as_bytes()), &mut to);
        output.message(&payload(upstream, 1, b"tail"), &mut to);
        output.message(&payload(upstream, 3, second.as_bytes()), &mut to);
        assert_eq!(to.take(), [message(client, 1, b"tail")]);
        assert_eq!(
            output.finish(UpstreamEnd::Closed(1000), &mut to),
            Outcome::Exit(3)
        );
        assert!(matches!(
            told(client, &mut to),
            Received::Exit { code: 3, .. }
        ));

        let (mut output, mut to) = opened(client, upstream, ALL);
        let success = format!(r#"{{"status":"Success"{}}}"#, " ".repeat(1 << 16));
        for part in success.as_bytes().chunks(30_000) {
            output.message(&payload(upstream, 3, part), &mut to);
        }
        let outcome = output.finish(UpstreamEnd::Closed(1000), &mut to);
        let Outcome::Error { message, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert!(message.contains("64 KiB"));
        assert!(matches!(told(client, &mut to), Received::Failure { .. }));
    }
}

#[test]
fn the_end_is_told_once_and_nothing_follows_it() {
    let status = Status::new(Reason::Forbidden, "the session was revoked");
    for (client, upstream) in pairs() {
        for fail_first in [true, false] {
            let (mut output, mut to) = opened(client, upstream, ALL);
            output.message(&payload(upstream, 3, br#"{"status":"Success"}"#), &mut to);
            if fail_first {
                output.fail(&status, &mut to);
                let Received::Failure { message, .. } = told(client, &mut to) else {
                    panic!("never success")
                };
                assert_eq!(message, "the session was revoked");
            } else {
                output.finish(UpstreamEnd::Closed(1000), &mut to);
                to.take();
            }
            output.fail(&status, &mut to);
            output.finish(UpstreamEnd::Closed(1000), &mut to);
            output.notice("bye", &mut to);
            output.opened(&mut to);
            assert_eq!(output.message(&payload(upstream, 1, b"late"), &mut to), 0);
            assert!(!output.passes(1, 5));
            assert_eq!(to.take(), [], "{upstream:?} to {client:?}");
        }
        // Even a client that was told nothing yet is first told that it is connected.
        let (mut output, mut to) = (Output::new(client, upstream, ALL), Sink::default());
        output.fail(&Status::internal("x".repeat(5000)), &mut to);
        let sent = to.take();
        assert_eq!((sent.len(), &sent[0]), (2, &message(client, 1, b"")));
        if client.status_format() == StatusFormat::Json {
            assert!(read(client, &sent[1]).1.len() <= MAX_JSON);
        }
    }
}

#[test]
fn a_notice_is_shown_where_no_program_reads_it() {
    for (client, upstream) in pairs() {
        let (mut output, mut to) = opened(client, upstream, TTY);
        output.notice("closing \x1b[2J\nsoon", &mut to);
        assert_eq!(
            to.take(),
            [message(client, 1, b"\r\nclosing  [2J soon\r\n")]
        );
        let (mut output, mut to) = opened(client, upstream, ALL);
        output.notice("closing soon", &mut to);
        assert_eq!(to.take(), [message(client, 2, b"closing soon\n")]);
        for silent in [
            Streams {
                stderr: false,
                ..ALL
            },
            Streams {
                stdout: false,
                ..TTY
            },
        ] {
            let (mut output, mut to) = opened(client, upstream, silent);
            output.notice("closing soon", &mut to);
            assert_eq!(to.take(), []);
        }
        let (mut output, mut to) = (Output::new(client, upstream, TTY), Sink::default());
        output.notice("hello", &mut to);
        assert_eq!(to.take()[0], message(client, 1, b""), "connected first");
    }
}

#[test]
fn only_frames_that_would_come_out_the_same_may_pass() {
    for (client, upstream) in pairs() {
        let binary =
            client.encoding() == Encoding::Binary && upstream.encoding() == Encoding::Binary;
        for streams in [ALL, TTY, Streams::default()] {
            let input = Input::new(client, upstream, streams);
            let (open, _) = opened(client, upstream, streams);
            let new = Output::new(client, upstream, streams);
            for channel in 0..=u8::MAX {
                for length in [1, 2, 100, MAX_PASSING, MAX_PASSING + 1, u64::MAX] {
                    let stdin = channel == 0 && streams.stdin && (2..=32_769).contains(&length);
                    assert_eq!(input.passes(channel, length), binary && stdin);
                    let requested =
                        channel == 1 && streams.stdout || channel == 2 && streams.stderr;
                    assert_eq!(
                        open.passes(channel, length),
                        binary && requested && length > 1
                    );
                    assert!(
                        !new.passes(channel, length),
                        "the opening message goes first"
                    );
                }
            }
        }
    }
}
