//! Audit events: what is written about each thing that happened, field by field. The JSON Schema in `audit/schema` is
//! generated from here.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dsse::Envelope;
use crate::hash::Running;
pub use crate::recording::Stream;
pub use crate::subject::Session;

/// What the field `version` says. A field may be added under the same version; one that changes or goes makes a new one.
pub const VERSION: &str = "drawbridge.dev/audit/v1";

/// What `previous` says on the first line of a chain.
pub const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Longest line in bytes, its newline included. Every text is bounded far below, but for JSON's escapes, which may make
/// six bytes of one.
pub const MAX_LINE: usize = 256 * 1024;

/// Longest `user`, in bytes: what the API allows for `spec.user`, were every character four bytes long.
const MAX_USER: usize = 2048;
/// Longest name, UID, address or word, in bytes; Kubernetes' names have at most 253.
const MAX_NAME: usize = 256;
/// Longest sentence, in bytes.
const MAX_TEXT: usize = 1024;
/// Most items of `argv`: what a session may fix.
const MAX_ARGV: usize = 64;
/// Most bytes of all of `argv` together.
const MAX_ARGV_BYTES: usize = 16 * 1024;

/// One line of the log: one thing that happened.
///
/// Absent fields do not apply, or are not known to whoever writes. No field ever holds what was typed or printed, a
/// token, or the `Sec-WebSocket-Protocol` header, which may hold one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "Drawbridge audit event")]
pub struct Record {
    /// Version of this schema: `drawbridge.dev/audit/v1`.
    #[schemars(extend("const" = VERSION))]
    pub version: Cow<'static, str>,
    /// Names this event. Delivery is at least once: two lines with one id are one event.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// When it happened: RFC 3339, UTC, microseconds, by the writer's wall clock.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: Type,
    /// Which program wrote it.
    pub component: Component,
    /// Which run of it: the pod's name, a slash, and the id of the run. One chain each.
    pub instance: String,
    /// Place in the chain of that run: 1, 2, 3 …
    #[schemars(range(min = 1))]
    pub seq: u64,
    /// SHA-256 of the line before in that chain, in hex, without its newline; 64 zeros on the first.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub previous: String,
    /// The rest.
    #[serde(flatten)]
    pub facts: Facts,
}

