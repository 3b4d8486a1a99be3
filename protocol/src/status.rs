//! How a session ended: the Kubernetes `Status` object, read leniently and written small.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest `Status` we write, in bytes: gorilla, and so kubectl, reads no more of a refused handshake's body.
pub const MAX_JSON: usize = 1024;

/// The `Status` of success, as the API server writes it on channel 3.
pub const SUCCESS: &[u8] = br#"{"metadata":{},"status":"Success"}"#;

/// What stands for the rest of a message that was cut to fit [`MAX_JSON`].
const CUT: &str = "...";

/// Prefix that Kubernetes gives the message of an internal error.
const INTERNAL: &str = "Internal error occurred: ";

/// The machine-readable reason of a failure, with the names Kubernetes uses (`metav1.StatusReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Reason {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 410: it was there and has ended.
    Gone,
    /// 413
    RequestEntityTooLarge,
    /// 429
    TooManyRequests,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
    /// 504
    Timeout,
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Gone => 410,
            Self::RequestEntityTooLarge => 413,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// A failure that we tell. There is no way to make a success of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    message: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A reason and an HTTP code.
    Plain(Reason, u16),
    /// The same as `Plain(InternalError, 500)`, in Kubernetes' form: a prefix, and the message again as a cause.
    Internal,
    /// The process ended with this code.
    Exit(u32),
}

impl Status {
    /// A failure with the HTTP code that goes with `reason`. The message is for people; it says what to do.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::Plain(reason, reason.code()),
        }
    }

    /// The same failure under another HTTP code, e.g. 502 with [`Reason::InternalError`]. No effect on an exit code.
    #[must_use]
    pub fn with_code(mut self, code: u16) -> Self {
        self.kind = match self.kind {
            Kind::Plain(reason, _) => Kind::Plain(reason, code),
            Kind::Internal => Kind::Plain(Reason::InternalError, code),
            exit @ Kind::Exit(_) => exit,
        };
        self
    }

    /// Something failed that is nobody's request's fault, in the form of Kubernetes' `NewInternalError`.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::Internal,
        }
    }

    /// The process ended with a code other than 0. `message` says so in words.
    pub(crate) fn exit(code: u32, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::Exit(code),
        }
    }

    /// The HTTP status code for a refusal with this status.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self.kind {
            Kind::Plain(_, code) => code,
            Kind::Internal | Kind::Exit(_) => 500,
        }
    }

    /// The message as a client shows it, uncut.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        match self.kind {
            Kind::Internal => Cow::Owned(format!("{INTERNAL}{}", self.message)),
            Kind::Plain(..) | Kind::Exit(_) => Cow::Borrowed(&self.message),
        }
    }

    /// The object for channel 3. At most [`MAX_JSON`] bytes: a longer message is cut.
    #[must_use]
    pub fn channel_json(&self) -> Vec<u8> {
        self.fit(Envelope {
            kind: None,
            api_version: None,
        })
    }

    /// The object for an HTTP body, with `kind` and `apiVersion`. At most [`MAX_JSON`] bytes: a longer message is cut.
    #[must_use]
    pub fn http_json(&self) -> Vec<u8> {
        self.fit(Envelope {
            kind: Some("Status"),
            api_version: Some("v1"),
        })
    }

    fn fit(&self, envelope: Envelope) -> Vec<u8> {
        let whole = self.write(envelope, &self.message);
        if whole.len() <= MAX_JSON {
            return whole;
        }
        if self.kind == Kind::Internal {
            // The cause says the same again: rather half the form than half the message.
            return Self::new(Reason::InternalError, self.message()).fit(envelope);
        }
        let room = MAX_JSON - self.write(envelope, CUT).len();
        let mut used = 0;
        let end = self.message.char_indices().find(|(_, character)| {
            used += escaped_len(*character);
            used > room
        });
        let end = end.map_or(self.message.len(), |(at, _)| at);
        self.write(envelope, &format!("{}{CUT}", &self.message[..end]))
    }

    fn write(&self, envelope: Envelope, message: &str) -> Vec<u8> {
        let cause = match self.kind {
            Kind::Plain(..) => None,
            Kind::Internal => Some(Cause {
                reason: None,
                message: Cow::Borrowed(message),
            }),
            Kind::Exit(code) => Some(Cause {
                reason: Some("ExitCode"),
                message: Cow::Owned(code.to_string()),
            }),
        };
        let (reason, code) = match self.kind {
            Kind::Plain(reason, code) => (Some(reason), Some(code)),
            Kind::Internal => (Some(Reason::InternalError), Some(500)),
            Kind::Exit(_) => (None, None),
        };
        let body = Body {
            envelope,
            metadata: Metadata {},
            status: "Failure",
            message: match self.kind {
                Kind::Internal => Cow::Owned(format!("{INTERNAL}{message}")),
                Kind::Plain(..) | Kind::Exit(_) => Cow::Borrowed(message),
            },
            reason: reason.map_or(ReasonName::NonZeroExitCode, ReasonName::Plain),
            details: cause.map(|cause| Details { causes: [cause] }),
            code,
        };
        serde_json::to_vec(&body).expect("strings and numbers are always JSON")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message())
    }
}

