use std::time::Duration;

use super::*;
use crate::recording::{Level, Mode, Settings, Subprotocols, VERSION};
use crate::subject::{Pod, Session};

const AT: Duration = Duration::from_millis(1500);

fn opening(tty: bool) -> Opening {
    Opening {
        version: VERSION,
        recording: uuid::Uuid::from_u128(7),
        session: Session {
            namespace: "shop".to_owned(),
            name: "alice".to_owned(),
            uid: "u".to_owned(),
        },
        user: "alice@example.com".to_owned(),
        pod: Pod {
            name: "web-0".to_owned(),
            uid: "p".to_owned(),
            container: "app".to_owned(),
            node: "n".to_owned(),
        },
        mode: Mode::Exec,
        argv: vec!["sh".to_owned()],
        tty,
        stdin: true,
        subprotocols: Subprotocols::default(),
        started_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        settings: Settings {
            level: Level::Required,
            keystrokes: false,
            payloads: false,
            recipients: Vec::new(),
        },
        gateway: "gw-0".to_owned(),
        legal_hold: false,
    }
}

/// The lines after the first.
fn lines(encoder: &mut Encoder) -> Vec<String> {
    let batch = encoder.take().unwrap();
    assert_eq!(encoder.pending(), 0);
    let text = String::from_utf8(batch.lines).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len() as u64, batch.count);
    lines[1..].to_vec()
}

#[test]
fn the_first_line_is_what_players_read() {
    let mut encoder = Encoder::new(&opening(true));
    encoder.resize(AT, 132, 43);
    let batch = encoder.take().unwrap();
    let first = batch.lines.split(|byte| *byte == b'\n').next().unwrap();
    let first: serde_json::Value = serde_json::from_slice(first).unwrap();
    assert_eq!(first["version"], 2);
    assert_eq!(
        (&first["width"], &first["height"]),
        (&132.into(), &43.into())
    );
    assert_eq!(first["timestamp"], 1_767_323_045);
    assert_eq!(first["env"]["TERM"], "xterm");
    assert_eq!(first["drawbridge"]["user"], "alice@example.com");
}

#[test]
fn a_terminal_is_told_as_it_looked() {
    let mut encoder = Encoder::new(&opening(true));
    encoder.data(AT, Stream::Stdin, b"secret\r");
    encoder.data(AT, Stream::Stdout, b"\x1b[1ma\xe2\x82");
    encoder.data(AT * 2, Stream::Stdout, b"\xac\0");
    encoder.data(AT, Stream::Stdout, b"\xff");
    encoder.resize(AT * 3, 100, 50);
    encoder.end(
        AT * 4,
        &End {
            reason: "Completed".to_owned(),
            exit_code: Some(0),
        },
    );
    encoder.data(AT * 5, Stream::Stdout, b"after the end");
    assert_eq!(
        lines(&mut encoder),
        [
            r#"[1.500000,"o","\u001b[1ma"]"#,
            r#"[3.000000,"o","€\u0000"]"#,
            r#"[3.000000,"b","/w=="]"#,
            "[3.000000,\"o\",\"\u{fffd}\"]",
            r#"[4.500000,"r","100x50"]"#,
            r#"[6.000000,"z","{\"reason\":\"Completed\",\"exitCode\":0}"]"#,
        ]
    );
    assert_eq!((encoder.bytes().stdin, encoder.bytes().stdout), (7, 10));
}

#[test]
fn typed_lines_are_told_on_request_if_the_terminal_showed_them() {
    let mut opening = opening(true);
    opening.settings.keystrokes = true;
    let mut encoder = Encoder::new(&opening);
    encoder.data(AT, Stream::Stdin, b"id\r");
    encoder.data(AT, Stream::Stdout, b"id\r\nPassword: ");
    encoder.data(AT, Stream::Stdin, b"secret\r");
    encoder.data(AT, Stream::Stdout, b"\r\n");
    assert_eq!(
        lines(&mut encoder),
        [
            r#"[1.500000,"o","id\r\nPassword: "]"#,
            r#"[1.500000,"i","id\r"]"#,
            r#"[1.500000,"o","\r\n"]"#,
            r#"[1.500000,"h","7"]"#,
        ]
    );
}

