//! Label and field selectors. Pure.

use std::{collections::BTreeMap, sync::LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_core::{Expression, SelectorExt as _};
use regex::Regex;
use serde::Deserialize as _;
use serde_json::Value;

use crate::{kinds::Kind, status::Failure};

/// A requirement: whether it is about absence, the key, the operator, a parenthesis, the value or values, the other one.
static REQUIREMENT: LazyLock<Regex> = LazyLock::new(|| {
    let key = r"(!?)([[:alnum:]][^\s=!<>(),\\]*)";
    let form = format!(r"^{key}\s*(==?|!=|in\b|notin\b|)\s*(\(?)([^=!<>()\\]*)(\)?)$");
    Regex::new(&form).expect("a test reads it")
});

/// Requirements an object must all meet to be listed or watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: kube_core::Selector,
    /// Names of fields, and the value each has (`true`) or has not.
    fields: Vec<(String, bool, String)>,
}

/// Fields objects can be selected by beside the two that all have, each after the plural name of its kind. Of what an event
/// is about, every field.
const FIELDS: &str = "pods/spec.nodeName pods/spec.restartPolicy pods/status.phase pods/status.podIP \
    namespaces/status.phase secrets/type events/reason events/type events/reportingComponent \
    events/reportingController events/involvedObject. events/regarding.";

impl Selector {
    /// `labelSelector` and `fieldSelector` of a list or watch of this kind.
    ///
    /// # Errors
    /// 400 for what does not parse, and for fields that cannot be selected by.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Failure> {
        let wrong =
            |text| move || Failure::bad_request(format!("unable to parse the selector {text:?}"));
        let requirements = requirements(labels).ok_or_else(wrong(labels))?;
        let known = self::fields(fields)
            .filter(|all| all.iter().all(|(field, ..)| selectable(kind, field)));
        Ok(Self {
            labels: requirements.into_iter().collect(),
            fields: known.ok_or_else(wrong(fields))?,
        })
    }

    /// Whether an object meets all of it.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let mut fields = self.fields.iter();
        self.labels.matches(&texts(&object["metadata"]["labels"]))
            && fields.all(|(name, is, value)| (field(object, name) == *value) == *is)
    }
}

/// Whether labels meet a selector; an empty one selects all, one that makes no sense nothing.
pub(crate) fn label_selector_matches(selector: &LabelSelector, labels: &Value) -> bool {
    let selector = kube_core::Selector::try_from(selector.clone());
    selector.is_ok_and(|selector| selector.matches(&texts(labels)))
}

/// The name an object must have by a field selector.
pub(crate) fn exact_name(selector: &str) -> Option<String> {
    let mut all = fields(selector)?.into_iter();
    let exact = all.find(|(field, is, _)| *is && field == "metadata.name");
    exact.map(|(_, _, name)| name)
}

fn fields(selector: &str) -> Option<Vec<(String, bool, String)>> {
    let field = |one| match one {
        Expression::Equal(field, value) => Some((field, true, value)),
        Expression::NotEqual(field, value) => Some((field, false, value)),
        _ => None,
    };
    requirements(selector)?.into_iter().map(field).collect()
}

/// `a=b,c!=d,e in (f,g),h,!i`, of which fields have the first two; `None` if it is none.
fn requirements(text: &str) -> Option<Vec<Expression>> {
    // A comma inside parentheses belongs to a set.
    let mut inside = false;
    let all = text.split(|c| {
        inside = c == '(' || inside && c != ')';
        c == ',' && !inside
    });
    let all = all.filter(|_| !text.trim().is_empty());
    all.map(|one| requirement(one.trim())).collect()
}

fn requirement(text: &str) -> Option<Expression> {
    let (_, [not, key, operator, open, value, close]) = REQUIREMENT.captures(text)?.extract();
    let key = key.to_owned();
    let values = value.split(',').map(|one| one.trim().to_owned());
    let single = !value.contains(char::is_whitespace);
    match (not, operator, (open, close)) {
        ("!", "", ("", "")) if value.is_empty() => Some(Expression::DoesNotExist(key)),
        ("", "", ("", "")) if value.is_empty() => Some(Expression::Exists(key)),
        ("", "=" | "==", ("", "")) if single => Some(Expression::Equal(key, value.to_owned())),
        ("", "!=", ("", "")) if single => Some(Expression::NotEqual(key, value.to_owned())),
        ("", "in", ("(", ")")) => Some(Expression::In(key, values.collect())),
        ("", "notin", ("(", ")")) => Some(Expression::NotIn(key, values.collect())),
        _ => None,
    }
}

fn texts(labels: &Value) -> BTreeMap<String, String> {
    BTreeMap::deserialize(labels).unwrap_or_default()
}

fn selectable(kind: &Kind, field: &str) -> bool {
    let asked = format!("{}/{field}", kind.plural);
    let known = |one: &str| one == asked || one.ends_with('.') && asked.starts_with(one);
    ["metadata.name", "metadata.namespace"].contains(&field) || FIELDS.split(' ').any(known)
}

fn field(object: &Value, name: &str) -> String {
    match name.split('.').fold(object, |at, key| &at[key]) {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
