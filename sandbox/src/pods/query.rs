//! What the query of an exec, attach or log asks for, in the API server's words or in the kubelet's. Pure.

use crate::status::Failure;

/// An exec or attach that is asked for.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the parameters are")]
pub(super) struct Ask {
    pub(super) attach: bool,
    pub(super) command: Vec<String>,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    /// Never with a terminal.
    pub(super) stderr: bool,
    pub(super) tty: bool,
    /// Whether the API server speaks v5 in place of the node: it upgrades before it asks the node, so that refusals come
    /// in the stream, and calls it a success when the kubelet dies (kubernetes/kubectl#1726).
    pub(super) translated: bool,
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

    /// False only for `0`, `false` and nothing.
    pub(super) fn flag(&self, name: &str) -> bool {
        let value = self.get(name);
        value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// The exec or attach asked for. The kubelet has names of its own for streams and takes only `1` for true.
    pub(super) fn ask(&self, what: &str, kubelet: bool, translated: bool) -> Ask {
        let one = |name| kubelet && self.get(name) == Some("1");
        let any = |name| !kubelet && self.flag(name);
        let words = self.0.iter().filter(|(key, _)| key == "command");
        let tty = one("tty") || any("tty");
        Ask {
            attach: what == "attach",
            command: words.map(|(_, word)| word.clone()).collect(),
            stdin: one("input") || any("stdin"),
            stdout: one("output") || any("stdout"),
            stderr: !tty && (one("error") || any("stderr")),
            tty,
            translated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &str, kubelet: bool) -> Ask {
        Query::parse(query).ask("exec", kubelet, false)
    }

    #[test]
    fn the_api_server_takes_anything_but_0_and_false_for_true() {
        for (value, expected) in [
            ("true", true),
            ("", true),
            ("yes", true),
            ("0", false),
            ("False", false),
        ] {
            let stdin = ask(&format!("stdin={value}"), false).stdin;
            assert_eq!(stdin, expected, "{value}");
        }
        assert!(!ask("stdout=1", false).stdin);
    }

    #[test]
    fn the_kubelet_takes_only_1_for_true() {
        assert_eq!(ask("input=true&output=true&stdout=1", true), ask("", true));
        assert!(ask("input=1", true).stdin);
        assert!(!ask("error=1&tty=1", true).stderr);
    }

    #[test]
    fn a_command_is_taken_word_by_word() {
        let query = "command=echo&command=a%3Bb&command=&command=x+y&command=lost;really";
        assert_eq!(ask(query, false).command, ["echo", "a;b", "", "x y"]);
    }
}
