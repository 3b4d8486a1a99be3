//! Who asks, and whether they may.

pub(crate) mod authenticate;
pub(crate) mod rbac;
pub(crate) mod reviews;
pub(crate) mod tokens;

use std::collections::BTreeMap;

use serde::Serialize;

/// Group of whoever proved who he is.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// Group of whoever did not.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group that may do anything, whatever the roles say.
pub(crate) const MASTERS: &str = "system:masters";
/// Who asks without a credential.
pub(crate) const ANONYMOUS: &str = "system:anonymous";

const ACCOUNT: &str = "system:serviceaccount:";

/// Who asks; serialized, the `userInfo` of reviews.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// `alice@example.com`, `system:serviceaccount:ns:name`, `system:anonymous`
    pub username: String,
    /// Empty for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// With `system:authenticated` or `system:unauthenticated`.
    pub groups: Vec<String>,
    /// E.g. `authentication.kubernetes.io/pod-name`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// The sandbox itself: controllers and the kubelet.
    #[must_use]
    pub fn sandbox(username: &str) -> Self {
        Self::user(username, vec![MASTERS.to_owned()])
    }

    /// A person, or whoever else is not a ServiceAccount, with these groups and `system:authenticated`.
    pub(crate) fn user(username: &str, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.to_owned());
        Self {
            username: username.to_owned(),
            groups,
            ..Self::default()
        }
    }

    /// A ServiceAccount, with the groups every one has.
    pub(crate) fn account(namespace: &str, name: &str, uid: &str) -> Self {
        let group = "system:serviceaccounts";
        let groups = vec![group.to_owned(), format!("{group}:{namespace}")];
        Self {
            uid: uid.to_owned(),
            ..Self::user(&format!("{ACCOUNT}{namespace}:{name}"), groups)
        }
    }

    /// Whether it is in a group.
    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|mine| mine == group)
    }
}

/// Namespace and name of the ServiceAccount a username is of, if it is of one.
pub(crate) fn account_of(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix(ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
