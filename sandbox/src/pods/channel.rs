//! Subprotocols of exec and attach: which one, what a frame means in it, and how the end is told. Pure.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Serialize;

use super::wire::{BINARY, TEXT};
use crate::release::Release;

/// Go's `base64.StdEncoding`: padding is required, stray bits at the end are not minded.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// v5: the next byte names a channel the client closes.
const CLOSE: u8 = 255;

/// A subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subprotocol {
    Unnamed,
    Channel,
    Base64,
    V4,
    V4Base64,
    V5,
}

/// Those of a container runtime, in no order: the client's counts.
const RUNTIME: [(Subprotocol, &str); 5] = [
    (Subprotocol::Unnamed, ""),
    (Subprotocol::Channel, "channel.k8s.io"),
    (Subprotocol::Base64, "base64.channel.k8s.io"),
    (Subprotocol::V4, "v4.channel.k8s.io"),
    (Subprotocol::V4Base64, "v4.base64.channel.k8s.io"),
];

const V5: &str = "v5.channel.k8s.io";

/// Whether v5 is offered anywhere: then a server that translates v5 does so, whatever else is offered.
pub(super) fn offers_v5(offer: &[&str]) -> bool {
    offer.contains(&V5)
}

/// The subprotocol to speak; `v5` for a server that translates it.
pub(super) fn choose(offer: &[&str], v5: bool) -> Option<(Subprotocol, &'static str)> {
    if v5 && offers_v5(offer) {
        return Some((Subprotocol::V5, V5));
    }
    offer
        .iter()
        .find_map(|name| RUNTIME.into_iter().find(|(_, known)| known == name))
}

/// What a client's frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Data for a channel below 5.
    Data(u8, std::borrow::Cow<'a, [u8]>),
    /// It closes a channel below 5.
    Closed(u8),
    /// Nothing that means anything.
    Nothing,
    /// Something after which the server ends the connection.
    Fault,
}

impl Subprotocol {
    /// What a frame says.
    pub(super) fn decode(self, frame: &[u8]) -> Said<'_> {
        let Some((&first, data)) = frame.split_first() else {
            return Said::Nothing;
        };
        if self == Self::V5 && first == CLOSE {
            return match data {
                [channel @ 0..=RESIZE] => Said::Closed(*channel),
                _ => Said::Fault,
            };
        }
        if !self.is_base64() {
            return match first {
                STDIN..=RESIZE => Said::Data(first, data.into()),
                _ => Said::Nothing,
            };
        }
        let channel = first.wrapping_sub(b'0');
        let digits: Vec<u8> = data
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect();
        match BASE64.decode(digits) {
            Ok(data) if channel <= RESIZE => Said::Data(channel, data.into()),
            _ => Said::Nothing,
        }
    }

    /// Opcode and payload of data on a channel.
    pub(super) fn encode(self, channel: u8, data: &[u8]) -> (u8, Vec<u8>) {
        if self.is_base64() {
            let mut text = String::with_capacity(1 + data.len().div_ceil(3) * 4);
            text.push(char::from(b'0' + channel));
            BASE64.encode_string(data, &mut text);
            (TEXT, text.into_bytes())
        } else {
            let mut frame = Vec::with_capacity(1 + data.len());
            frame.push(channel);
            frame.extend_from_slice(data);
            (BINARY, frame)
        }
    }

    fn is_base64(self) -> bool {
        matches!(self, Self::Base64 | Self::V4Base64)
    }

    /// What the error channel carries at the end; `None` for nothing at all.
    pub(super) fn report(self, end: &End, argv: &[String], release: Release) -> Option<Vec<u8>> {
        match self {
            Self::V5 => Some(translated(end)),
            Self::V4 | Self::V4Base64 => Some(from_runtime(end, argv, release)),
            _ => match end {
                End::Success => None,
                _ => Some(runtime_message(end, argv).into_bytes()),
            },
        }
    }
}

