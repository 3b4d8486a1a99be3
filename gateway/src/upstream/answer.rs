//! What an upstream says instead of 101, told to the client in a form it can read. Pure.

use bytes::Bytes;
use serde::Deserialize;

use super::DialError;
use crate::refusal::{Kind, Refusal};

/// Most characters of an upstream's words that are passed on.
const MAX_WORDS: usize = 700;

/// An answer other than the one hoped for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// Body, bounded by whoever read it; empty if it could not be read.
    pub body: Bytes,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

/// The fields of a `Status` that decide what is passed on.
#[derive(Deserialize)]
struct Status {
    status: Option<String>,
    #[serde(default)]
    message: String,
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        let refusal = refuse(&answer);
        match answer.retry_after {
            Some(seconds) => refusal.retry_after(seconds),
            None => refusal,
        }
    }
}

fn refuse(Answer { code, body, .. }: &Answer) -> Refusal {
    let status = serde_json::from_slice::<Status>(body)
        .ok()
        .filter(|status| status.status.as_deref() == Some("Failure"));
    match (code, status) {
        // Not the client's credential: telling 401 would send its user looking for another token.
        (401, _) => failed("the upstream does not accept the gateway's own credentials")
            .because(words(body)),
        (400..=599, Some(status)) => Refusal::new(Kind::UpstreamRefused, status.message)
            .with_code(*code)
            .verbatim(body.clone()),
        // How exec servers say that they know none of the subprotocols; nobody was forbidden anything.
        (403, None) if body.is_empty() => {
            failed("the upstream speaks none of the subprotocols it was offered, or none at all")
        }
        // A kubelet's words for "the gateway may not": about its own account, not the client's.
        (403, None) => {
            failed("the upstream does not allow the gateway to do this").because(words(body))
        }
        (400 | 404 | 410 | 429 | 500..=599, None) => {
            let words = words(body);
            let message = if words.is_empty() {
                format!("the upstream answered {code} without a word")
            } else {
                words
            };
            Refusal::new(Kind::UpstreamRefused, message).with_code(*code)
        }
        _ => failed(format!("the upstream answered {code} instead of 101")).because(words(body)),
    }
}

fn failed(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Kind::UpstreamFailed, message)
}

/// A text body, cut to [`MAX_WORDS`], without control characters: it ends up on a terminal.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim()
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(MAX_WORDS)
        .collect()
}

impl From<DialError> for Refusal {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Answered(answer) => answer.into(),
            DialError::Replaced { .. } => Self::new(Kind::NotGranted, error.to_string()),
            DialError::TooLong => Self::new(
                Kind::TooLong,
                "the command is too long once it is written as a URL",
            ),
            DialError::Timeout => {
                Self::new(Kind::UpstreamTimeout, error.to_string()).because(error)
            }
            DialError::Connect { .. } => failed("the upstream cannot be reached").because(error),
            DialError::Tls { .. } => {
                failed("the upstream's certificate cannot be trusted, or TLS failed").because(error)
            }
            DialError::Credentials(_) => {
                failed("the gateway cannot read its own credentials").because(error)
            }
            DialError::Lookup { .. } => {
                failed("the API server could not be asked about the pod").because(error)
            }
            DialError::NoAddress(_) => {
                failed("the pod's node has no address to connect to").because(error)
            }
            DialError::Unwritable(_)
            | DialError::Http(_)
            | DialError::Handshake(_)
            | DialError::Subprotocol(_) => {
                failed("the upstream did not answer as an exec server does").because(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::refusal::tests::json;

    fn answer(code: u16, body: &str) -> Refusal {
        Answer {
            code,
            body: Bytes::copy_from_slice(body.as_bytes()),
            retry_after: None,
        }
        .into()
    }

    #[tokio::test]
    async fn a_status_is_told_as_it_is_and_words_become_one() {
        let own = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"web\" not found","reason":"NotFound","details":{"name":"web","kind":"pods"},"code":404}"#;
        for (code, body, told, message) in [
            (404, own, 404, r#"pods "web" not found"#),
            (
                500,
                "container not found (\"app\")\n",
                500,
                r#"container not found ("app")"#,
            ),
            (
                400,
                "you must specify at least 1 of stdin, stdout, stderr",
                400,
                "you must specify at least 1 of stdin, stdout, stderr",
            ),
            (404, "pod does not exist", 404, "pod does not exist"),
            (500, "", 500, "the upstream answered 500 without a word"),
            (
                403,
                "",
                502,
                "the upstream speaks none of the subprotocols it was offered, or none at all",
            ),
            (
                403,
                "Forbidden (user=u, verb=get)",
                502,
                "the upstream does not allow the gateway to do this",
            ),
            (
                401,
                own,
                502,
                "the upstream does not accept the gateway's own credentials",
            ),
            (
                405,
                "Debug endpoints are disabled.",
                502,
                "the upstream answered 405 instead of 101",
            ),
            (200, "{}", 502, "the upstream answered 200 instead of 101"),
            (301, "", 502, "the upstream answered 301 instead of 101"),
            (500, "a\u{1b}[2Jb", 500, "a [2Jb"),
        ] {
            let response = answer(code, body).response();
            assert_eq!(response.status().as_u16(), told, "{code} {body}");
            let status = json(response).await;
            assert_eq!(
                (&status["message"], &status["code"]),
                (&message.into(), &told.into()),
                "{code} {body}"
            );
        }
        let kept = answer(404, own).response();
        let kept = http_body_util::BodyExt::collect(kept.into_body())
            .await
            .expect("in memory")
            .to_bytes();
        assert_eq!(kept, own.as_bytes());
    }

    #[tokio::test]
    async fn a_status_too_long_for_clients_keeps_its_code_and_the_start_of_its_message() {
        let long = format!(
            r#"{{"kind":"Status","status":"Failure","message":"{}","code":403}}"#,
            "x".repeat(3000)
        );
        let status = json(answer(403, &long).response()).await;
        assert_eq!(
            (&status["code"], &status["reason"]),
            (&403.into(), &"Forbidden".into())
        );
        assert!(
            status["message"]
                .as_str()
                .expect("text")
                .starts_with("xxxx")
        );
    }

    #[test]
    fn retry_after_is_passed_on() {
        let busy = Answer {
            code: 429,
            body: "too many requests".into(),
            retry_after: Some(60),
        };
        assert_eq!(
            Refusal::from(busy).response().headers()["retry-after"],
            "60"
        );
    }

    #[test]
    fn a_replaced_pod_is_forbidden_not_an_error_of_ours() {
        assert_eq!(
            Refusal::from(DialError::Replaced { pod: "web".into() }).code(),
            403
        );
        assert_eq!(Refusal::from(DialError::Timeout).code(), 504);
        assert_eq!(Refusal::from(DialError::TooLong).code(), 414);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_tell_a_success(code in 100u16..600, body in prop::collection::vec(any::<u8>(), 0..300)) {
            let response = Refusal::from(Answer { code, body: body.into(), retry_after: None }).response();
            prop_assert!(response.status().is_client_error() || response.status().is_server_error());
        }
    }
}
