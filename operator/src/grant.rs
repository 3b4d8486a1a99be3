//! The objects one granted session needs. Pure: every name, label and owner is computed here and nowhere else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, Mode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Key of the token in the user's Secret.
pub const TOKEN_KEY: &str = "token";
/// Key of the kubeconfig in the user's Secret.
pub const KUBECONFIG_KEY: &str = "kubeconfig";

/// Shortest lifetime a token can be asked for; the API server refuses less.
const MIN_TOKEN_LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// A token the API server made shorter-lived than the grant is replaced this long before it expires.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(2);

const RBAC: &str = "rbac.authorization.k8s.io";

// On the user's Secret: what its token is good for, so that one look at the Secret tells whether it still is.
const ACCOUNT_UID: &str = "drawbridge.dev/account-uid";
const ANCHOR_UID: &str = "drawbridge.dev/anchor-uid";
const GATEWAY: &str = "drawbridge.dev/gateway";
const GATEWAY_CA: &str = "drawbridge.dev/gateway-ca-sha256";
const GRANTED_UNTIL: &str = "drawbridge.dev/granted-until";
const TOKEN_EXPIRES_AT: &str = "drawbridge.dev/token-expires-at";
const CONTENT: &str = "drawbridge.dev/content-sha256";

/// How users reach the gateway; the same for every session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// `https://host[:port]`, as a client outside the cluster reaches it.
    pub url: String,
    /// PEM certificates that sign the gateway's own; `None` when clients trust it already.
    pub ca: Option<Vec<u8>>,
}

/// Everything but the token of one grant, as it should be.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The session's account in the sessions namespace.
    pub account: ServiceAccount,
    /// The empty Secret beside it that the token is bound to.
    pub anchor: Secret,
    /// What the account may do in the cluster, and what gives it that: this pod, this mode. `None` with `mode: Observe`,
    /// whose account may do nothing there.
    pub pod: Option<PodAccess>,
    /// What the user may read: the Secret with the token, this session.
    pub user_role: Role,
    /// Gives `user_role` to the user.
    pub user_binding: RoleBinding,
}

/// The right to open one pod.
#[derive(Clone, Debug)]
pub struct PodAccess {
    /// What may be done.
    pub role: Role,
    /// Gives `role` to the session's account.
    pub binding: RoleBinding,
}

/// What a token is bound to. A Secret whose token is bound to anything else is issued anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// UID of the session's ServiceAccount.
    pub account_uid: String,
    /// UID of the anchor Secret.
    pub anchor_uid: String,
    /// `status.expiresAt` of the session.
    pub until: Timestamp,
}

/// Names of what is made in the session's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The account's Role and RoleBinding, and the user's Secret.
    pub grant: String,
    /// The user's Role and RoleBinding.
    pub user: String,
    /// ServiceAccount and anchor Secret in the sessions namespace.
    pub account: String,
}

impl Names {
    /// `None` for an object that was never stored (it has no UID).
    #[must_use]
    pub fn of(session: &ConsoleSession) -> Option<Self> {
        let grant = names::grant(session)?;
        Some(Self {
            user: format!("{grant}-user"),
            account: names::account(session.metadata.uid.as_deref()?),
            grant,
        })
    }
}

/// The objects of a session's grant. `None` for an object that was never stored.
#[must_use]
pub fn grant(session: &ConsoleSession, sessions_namespace: &str) -> Option<Grant> {
    let names = Names::of(session)?;
    let apart = || metadata(session, sessions_namespace, &names.account);
    let beside = |name: &str| ObjectMeta {
        owner_references: session.owner_ref(&()).map(|owner| vec![owner]),
        ..metadata(session, &session.namespace().unwrap_or_default(), name)
    };
    let subresource = match session.spec.mode {
        Mode::Exec => Some("pods/exec"),
        Mode::Attach => Some("pods/attach"),
        Mode::Observe => None,
    };
    let pod = session.spec.pod().zip(subresource);
    let pod = pod.map(|(pod, subresource)| PodAccess {
        role: Role {
            metadata: beside(&names.grant),
            rules: Some(vec![
                // Kubernetes 1.35 and later ask for `create` even when the exec is a WebSocket, which is a GET.
                rule("", subresource, pod, &["get", "create"]),
                rule("", "pods", pod, &["get"]),
            ]),
        },
        binding: RoleBinding {
            metadata: beside(&names.grant),
            role_ref: role_ref(&names.grant),
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".into(),
                name: names.account.clone(),
                namespace: Some(sessions_namespace.into()),
                ..Subject::default()
            }]),
        },
    });
    Some(Grant {
        account: ServiceAccount {
            metadata: apart(),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        anchor: Secret {
            metadata: apart(),
            ..Secret::default()
        },
        pod,
        user_role: Role {
            metadata: beside(&names.user),
            rules: Some(vec![
                rule("", "secrets", &names.grant, &["get"]),
                rule(
                    "drawbridge.dev",
                    "consolesessions",
                    &session.name_any(),
                    &["get", "watch"],
                ),
            ]),
        },
        user_binding: RoleBinding {
            metadata: beside(&names.user),
            role_ref: role_ref(&names.user),
            subjects: Some(vec![Subject {
                api_group: Some(RBAC.into()),
                kind: "User".into(),
                name: session.spec.user.clone(),
                ..Subject::default()
            }]),
        },
    })
}