/// What is known about an event, apart from its place in the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The session it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Whom the session is for, as the API server knows them; on `Listed`, `Replayed`,
    /// `Downloaded`, `LiveViewed` and `LiveViewEnded`, who looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What the session opens: the pod and container, as granted or, for a refusal, as asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The command. At most 64 items and 16 KiB; `argvCut` says how many items are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Items of the command that did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv_cut: Option<usize>,
    /// How the session opens its target: `Exec`, `Attach` or `Observe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether there is a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    /// The session of mode `Observe` by which somebody looked; absent, if RBAC lets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observer: Option<Session>,
    /// The connection, a UUID. The API server's audit log has it as `auditID` of the exec; the recording is named so. On
    /// `LiveViewed` and `LiveViewEnded`, that of the live view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// What the API server, or the kubelet, knows the same thing by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// How it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why, as one word out of a fixed set for each type: for a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, as a sentence: for a person. At most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why access was asked for, in the requester's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
    /// When the grant ends, or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires_at: Option<Timestamp>,
    /// The HTTP status a refused request was answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Bytes of data each way, decoded: without the channel, without frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// What one stream carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// How long it lasted, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// Exit code of the process, if the far side said one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The recording it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Recording>,
    /// The sink it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// Events that are not in the log, or (with `sink`) not in that sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// Refusals like this one that were not written since the last one that was: there were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
    /// On `Started`: the last line of the run before that had the same spool, whose chain this one continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Predecessor>,
    /// On `Checkpoint` and `Stopped`: a DSSE envelope, signed, over the place and the hash of the line before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "envelope_schema")]
    pub checkpoint: Option<Envelope>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Type {
    /// A program began to write; the first line of each chain.
    Started,
    /// It ended in good order; the last line of its chain.
    Stopped,
    /// Everything before in this chain is vouched for by a signature.
    Checkpoint,
    /// A session was declared (operator).
    Requested,
    /// A session waits for its time (operator).
    Scheduled,
    /// Access is open (operator). Written before the session becomes Ready.
    Granted,
    /// Something the grant consists of was missing or changed, and was restored (operator).
    Repaired,
    /// The session ended at its time (operator).
    Expired,
    /// The session was taken back: revoked or deleted (operator).
    Revoked,
    /// The session can never be granted, or its pod is gone (operator).
    Failed,
    /// A console was opened (gateway). Written before the client is told so.
    Connected,
    /// A request was refused (gateway).
    Refused,
    /// A stream of a recorded console without a terminal carried something (gateway): one for each, before
    /// `Disconnected`.
    Transferred,
    /// A console ended (gateway).
    Disconnected,
    /// Somebody was told which recordings of a session there are (gateway). Written before they are.
    Listed,
    /// Somebody fetched what a recording shows (gateway). Written before it is sent.
    Replayed,
    /// Somebody began to watch an open console (gateway). Written before anything is shown.
    LiveViewed,
    /// They watch no more (gateway).
    LiveViewEnded,
    /// Somebody fetched the manifest of a recording (gateway). Written before it is sent.
    Downloaded,
    /// A console's recording broke off, or there is none at all: `connection` says which, `reason` why. Without one: no
    /// console can be recorded (`spool`), or the store takes nothing (`store`); once until it works again (gateway).
    RecorderFailed,
    /// What failed works again: `reason` says what, `durationSeconds` how long it did not (gateway).
    RecorderRecovered,
    /// A recording is deleted from the store: it is too old (`age`), or there are too many (`size`). Written before that
    /// (gateway).
    Removed,
    /// A sink does not take events; they wait in the spool.
    SinkFailed,
    /// It does again.
    SinkRecovered,
    /// Events were dropped; `dropped` says how many.
    EventsDropped,
}

/// Which program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// `drawbridge-operator`
    Operator,
    /// `drawbridge-gateway`
    Gateway,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, once the session was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Where a request came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// IP address and port of the peer; a proxy in between is the peer.
    pub address: String,
    /// What it says it is: its `User-Agent`, which nothing proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// What the far side knows a connection by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// The account it was opened as: `impersonatedUser.username` in the API server's audit log. None for a kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The `Audit-ID` we sent: `auditID` in the API server's audit log.
    pub audit_id: String,
}

/// How something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// As asked; for a console, the process exited with 0.
    Success,
    /// It did not; for a console, another exit code, or an error.
    Failure,
    /// Turned away.
    Refused,
    /// Cut by the gateway, or not known.
    Interrupted,
}

/// Bytes each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bytes {
    /// To the pod.
    #[serde(rename = "in")]
    pub to_pod: u64,
    /// From the pod.
    #[serde(rename = "out")]
    pub from_pod: u64,
}

/// What one stream of a process without a terminal carried. `kubectl cp` is `tar` with an archive on stdin (a copy to the
/// pod) or on stdout (a copy from it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Which stream.
    pub stream: Stream,
    /// Which way.
    pub direction: Direction,
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of all of them, in hex. Absent if the recorder could not keep up and missed some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
    /// Whether it is stdin or stdout of `tar`.
    pub archive: bool,
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the pod.
    In,
    /// From the pod.
    Out,
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recording {
    /// Its id, which is the connection's.
    pub id: String,
    /// `Complete` or `Interrupted`, once it is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// SHA-256 of its last chunk, in hex: what its manifest is signed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_head: Option<String>,
}

/// The last line of another run's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Predecessor {
    /// Whose.
    pub instance: String,
    /// Its place.
    pub seq: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// Something that happened, not in the log yet.
#[derive(Debug, PartialEq)]
pub struct Event {
    pub(crate) id: Uuid,
    pub(crate) time: Timestamp,
    pub(crate) kind: Type,
    pub(crate) facts: Box<Facts>,
}

