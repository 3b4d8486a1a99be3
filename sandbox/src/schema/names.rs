//! What names, labels and annotations may be.

use serde_json::{Value, json};

use super::{cause, invalid};
use crate::kinds::Kind;
use crate::object;
use crate::status::Cause;

/// Of all annotations together, as Kubernetes has it.
const MAX_ANNOTATIONS: usize = 256 << 10;

pub(super) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
     and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
     and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(super) const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with a name; `None` if nothing is.
type Rule = fn(&str) -> Option<&'static str>;

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// RFC 1123.
pub(super) fn label(name: &str) -> Option<&'static str> {
    match name {
        long if long.len() > 63 => Some("must be no more than 63 characters"),
        name if is_label(name) => None,
        _ => Some(LABEL),
    }
}

/// RFC 1035.
pub(super) fn label_1035(name: &str) -> Option<&'static str> {
    match label(name) {
        None if name.starts_with(|first: char| first.is_ascii_digit()) => Some(LABEL_1035),
        Some(LABEL) => Some(LABEL_1035),
        other => other,
    }
}

/// RFC 1123.
pub(super) fn subdomain(name: &str) -> Option<&'static str> {
    match name {
        long if long.len() > 253 => Some("must be no more than 253 characters"),
        name if name.split('.').all(is_label) => None,
        _ => Some(SUBDOMAIN),
    }
}

/// What can be a step of a path.
fn path_segment(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        name if name.contains('/') => Some("may not contain '/'"),
        name if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

/// A word of letters and digits with `-`, `_` and `.` in it.
fn is_word(text: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    end(text.chars().next())
        && end(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// `prefix/name` or `name`
fn qualified(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(why) = prefix.and_then(subdomain) {
        return Some(match prefix {
            Some("") => "prefix part must be non-empty".to_owned(),
            _ => format!("prefix part {why}"),
        });
    }
    match name {
        "" => Some("name part must be non-empty".to_owned()),
        long if long.len() > 63 => Some("name part must be no more than 63 characters".to_owned()),
        name if is_word(name) => None,
        _ => Some(QUALIFIED.to_owned()),
    }
}

/// What is wrong with the name of an object, if it has one already.
pub(crate) fn name(kind: &Kind, object: &Value) -> Option<Cause> {
    let rule: Rule = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "namespaces") => label,
        ("", "services") => label_1035,
        ("rbac.authorization.k8s.io", _) => path_segment,
        _ => subdomain,
    };
    let name = object::name(object);
    let why = rule(name).filter(|_| !name.is_empty())?;
    Some(invalid("metadata.name", &json!(name), why))
}

/// What is wrong with labels, annotations, owners and finalizers, of any kind.
pub(super) fn metadata(object: &Value) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = labels(&metadata["labels"], "metadata.labels");
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Some(why) = qualified(&key.to_ascii_lowercase()) {
            causes.push(invalid("metadata.annotations", &json!(key), &why));
        }
    }
    if size > MAX_ANNOTATIONS {
        causes.push(cause(
            "FieldValueTooLong",
            "metadata.annotations",
            format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes"),
        ));
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let at = format!("metadata.ownerReferences.{field}");
                causes.push(invalid(at, &json!(""), "must not be empty"));
            }
        }
    }
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        if let Some(why) = qualified(finalizer.as_str().unwrap_or_default()) {
            causes.push(invalid("metadata.finalizers", finalizer, &why));
        }
    }
    causes
}

/// What is wrong with labels.
pub(super) fn labels(labels: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Some(why) = qualified(key) {
            causes.push(invalid(at, &json!(key), &why));
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            causes.push(invalid(at, value, "must be no more than 63 characters"));
        } else if !text.is_empty() && !is_word(text) {
            causes.push(invalid(at, value, VALUE));
        }
    }
    causes
}
