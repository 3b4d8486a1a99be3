//! Label and field selectors. Pure.

use serde_json::Value;

use crate::kinds::{Kind, Schema, event_field};
use crate::object::meta;
use crate::status::Failure;

/// Requirements an object must all meet to be listed or watched.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<Label>,
    fields: Fields,
}

/// A requirement on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Label {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

/// Requirements on fields: field, whether it must be equal, value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, bool, String)>);

impl Selector {
    /// `labelSelector` and `fieldSelector` of a list or watch of this kind.
    ///
    /// # Errors
    /// 400 for what does not parse, and for fields that cannot be selected by.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Failure> {
        let fields = Fields::parse(fields).map_err(Failure::bad_request)?;
        for (field, _, _) in &fields.0 {
            if !selectable(kind).any(|known| known == field) {
                return Err(Failure::bad_request(unsupported(kind, field)));
            }
        }
        let labels = parse_labels(labels)
            .map_err(|why| Failure::bad_request(format!("unable to parse requirement: {why}")))?;
        Ok(Self { labels, fields })
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.0.is_empty()
    }

    /// Whether an object meets all of it.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels
            .iter()
            .all(|label| label.test.holds(labels[&label.key].as_str()))
            && self
                .fields
                .0
                .iter()
                .all(|(field, equal, value)| (field_value(object, field) == *value) == *equal)
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(values) => {
                !value.is_some_and(|value| values.iter().any(|one| one == value))
            }
            Self::Above(bound) => number().is_some_and(|value| value > *bound),
            Self::Below(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

/// Whether labels meet a `metav1.LabelSelector`; an empty one selects all.
#[must_use]
pub fn label_selector_matches(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|expression| {
                let values = || -> Vec<String> {
                    let values = expression["values"].as_array().into_iter().flatten();
                    values
                        .filter_map(|value| value.as_str().map(str::to_owned))
                        .collect()
                };
                let test = match expression["operator"].as_str().unwrap_or_default() {
                    "In" => Test::In(values()),
                    "NotIn" => Test::NotIn(values()),
                    "Exists" => Test::Exists,
                    "DoesNotExist" => Test::Absent,
                    _ => return false,
                };
                let key = expression["key"].as_str().unwrap_or_default();
                test.holds(labels[key].as_str())
            })
}

fn parse_labels(text: &str) -> Result<Vec<Label>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        // A comma inside parentheses belongs to a set.
        let mut depth = 0_i32;
        let end = rest
            .char_indices()
            .find(|(_, c)| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                *c == ',' && depth <= 0
            })
            .map(|(at, _)| at);
        let (one, after) = end.map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
        found.push(parse_label(one.trim())?);
        rest = match after {
            Some(after) if after.trim().is_empty() => {
                return Err("found '', expected: identifier after ','".to_owned());
            }
            after => after.unwrap_or_default(),
        };
    }
    Ok(found)
}

fn parse_label(text: &str) -> Result<Label, String> {
    let label = |key: &str, test: Test| {
        let key = key.trim();
        if is_label_key(key) {
            Ok(Label {
                key: key.to_owned(),
                test,
            })
        } else {
            Err(format!(
                "<nil>: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' or '.', \
                 and must start and end with an alphanumeric character"
            ))
        }
    };
    let value = |text: &str| {
        let text = text.trim();
        if text.len() <= 63 && (text.is_empty() || is_label_name(text)) {
            Ok(text.to_owned())
        } else {
            Err(format!(
                "values[0][key]: Invalid value: {text:?}: a valid label must be an empty string or consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            ))
        }
    };
    if let Some(key) = text.strip_prefix('!') {
        return label(key, Test::Absent);
    }
    if let Some(open) = text.find('(') {
        let set = text[open + 1..]
            .strip_suffix(')')
            .ok_or_else(|| format!("found '{text}', expected: ')'"))?;
        let values = set.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        let mut head = text[..open].split_whitespace();
        return match (head.next(), head.next(), head.next()) {
            (Some(key), Some("in"), None) => label(key, Test::In(values)),
            (Some(key), Some("notin"), None) => label(key, Test::NotIn(values)),
            _ => Err(format!("found '{text}', expected: in, notin")),
        };
    }
    if let Some((key, right)) = text.split_once("!=") {
        return label(key, Test::NotIn(vec![value(right)?]));
    }
    if let Some((key, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return label(key, Test::In(vec![value(right)?]));
    }
    let number = |text: &str| {
        text.trim()
            .parse()
            .map_err(|_| format!("values[0]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer"))
    };
    if let Some((key, right)) = text.split_once('>') {
        return label(key, Test::Above(number(right)?));
    }
    if let Some((key, right)) = text.split_once('<') {
        return label(key, Test::Below(number(right)?));
    }
    label(text, Test::Exists)
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(p, n)| (Some(p), n));
    is_label_name(name)
        && name.len() <= 63
        && prefix.is_none_or(|prefix| {
            !prefix.is_empty()
                && prefix.len() <= 253
                && prefix
                    .split('.')
                    .all(|part| is_label_name(part) && !part.contains(['_', '.']))
        })
}

fn is_label_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(name.chars().next())
        && edge(name.chars().last())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

impl Fields {
    /// `a=b,c!=d`, with `\` before a comma, an equals sign or a backslash that belongs to a value.
    ///
    /// # Errors
    /// What does not parse.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = Vec::new();
        for term in split_unescaped(text).filter(|term| !term.is_empty()) {
            let invalid = || format!("invalid selector: '{text}'; can't understand '{term}'");
            let at = term.find(['=', '!']).ok_or_else(invalid)?;
            let (field, operator) = term.split_at(at);
            let (equal, value) = if let Some(value) = operator.strip_prefix("!=") {
                (false, value)
            } else if let Some(value) = operator.strip_prefix("==") {
                (true, value)
            } else {
                (true, operator.strip_prefix('=').ok_or_else(invalid)?)
            };
            let mut plain = String::new();
            let mut chars = value.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => plain.push(
                        chars
                            .next()
                            .filter(|c| matches!(c, '\\' | ',' | '='))
                            .ok_or_else(invalid)?,
                    ),
                    '=' => return Err(invalid()),
                    c => plain.push(c),
                }
            }
            found.push((field.to_owned(), equal, plain));
        }
        Ok(Self(found))
    }

    /// The value a field must have.
    #[must_use]
    pub fn exactly(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, equal, _)| known == field && *equal)
            .map(|(_, _, value)| value.as_str())
    }
}

fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let ends = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
}

/// Fields objects of a kind can be selected by beside the two that all have.
fn own_fields(kind: &Kind) -> &'static [&'static str] {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "nodes") => &["spec.unschedulable"],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    }
}

fn selectable(kind: &Kind) -> impl Iterator<Item = &'static str> {
    let own = own_fields(kind).iter().copied();
    ["metadata.name", "metadata.namespace"]
        .into_iter()
        .chain(own)
}

fn unsupported(kind: &Kind, field: &str) -> String {
    if own_fields(kind).is_empty() && matches!(kind.schema, Schema::Builtin(_)) {
        format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )
    } else {
        format!("field label not supported: {field}")
    }
}

fn field_value(object: &Value, field: &str) -> String {
    match field {
        "metadata.name" => meta(object, "name").to_owned(),
        "metadata.namespace" => meta(object, "namespace").to_owned(),
        // An Event's source is the name of its component, or of the controller that reports it.
        "source" => {
            let component = text(&event_field(object, "source")["component"]);
            if component.is_empty() {
                text(event_field(object, "reportingComponent"))
            } else {
                component
            }
        }
        "spec.unschedulable" => object["spec"]["unschedulable"]
            .as_bool()
            .unwrap_or_default()
            .to_string(),
        _ => {
            let mut keys = field.split('.');
            let first = event_field(object, keys.next().unwrap_or_default());
            text(keys.fold(first, |at, key| &at[key]))
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_by_every_operator() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "3", "x.y/z": ""}}});
        for (selector, matches) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=3", true),
            ("app!=web", false),
            ("gone!=web", true),
            ("app in (a, web)", true),
            ("app notin (a,web)", false),
            ("gone notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!gone", true),
            ("x.y/z=", true),
            ("tier>2", true),
            ("tier<3", false),
            ("app in (web),!gone,tier in (3,4)", true),
        ] {
            let labels = parse_labels(selector).unwrap();
            let selector = Selector {
                labels,
                ..Selector::default()
            };
            assert_eq!(selector.matches(&object), matches, "{selector:?}");
        }
        for wrong in [
            "app in web",
            "a b",
            "=x",
            "app in (a",
            "a=b c",
            "a,",
            "-a",
            "a>b",
        ] {
            assert!(parse_labels(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields_are_selected_with_escapes() {
        assert_eq!(
            Fields::parse(r"a=b\,c,d!=e\=f,g==").unwrap().0,
            [
                ("a".to_owned(), true, "b,c".to_owned()),
                ("d".to_owned(), false, "e=f".to_owned()),
                ("g".to_owned(), true, String::new()),
            ]
        );
        for wrong in ["a", "a=b=c", r"a=\x"] {
            assert!(Fields::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_event_is_selected_by_its_fields_in_whichever_form_it_is_stored() {
        let core = json!({"involvedObject": {"name": "a"}, "source": {"component": "kubelet"}});
        let newer = json!({"regarding": {"name": "a"}, "reportingController": "kubelet"});
        let kinds = crate::kinds::Kinds::builtin(crate::Release::V1_36);
        for (group, fields) in [
            ("", ["involvedObject.name=a", "source=kubelet"]),
            (
                "events.k8s.io",
                ["regarding.name=a", "reportingController!=b"],
            ),
        ] {
            let kind = kinds.find(group, "v1", "events").unwrap();
            for field in fields {
                let selector = Selector::parse(&kind, "", field).unwrap();
                assert!(selector.matches(&core), "{field}");
                assert!(selector.matches(&newer), "{field}");
            }
            assert!(Selector::parse(&kind, "", "note=a").is_err());
        }
    }

    proptest! {
        #[test]
        fn any_selector_parses_or_is_refused(text in "[a-z(),=!<> \\\\./]{0,30}") {
            let _ = parse_labels(&text);
            let _ = Fields::parse(&text);
        }
    }
}
