//! What the query of an exec, attach or log asks for, in the API server's words or in the kubelet's. Pure.

use crate::status::Failure;

/// Streams asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the parameters are")]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    /// Never with a terminal.
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Streams {
    pub(super) fn none(self) -> bool {
        !(self.stdin || self.stdout || self.stderr)
    }
}

/// A parsed query.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// As Go's `url.ParseQuery`: a parameter with a bare `;` is dropped.
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.contains(';'));
        let parse = |pair: &str| form_urlencoded::parse(pair.as_bytes()).into_owned().next();
        Self(pairs.filter_map(parse).collect())
    }

    /// The first value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// A number.
    ///
    /// # Errors
    /// 400 if it is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, Failure> {
        let number = self.get(name).map(str::parse).transpose();
        number.map_err(|error| Failure::bad_request(format!("{name}: {error}")))
    }

    /// `command`, in order.
    pub(super) fn command(&self) -> Vec<String> {
        let words = self.0.iter().filter(|(key, _)| key == "command");
        words.map(|(_, word)| word.clone()).collect()
    }

    /// False only for `0`, `false` and nothing.
    pub(super) fn flag(&self, name: &str) -> bool {
        let value = self.get(name);
        value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// Streams asked for. The kubelet has names of its own and takes only `1` for true.
    pub(super) fn streams(&self, kubelet: bool) -> Streams {
        let asked = |name, kubelets| {
            if kubelet {
                self.get(kubelets) == Some("1")
            } else {
                self.flag(name)
            }
        };
        let tty = asked("tty", "tty");
        Streams {
            stdin: asked("stdin", "input"),
            stdout: asked("stdout", "output"),
            stderr: !tty && asked("stderr", "error"),
            tty,
        }
    }
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
            assert_eq!(query.streams(false).stdin, expected, "{value}");
        }
        assert!(!Query::parse("stdout=1").streams(false).stdin);
    }

    #[test]
    fn the_kubelet_takes_only_1_for_true() {
        let streams = |query| Query::parse(query).streams(true);
        assert_eq!(streams("input=true&output=true"), Streams::default());
        assert!(streams("input=1").stdin);
        assert!(!streams("error=1&tty=1").stderr);
    }

    #[test]
    fn a_command_is_taken_word_by_word() {
        let query =
            Query::parse("command=echo&command=a%3Bb&command=&command=x+y&command=lost;really");
        assert_eq!(query.command(), ["echo", "a;b", "", "x y"]);
    }
}