/// How an exec or attach ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Exit code 0, or the container attached to ended.
    Success,
    /// Another exit code.
    Exit(i32),
    /// The runtime failed, e.g. `error executing command in container: …`.
    Runtime(String),
    /// The server that translates v5 could not reach the runtime, e.g. `unable to upgrade connection: …`.
    Dial(String),
}

/// `metav1.Status`, its fields in the order Go writes them.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "they are Kubernetes'")]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Empty>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    message: &'a str,
}

fn write(metadata: bool, causes: bool, end: &End, message: &str, cause: &str) -> Vec<u8> {
    let failed = *end != End::Success;
    let exit = matches!(end, End::Exit(_));
    let status = Status {
        metadata: metadata.then_some(Empty {}),
        status: if failed { "Failure" } else { "Success" },
        message: failed.then_some(message),
        reason: match end {
            End::Success => None,
            End::Exit(_) => Some("NonZeroExitCode"),
            _ => Some("InternalError"),
        },
        details: (failed && (causes || exit)).then_some(Details {
            causes: [Cause {
                reason: exit.then_some("ExitCode"),
                message: cause,
            }],
        }),
        code: (failed && !exit).then_some(500),
    };
    let json = serde_json::to_string(&status).unwrap_or_default();
    // As Go's `encoding/json` does by default.
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    escapes
        .into_iter()
        .fold(json, |json, (plain, escaped)| json.replace(plain, escaped))
        .into_bytes()
}

/// As the translator writes it: the API server's from 1.30, the kubelet's from 1.36.
fn translated(end: &End) -> Vec<u8> {
    let internal = "Internal error occurred: ";
    let (message, cause) = match end {
        End::Success => (String::new(), String::new()),
        End::Exit(code) => (
            format!(
                "command terminated with non-zero exit code: command terminated with exit code {code}"
            ),
            code.to_string(),
        ),
        // The runtime's message has the prefix, and gets it again.
        End::Runtime(why) => (
            format!("{internal}{internal}{why}"),
            format!("{internal}{why}"),
        ),
        End::Dial(why) => (format!("{internal}{why}"), why.clone()),
    };
    write(true, true, end, &message, &cause)
}

/// As the runtime writes it: one of 1.36 leaves out `metadata` and the causes of internal errors.
fn from_runtime(end: &End, argv: &[String], release: Release) -> Vec<u8> {
    let old = release < Release::V1_36;
    let cause = match end {
        End::Success => String::new(),
        End::Exit(code) => code.to_string(),
        End::Runtime(why) | End::Dial(why) => why.clone(),
    };
    write(old, old, end, &runtime_message(end, argv), &cause)
}

fn runtime_message(end: &End, argv: &[String]) -> String {
    match end {
        End::Success => String::new(),
        End::Exit(code) => format!(
            "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
            argv.join(" ")
        ),
        End::Runtime(why) | End::Dial(why) => format!("Internal error occurred: {why}"),
    }
}

/// Reads sizes out of the bytes of the resize channel, as Go's `json.Decoder` does.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    rest: Vec<u8>,
    broken: bool,
}

/// Most that is kept of an object not yet whole.
const MAX_SIZE: usize = 64 << 10;

impl Sizes {
    /// The sizes (columns, rows) that are whole with these bytes; `Err` if nobody reads the channel any more, because of
    /// what came before.
    pub(super) fn add(&mut self, data: &[u8]) -> Result<Vec<(u16, u16)>, ()> {
        if self.broken {
            return Err(());
        }
        self.rest.extend_from_slice(data);
        let mut sizes = Vec::new();
        loop {
            let mut values =
                serde_json::Deserializer::from_slice(&self.rest).into_iter::<serde_json::Value>();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    match size(&value) {
                        Some(size) => sizes.push(size),
                        None => self.broken = true,
                    }
                    self.rest.drain(..used);
                }
                Some(Err(error)) if !error.is_eof() => self.broken = true,
                _ => break,
            }
            if self.broken {
                break;
            }
        }
        self.broken |= self.rest.len() > MAX_SIZE;
        Ok(sizes)
    }
}

