//! Whether JSON has the parts a fact names.

use serde_json::Value;

/// A value that must be there, whatever it is.
const ANY: &str = "ANY";
/// A value that must not be there.
const ABSENT: &str = "ABSENT";
/// Any text, in a text; at the head of a list: other elements may be there as well, in any order.
const SOME: &str = "…";

/// What of `want` is not in `have`, one line each.
pub(crate) fn differences(want: &Value, have: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    compare(want, have, "", &mut found);
    found
}

fn compare(want: &Value, have: Option<&Value>, path: &str, found: &mut Vec<String>) {
    let missing = matches!(have, None | Some(Value::Null));
    let mut differs = |what: &str| {
        let shown = have.map_or("nothing".to_owned(), Value::to_string);
        found.push(format!(
            "{}: {what}, is {shown}",
            if path.is_empty() { "/" } else { path }
        ));
    };
    match (want, have) {
        (Value::String(word), _) if word == ABSENT => {
            if !missing {
                differs("must be absent");
            }
        }
        (Value::String(word), _) if word == ANY => {
            if missing {
                differs("must be there");
            }
        }
        (Value::String(want), Some(Value::String(have))) => {
            if !like(want, have) {
                differs(&format!("must be {want:?}"));
            }
        }
        (Value::Object(want), Some(Value::Object(have))) => {
            for (key, want) in want {
                compare(want, have.get(key), &format!("{path}/{key}"), found);
            }
        }
        (Value::Array(want), Some(Value::Array(have))) => {
            if let Some((Value::String(first), rest)) = want.split_first()
                && first == SOME
            {
                for want in rest {
                    if !have
                        .iter()
                        .any(|have| differences(want, Some(have)).is_empty())
                    {
                        differs(&format!("must contain {want}"));
                    }
                }
            } else if want.len() == have.len() {
                for (n, (want, have)) in want.iter().zip(have).enumerate() {
                    compare(want, Some(have), &format!("{path}/{n}"), found);
                }
            } else {
                differs(&format!("must have {} elements", want.len()));
            }
        }
        (Value::Number(want), Some(Value::Number(have))) if want.as_f64() == have.as_f64() => {}
        (want, have) => {
            if have != Some(want) {
                differs(&format!("must be {want}"));
            }
        }
    }
}

/// Whether a text is like a pattern, in which `…` stands for any text.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split(SOME);
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn what_is_missing_or_other_is_told_with_its_place() {
    let have = serde_json::json!({"a": [{"b": 1}, {"c": "x y z"}], "d": null});
    for (want, count) in [
        (serde_json::json!({"a": [{"b": 1}, {"c": "x…z"}]}), 0),
        (serde_json::json!({"a": ["…", {"c": "ANY"}]}), 0),
        (serde_json::json!({"d": "ABSENT", "e": "ABSENT"}), 0),
        (serde_json::json!({"a": [{"b": 1}]}), 1),
        (serde_json::json!({"a": [{"b": 2}, {"c": "x…y"}]}), 2),
        (serde_json::json!({"a": ["…", {"c": "y"}]}), 1),
        (
            serde_json::json!({"d": "ANY", "e": "…", "a": "ABSENT", "f": 1}),
            4,
        ),
    ] {
        let found = differences(&want, Some(&have));
        assert_eq!(found.len(), count, "{want}: {found:?}");
    }
    assert_eq!(
        differences(&serde_json::json!({"a": [{"b": 2}, {}]}), Some(&have)),
        ["/a/0/b: must be 2, is 1"]
    );
}

#[test]
fn an_ellipsis_is_any_text() {
    for (pattern, text, is) in [
        ("…", "", true),
        ("a…", "abc", true),
        ("…c", "abc", true),
        ("a…b…d", "axxbyyd", true),
        ("a…b…d", "axxyyd", false),
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("aba…aba", "aba", false),
    ] {
        assert_eq!(like(pattern, text), is, "{pattern} {text}");
    }
}
