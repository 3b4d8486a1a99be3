//! Names, labels and namespaces the operator and the gateway must agree on.

use kube::ResourceExt;

use crate::v1alpha1::ConsoleSession;

/// Default namespace of the session accounts. Nobody but the operator and the gateway has rights there.
pub const SESSIONS_NAMESPACE: &str = "drawbridge-sessions";

/// The audience of session tokens. The API server refuses it, so a stolen token is useless there.
pub const TOKEN_AUDIENCE: &str = "drawbridge-gateway";

/// Label: UID of the session an object was made for.
pub const SESSION_UID_LABEL: &str = "drawbridge.dev/session-uid";
/// Label: name of the session an object was made for.
pub const SESSION_NAME_LABEL: &str = "drawbridge.dev/session";
/// Label: namespace of the session an object was made for.
pub const SESSION_NAMESPACE_LABEL: &str = "drawbridge.dev/session-namespace";

/// Label: `"true"` at a session keeps its recordings, whatever the retention says.
pub const LEGAL_HOLD_LABEL: &str = "drawbridge.dev/legal-hold";

/// Default namespace of the operator and the gateway.
pub const SYSTEM_NAMESPACE: &str = "drawbridge-system";

/// Secret in [`SYSTEM_NAMESPACE`] with the key that records are signed with.
pub const SIGNING_SECRET: &str = "drawbridge-signing";
/// Key of that Secret: an Ed25519 key, PKCS#8 in PEM.
pub const SIGNING_KEY: &str = "ed25519";
/// ConfigMap beside it with every public key that ever signed: `<key id>.pem`.
pub const SIGNING_KEYS: &str = "drawbridge-signing-keys";

/// Finalizer that holds a session until its account in [`SESSIONS_NAMESPACE`] is gone.
pub const FINALIZER: &str = "drawbridge.dev/session-account";

/// Longest name a session may have, in bytes: it becomes a label value (63), and other names are derived from it.
pub const MAX_SESSION_NAME: usize = 63;

/// Prefix of a session's ServiceAccount and anchor Secret; the session's UID follows.
const ACCOUNT_PREFIX: &str = "cs-";

/// Name of the ServiceAccount and of the anchor Secret of the session with this UID.
#[must_use]
pub fn account(session_uid: &str) -> String {
    format!("{ACCOUNT_PREFIX}{session_uid}")
}

/// Username the API server gives to the account of the session with this UID.
#[must_use]
pub fn account_username(sessions_namespace: &str, session_uid: &str) -> String {
    format!("system:serviceaccount:{sessions_namespace}:{ACCOUNT_PREFIX}{session_uid}")
}

/// The session UID behind a username, or `None` when it is not a session account of `sessions_namespace`.
#[must_use]
pub fn session_uid<'a>(sessions_namespace: &str, username: &'a str) -> Option<&'a str> {
    username
        .strip_prefix("system:serviceaccount:")?
        .strip_prefix(sessions_namespace)?
        .strip_prefix(':')?
        .strip_prefix(ACCOUNT_PREFIX)
        .filter(|uid| !uid.is_empty())
}

/// Name of the Secret, Role and RoleBinding made for a session in its own namespace: `<session>-<first 8 of uid>`.
///
/// `None` for an object that has no UID yet, i.e. was never stored.
#[must_use]
pub fn grant(session: &ConsoleSession) -> Option<String> {
    let uid = session.metadata.uid.as_deref()?;
    Some(format!(
        "{}-{}",
        session.name_any(),
        uid.get(..8).unwrap_or(uid)
    ))
}

/// Whether a session is labelled to keep its recordings.
#[must_use]
pub fn legal_hold(session: &ConsoleSession) -> bool {
    let label = session.labels().get(LEGAL_HOLD_LABEL);
    label.is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_maps_to_the_session_it_was_made_for_and_to_no_other() {
        let name = account_username(SESSIONS_NAMESPACE, "6f1c");
        assert_eq!(session_uid(SESSIONS_NAMESPACE, &name), Some("6f1c"));
        for foreign in [
            "system:serviceaccount:drawbridge-sessions:cs-",
            "system:serviceaccount:drawbridge-sessions:default",
            "system:serviceaccount:drawbridge-sessions2:cs-6f1c",
            "system:serviceaccount:default:cs-6f1c",
            "cs-6f1c",
            "",
        ] {
            assert_eq!(session_uid(SESSIONS_NAMESPACE, foreign), None, "{foreign}");
        }
    }
}
