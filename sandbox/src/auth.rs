//! Who asks, and whether they may.

pub mod authenticate;
pub mod rbac;
pub mod reviews;
pub mod tokens;

use serde_json::{Value, json};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `alice@example.com`, `system:serviceaccount:ns:name`, `system:anonymous`
    pub username: String,
    /// Empty for people.
    pub uid: String,
    /// With `system:authenticated` or `system:unauthenticated`.
    pub groups: Vec<String>,
    /// E.g. `authentication.kubernetes.io/pod-name`.
    pub extra: Vec<(String, Vec<String>)>,
}

impl Identity {
    /// The sandbox itself: controllers and the kubelet.
    #[must_use]
    pub fn sandbox(username: &str) -> Self {
        Self {
            username: username.to_owned(),
            groups: vec![
                "system:masters".to_owned(),
                "system:authenticated".to_owned(),
            ],
            ..Self::default()
        }
    }

    /// As `userInfo` of reviews.
    #[must_use]
    pub fn user_info(&self) -> Value {
        let mut info = json!({"username": self.username, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            info["extra"] = self
                .extra
                .iter()
                .map(|(key, values)| (key.clone(), json!(values)))
                .collect();
        }
        info
    }
}
