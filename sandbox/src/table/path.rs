//! The JSONPath of printer columns: fields, indices, and filters on the items of a list.

use std::str::FromStr;

use serde_json::Value;

/// A path to a value, e.g. `.spec.replicas`, `.a['b.c'][0]`, `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end if negative.
    Index(i64),
    All,
    /// Items at whose path is (or is not) the value.
    Filter(Path, bool, Value),
    /// Items that have something at the path.
    Has(Path),
}

/// A path that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no simple path")]
pub struct Malformed;

impl FromStr for Path {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let step;
            (step, rest) = if let Some(inner) = rest.strip_prefix('[') {
                let end = closing(inner).ok_or(Malformed)?;
                (bracket(inner[..end].trim())?, &inner[end + 1..])
            } else {
                field(rest.strip_prefix('.').ok_or(Malformed)?)?
            };
            steps.push(step);
        }
        Ok(Self(steps))
    }
}

/// A name up to the next step; a backslash takes the character after it as it is.
fn field(text: &str) -> Result<(Step, &str), Malformed> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    let mut end = text.len();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next().ok_or(Malformed)?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            other if other.is_whitespace() || "]{}()'\"".contains(other) => return Err(Malformed),
            other => name.push(other),
        }
    }
    let step = match name.as_str() {
        "" => return Err(Malformed),
        "*" => Step::All,
        _ => Step::Field(name),
    };
    Ok((step, &text[end..]))
}

/// Where the bracket that was opened before `text` is closed, outside of quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, character) in text.char_indices() {
        match character {
            _ if quote == Some(character) => quote = None,
            _ if quote.is_some() => {}
            '\'' | '"' => quote = Some(character),
            '[' => depth += 1,
            ']' if depth == 0 => return Some(at),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Result<Step, Malformed> {
    if inner == "*" {
        return Ok(Step::All);
    }
    let filter = inner.strip_prefix("?(").and_then(|it| it.strip_suffix(')'));
    if let Some(filter) = filter {
        let split = [("==", true), ("!=", false)]
            .into_iter()
            .find_map(|(sign, equal)| {
                let (path, value) = filter.split_once(sign)?;
                Some((path, equal, value))
            });
        let path = |text: &str| text.trim().strip_prefix('@').ok_or(Malformed)?.parse();
        return match split {
            Some((at, equal, value)) => Ok(Step::Filter(path(at)?, equal, literal(value.trim())?)),
            None => Ok(Step::Has(path(filter)?)),
        };
    }
    match literal(inner)? {
        Value::String(name) => Ok(Step::Field(name)),
        Value::Number(number) => number.as_i64().map(Step::Index).ok_or(Malformed),
        _ => Err(Malformed),
    }
}

fn literal(text: &str) -> Result<Value, Malformed> {
    let quoted = text
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''));
    match quoted {
        Some(name) => Ok(name.into()),
        None => serde_json::from_str(text).map_err(|_| Malformed),
    }
}

impl Path {
    /// The first value there.
    #[must_use]
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        Self::walk(&self.0, value)
    }

    fn walk<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
        let Some((step, rest)) = steps.split_first() else {
            return Some(value);
        };
        let items = || value.as_array().into_iter().flatten();
        match step {
            Step::Field(name) => Self::walk(rest, value.get(name)?),
            Step::Index(index) => {
                let items = value.as_array()?;
                let at = match usize::try_from(*index) {
                    Ok(index) => index,
                    Err(_) => items
                        .len()
                        .checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
                };
                Self::walk(rest, items.get(at)?)
            }
            Step::All => items().find_map(|item| Self::walk(rest, item)),
            Step::Filter(path, equal, wanted) => items()
                .filter(|item| {
                    path.first(item)
                        .is_some_and(|found| (found == wanted) == *equal)
                })
                .find_map(|item| Self::walk(rest, item)),
            Step::Has(path) => items()
                .filter(|item| path.first(item).is_some())
                .find_map(|item| Self::walk(rest, item)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_where_kubernetes_says() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": "dotted", "list": [1, 2, [3]]},
            "status": {"conditions": [
                {"type": "Synced", "status": "False", "n": 1},
                {"type": "Ready", "status": "True", "n": 2},
            ]},
        });
        for (path, wanted) in [
            (".spec.replicas", json!(3)),
            (".spec['replicas']", json!(3)),
            (".spec.a\\.b", json!("dotted")),
            (r#"["spec"]['a.b']"#, json!("dotted")),
            (".spec.list[1]", json!(2)),
            (".spec.list[-1][0]", json!(3)),
            (".spec.list[*]", json!(1)),
            (".spec.list", json!([1, 2, [3]])),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                json!("True"),
            ),
            (
                r".status.conditions[?(@.type == 'Ready')].status",
                json!("True"),
            ),
            (
                r#".status.conditions[?(@.type!="Ready")].status"#,
                json!("False"),
            ),
            (".status.conditions[?(@.n==2)].type", json!("Ready")),
            (".status.conditions[?(@.n)].type", json!("Synced")),
        ] {
            let parsed: Path = path.parse().expect(path);
            assert_eq!(parsed.first(&object), Some(&wanted), "{path}");
        }
        for path in [
            ".none",
            ".spec.replicas.none",
            ".spec.list[3]",
            ".spec.list[-4]",
            ".spec[0]",
        ] {
            assert_eq!(
                path.parse::<Path>().expect(path).first(&object),
                None,
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            "spec",
            ".",
            "..a",
            ".a[",
            ".a[b]",
            ".a[?(type==1)]",
            ".a[1.5]",
            "{.a}",
            ".a b",
            ".a\\",
        ] {
            assert_eq!(path.parse::<Path>(), Err(Malformed), "{path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_ends(text in r#"[.\[\]?@()'"=!*a-c0-2\\ -]{0,24}"#) {
            if let Ok(path) = text.parse::<Path>() {
                let _ = path.first(&json!({"a": [{"b": 1}, [2]]}));
            }
        }
    }
}