/// Bytes that `serde_json` writes for a character inside a string.
fn escaped_len(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    envelope: Envelope,
    metadata: Metadata,
    status: &'static str,
    message: Cow<'a, str>,
    reason: ReasonName,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
}

/// Always `{}`: containerd and the API server write it, older clients expect it.
#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
enum ReasonName {
    NonZeroExitCode,
    #[serde(untagged)]
    Plain(Reason),
}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: Cow<'a, str>,
}

/// What a `Status` from a peer says. Made from the bytes, which stay what is forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The process ended with 0, or an attach ended.
    Success,
    /// The process ended with this code, never 0. On Windows it may exceed 255.
    Exit {
        /// The process's own code; 128 + n if signal n killed it.
        code: u32,
        /// The same in words.
        message: String,
    },
    /// It did not run, or nobody knows how it ended.
    Failure {
        /// The reason as the peer wrote it; empty if it gave none.
        reason: String,
        /// In words; empty if it gave none.
        message: String,
    },
}

/// The fields of a `Status` that we read; all but `status` may be missing or null.
#[derive(Deserialize)]
struct Object {
    status: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    details: Option<ObjectDetails>,
}

#[derive(Deserialize)]
struct ObjectDetails {
    #[serde(default)]
    causes: Option<Vec<ObjectCause>>,
}

#[derive(Deserialize)]
struct ObjectCause {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Received {
    /// Reads one `Status` object. `metadata`, `kind`, `code` and whatever else there is are not looked at: servers
    /// differ in them. `None` if the bytes are no JSON object with a `status` of `Success` or `Failure`.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let object: Object = serde_json::from_slice(json).ok()?;
        let message = object.message.unwrap_or_default();
        let reason = object.reason.unwrap_or_default();
        match object.status.as_str() {
            "Success" => Some(Self::Success),
            "Failure" => {
                let causes = object
                    .details
                    .and_then(|details| details.causes)
                    .unwrap_or_default();
                let code = if reason == "NonZeroExitCode" {
                    exit_cause(&causes)
                } else {
                    None
                };
                Some(match code {
                    Some(code) => Self::Exit { code, message },
                    None => Self::Failure { reason, message },
                })
            }
            _ => None,
        }
    }

    /// Reads what a server without JSON statuses says on channel 3: words, which may end in an exit code.
    #[must_use]
    pub fn from_prose(text: &[u8]) -> Self {
        let message = String::from_utf8_lossy(text).into_owned();
        match prose_exit_code(&message) {
            Some(code) => Self::Exit { code, message },
            None => Self::Failure {
                reason: "InternalError".to_owned(),
                message,
            },
        }
    }

    /// The words for a client that gets no JSON; `None` for success, which such a client is not told.
    #[must_use]
    pub fn prose(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Success => None,
            Self::Exit { code, message } if message.is_empty() => Some(Cow::Owned(format!(
                "command terminated with exit code {code}"
            ))),
            Self::Failure { reason, message } if message.is_empty() => Some(Cow::Owned(format!(
                "{INTERNAL}{}",
                if reason.is_empty() {
                    "no reason given"
                } else {
                    reason
                }
            ))),
            Self::Exit { message, .. } | Self::Failure { message, .. } => {
                Some(Cow::Borrowed(message))
            }
        }
    }
}

/// Kubernetes names the field of a cause that holds its type `reason`.
fn exit_cause(causes: &[ObjectCause]) -> Option<u32> {
    let cause = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
    decimal(cause.message.as_deref()?)
}

/// `… exit code 3`, `… exit status 3` (containerd and others) or `… Container: 3` (dockershim) at the end.
fn prose_exit_code(text: &str) -> Option<u32> {
    let text = text.trim_end();
    let words = text.trim_end_matches(|character: char| character.is_ascii_digit());
    let before = words.trim_end();
    let named = ["exit code", "exit status", "Container:"]
        .iter()
        .any(|name| before.ends_with(name));
    if named {
        decimal(&text[words.len()..])
    } else {
        None
    }
}

