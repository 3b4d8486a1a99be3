//! What goes into a recording comes out of it, by our own reader and by others.

#![expect(clippy::unwrap_used, reason = "these are tests")]

#[path = "common/files.rs"]
mod common;

use std::io::Read;

use drawbridge_audit::keys::{KeySet, SigningKey};
use drawbridge_audit::recording::{
    Event, Identities, Reader, Stream, Verdict, Verification, verify,
};
use proptest::prelude::*;
use proptest::sample::select;

use common::{Files, opening, record};

/// The bytes of `stream` in `files`.
fn stream(files: &Files, stream: Stream, identities: &Identities) -> Vec<u8> {
    Reader::new(files, identities)
        .filter_map(|event| match event.unwrap().event {
            Event::Data(of, bytes) if of == stream => Some(bytes),
            _ => None,
        })
        .flatten()
        .collect()
}

fn sent(data: &[(Stream, Vec<u8>)], stream: Stream) -> Vec<u8> {
    data.iter()
        .filter(|(of, _)| *of == stream)
        .flat_map(|(_, bytes)| bytes.clone())
        .collect()
}

fn is_complete(files: &Files, key: &SigningKey, identities: &Identities, read: bool) {
    let keys: KeySet = [key.public()].into_iter().collect();
    match verify(files, &keys, identities, &mut |_| {}).unwrap() {
        Verification::Sealed(sealed) => {
            assert_eq!(sealed.manifest.verdict, Verdict::Complete);
            assert_eq!((sealed.key, sealed.read), (key.id(), read));
        }
        other => panic!("{other:?}"),
    }
}

/// Bytes as they come: text, torn text, binary, NUL, escape sequences.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "\\PC{0,40}".prop_map(String::into_bytes),
        "[ -~\r\n\t\u{1b}é€😀]{0,40}".prop_map(String::into_bytes),
        ("[é€😀]{1,9}", 0..30_usize).prop_map(|(text, at)| {
            let bytes = text.into_bytes();
            let at = at % bytes.len();
            bytes[at..].to_vec()
        }),
        proptest::collection::vec(any::<u8>(), 0..60),
        Just(vec![0; 35_000]),
    ]
}

fn data() -> impl Strategy<Value = Vec<(Stream, Vec<u8>)>> {
    let streams = vec![Stream::Stdin, Stream::Stdout, Stream::Stderr];
    proptest::collection::vec((select(streams), bytes()), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_on_any_stream_split_anyhow_read_back(data in data(), chunks in 1..9_usize) {
        let key = SigningKey::generate();
        let mut opening = opening(false);
        opening.settings.keystrokes = true;
        let files = record(&opening, &data, chunks, Some(&key));
        for of in [Stream::Stdin, Stream::Stdout, Stream::Stderr] {
            prop_assert_eq!(stream(&files, of, &Identities::none()), sent(&data, of));
        }
        is_complete(&files, &key, &Identities::none(), true);
    }

    #[test]
    fn a_terminal_reads_back_and_its_input_is_not_there(data in data(), chunks in 1..9_usize) {
        let data: Vec<_> = data.into_iter().filter(|(of, _)| *of != Stream::Stderr).collect();
        let key = SigningKey::generate();
        let files = record(&opening(true), &data, chunks, Some(&key));
        prop_assert_eq!(stream(&files, Stream::Stdout, &Identities::none()), sent(&data, Stream::Stdout));
        prop_assert!(stream(&files, Stream::Stdin, &Identities::none()).is_empty());
        is_complete(&files, &key, &Identities::none(), true);
    }
}

#[test]
fn an_ordinary_zstd_makes_an_asciicast_of_the_segments() {
    let data: Vec<_> = (0..20_u8)
        .map(|n| (Stream::Stdout, format!("line {n}\r\n").into_bytes()))
        .collect();
    let files = record(&opening(true), &data, 3, None);
    assert_eq!(files.0.len(), 7);
    let all: Vec<u8> = files.0.values().flatten().copied().collect();
    let mut cast = String::new();
    zstd::stream::read::Decoder::new(&all[..])
        .unwrap()
        .read_to_string(&mut cast)
        .unwrap();
    let mut lines = cast.lines();
    let head: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(head["version"], 2);
    let output: String = lines
        .map(|line| serde_json::from_str::<(f64, String, String)>(line).unwrap())
        .filter(|(_, code, _)| code == "o")
        .map(|(_, _, text)| text)
        .collect();
    assert_eq!(output.as_bytes(), sent(&data, Stream::Stdout));
}

#[test]
fn only_the_recipient_reads_an_encrypted_recording_and_everybody_verifies_it() {
    const CANARY: &str = "canary-5c1a";
    let (reader, stranger) = (
        age::x25519::Identity::generate(),
        age::x25519::Identity::generate(),
    );
    let identities = |identity: &age::x25519::Identity| {
        use age::secrecy::ExposeSecret;
        Identities::parse(&format!(
            "# a key\n{}\n",
            identity.to_string().expose_secret()
        ))
        .unwrap()
    };
    let mut opening = opening(true);
    opening.settings.recipients = vec![reader.to_public().to_string()];
    let key = SigningKey::generate();
    let data: Vec<_> = (0..10)
        .map(|_| (Stream::Stdout, CANARY.as_bytes().to_vec()))
        .collect();
    let files = record(&opening, &data, 4, Some(&key));
    let all: Vec<u8> = files.0.values().flatten().copied().collect();
    assert_eq!(memchr::memmem::find(&all, CANARY.as_bytes()), None);
    let mut cast = Vec::new();
    zstd::stream::read::Decoder::new(&all[..all.len() - files.0["manifest.json"].len()])
        .unwrap()
        .read_to_end(&mut cast)
        .unwrap();
    assert!(cast.is_empty());

    is_complete(&files, &key, &Identities::none(), false);
    is_complete(&files, &key, &identities(&reader), true);
    assert_eq!(
        stream(&files, Stream::Stdout, &identities(&reader)),
        CANARY.repeat(10).into_bytes()
    );
    let stranger = identities(&stranger);
    let mut events = Reader::new(&files, &stranger);
    assert!(events.next().unwrap().is_err());
    assert!(events.next().is_none());
}

#[test]
fn what_is_typed_without_echo_is_nowhere_in_the_files() {
    const CANARY: &str = "hunter2-e1f0";
    let mut opening = opening(true);
    opening.settings.keystrokes = true;
    let mut data = vec![(Stream::Stdout, b"Password: ".to_vec())];
    data.extend(CANARY.bytes().map(|key| (Stream::Stdin, vec![key])));
    data.push((Stream::Stdin, b"\r".to_vec()));
    data.push((Stream::Stdout, b"\r\n$ ".to_vec()));
    for key in b"id" {
        data.push((Stream::Stdin, vec![*key]));
        data.push((Stream::Stdout, vec![*key]));
    }
    data.push((Stream::Stdin, b"\r".to_vec()));
    let files = record(&opening, &data, 100, None);
    assert_eq!(stream(&files, Stream::Stdin, &Identities::none()), b"id\r");
    let all: Vec<u8> = files.0.values().flatten().copied().collect();
    let mut cast = Vec::new();
    zstd::stream::read::Decoder::new(&all[..])
        .unwrap()
        .read_to_end(&mut cast)
        .unwrap();
    for length in 3..CANARY.len() {
        assert_eq!(
            memchr::memmem::find(&cast, &CANARY.as_bytes()[..length]),
            None
        );
    }
    assert!(memchr::memmem::find(&cast, br#""h","13""#).is_some());
}
