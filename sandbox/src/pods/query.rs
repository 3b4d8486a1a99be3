//! What the query of an exec, attach or log asks for, in the API server's dialect and in the kubelet's. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::status::{Cause, Failure};

/// Who reads the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    ApiServer,
    Kubelet,
}

/// Streams asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the parameters are")]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Streams {
    pub(super) fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// A parsed query.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// As Go's `url.ParseQuery`: a parameter with a bare `;` is dropped.
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query
            .split('&')
            .filter(|pair| !pair.contains(';'))
            .flat_map(|pair| form_urlencoded::parse(pair.as_bytes()).into_owned());
        Self(pairs.collect())
    }

    /// The first value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// `command`, in order.
    pub(super) fn command(&self) -> Vec<String> {
        let words = self.0.iter().filter(|(key, _)| key == "command");
        words.map(|(_, word)| word.clone()).collect()
    }

    /// The API server: false only for `0`, `false` and nothing.
    fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// Streams asked for; a terminal has no standard error of its own.
    pub(super) fn streams(&self, dialect: Dialect) -> Streams {
        let one = |name| self.get(name) == Some("1");
        let mut streams = match dialect {
            Dialect::ApiServer => Streams {
                stdin: self.flag("stdin"),
                stdout: self.flag("stdout"),
                stderr: self.flag("stderr"),
                tty: self.flag("tty"),
            },
            Dialect::Kubelet => Streams {
                stdin: one("input"),
                stdout: one("output"),
                stderr: one("error"),
                tty: one("tty"),
            },
        };
        streams.stderr &= !streams.tty;
        streams
    }

    /// What of a log is asked for.
    ///
    /// # Errors
    /// 400 for what is no number or time, 422 for what is negative or contradicts itself.
    pub(super) fn logs(&self, now: Timestamp) -> Result<Logs, Failure> {
        let number = |name: &str| -> Result<Option<u64>, Failure> {
            let Some(text) = self.get(name) else {
                return Ok(None);
            };
            let value: i64 = text.parse().map_err(|_| {
                Failure::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            })?;
            let least = i64::from(name != "tailLines");
            if value < least {
                let message = if least == 0 {
                    format!("Invalid value: {value}: must be greater than or equal to 0")
                } else {
                    format!("Invalid value: {value}: must be greater than 0")
                };
                return Err(invalid(name, message));
            }
            Ok(u64::try_from(value).ok())
        };
        let mut since = None;
        if let Some(seconds) = number("sinceSeconds")? {
            let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            since = Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN));
        }
        if let Some(time) = self.get("sinceTime") {
            if since.is_some() {
                let message =
                    "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified";
                return Err(invalid("sinceSeconds", message.to_owned()));
            }
            since = Some(
                time.parse()
                    .map_err(|error| Failure::bad_request(format!("{error}")))?,
            );
        }
        Ok(Logs {
            follow: self.flag("follow"),
            previous: self.flag("previous"),
            timestamps: self.flag("timestamps"),
            tail: number("tailLines")?,
            limit: number("limitBytes")?,
            since,
        })
    }
}

fn invalid(field: &str, message: String) -> Failure {
    let cause = Cause {
        reason: "FieldValueInvalid",
        field: field.to_owned(),
        message,
    };
    Failure::invalid("", "PodLogOptions", "", &[cause])
}

/// What of a log is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Logs {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    /// Only the last so many lines.
    pub(super) tail: Option<u64>,
    /// At most so many bytes.
    pub(super) limit: Option<u64>,
    /// Only what was written then or later.
    pub(super) since: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_takes_anything_but_0_and_false_for_true() {
        for (value, expected) in [
            ("true", true),
            ("", true),
            ("yes", true),
            ("0", false),
            ("False", false),
        ] {
            let query = Query::parse(&format!("stdin={value}"));
            assert_eq!(query.streams(Dialect::ApiServer).stdin, expected, "{value}");
        }
        assert!(!Query::parse("stdout=1").streams(Dialect::ApiServer).stdin);
    }

    #[test]
    fn the_kubelet_takes_only_1_for_true() {
        let streams = |query| Query::parse(query).streams(Dialect::Kubelet);
        assert!(!streams("input=true&output=true").any());
        assert!(streams("input=1").stdin);
        assert!(!streams("error=1&tty=1").stderr);
    }

    #[test]
    fn a_command_is_taken_word_by_word() {
        let query =
            Query::parse("command=echo&command=a%3Bb&command=&command=x+y&command=lost;really");
        assert_eq!(query.command(), ["echo", "a;b", "", "x y"]);
    }

    #[test]
    fn log_options_that_make_no_sense_are_refused() {
        let refused = |query| {
            let logs = Query::parse(query).logs(Timestamp::UNIX_EPOCH);
            logs.err().map(|failure| failure.code)
        };
        assert_eq!(refused("tailLines=x"), Some(400));
        assert_eq!(refused("tailLines=-1"), Some(422));
        assert_eq!(refused("limitBytes=0"), Some(422));
        assert_eq!(
            refused("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"),
            Some(422)
        );
        assert_eq!(refused("tailLines=0&limitBytes=1&follow=true"), None);
    }
}