fn metadata(session: &ConsoleSession, namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        labels: Some(BTreeMap::from([
            (
                names::SESSION_UID_LABEL.into(),
                session.uid().unwrap_or_default(),
            ),
            (names::SESSION_NAME_LABEL.into(), session.name_any()),
            (
                names::SESSION_NAMESPACE_LABEL.into(),
                session.namespace().unwrap_or_default(),
            ),
        ])),
        ..ObjectMeta::default()
    }
}

fn rule(group: &str, resource: &str, name: &str, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.into()]),
        resources: Some(vec![resource.into()]),
        resource_names: Some(vec![name.into()]),
        verbs: verbs.iter().map(|&verb| verb.into()).collect(),
        ..PolicyRule::default()
    }
}

fn role_ref(role: &str) -> RoleRef {
    RoleRef {
        api_group: RBAC.into(),
        kind: "Role".into(),
        name: role.into(),
    }
}

/// Asks for a token that lives as long as the grant, but no less than the API server gives (10 minutes).
#[must_use]
pub fn token_request(account: &str, bound: &Bound, now: Timestamp) -> TokenRequest {
    let lifetime = bound.until.duration_since(now).max(MIN_TOKEN_LIFETIME);
    // Whole seconds, rounded up: the token must not expire before the grant does.
    let seconds = lifetime.as_secs() + i64::from(lifetime.subsec_nanos() > 0);
    TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![names::TOKEN_AUDIENCE.into()],
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Secret".into()),
                name: Some(account.into()),
                uid: Some(bound.anchor_uid.clone()),
            }),
            expiration_seconds: Some(seconds),
        },
        ..TokenRequest::default()
    }
}

/// The user's Secret, with the token and a kubeconfig that needs nothing else. `None` for an object never stored.
#[must_use]
pub fn credential(
    session: &ConsoleSession,
    gateway: &Gateway,
    bound: &Bound,
    token: &str,
    token_expires_at: Timestamp,
) -> Option<Secret> {
    let names = Names::of(session)?;
    let mut metadata = metadata(
        session,
        &session.namespace().unwrap_or_default(),
        &names.grant,
    );
    metadata.owner_references = session.owner_ref(&()).map(|owner| vec![owner]);
    let mut secret = Secret {
        metadata,
        data: Some(BTreeMap::from([
            (TOKEN_KEY.into(), ByteString(token.into())),
            (
                KUBECONFIG_KEY.into(),
                ByteString(kubeconfig(session, gateway, token).into()),
            ),
        ])),
        type_: Some("Opaque".into()),
        ..Secret::default()
    };
    let mut annotations = bound_annotations(bound, gateway);
    annotations.insert(TOKEN_EXPIRES_AT.into(), token_expires_at.to_string());
    annotations.insert(CONTENT.into(), content(&digested(secret.clone())));
    secret.metadata.annotations = Some(annotations);
    Some(secret)
}

fn bound_annotations(bound: &Bound, gateway: &Gateway) -> BTreeMap<String, String> {
    let ca = gateway.ca.as_deref().map(sha256).unwrap_or_default();
    BTreeMap::from([
        (ACCOUNT_UID.into(), bound.account_uid.clone()),
        (ANCHOR_UID.into(), bound.anchor_uid.clone()),
        (GRANTED_UNTIL.into(), bound.until.to_string()),
        (GATEWAY.into(), gateway.url.clone()),
        (GATEWAY_CA.into(), ca),
    ])
}

