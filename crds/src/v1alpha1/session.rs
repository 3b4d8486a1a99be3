//! `ConsoleSession`: one person's access to one pod, for a while.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats the struct, `pub` and all, inside a function"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::duration;

/// Access for one person to one container of one pod, or to the recordings of one session, for a limited time.
///
/// The spec is immutable but for `revoked`, which may go from `false` to `true`.
// API servers before 1.25 drop the CEL rules below: whoever changes one changes `rules::check`, too.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "drawbridge.dev",
    version = "v1alpha1",
    kind = "ConsoleSession",
    plural = "consolesessions",
    // Not `cs`: that is ComponentStatus to kubectl.
    shortname = "cons",
    category = "drawbridge",
    namespaced,
    status = "ConsoleSessionStatus",
    derive = "PartialEq",
    doc = "Access for one person to one container of one pod, or to the recordings of one session, for a limited time. The spec is immutable but for `revoked`.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must be no longer than 63 characters"),
    printcolumn = r#"{"name":"User","type":"string","jsonPath":".spec.user","description":"Who may use it"}"#,
    printcolumn = r#"{"name":"Pod","type":"string","jsonPath":".spec.target.pod.name"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    // Not of type `date`: that prints an age, and `<invalid>` for a time to come.
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.expiresAt","description":"When access ends"}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".spec.reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = Rule::new("self.user == oldSelf.user && has(self.target) == has(oldSelf.target) && (!has(self.target) || self.target == oldSelf.target) && has(self.observe) == has(oldSelf.observe) && (!has(self.observe) || self.observe == oldSelf.observe) && self.mode == oldSelf.mode && self.duration == oldSelf.duration && self.idleTimeout == oldSelf.idleTimeout && self.maxConnections == oldSelf.maxConnections && has(self.command) == has(oldSelf.command) && (!has(self.command) || self.command == oldSelf.command) && has(self.reason) == has(oldSelf.reason) && (!has(self.reason) || self.reason == oldSelf.reason) && has(self.notBefore) == has(oldSelf.notBefore) && (!has(self.notBefore) || self.notBefore == oldSelf.notBefore) && has(self.notAfter) == has(oldSelf.notAfter) && (!has(self.notAfter) || self.notAfter == oldSelf.notAfter) && has(self.ttlAfterFinished) == has(oldSelf.ttlAfterFinished) && (!has(self.ttlAfterFinished) || self.ttlAfterFinished == oldSelf.ttlAfterFinished)")
        .message("spec is immutable but for revoked; make a new session instead"),
    validation = Rule::new("self.revoked || !oldSelf.revoked").message("revoked cannot be taken back; make a new session instead"),
    validation = Rule::new("self.user != 'system:anonymous'").message("user must be somebody: system:anonymous is everybody"),
    validation = Rule::new("duration(self.duration) >= duration('1m') && duration(self.duration) <= duration('24h')")
        .message("duration must be between 1m and 24h"),
    validation = Rule::new("duration(self.idleTimeout) >= duration('10s') && duration(self.idleTimeout) <= duration('24h')")
        .message("idleTimeout must be between 10s and 24h"),
    validation = Rule::new("!has(self.notBefore) || !has(self.notAfter) || self.notBefore < self.notAfter")
        .message("notBefore must be earlier than notAfter"),
    validation = Rule::new("self.mode == 'Observe' || has(self.target)").message("target must say which pod to open"),
    validation = Rule::new("self.mode != 'Observe' || !has(self.target)")
        .message("target has no meaning with mode Observe, which opens no pod"),
    validation = Rule::new("(self.mode == 'Observe') == has(self.observe)")
        .message("observe must say which session to look at with mode Observe, and has no meaning with another"),
    validation = Rule::new("self.mode == 'Exec' || !has(self.command) || size(self.command) == 0")
        .message("command has no meaning with mode Attach or Observe, which start no process"),
    validation = Rule::new("!has(self.command) || size(self.command) == 0 || self.command[0] != ''")
        .message("command must begin with the program to run"),
    validation = Rule::new("!has(self.ttlAfterFinished) || (duration(self.ttlAfterFinished) >= duration('0s') && duration(self.ttlAfterFinished) <= duration('720h'))")
        .message("ttlAfterFinished must be between 0s and 720h")
)]
#[serde(rename_all = "camelCase")]
pub struct ConsoleSessionSpec {
    /// The one Kubernetes username who may use the session, exactly as the API server knows it, e.g.
    /// `alice@example.com`. 1 to 512 characters; not `system:anonymous`.
    #[schemars(length(min = 1, max = 512))]
    pub user: String,
    /// What to open. Required, but for `mode: Observe`, which has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "without_null::<Target>")]
    pub target: Option<Target>,
    /// How to open it: `Exec` or `Attach`; or `Observe`, which opens no pod but lets one look at another session: its
    /// recordings, and what it does now. Default: `Exec`.
    #[serde(default)]
    pub mode: Mode,
    /// What to look at. With `mode: Observe`, and only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "without_null::<Observe>")]
    pub observe: Option<Observe>,
    /// If set, the only argv allowed, compared item by item. If unset or empty, any. At most 64 items of 4096
    /// characters each. Only with `mode: Exec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Why, in the requester's words. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// How long access lasts once granted, e.g. `45m` or `1.5h`. 1m to 24h; default 1h. `notAfter` may end it earlier.
    #[serde(
        default = "default_duration",
        deserialize_with = "duration::deserialize"
    )]
    #[schemars(schema_with = "duration::schema")]
    pub duration: kube::core::Duration,
    /// Access is not granted before this time (RFC 3339). Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub not_before: Option<Time>,
    /// Access ends at this time (RFC 3339), whatever `duration` says; if it was not granted until then, it never is.
    /// Must be later than `notBefore`. Default: no such time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub not_after: Option<Time>,
    /// A connection without a byte of data in either direction for this long is ended. 10s to 24h; default 15m.
    #[serde(
        default = "default_idle_timeout",
        deserialize_with = "duration::deserialize"
    )]
    #[schemars(schema_with = "duration::schema")]
    pub idle_timeout: kube::core::Duration,
    /// Connections open at the same time, at each gateway replica. 1 to 64; default 4.
    #[serde(default = "default_max_connections")]
    #[schemars(schema_with = "max_connections_schema")]
    pub max_connections: u32,
    /// `true` ends the session at once and for good. Default: `false`.
    #[serde(default)]
    pub revoked: bool,
    /// Delete the object this long after it ended, e.g. `24h`. 0s to 720h (30 days). Default: keep it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "duration::deserialize_some"
    )]
    #[schemars(schema_with = "duration::schema")]
    pub ttl_after_finished: Option<kube::core::Duration>,
}