/// Go's decoding into two `uint16`: names in any case, what is absent or `null` is 0.
fn size(value: &serde_json::Value) -> Option<(u16, u16)> {
    let empty = serde_json::Map::new();
    let fields = match value {
        serde_json::Value::Null => &empty,
        other => other.as_object()?,
    };
    let field = |name: &str| {
        let found = fields
            .iter()
            .rfind(|(key, _)| key.eq_ignore_ascii_case(name));
        match found {
            None | Some((_, serde_json::Value::Null)) => Some(0),
            Some((_, value)) => u16::try_from(value.as_u64()?).ok(),
        }
    };
    Some((field("Width")?, field("Height")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(protocol: Subprotocol, end: &End, release: Release) -> String {
        let argv = ["sh", "-c", "exit 3"].map(str::to_owned);
        let report = protocol.report(end, &argv, release).unwrap_or_default();
        String::from_utf8(report).unwrap()
    }

    #[test]
    fn the_end_is_told_in_each_releases_words() {
        let exit = End::Exit(3);
        let causes = r#""details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        let prose = "command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3";
        let translated =
            "command terminated with non-zero exit code: command terminated with exit code 3";
        for (protocol, release, expected) in [
            (
                Subprotocol::V5,
                Release::V1_36,
                format!(
                    r#"{{"metadata":{{}},"status":"Failure","message":"{translated}","reason":"NonZeroExitCode",{causes}"#
                ),
            ),
            (
                Subprotocol::V4,
                Release::V1_20,
                format!(
                    r#"{{"metadata":{{}},"status":"Failure","message":"{prose}","reason":"NonZeroExitCode",{causes}"#
                ),
            ),
            (
                Subprotocol::V4Base64,
                Release::V1_36,
                format!(
                    r#"{{"status":"Failure","message":"{prose}","reason":"NonZeroExitCode",{causes}"#
                ),
            ),
            (Subprotocol::Channel, Release::V1_36, prose.to_owned()),
        ] {
            assert_eq!(report(protocol, &exit, release), expected);
        }
    }

    #[test]
    fn success_is_told_from_v4_on_only() {
        let told = |protocol, release| report(protocol, &End::Success, release);
        let with_metadata = r#"{"metadata":{},"status":"Success"}"#;
        assert_eq!(told(Subprotocol::V5, Release::V1_36), with_metadata);
        assert_eq!(told(Subprotocol::V4, Release::V1_30), with_metadata);
        assert_eq!(
            told(Subprotocol::V4, Release::V1_36),
            r#"{"status":"Success"}"#
        );
        assert_eq!(told(Subprotocol::Unnamed, Release::V1_36), "");
    }

    #[test]
    fn an_internal_error_has_causes_only_where_the_server_writes_them() {
        let end = End::Runtime("no <such> thing".to_owned());
        assert_eq!(
            report(Subprotocol::V4, &end, Release::V1_36),
            r#"{"status":"Failure","message":"Internal error occurred: no \u003csuch\u003e thing","reason":"InternalError","code":500}"#
        );
        assert_eq!(
            report(Subprotocol::V5, &End::Dial("x".to_owned()), Release::V1_30),
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: x","reason":"InternalError","details":{"causes":[{"message":"x"}]},"code":500}"#
        );
    }

    #[test]
    fn the_clients_order_counts_unless_v5_is_translated() {
        let choose = |offer: &str, v5| {
            let offer: Vec<&str> = offer.split(", ").collect();
            choose(&offer, v5).map(|(protocol, _)| protocol)
        };
        let v4_v5 = "v4.channel.k8s.io, v5.channel.k8s.io";
        assert_eq!(choose(v4_v5, true), Some(Subprotocol::V5));
        assert_eq!(choose(v4_v5, false), Some(Subprotocol::V4));
        assert_eq!(choose("", true), Some(Subprotocol::Unnamed));
        assert_eq!(choose("v5.channel.k8s.io", false), None);
        assert_eq!(choose("v3.channel.k8s.io", true), None);
        assert_eq!(choose("v5.base64.channel.k8s.io", true), None);
        assert_eq!(
            choose("v4.base64.channel.k8s.io, channel.k8s.io", false),
            Some(Subprotocol::V4Base64)
        );
    }

    #[test]
    fn frames_are_understood_as_the_real_server_does() {
        let v4b = Subprotocol::V4Base64;
        let data = |channel, data: &[u8]| Said::Data(channel, data.to_vec().into());
        for (protocol, frame, said) in [
            (Subprotocol::V4, &b"\x00hi"[..], data(0, b"hi")),
            (Subprotocol::V4, b"\x05zz", Said::Nothing),
            (Subprotocol::V4, b"\xff\x00", Said::Nothing),
            (Subprotocol::V4, b"", Said::Nothing),
            (Subprotocol::V5, b"\xff\x00", Said::Closed(0)),
            (Subprotocol::V5, b"\xff", Said::Fault),
            (Subprotocol::V5, b"\xff\x00\x00", Said::Fault),
            (Subprotocol::V5, b"\xff\x05", Said::Fault),
            (v4b, b"0aGk=", data(0, b"hi")),
            (v4b, b"0aG\r\nk=", data(0, b"hi")),
            (v4b, b"0", data(0, b"")),
            (v4b, b"0YR==", data(0, b"a")),
            (v4b, b"0+/8=", data(0, b"\xfb\xff")),
            (v4b, b"0-_8=", Said::Nothing),
            (v4b, b"0aGkKCg", Said::Nothing),
            (v4b, b"0aG kK", Said::Nothing),
            (v4b, b"0aA==aQ==", Said::Nothing),
            (v4b, b"/aGkK", Said::Nothing),
        ] {
            assert_eq!(protocol.decode(frame), said, "{protocol:?} {frame:?}");
        }
    }

    #[test]
    fn sizes_are_read_until_one_is_malformed() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.add(br#"{"Width":80,"#), Ok(vec![]));
        assert_eq!(
            sizes.add(b"\"height\":24,\"x\":[]}\n{\"width\":81}"),
            Ok(vec![(80, 24), (81, 0)])
        );
        assert_eq!(sizes.add(b"null"), Ok(vec![(0, 0)]));
        for bad in [
            &b"not json"[..],
            br#"{"Width":70000}"#,
            br#"{"Width":-1}"#,
            br#"{"Width":80.5}"#,
            br#"{"Width":"80"}"#,
            b"[80,24]",
        ] {
            let mut sizes = Sizes::default();
            assert_eq!(sizes.add(bad), Ok(vec![]), "{bad:?}");
            assert_eq!(sizes.add(br#"{"Width":1,"Height":1}"#), Err(()), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn sizes_come_out_the_same_however_the_bytes_are_split(
            expected in prop::collection::vec((1u16.., 1u16..), 1..4), cut in any::<prop::sample::Index>()) {
            let text: Vec<String> = expected.iter().map(|(w, h)| format!("{{\"Width\":{w},\"Height\":{h}}}\n")).collect();
            let text = text.concat();
            let (head, tail) = text.as_bytes().split_at(cut.index(text.len()));
            let mut sizes = Sizes::default();
            let mut found = sizes.add(head).unwrap();
            found.extend(sizes.add(tail).unwrap());
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn what_is_encoded_decodes_again(channel in 0u8..4, data: Vec<u8>) {
            for protocol in [Subprotocol::Unnamed, Subprotocol::Base64, Subprotocol::V4, Subprotocol::V4Base64, Subprotocol::V5] {
                let (_, frame) = protocol.encode(channel, &data);
                prop_assert_eq!(protocol.decode(&frame), Said::Data(channel, data.clone().into()));
            }
        }
    }
}