/// When the token in a (digested) Secret expires; `None` when the Secret must be written anew, with a new token:
/// it was edited, is bound to something else, or expires before the grant and soon.
#[must_use]
pub fn token_expiry(
    secret: &Secret,
    bound: &Bound,
    gateway: &Gateway,
    now: Timestamp,
) -> Option<Timestamp> {
    let has = secret.annotations();
    let as_bound = bound_annotations(bound, gateway)
        .iter()
        .all(|(key, value)| has.get(key) == Some(value));
    let unedited = has
        .get(CONTENT)
        .is_some_and(|hash| *hash == content(secret));
    let expires_at: Timestamp = has.get(TOKEN_EXPIRES_AT)?.parse().ok()?;
    let fresh = renew_at(expires_at, bound.until).is_none_or(|at| now < at);
    (as_bound && unedited && fresh).then_some(expires_at)
}

/// When a token must be replaced because it expires before the grant; `None` when it outlives it.
#[must_use]
pub fn renew_at(token_expires_at: Timestamp, until: Timestamp) -> Option<Timestamp> {
    if token_expires_at >= until {
        return None;
    }
    token_expires_at.checked_sub(RENEW_BEFORE).ok()
}

/// The Secret with every value replaced by its SHA-256: enough to see that somebody edited it. The operator keeps
/// Secrets only in this form.
#[must_use]
pub fn digested(mut secret: Secret) -> Secret {
    for value in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        *value = ByteString(Sha256::digest(&value.0).to_vec());
    }
    secret.string_data = None;
    secret
}

/// Hash of the values of a digested Secret that matter; other keys, which somebody may have added, do not.
fn content(digested: &Secret) -> String {
    let mut hash = Sha256::new();
    for key in [TOKEN_KEY, KUBECONFIG_KEY] {
        let value = digested.data.as_ref().and_then(|data| data.get(key));
        hash.update(key);
        hash.update([0]);
        hash.update(value.map_or(&[][..], |value| &value.0));
    }
    hex(&hash.finalize())
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A kubeconfig in JSON, which is YAML too: server, CA, token and namespace are all in it.
fn kubeconfig(session: &ConsoleSession, gateway: &Gateway, token: &str) -> String {
    let name = "drawbridge";
    let mut cluster = json!({"server": gateway.url});
    if let Some(ca) = &gateway.ca {
        cluster["certificate-authority-data"] = BASE64_STANDARD.encode(ca).into();
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{
            "name": name,
            "context": {"cluster": name, "user": name, "namespace": session.namespace().unwrap_or_default()},
        }],
        "current-context": name,
    });
    format!("{config:#}\n")
}

/// What the operator makes, and how it is told from what it should be.
pub trait Made:
    Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + serde::Serialize
    + serde::de::DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Whether it does what `wanted` does; labels and owner apart.
    fn same(&self, wanted: &Self) -> bool;

    /// Whether an update can make it `wanted`; if not, it must be deleted first.
    fn can_become(&self, _wanted: &Self) -> bool {
        true
    }

    /// Takes out of an answer what must not be kept in memory.
    #[must_use]
    fn for_cache(self) -> Self {
        self
    }
}

impl Made for ServiceAccount {
    fn same(&self, wanted: &Self) -> bool {
        self.automount_service_account_token == wanted.automount_service_account_token
    }
}

impl Made for Secret {
    /// Only for the anchor, whose content means nothing; [`token_expiry`] is for the user's Secret.
    fn same(&self, _wanted: &Self) -> bool {
        true
    }

    fn for_cache(self) -> Self {
        digested(self)
    }
}

impl Made for Role {
    fn same(&self, wanted: &Self) -> bool {
        self.rules == wanted.rules
    }
}

impl Made for RoleBinding {
    fn same(&self, wanted: &Self) -> bool {
        self.can_become(wanted) && self.subjects == wanted.subjects
    }

    /// The API server refuses another `roleRef`.
    fn can_become(&self, wanted: &Self) -> bool {
        self.role_ref == wanted.role_ref
    }
}

/// Whether `found` is `wanted` already: substance, labels and owner. Further labels and owners do no harm.
pub fn in_sync<K: Made>(found: &K, wanted: &K) -> bool {
    let labels = wanted
        .labels()
        .iter()
        .all(|(key, value)| found.labels().get(key) == Some(value));
    let owners = wanted.owner_references().iter().all(|owner| {
        found
            .owner_references()
            .iter()
            .any(|other| other.uid == owner.uid)
    });
    labels && owners && found.same(wanted)
}

/// Whether `found`, which has the name of `wanted`, was made for the same session: its label or its owner says so.
pub fn same_session<K: Made>(found: &K, wanted: &K) -> bool {
    let uid = |object: &K| object.labels().get(names::SESSION_UID_LABEL).cloned();
    let owned = wanted.owner_references().iter().any(|owner| {
        found
            .owner_references()
            .iter()
            .any(|other| other.uid == owner.uid)
    });
    owned || (uid(found).is_some() && uid(found) == uid(wanted))
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