impl Event {
    /// Happened now, by the operating system's clock.
    #[must_use]
    pub fn now(kind: Type, mut facts: Facts) -> Self {
        facts.bound();
        let time = Timestamp::now();
        Self {
            id: Uuid::now_v7(),
            // Microseconds: what the schema promises.
            time: time.round(jiff::Unit::Microsecond).unwrap_or(time),
            kind,
            facts: Box::new(facts),
        }
    }

    /// With an id made from what makes it one event: whoever tells it again, after a crash or a conflict, uses the same
    /// words and makes the same id.
    #[must_use]
    pub fn named(mut self, words: &[&str]) -> Self {
        let mut hash = Running::new();
        for word in words {
            hash.update(&u64::try_from(word.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(word.as_bytes());
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finish().as_bytes()[..16]);
        self.id = Uuid::new_v8(bytes); // RFC 9562, section 5.8: ours to define
        self
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> Type {
        self.kind
    }

    /// What is known about it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }
}

impl Facts {
    /// Cuts every text to its bound, so that no peer chooses how long a line is.
    fn bound(&mut self) {
        let Self {
            session,
            user,
            pod,
            argv,
            argv_cut,
            mode,
            tty: _,
            observer,
            connection,
            client,
            upstream,
            outcome: _,
            reason,
            message,
            justification,
            expires_at: _,
            code: _,
            bytes: _,
            transfer,
            duration_seconds,
            exit_code: _,
            recording,
            sink,
            dropped: _,
            suppressed: _,
            predecessor: _,
            checkpoint: _,
        } = self; // no `..`: a new text must be bounded here
        for session in [session, observer].into_iter().flatten() {
            let Session {
                namespace,
                name,
                uid,
            } = session;
            for text in [namespace, name, uid] {
                cut(text, MAX_NAME);
            }
        }
        if let Some(pod) = pod {
            cut(&mut pod.namespace, MAX_NAME);
            cut(&mut pod.name, MAX_NAME);
            let more = [&mut pod.uid, &mut pod.container, &mut pod.node];
            more.into_iter()
                .flatten()
                .for_each(|text| cut(text, MAX_NAME));
        }
        if let Some(client) = client {
            cut(&mut client.address, MAX_NAME);
            client
                .user_agent
                .iter_mut()
                .for_each(|text| cut(text, MAX_NAME));
        }
        if let Some(upstream) = upstream {
            upstream
                .user
                .iter_mut()
                .for_each(|text| cut(text, MAX_NAME));
            cut(&mut upstream.audit_id, MAX_NAME);
        }
        if let Some(Transfer {
            sha256: Some(sha256),
            ..
        }) = transfer
        {
            cut(sha256, MAX_NAME);
        }
        if let Some(recording) = recording {
            cut(&mut recording.id, MAX_NAME);
            let more = [&mut recording.verdict, &mut recording.chain_head];
            more.into_iter()
                .flatten()
                .for_each(|text| cut(text, MAX_NAME));
        }
        if let Some(user) = user {
            cut(user, MAX_USER);
        }
        for text in [mode, connection, reason, sink].into_iter().flatten() {
            cut(text, MAX_NAME);
        }
        for text in [message, justification].into_iter().flatten() {
            cut(text, MAX_TEXT);
        }
        *duration_seconds = duration_seconds.filter(|seconds| seconds.is_finite());
        let mut left = MAX_ARGV_BYTES;
        let fit = argv.iter().take(MAX_ARGV).take_while(|argument| {
            let fits = argument.len() <= left;
            left = left.saturating_sub(argument.len());
            fits
        });
        let fit = fit.count();
        if fit < argv.len() {
            *argv_cut = Some(argv_cut.unwrap_or(0) + argv.len() - fit);
            argv.truncate(fit);
        }
    }
}

/// Cuts at a character's boundary, and shows that something is missing.
fn cut(text: &mut String, most: usize) {
    const MARK: &str = "…";
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - MARK.len()));
        text.push_str(MARK);
    }
}

