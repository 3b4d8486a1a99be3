//! Durations as people write them in a session: `90s`, `1.5h`, `1h30m`.
//!
//! kube's parser multiplies before it looks at the size and panics on `99999999999999999999h`; one such object must
//! not end a process that watches all of them. So the text is checked before kube sees it, here and in the CRD.

use kube::core::Duration;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// What the CRD admits: one to four unsigned numbers with a unit. People need no more than `ms`; `0ns` and `1.5µs` is how
/// kube writes the shortest ones back.
const PATTERN: &str = r"^([0-9]{1,7}([.][0-9]{1,9})?(ns|us|µs|ms|s|m|h)){1,4}$";
/// The longer before those they begin with.
const UNITS: [&str; 7] = ["ns", "us", "µs", "ms", "s", "m", "h"];
/// Longest text, in characters, four such parts can have.
const MAX_LENGTH: usize = 4 * (7 + 10 + 2);

pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH})
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(crate) fn deserialize_some<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text).map_err(D::Error::custom))
        .transpose()
}

fn parse(text: &str) -> Result<Duration, String> {
    if !matches_pattern(text) {
        let shown: String = text.chars().take(MAX_LENGTH).collect();
        return Err(format!(
            "{shown:?} is not a duration such as 90s, 15m or 1.5h"
        ));
    }
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

/// [`PATTERN`] by hand: the one place that needs it does not earn a regex engine.
fn matches_pattern(text: &str) -> bool {
    let mut rest = text;
    for part in 0..=4 {
        if rest.is_empty() {
            return part > 0;
        }
        let Some(after) = number(rest, 7) else {
            return false;
        };
        rest = after;
        if let Some(decimals) = rest.strip_prefix('.') {
            let Some(after) = number(decimals, 9) else {
                return false;
            };
            rest = after;
        }
        let unit = UNITS.iter().find_map(|unit| rest.strip_prefix(unit));
        let Some(after) = unit else { return false };
        rest = after;
    }
    false
}

/// What follows 1 to `max` ASCII digits; `None` when there are none or more.
fn number(text: &str, max: usize) -> Option<&str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (1..=max).contains(&digits).then(|| &text[digits..])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_people_write_are_read() {
        for (text, expected) in [
            ("90s", Duration::from_secs(90)),
            ("1.5h", Duration::from_mins(90)),
            ("1h30m", Duration::from_mins(90)),
            ("0s", Duration::ZERO),
            ("250ms", Duration::from_millis(250)),
            ("0ns", Duration::ZERO),
            ("1.5µs", Duration::from_nanos(1500)),
        ] {
            assert_eq!(parse(text), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn what_the_crd_refuses_is_refused_here() {
        for text in [
            "",
            "1",
            "h",
            "-1h",
            "+1h",
            "1 h",
            "1d",
            "1e9h",
            "99999999h",
            "1h1h1h1h1h",
            ".5h",
            "1.h",
            "٣h",
            "99999999999999999999h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_written_is_read_back(text in "[0-9.msh-]{0,40}|\\PC{0,60}") {
            if let Ok(duration) = parse(&text) {
                let duration = Duration::from(duration);
                // Past what a rule could admit, a number may have more digits than are read.
                if duration <= Duration::from_hours(2000) {
                    let again = parse(&format!("{duration:?}")).map(Duration::from);
                    // kube computes in `f64`.
                    let off = again.clone().map(|again| again.abs_diff(duration));
                    prop_assert!(off.is_ok_and(|off| off <= Duration::from_micros(1)), "{text}: {again:?}");
                }
            }
        }
    }
}
