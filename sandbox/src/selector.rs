//! Label and field selectors. Pure.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::kinds::{Kind, event_field};
use crate::status::Failure;

/// Requirements an object must all meet to be listed or watched.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Fields,
}

/// Requirements on fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<Requirement>);

/// That a label or field has one of some values, or any at all; or that it has not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    negated: bool,
    values: Option<Vec<String>>,
}

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
        "reason reportingComponent reportingController type involvedObject. regarding.",
    ),
];

impl Selector {
    /// `labelSelector` and `fieldSelector` of a list or watch of this kind.
    ///
    /// # Errors
    /// 400 for what does not parse, and for fields that cannot be selected by.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Failure> {
        let fields = Fields::parse(fields).map_err(Failure::bad_request)?;
        if let Some(unknown) = fields.0.iter().find(|field| !selectable(kind, &field.key)) {
            let why = format!(
                "{:?} is no field to select objects of this kind by",
                unknown.key
            );
            return Err(Failure::bad_request(why));
        }
        let wrong = || Failure::bad_request(format!("unable to parse label selector {labels:?}"));
        let labels = parse_labels(labels).ok_or_else(wrong)?;
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
        let mut fields = self.fields.0.iter();
        all_hold(&self.labels, &object["metadata"]["labels"])
            && fields.all(|field| field.holds(Some(&field_value(object, &field.key))))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let among = |values: &Vec<String>| values.iter().any(|one| value == Some(one));
        self.values.as_ref().map_or(value.is_some(), among) != self.negated
    }
}

fn all_hold(requirements: &[Requirement], labels: &Value) -> bool {
    let mut all = requirements.iter();
    all.all(|one| one.holds(labels[&one.key].as_str()))
}

/// Whether labels meet a `metav1.LabelSelector`; an empty one selects all.
#[must_use]
pub fn label_selector_matches(selector: &Value, labels: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let equal = equal.map(|(key, value)| Requirement {
        key: key.clone(),
        negated: false,
        values: Some(vec![text(value)]),
    });
    let expressions = selector["matchExpressions"].as_array().into_iter();
    let expressions = expressions.flatten().map(|expression| Requirement {
        key: text(&expression["key"]),
        negated: ["NotIn", "DoesNotExist"].contains(&&*text(&expression["operator"])),
        values: expression["values"]
            .as_array()
            .map(|all| all.iter().map(text).collect()),
    });
    all_hold(&equal.chain(expressions).collect::<Vec<_>>(), labels)
}

/// `a=b,c!=d,e in (f,g),h,!i`; `None` if it is none.
fn parse_labels(text: &str) -> Option<Vec<Requirement>> {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        let form = r"^(?<not>!?)(?<key>([a-z0-9.-]+/)?[a-zA-Z0-9][a-zA-Z0-9_.-]*)\s*((?<equal>==?|!=)\s*(?<value>[a-zA-Z0-9_.-]*)|\s(?<set>in|notin)\s*\((?<values>[a-zA-Z0-9_.,\s-]*)\))?$";
        Regex::new(form).expect("it is a pattern")
    });
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let requirement = |text: &str| {
        let found = FORM.captures(text.trim())?;
        let part = |name| found.name(name).map(|part| part.as_str());
        let values = part("values").or(part("value"));
        let values = values.map(|all| all.split(',').map(|one| one.trim().to_owned()).collect());
        Some(Requirement {
            key: found["key"].to_owned(),
            negated: &found["not"] == "!"
                || part("equal") == Some("!=")
                || part("set") == Some("notin"),
            values,
        })
    };
    // A comma inside parentheses belongs to a set.
    let mut inside = false;
    let requirements = text.split(|c| {
        inside = c == '(' || inside && c != ')';
        c == ',' && !inside
    });
    requirements.map(requirement).collect()
}

impl Fields {
    /// `a=b,c!=d`
    ///
    /// # Errors
    /// What does not parse.
    pub fn parse(text: &str) -> Result<Self, String> {
        let term = |term: &str| {
            let (field, value) = term.split_once('=')?;
            let value = value.strip_prefix('=').unwrap_or(value);
            (!value.contains(['=', '\\'])).then(|| Requirement {
                key: field.trim_end_matches('!').to_owned(),
                negated: field.ends_with('!'),
                values: Some(vec![value.to_owned()]),
            })
        };
        let fields = text.split(',').filter(|term| !term.is_empty()).map(term);
        let fields: Option<_> = fields.collect();
        fields
            .map(Self)
            .ok_or_else(|| format!("unable to parse field selector {text:?}"))
    }

    /// The value a field must have.
    #[must_use]
    pub fn exactly(&self, field: &str) -> Option<&str> {
        let mut all = self.0.iter().filter(|one| !one.negated);
        let values = all.find(|one| one.key == field)?.values.as_ref()?;
        values.first().map(String::as_str)
    }
}

fn selectable(kind: &Kind, field: &str) -> bool {
    let of_all = ["metadata.name", "metadata.namespace"].contains(&field);
    let mut own = FIELDS.iter().filter(|(plural, _)| *plural == kind.plural);
    let known = |known: &str| known == field || known.ends_with('.') && field.starts_with(known);
    of_all || own.any(|(_, fields)| fields.split(' ').any(known))
}

fn field_value(object: &Value, field: &str) -> String {
    let mut keys = field.split('.');
    let first = event_field(object, keys.next().unwrap_or_default());
    match keys.fold(first, |at, key| &at[key]) {
        Value::String(text) => text.clone(),
        // The only one that is left out when it is false.
        Value::Null if field == "spec.unschedulable" => "false".to_owned(),
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
            ("app in (web),!gone,tier in (3,4)", true),
        ] {
            let labels = parse_labels(selector).unwrap();
            assert_eq!(
                all_hold(&labels, &object["metadata"]["labels"]),
                matches,
                "{selector:?}"
            );
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
    fn fields_are_selected_by_equality() {
        let fields = Fields::parse("a=b,d!=e,g==").unwrap();
        assert_eq!(fields.exactly("a"), Some("b"));
        assert_eq!(fields.exactly("d"), None);
        assert_eq!(fields.exactly("g"), Some(""));
        for wrong in ["a", "a=b=c", r"a=\,"] {
            assert!(Fields::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_event_is_selected_by_its_fields_in_whichever_form_it_is_stored() {
        let core = json!({"involvedObject": {"name": "a"}, "source": {"component": "kubelet"}});
        let newer = json!({"regarding": {"name": "a"}, "reportingController": "kubelet"});
        let kinds = crate::kinds::Kinds::builtin(crate::Release::V1_36);
        for (group, fields) in [
            ("", ["involvedObject.name=a", "reason!=Started"]),
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
