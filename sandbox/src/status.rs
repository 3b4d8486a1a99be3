//! Why a request failed, as the `Status` Kubernetes answers with.

use std::borrow::Cow;

use serde_json::{Value, json};

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
    /// Whether the answer is the message alone, as text: where the API server fails before it speaks of objects.
    pub plain: bool,
}

/// One cause of an `Invalid` object.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Any of them; the constructors below for the common ones.
    pub fn new(
        code: u16,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            details: Value::Null,
            plain: false,
        }
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 for a resource: `pods "x" is forbidden: why`.
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let mut what = qualified(group, resource);
        if !name.is_empty() {
            what = format!("{what} {name:?}");
        }
        let message = format!("{what} is forbidden: {why}");
        Self::new(403, "Forbidden", message).about(group, resource, name)
    }

    /// 404
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::new(404, "NotFound", message).about(group, resource, name)
    }

    /// 404 for a path that is not served.
    #[must_use]
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(404, "NotFound", message).about("", "", "")
    }

    /// 409 for a name that is taken.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Self::new(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// 409 for a write that came too late.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let message = format!("Operation cannot be fulfilled on {what} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(group, resource, name)
    }

    /// 422
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let (mut list, mut texts) = (Vec::new(), Vec::new());
        for cause in causes {
            texts.push(format!("{}: {}", cause.field, cause.message));
            list.push(
                json!({"reason": cause.reason, "message": cause.message, "field": cause.field}),
            );
        }
        let mut text = texts.join(", ");
        if texts.len() != 1 {
            text = format!("[{text}]");
        }
        let message = format!("{} {name:?} is invalid: {text}", qualified(group, kind));
        let mut failure = Self::new(422, "Invalid", message).about(group, kind, name);
        failure.details["causes"] = list.into();
        failure
    }

    /// 410 for a revision or a list token that is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 500
    #[must_use]
    pub fn internal(why: &str) -> Self {
        let message = format!("Internal error occurred: {why}");
        let mut failure = Self::new(500, "InternalError", message);
        failure.details = json!({"causes": [{"message": why}]});
        failure
    }

    /// The same with `details` that say which object.
    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details = json!({});
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                self.details[key] = value.into();
            }
        }
        self
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "details": self.details, "code": self.code,
        });
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|_, value| !value.is_null() && *value != "");
        }
        body
    }
}

/// `pods`, or `roles.rbac.authorization.k8s.io`.
#[must_use]
pub fn qualified(group: &str, resource: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    format!("{resource}{dot}{group}")
}