fn default_duration() -> kube::core::Duration {
    std::time::Duration::from_hours(1).into()
}

fn default_idle_timeout() -> kube::core::Duration {
    std::time::Duration::from_mins(15).into()
}

fn default_max_connections() -> u32 {
    4
}

impl ConsoleSessionSpec {
    /// Name of the pod to open; `None` with `mode: Observe`.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        self.target.as_ref().map(|target| target.pod.name.as_str())
    }

    /// Name of the only container that may be entered, if there is but one.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        self.target.as_ref()?.container.as_deref()
    }
}

/// As the derived schema of the type inside the option, without `nullable`: CEL's `has` is true for a null.
fn without_null<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// As the derived schema, but without `nullable`: CEL's `has` is true for a null.
fn time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// As the derived schema, but with a format every API server knows.
fn max_connections_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 64})
}

/// What a session opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// A pod by name.
    pub pod: PodTarget,
    /// Name of the only container that may be entered, at most 63 characters. Default: any that the pod lists under
    /// `containers`; a command that names none enters the one the pod's annotation
    /// `kubectl.kubernetes.io/default-container` names, else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub container: Option<String>,
}

/// A pod by name, in the session's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTarget {
    /// Name of the pod, 1 to 253 characters. It may be created later than the session.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// What a session of `mode: Observe` looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observe {
    /// Name of a session in the same namespace, 1 to 63 characters. It may be created later; once access began, it is that
    /// very session, and no later one of its name.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub session: String,
}

/// How a session opens its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Run a command in the container (`pods/exec`).
    #[default]
    Exec,
    /// Attach to the container's own process (`pods/attach`).
    Attach,
    /// Look at the recordings of another session, and at what it does now; opens no pod.
    Observe,
}

/// What the operator made of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsoleSessionStatus {
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the session is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// `Ready`, and `Stalled` once the session can never become ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The pod the grant names. It never changes once set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ResolvedTarget>,
    /// The session the grant lets one look at, with `mode: Observe`. It never changes once set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<ObservedSession>,
    /// Where the user finds the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// When access began, in whole seconds. Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<Time>,
    /// When access ends: the earlier of `grantedAt` plus `duration` and `notAfter`, in whole seconds. The gateway cuts at
    /// this time by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When access ended, or when it was certain that it never begins. Final: nothing revives an ended session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Why access ended, or never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// How connections are recorded, fixed when access began. A session that has none is recorded as `Required`,
    /// without keystrokes or payloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingTerms>,
    /// The finished recordings, written by the gateway once they are in the store; the newest 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"])
    )]
    pub recordings: Vec<Recorded>,
}

