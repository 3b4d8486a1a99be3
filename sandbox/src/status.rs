//! Why a request failed, as the `Status` Kubernetes answers with.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

/// What may fail so.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A failed request: `metav1.Status` with `status: Failure`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// HTTP status.
    pub code: u16,
    /// `reason`, e.g. `NotFound`; empty where Kubernetes has none.
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// `details`; `Null` for none.
    pub details: Value,
}

/// One cause of an `Invalid` object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldValueTypeInvalid`, `FieldValueNotSupported`, …
    pub reason: &'static str,
    /// E.g. `spec.containers[0].name`
    pub field: String,
    /// The text after the field, e.g. `Required value`, `Invalid value: "x": must be …`.
    pub message: String,
}

impl Cause {
    /// One of them.
    pub fn new(reason: &'static str, field: &str, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.to_owned(),
            message: message.into(),
        }
    }
}

impl Failure {
    /// Any of them, with the reason Kubernetes gives with this code: HTTP's own, but for a few.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code).unwrap_or_default();
        let usual = status.canonical_reason().unwrap_or_default();
        let reason = match code {
            410 => "Expired".into(),
            413 => "RequestEntityTooLarge".into(),
            422 => "Invalid".into(),
            500 => "InternalError".into(),
            504 => "Timeout".into(),
            _ => usual.replace(' ', "").into(),
        };
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized")
    }

    /// 403 for a resource: `pods "x" is forbidden: why`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = format!("{} {name:?}", qualified(group, resource));
        let what = what.trim_end_matches(" \"\"");
        Self::new(403, format!("{what} is forbidden: {why}")).about(group, resource, name)
    }

    /// 404
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::new(404, message).about(group, resource, name)
    }

    /// 409 for a name that is taken.
    pub fn exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        let failure = Self::new(409, message).about(group, resource, name);
        let reason = "AlreadyExists".into();
        Self { reason, ..failure }
    }

    /// 409 for a write that came too late.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let message = format!("Operation cannot be fulfilled on {what} {name:?}: {why}");
        Self::new(409, message).about(group, resource, name)
    }

    /// 422
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let text = |cause: &Cause| format!("{}: {}", cause.field, cause.message);
        let text = match causes {
            [one] => text(one),
            all => format!("[{}]", all.iter().map(text).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {text}", qualified(group, kind));
        let mut failure = Self::new(422, message).about(group, kind, name);
        failure.details["causes"] = json!(causes);
        failure
    }

    /// The same with `details` that say which object.
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details = filled(json!({"name": name, "group": group, "kind": kind}));
        self
    }

    /// The body of the answer.
    pub fn body(&self) -> Value {
        filled(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "details": self.details, "code": self.code,
        }))
    }
}

/// An object without the fields that say nothing.
fn filled(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && *value != "");
    }
    object
}

/// `pods`, or `roles.rbac.authorization.k8s.io`.
pub(crate) fn qualified(group: &str, resource: &str) -> String {
    let both = format!("{resource}.{group}");
    both.trim_end_matches('.').to_owned()
}