#[test]
fn without_a_terminal_stdout_and_stderr_are_apart_and_input_is_summed_up() {
    let mut encoder = Encoder::new(&opening(false));
    encoder.data(AT, Stream::Stdin, b"a secret");
    encoder.data(AT, Stream::Stdout, b"out");
    encoder.data(AT, Stream::Stderr, b"err");
    assert!(encoder.closed(AT, Stream::Stdin).is_some());
    assert!(encoder.closed(AT, Stream::Stdin).is_none());
    assert!(encoder.closed(AT, Stream::Stdout).is_none());
    let lines = lines(&mut encoder);
    assert_eq!(lines[0], r#"[1.500000,"o","out"]"#);
    assert_eq!(lines[1], r#"[1.500000,"e","err"]"#);
    let transfer = &encoder.transfers()[0];
    assert_eq!((transfer.bytes, transfer.recorded), (8, 0));
    assert_eq!(transfer.sha256, Some(crate::hash::Sha256::of(b"a secret")));
}

#[test]
fn what_each_stream_carried_is_known_once_it_is_closed_text_or_not() {
    let mut encoder = Encoder::new(&opening(false));
    encoder.data(AT, Stream::Stdout, b"some ");
    encoder.data(AT, Stream::Stdout, b"text");
    encoder.data(AT, Stream::Stderr, b"\0");
    encoder.gap(AT, Stream::Stderr, 4);
    assert!(encoder.carried().is_empty(), "nothing is closed");
    let end = End {
        reason: "Completed".into(),
        exit_code: None,
    };
    encoder.end(AT, &end);
    let carried = |stream, bytes, sha256| Carried {
        stream,
        bytes,
        sha256,
    };
    let text = crate::hash::Sha256::of(b"some text");
    assert_eq!(
        encoder.carried(),
        [
            carried(Stream::Stdout, 9, Some(text)),
            carried(Stream::Stderr, 5, None)
        ]
    );
}

#[test]
fn a_binary_stream_is_summed_up_and_its_payload_not_told() {
    for argv in [["tar", "cf"], ["/bin/tar", "cf"], ["cat", "image.png"]] {
        let mut opening = opening(false);
        opening.argv = argv.map(str::to_owned).to_vec();
        let mut encoder = Encoder::new(&opening);
        let payload = [b"name of a file".as_slice(), &[0; 5000], b"payload"].concat();
        encoder.data(AT, Stream::Stdout, &payload[..3000]);
        encoder.data(AT, Stream::Stdout, &payload[3000..]);
        let transfer = encoder.closed(AT, Stream::Stdout).unwrap();
        assert_eq!(transfer.bytes, payload.len() as u64);
        assert_eq!(transfer.recorded, 0);
        assert_eq!(transfer.sha256, Some(crate::hash::Sha256::of(&payload)));
        assert_eq!(lines(&mut encoder).len(), 1, "{argv:?}");
    }
}

#[test]
fn a_text_that_turns_out_to_be_binary_is_told_until_then() {
    let mut encoder = Encoder::new(&opening(false));
    encoder.data(AT, Stream::Stdout, "text €".as_bytes());
    encoder.data(AT, Stream::Stdout, b"\xfe\xff");
    encoder.data(AT, Stream::Stdout, b"text again");
    let transfer = encoder.closed(AT, Stream::Stdout).unwrap();
    assert_eq!((transfer.bytes, transfer.recorded), (20, 8));
    assert_eq!(lines(&mut encoder)[0], r#"[1.500000,"o","text €"]"#);
}

#[test]
fn what_was_missed_is_told_and_the_hash_with_it_is_not() {
    let mut encoder = Encoder::new(&opening(false));
    encoder.data(AT, Stream::Stdout, b"a\0");
    encoder.gap(AT, Stream::Stdout, 10);
    encoder.gap(AT, Stream::Stdout, 5);
    let transfer = encoder.closed(AT, Stream::Stdout).unwrap();
    assert_eq!((transfer.bytes, transfer.sha256), (17, None));
    let gap = Gap {
        stream: Stream::Stdout,
        bytes: 15,
    };
    assert_eq!(encoder.gaps(), [gap]);
    assert!(lines(&mut encoder)[0].contains(r#""g","{\"stream\":\"stdout\",\"bytes\":10}""#));
}

#[test]
fn a_flood_comes_in_batches_of_bounded_size() {
    for (byte, tty) in [(0x1b, true), (0xff, true), (b'x', false), (0xff, false)] {
        let mut opening = opening(tty);
        opening.settings.payloads = true;
        let mut encoder = Encoder::new(&opening);
        encoder.data(AT, Stream::Stdout, &vec![byte; 4 << 20]);
        assert!(encoder.pending() <= 8 * (4 << 20) + 1024);
        let mut batches = 0;
        while let Some(batch) = encoder.take() {
            assert!(batch.lines.len() <= crate::recording::chunk::MAX_TEXT);
            assert!(batch.lines.ends_with(b"\n"));
            batches += 1;
        }
        assert!(batches > 4);
        assert_eq!(encoder.pending(), 0);
    }
}