/// Most entries of [`ConsoleSessionStatus::recordings`]; the oldest make room.
pub const MAX_RECORDED: usize = 64;

/// How the connections of a session are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingTerms {
    /// What happens where there can be no recording.
    pub level: RecordingLevel,
    /// Whether what is typed is recorded, too; never what the terminal did not echo.
    #[serde(default)]
    pub keystrokes: bool,
    /// Whether the bytes of binary streams are recorded, and not only their number and hash.
    #[serde(default)]
    pub payloads: bool,
}

/// What happens where there can be no recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RecordingLevel {
    /// No connection without a recording: new ones are refused, open ones are ended.
    #[default]
    Required,
    /// Connections go on, and the recording says what it lacks.
    BestEffort,
    /// Nothing is recorded.
    Off,
}

/// One finished recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The recording's ID, which is the connection's: a UUID.
    #[schemars(length(max = 36))]
    pub id: String,
    /// URL of the directory that holds it; absent if there is none.
    // Not told rather than empty: API servers of 1.20 take an empty text for null, and refuse it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub location: String,
    /// Whether it holds everything.
    pub verdict: RecordingVerdict,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// When it begins.
    pub started_at: Time,
    /// How long it is, in whole seconds.
    #[schemars(schema_with = "count_schema")]
    pub duration_seconds: u64,
    /// Its size in the store, without the manifest.
    #[schemars(schema_with = "count_schema")]
    pub bytes: u64,
    /// Hash of its last chunk (SHA-256, hex), which all before lead to; absent when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub chain_head: String,
}

/// Whether a recording holds everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RecordingVerdict {
    /// From the first byte to the end of the connection.
    Complete,
    /// It breaks off, or lacks something; `reason` says why.
    Interrupted,
    /// There is none: the connection went on without, as `BestEffort` allows; `reason` says why.
    Missing,
}

/// As the derived schema, but with a format every API server knows.
fn count_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0})
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Waiting for the pod to exist and run.
    Pending,
    /// Waiting for `notBefore`.
    Scheduled,
    /// Access is open.
    Ready,
    /// Access ended at its time.
    Expired,
    /// Access was taken away: `revoked`, or the session or its namespace was deleted.
    Revoked,
    /// Access cannot be given, or its pod is gone.
    Failed,
}

impl Phase {
    /// Whether a session in this phase has ended for good.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Phase::Expired | Phase::Revoked | Phase::Failed)
    }
}

/// Why access ended, or never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EndReason {
    /// `expiresAt` passed.
    Expired,
    /// `notAfter` passed before access was ever given.
    WindowMissed,
    /// `spec.revoked` was set.
    Revoked,
    /// The session is being deleted.
    SessionDeleted,
    /// The session's namespace is being deleted.
    NamespaceDeleted,
    /// The pod was deleted.
    PodDeleted,
    /// A pod of the same name but another UID took its place.
    PodReplaced,
    /// The pod ran to completion.
    PodFinished,
    /// The pod has no container of the requested name.
    ContainerNotFound,
    /// The spec breaks a rule of the API; the `Stalled` condition says which.
    InvalidSpec,
}

/// The pod a grant names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedTarget {
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod; access ends when the pod of this name has another.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// The container of that pod that is entered when none is named.
    pub container: String,
    /// Every container of that pod the session may enter, `container` among them, fixed when access began. One if the
    /// spec names one; empty, which means `container` alone, if access began before there was this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Node the pod runs on.
    pub node: String,
}

impl ResolvedTarget {
    /// Whether the session may enter the container of that name.
    #[must_use]
    pub fn admits(&self, container: &str) -> bool {
        self.container == container || self.containers.iter().any(|name| name == container)
    }
}

/// The session a grant of `mode: Observe` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObservedSession {
    /// Its name.
    pub session: String,
    /// Its UID; a later session of the same name is another.
    pub uid: String,
}

/// Where the user finds the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// Name of the Secret in the session's namespace: keys `token` and `kubeconfig`.
    pub secret: String,
    /// When the token itself expires: `expiresAt`, or ten minutes after it was issued if that is later
    /// (the API server issues no shorter token; the gateway enforces `expiresAt`).
    pub expires_at: Time,
}
