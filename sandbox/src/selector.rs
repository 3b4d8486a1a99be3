//! Label and field selectors. Pure.

use serde_json::Value;

use crate::kinds::{Kind, event_field};
use crate::object::meta;
use crate::status::Failure;

/// Requirements an object must all meet to be listed or watched.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<(String, Test)>,
    fields: Fields,
}

/// A requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

/// Requirements on fields: field, whether it must be equal, value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, bool, String)>);

/// Fields objects can be selected by beside the two that all have, by plural name.
const FIELDS: [(&str, &str); 5] = [
    (
        "pods",
        "spec.nodeName spec.restartPolicy spec.serviceAccountName status.phase status.podIP",
    ),
    ("namespaces", "status.phase"),
    ("secrets", "type"),
    ("nodes", "spec.unschedulable"),
    // In both forms of events; of what one is about, every field.
    (
        "events",
        "reason reportingComponent reportingController source type involvedObject regarding",
    ),
];

impl Selector {
    /// `labelSelector` and `fieldSelector` of a list or watch of this kind.
    ///
    /// # Errors
    /// 400 for what does not parse, and for fields that cannot be selected by.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Failure> {
        let fields = Fields::parse(fields).map_err(Failure::bad_request)?;
        let unknown = fields.0.iter().find(|(field, ..)| !selectable(kind, field));
        if let Some((field, ..)) = unknown {
            return Err(Failure::bad_request(format!(
                "{field:?} is not a field objects of this kind can be selected by"
            )));
        }
        let labels = parse_labels(labels).ok_or_else(|| {
            Failure::bad_request(format!("unable to parse label selector {labels:?}"))
        })?;
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
        let mut fields = self.fields.0.iter();
        self.labels
            .iter()
            .all(|(key, test)| test.holds(&labels[key]))
            && fields.all(|(field, equal, value)| (field_value(object, field) == *value) == *equal)
    }
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        let among = |values: &[String]| values.iter().any(|one| value == one);
        match self {
            Self::Exists => value.is_string(),
            Self::Absent => !value.is_string(),
            Self::In(values) => among(values),
            Self::NotIn(values) => !among(values),
        }
    }
}

/// Whether labels meet a `metav1.LabelSelector`; an empty one selects all.
#[must_use]
pub fn label_selector_matches(selector: &Value, labels: &Value) -> bool {
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let holds = |expression: &Value| {
        let values = expression["values"].as_array().into_iter().flatten();
        let values = values
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect();
        let test = match expression["operator"].as_str() {
            Some("In") => Test::In(values),
            Some("NotIn") => Test::NotIn(values),
            Some("Exists") => Test::Exists,
            Some("DoesNotExist") => Test::Absent,
            _ => return false,
        };
        test.holds(&labels[expression["key"].as_str().unwrap_or_default()])
    };
    equal.all(|(key, value)| labels.get(key) == Some(value)) && expressions.all(holds)
}

/// `a=b,c!=d,e in (f,g),h,!i`; `None` if it is none.
fn parse_labels(text: &str) -> Option<Vec<(String, Test)>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    // A comma inside parentheses belongs to a set.
    let mut inside = false;
    let requirements = text.split(|c| {
        inside = c == '(' || inside && c != ')';
        c == ',' && !inside
    });
    requirements.map(|text| parse_label(text.trim())).collect()
}

fn parse_label(text: &str) -> Option<(String, Test)> {
    let value =
        |text: &str| Some(text.trim().to_owned()).filter(|text| text.is_empty() || is_word(text));
    let one = |text: &str| Some(vec![value(text)?]);
    let (key, how) = if let Some(key) = text.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((left, set)) = text.split_once('(') {
        let set = set
            .strip_suffix(')')?
            .split(',')
            .map(value)
            .collect::<Option<_>>()?;
        match left.trim().split_once(char::is_whitespace)? {
            (key, word) if word.trim() == "in" => (key, Test::In(set)),
            (key, word) if word.trim() == "notin" => (key, Test::NotIn(set)),
            _ => return None,
        }
    } else if let Some((key, right)) = text.split_once("!=") {
        (key, Test::NotIn(one(right)?))
    } else if let Some((key, right)) = text.split_once('=') {
        (
            key,
            Test::In(one(right.strip_prefix('=').unwrap_or(right))?),
        )
    } else {
        (text, Test::Exists)
    };
    let key = key.trim();
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    (is_word(name) && is_word(key.split('/').next()?)).then(|| (key.to_owned(), how))
}

/// A word of letters and digits with `-`, `_` and `.` in it.
fn is_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    ends && text.bytes().all(inner)
}

impl Fields {
    /// `a=b,c!=d`, with `\` before a comma, an equals sign or a backslash that belongs to a value.
    ///
    /// # Errors
    /// What does not parse.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut escaped = false;
        let terms = text.split(|c| {
            let ends = c == ',' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let term = |term: &str| {
            let (field, operator) = term.split_at(term.find(['=', '!'])?);
            let (equal, value) = match operator.strip_prefix("!=") {
                Some(value) => (false, value),
                None => (
                    true,
                    operator.strip_prefix("==").or(operator.strip_prefix('='))?,
                ),
            };
            let mut plain = String::new();
            let mut chars = value.chars();
            while let Some(c) = chars.next() {
                plain.push(match c {
                    '\\' => chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?,
                    '=' => return None,
                    c => c,
                });
            }
            Some((field.to_owned(), equal, plain))
        };
        let fields = terms.filter(|term| !term.is_empty()).map(term);
        let fields: Option<Vec<_>> = fields.collect();
        fields
            .map(Self)
            .ok_or_else(|| format!("unable to parse field selector {text:?}"))
    }

    /// The value a field must have.
    #[must_use]
    pub fn exactly(&self, field: &str) -> Option<&str> {
        let mut all = self.0.iter();
        let found = all.find(|(known, equal, _)| known == field && *equal);
        found.map(|(_, _, value)| value.as_str())
    }
}

fn selectable(kind: &Kind, field: &str) -> bool {
    let known = |&(plural, fields): &(&str, &str)| {
        let about = field
            .split('.')
            .next()
            .filter(|about| field.len() > about.len());
        let mut fields = fields.split(' ');
        plural == kind.plural
            && !kind.custom()
            && fields.any(|one| one == field || kind.kind == "Event" && Some(one) == about)
    };
    ["metadata.name", "metadata.namespace"].contains(&field) || FIELDS.iter().any(known)
}

fn field_value(object: &Value, field: &str) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    match field {
        "metadata.name" | "metadata.namespace" => {
            meta(object, &field["metadata.".len()..]).to_owned()
        }
        // An Event's source is the name of its component, or of the controller that reports it.
        "source" => match text(&event_field(object, "source")["component"]).as_str() {
            "" => text(event_field(object, "reportingComponent")),
            component => component.to_owned(),
        },
        "spec.unschedulable" => (object["spec"]["unschedulable"] == true).to_string(),
        _ => {
            let mut keys = field.split('.');
            let first = event_field(object, keys.next().unwrap_or_default());
            text(keys.fold(first, |at, key| &at[key]))
        }
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
            assert!(parse_labels(wrong).is_none(), "{wrong}");
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
