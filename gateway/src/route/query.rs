//! A query string, read with the rules of the API server (Go's `url.ParseQuery`, then Kubernetes' own for booleans).

use percent_encoding::percent_decode;

use crate::refusal::{Kind, Refusal};

/// Most parameters looked at.
const MAX_PARAMETERS: usize = 4096;

/// The parameters, in order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query. As at the API server, a parameter with a raw `;` or a broken percent escape is left out.
    ///
    /// # Errors
    /// 400 for too many parameters, and for bytes that are not UTF-8: no runtime can take them as an argument.
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parameters = Vec::new();
        for parameter in query.split('&').filter(|text| !text.is_empty()) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(Refusal::new(
                    Kind::Malformed,
                    format!("the query has more than {MAX_PARAMETERS} parameters"),
                ));
            }
            if parameter.contains(';') || !escapes_are_whole(parameter.as_bytes()) {
                continue;
            }
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            parameters.push((decode(name)?, decode(value)?));
        }
        Ok(Self(parameters))
    }

    /// A boolean: the first value, false only for `0` and `false` in any case, so true for an empty one. `default` when
    /// there is none.
    pub(super) fn flag_or(&self, name: &str, default: bool) -> bool {
        let first = self.0.iter().find(|(key, _)| key == name);
        first.map_or(default, |(_, value)| {
            value != "0" && !value.eq_ignore_ascii_case("false")
        })
    }

    /// The first value.
    pub(super) fn take_first(&mut self, name: &str) -> Option<String> {
        let (_, value) = self.0.iter_mut().find(|(key, _)| key == name)?;
        Some(std::mem::take(value))
    }

    /// All values, in order.
    pub(super) fn take_all(&mut self, name: &str) -> Vec<String> {
        self.0
            .iter_mut()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| std::mem::take(value))
            .collect()
    }
}

fn escapes_are_whole(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest[at + 1..] {
            [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = &rest[at + 3..];
            }
            _ => return false,
        }
    }
    true
}

fn decode(text: &str) -> Result<String, Refusal> {
    let spaced: Vec<u8> = text
        .bytes()
        .map(|byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    String::from_utf8(percent_decode(&spaced).collect())
        .map_err(|_| Refusal::new(Kind::Malformed, "the query holds bytes that are not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).expect("reads")
    }

    #[test]
    fn booleans_are_false_only_when_they_say_so() {
        for (text, want) in [
            ("stdin=true", true),
            ("stdin=1", true),
            ("stdin=", true),
            ("stdin", true),
            ("stdin=yes", true),
            ("stdin=0", false),
            ("stdin=FALSE", false),
            ("stdin=False&stdin=true", false),
            ("stdout=true", false),
            ("", false),
        ] {
            assert_eq!(query(text).flag_or("stdin", false), want, "{text}");
        }
        assert!(query("x=1").flag_or("tty", true));
    }

    #[test]
    fn a_raw_semicolon_or_a_broken_escape_leaves_the_parameter_out() {
        assert_eq!(
            query("command=a;b&command=c&command=%zz&command=%4&command=%41").take_all("command"),
            ["c", "A"]
        );
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        assert!(Query::parse("command=%ff").is_err());
    }

    #[test]
    fn more_parameters_than_the_bound_are_refused() {
        assert!(Query::parse(&"a&".repeat(MAX_PARAMETERS)).is_ok());
        assert!(Query::parse(&"a&".repeat(MAX_PARAMETERS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_is_read_back(values in prop::collection::vec(".{0,20}", 0..10)) {
            let mut writer = form_urlencoded::Serializer::new(String::new());
            for value in &values {
                writer.append_pair("command", value);
            }
            prop_assert_eq!(query(&writer.finish()).take_all("command"), values);
        }
    }
}