/// <https://github.com/secure-systems-lab/dsse>
fn envelope_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["payloadType", "payload", "signatures"],
        "properties": {
            "payloadType": {"const": crate::checkpoint::PAYLOAD_TYPE},
            "payload": {"type": "string", "contentEncoding": "base64"},
            "signatures": {"type": "array", "items": {
                "type": "object",
                "required": ["keyid", "sig"],
                "properties": {
                    "keyid": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
                    "sig": {"type": "string", "contentEncoding": "base64"},
                },
            }},
        },
    })
}

/// The JSON Schema of [`Record`], as it is committed in `audit/schema`.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::schema_for!(Record);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default(); // a schema is JSON
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whatever_a_peer_sends_the_line_stays_within_its_bound() {
        let long = "\u{1}".repeat(100_000);
        let mut facts = Facts {
            session: Some(Session {
                namespace: long.clone(),
                name: long.clone(),
                uid: long.clone(),
            }),
            user: Some(long.clone()),
            pod: Some(Pod {
                namespace: long.clone(),
                name: long.clone(),
                uid: Some(long.clone()),
                container: Some(long.clone()),
                node: Some(long.clone()),
            }),
            argv: vec!["\u{1}".repeat(4096); 1000],
            mode: Some(long.clone()),
            connection: Some(long.clone()),
            client: Some(Client {
                address: long.clone(),
                user_agent: Some(long.clone()),
            }),
            upstream: Some(Upstream {
                user: Some(long.clone()),
                audit_id: long.clone(),
            }),
            reason: Some(long.clone()),
            message: Some(long.clone()),
            justification: Some(long.clone()),
            recording: Some(Recording {
                id: long.clone(),
                verdict: Some(long.clone()),
                chain_head: Some(long.clone()),
            }),
            sink: Some(long),
            ..Facts::default()
        };
        facts.bound();
        assert_eq!((facts.argv.len(), facts.argv_cut), (4, Some(996)));
        let line = serde_json::to_vec(&facts).expect("JSON");
        assert!(line.len() < MAX_LINE - 2048, "{}", line.len());
        let again = facts.clone();
        facts.bound();
        assert_eq!(facts, again, "what is bounded stays as it is");
    }

    proptest! {
        #[test]
        fn a_text_is_cut_between_characters(text in "\\PC{0,40}", most in 3_usize..32) {
            let mut short = text.clone();
            cut(&mut short, most);
            prop_assert!(short.len() <= most);
            prop_assert!(short == text || text.starts_with(short.trim_end_matches('…')));
        }
    }

    #[test]
    fn the_same_words_name_the_same_event_and_others_do_not() {
        let event = |words: &[&str]| Event::now(Type::Granted, Facts::default()).named(words).id;
        assert_eq!(event(&["uid", "Granted"]), event(&["uid", "Granted"]));
        assert_ne!(event(&["uid", "Granted"]), event(&["uidG", "ranted"]));
        assert_eq!(event(&["uid"]).get_version_num(), 8);
    }

    #[test]
    fn a_line_has_the_names_of_the_schema_and_no_field_that_is_absent() {
        let record = Record {
            version: VERSION.into(),
            id: Uuid::nil(),
            time: "2030-01-01T00:00:00.5Z".parse().expect("a time"),
            kind: Type::Connected,
            component: Component::Gateway,
            instance: "gateway-0/1".into(),
            seq: 7,
            previous: NOTHING_BEFORE.into(),
            facts: Facts {
                bytes: Some(Bytes {
                    to_pod: 1,
                    from_pod: 2,
                }),
                exit_code: Some(0),
                ..Facts::default()
            },
        };
        let line = serde_json::to_value(&record).expect("JSON");
        assert_eq!(
            line,
            serde_json::json!({
                "version": "drawbridge.dev/audit/v1", "id": "00000000-0000-0000-0000-000000000000",
                "time": "2030-01-01T00:00:00.5Z", "type": "Connected", "component": "gateway", "instance": "gateway-0/1",
                "seq": 7, "previous": NOTHING_BEFORE, "bytes": {"in": 1, "out": 2}, "exitCode": 0,
            })
        );
        assert_eq!(
            serde_json::from_value::<Record>(line).expect("a record"),
            record
        );
    }
}