/// A code that says failure: clients take a failure with code 0 for success.
fn decimal(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|code| plain && *code != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn text(json: Vec<u8>) -> String {
        String::from_utf8(json).expect("JSON is UTF-8")
    }

    #[test]
    fn our_own_failures_have_kubernetes_forms() {
        assert_eq!(
            text(Status::internal("boom").channel_json()),
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: boom","reason":"InternalError","details":{"causes":[{"message":"boom"}]},"code":500}"#
        );
        assert_eq!(
            text(Status::exit(3, "exit code 3").channel_json()),
            r#"{"metadata":{},"status":"Failure","message":"exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
        assert_eq!(
            text(Status::new(Reason::Unauthorized, "Unauthorized").http_json()),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#
        );
        let bad_gateway = Status::internal("no subprotocol").with_code(502);
        assert_eq!(bad_gateway.code(), 502);
        assert!(text(bad_gateway.http_json()).ends_with(r#""reason":"InternalError","code":502}"#));
    }

    #[test]
    fn what_servers_send_is_read_whatever_they_leave_out() {
        let failure = |reason: &str, message: &str| Received::Failure {
            reason: reason.into(),
            message: message.into(),
        };
        let exit = |code, message: &str| Received::Exit {
            code,
            message: message.into(),
        };
        for (json, expected) in [
            (r#"{"status":"Success"}"#, Some(Received::Success)),
            (
                r#"{"kind":"Status","apiVersion":"v1","metadata":null,"status":"Success","x":[1]}"#,
                Some(Received::Success),
            ),
            (
                r#"{"status":"Failure","message":"m","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
                Some(exit(3, "m")),
            ),
            (
                r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"message":"7"},{"reason":"ExitCode","message":"3221225786"}]}}"#,
                Some(exit(3_221_225_786, "")),
            ),
            (
                r#"{"status":"Failure","message":"m","reason":"InternalError","details":{"causes":[{"reason":"ExitCode","message":"3"}]},"code":500}"#,
                Some(failure("InternalError", "m")),
            ),
            (r#"{"status":"Failure"}"#, Some(failure("", ""))),
            (
                r#"{"status":"Failure","reason":null,"details":null,"message":null}"#,
                Some(failure("", "")),
            ),
            (
                r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":null}}"#,
                Some(failure("NonZeroExitCode", "")),
            ),
            (r#"{"status":"Unknown"}"#, None),
            (r#"{"status":"success"}"#, None),
            (r#"{"metadata":{}}"#, None),
            ("[]", None),
            ("", None),
            ("command terminated", None),
            (r#"{"status":"Success"}{"status":"Failure"}"#, None),
        ] {
            assert_eq!(Received::parse(json.as_bytes()), expected, "{json}");
        }
        for code in ["0", "-1", "+3", "", "3.0", " 3", "4294967296", "x"] {
            let json = format!(
                r#"{{"status":"Failure","reason":"NonZeroExitCode","details":{{"causes":[{{"reason":"ExitCode","message":"{code}"}}]}}}}"#
            );
            assert_eq!(
                Received::parse(json.as_bytes()),
                Some(failure("NonZeroExitCode", "")),
                "{code}"
            );
        }
    }

    #[test]
    fn exit_codes_are_found_at_the_end_of_prose_only() {
        for (prose, code) in [
            (
                "command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3",
                Some(3),
            ),
            ("command terminated with exit code 137\n", Some(137)),
            ("process exited with exit status 2", Some(2)),
            ("Error executing in Docker Container: 126", Some(126)),
            ("exit code7", Some(7)),
            ("exit code 0", None),
            ("exit code", None),
            ("exit code 3 or so", None),
            ("exit code 99999999999", None),
            ("exit code -3", None),
            ("code 3", None),
            ("", None),
        ] {
            let received = Received::from_prose(prose.as_bytes());
            let found = if let Received::Exit { code, .. } = received {
                Some(code)
            } else {
                None
            };
            assert_eq!(found, code, "{prose}");
        }
        assert!(matches!(
            Received::from_prose(b"\xff exit code 4"),
            Received::Exit { code: 4, .. }
        ));
    }

    #[test]
    fn a_failure_without_words_still_says_something() {
        for json in [
            r#"{"status":"Failure"}"#,
            r#"{"status":"Failure","reason":"Timeout"}"#,
            r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
        ] {
            let received = Received::parse(json.as_bytes()).expect("a status");
            assert!(
                received.prose().is_some_and(|prose| prose.len() > 10),
                "{json}"
            );
        }
        assert_eq!(Received::Success.prose(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_status_fits_and_keeps_as_much_of_its_message_as_it_can(message in "(?s)[a\"\\\\\n\u{1}é€😀]{0,1500}", form in 0..3) {
            let status = match form {
                0 => Status::internal(message.clone()),
                1 => Status::new(Reason::Forbidden, message.clone()),
                _ => Status::exit(7, message.clone()),
            };
            for json in [status.channel_json(), status.http_json()] {
                prop_assert!(json.len() <= MAX_JSON, "{}", json.len());
                let value: Value = serde_json::from_slice(&json).expect("JSON");
                let shown = value["message"].as_str().expect("a message");
                if shown != status.message() {
                    let kept = shown.strip_suffix(CUT).expect("marked as cut");
                    prop_assert!(status.message().starts_with(kept));
                    prop_assert!(json.len() > MAX_JSON - 6, "cut too much: {}", json.len());
                }
            }
        }

        #[test]
        fn what_we_write_is_read_back_as_it_was_meant(message in "[ -~]{0,80}", code in 1u32..) {
            prop_assert_eq!(
                Received::parse(&Status::exit(code, message.clone()).channel_json()),
                Some(Received::Exit { code, message: message.clone() })
            );
            prop_assert_eq!(
                Received::parse(&Status::new(Reason::Gone, message.clone()).http_json()),
                Some(Received::Failure { reason: "Gone".into(), message })
            );
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Received::parse(&bytes);
            let _ = Received::from_prose(&bytes).prose();
        }
    }
}
