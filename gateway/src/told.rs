//! What the audit log is told of consoles, refusals, recordings and looks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use drawbridge_audit::event::{self, Direction, Event, Facts, Pod, Type, Upstream};
use drawbridge_audit::recording::{Carried, Manifest, Opening, Stream as Channel, Verdict, is_tar};
use drawbridge_crds::v1alpha1::{Recorded, ResolvedTarget};
use drawbridge_protocol::transcode::Outcome;
use http::HeaderMap;
use http::header::USER_AGENT;
use uuid::Uuid;

use crate::bridge::{Closed, Ended};
use crate::look::{Viewer, Watched};
use crate::refusal::Refusal;
use crate::route::{Route, Stream};
use crate::session::Session;

/// What is known of a request, should it be refused.
#[derive(Debug)]
pub(crate) struct Case {
    client: event::Client,
    facts: Facts,
    /// Whether nothing proves who asks.
    stranger: bool,
}

impl Case {
    /// A request from `addr`.
    pub(crate) fn new(headers: &HeaderMap, addr: SocketAddr) -> Self {
        Self {
            client: client(headers, addr),
            facts: Facts::default(),
            stranger: true,
        }
    }

    /// It asks for `route`.
    pub(crate) fn asks(&mut self, route: &Route) {
        match route {
            Route::Stream(stream) => {
                self.facts.pod = Some(Pod {
                    namespace: stream.namespace.clone(),
                    name: stream.pod.clone(),
                    uid: None,
                    container: stream.container.clone(),
                    node: None,
                });
                self.facts.argv.clone_from(&stream.command);
                self.facts.tty = Some(stream.streams.tty);
            }
            Route::Pod { namespace, pod } => {
                self.facts.pod = Some(Pod {
                    namespace: namespace.clone(),
                    name: pod.clone(),
                    uid: None,
                    container: None,
                    node: None,
                });
            }
            _ => {}
        }
    }

    /// It comes from who holds the token of `session`.
    pub(crate) fn of(&mut self, session: &Arc<Session>) {
        self.stranger = false;
        who(&mut self.facts, session);
        if self.facts.pod.is_none() {
            let target = session.target.as_ref();
            self.facts.pod = target.map(|target| pod(session, target));
        }
    }

    /// It comes from somebody the API server knows, who need not have any right.
    pub(crate) fn by(&mut self, user: &str) {
        self.facts.user = Some(user.to_owned());
    }

    /// It comes from somebody who may look at this session.
    pub(crate) fn about(&mut self, viewer: &Viewer, watched: &Watched) {
        self.stranger = false;
        let client = self.client.clone();
        let Facts {
            session,
            user,
            observer,
            ..
        } = look(viewer, watched, None, client);
        self.facts = Facts {
            session,
            user,
            observer,
            ..Facts::default()
        };
    }

    /// Whether nothing proves who asks, and what to say about the refusal.
    pub(crate) fn refused(self, refusal: &Refusal) -> (bool, Facts) {
        let facts = Facts {
            client: Some(self.client),
            outcome: Some(event::Outcome::Refused),
            reason: Some(refusal.kind().label().to_owned()),
            message: Some(refusal.public().to_owned()),
            code: Some(refusal.code()),
            ..self.facts
        };
        (self.stranger, facts)
    }
}

/// Where a request comes from.
pub(crate) fn client(headers: &HeaderMap, addr: SocketAddr) -> event::Client {
    let agent = headers.get(USER_AGENT);
    event::Client {
        address: addr.to_string(),
        user_agent: agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned()),
    }
}

/// What is known of a console from its first moment; `account`: as whom it is opened at the API server.
pub(crate) fn console(
    session: &Session,
    target: &ResolvedTarget,
    stream: &Stream,
    connection: &str,
    client: event::Client,
    account: Option<String>,
) -> Facts {
    let mut facts = Facts {
        pod: Some(pod(session, target)),
        argv: stream.command.clone(),
        tty: Some(stream.streams.tty),
        connection: Some(connection.to_owned()),
        client: Some(client),
        upstream: Some(Upstream {
            user: account,
            audit_id: connection.to_owned(),
        }),
        ..Facts::default()
    };
    who(&mut facts, session);
    facts
}

/// A console was opened.
pub(crate) fn connected(facts: Facts) -> Event {
    Event::now(
        Type::Connected,
        Facts {
            outcome: Some(event::Outcome::Success),
            ..facts
        },
    )
}

/// A console ended; `None`: the client did not take its 101. `reason`: the label of the end.
pub(crate) fn disconnected(
    facts: Facts,
    ended: Option<&Ended>,
    reason: &'static str,
    lasted: Duration,
) -> Event {
    let tally = ended.map(|ended| ended.tally).unwrap_or_default();
    let process = ended.and_then(|ended| ended.outcome.as_ref());
    let outcome = match (process, ended.map(|ended| ended.closed)) {
        (_, Some(Closed::Stopped(_))) => event::Outcome::Interrupted,
        (Some(Outcome::Success), _) => event::Outcome::Success,
        (Some(Outcome::Exit(_) | Outcome::Error { .. }), _) => event::Outcome::Failure,
        _ => event::Outcome::Interrupted,
    };
    let exit_code = match process {
        Some(Outcome::Success) => Some(0),
        Some(Outcome::Exit(code)) => i32::try_from(*code).ok(),
        _ => None,
    };
    let facts = Facts {
        outcome: Some(outcome),
        reason: Some(reason.to_owned()),
        bytes: Some(event::Bytes {
            to_pod: tally.bytes_in,
            from_pod: tally.bytes_out,
        }),
        duration_seconds: Some(lasted.as_secs_f64()),
        exit_code,
        ..facts
    };
    Event::now(Type::Disconnected, facts)
}

/// What a stream of a console carried.
pub(crate) fn transferred(facts: Facts, carried: Carried) -> Event {
    let transfer = event::Transfer {
        stream: carried.stream,
        direction: match carried.stream {
            Channel::Stdin => Direction::In,
            Channel::Stdout | Channel::Stderr => Direction::Out,
        },
        bytes: carried.bytes,
        sha256: carried.sha256.map(|sha256| sha256.to_string()),
        archive: carried.stream != Channel::Stderr && is_tar(&facts.argv),
    };
    let facts = Facts {
        transfer: Some(transfer),
        ..facts
    };
    Event::now(Type::Transferred, facts)
}

/// What is known of somebody who looks at a session's recordings, or at one of them.
pub(crate) fn look(
    viewer: &Viewer,
    watched: &Watched,
    recording: Option<Uuid>,
    client: event::Client,
) -> Facts {
    let observer = match viewer {
        Viewer::Session(session) => Some(named(session)),
        Viewer::Person(..) => None,
    };
    Facts {
        session: Some(event::Session {
            namespace: watched.namespace.clone(),
            name: watched.name.clone(),
            uid: watched.uid.clone(),
        }),
        user: Some(viewer.user().to_owned()),
        observer,
        client: Some(client),
        outcome: Some(event::Outcome::Success),
        recording: recording.map(|id| event::Recording {
            id: id.to_string(),
            verdict: None,
            chain_head: None,
        }),
        ..Facts::default()
    }
}

/// A live view ended. `reason`: the label of the end.
pub(crate) fn looked_on(facts: Facts, reason: &'static str, lasted: Duration) -> Event {
    let facts = Facts {
        reason: Some(reason.to_owned()),
        duration_seconds: Some(lasted.as_secs_f64()),
        ..facts
    };
    Event::now(Type::LiveViewEnded, facts)
}

/// A recording, as it was sealed.
pub(crate) fn recording(sealed: Recorded) -> event::Recording {
    event::Recording {
        id: sealed.id,
        verdict: Some(format!("{:?}", sealed.verdict)),
        chain_head: Some(sealed.chain_head),
    }
}

/// A connection that should be recorded is not, or not any more; `reason`: one word.
pub(crate) fn unrecorded(opening: &Opening, reason: &'static str, message: &str) -> Event {
    let facts = Facts {
        pod: Some(Pod {
            namespace: opening.session.namespace.clone(),
            name: opening.pod.name.clone(),
            uid: Some(opening.pod.uid.clone()),
            container: Some(opening.pod.container.clone()),
            node: Some(opening.pod.node.clone()),
        }),
        argv: opening.argv.clone(),
        tty: Some(opening.tty),
        mode: Some(format!("{:?}", opening.mode)),
        outcome: Some(event::Outcome::Failure),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..recorded(opening)
    };
    Event::now(Type::RecorderFailed, facts)
}

/// No connection can be recorded, or no recording stored; or again.
pub(crate) fn recorder(
    kind: Type,
    reason: &'static str,
    message: Option<&str>,
    lasted: Option<Duration>,
) -> Event {
    let facts = Facts {
        reason: Some(reason.to_owned()),
        message: message.map(str::to_owned),
        duration_seconds: lasted.map(|lasted| lasted.as_secs_f64()),
        ..Facts::default()
    };
    Event::now(kind, facts)
}

/// A recording is about to be deleted. Whichever gateway does it, it is one event.
pub(crate) fn removed(opening: &Opening, sealed: Option<&Manifest>, reason: &'static str) -> Event {
    let verdict = sealed.map(|manifest| match manifest.verdict {
        Verdict::Complete => "Complete".to_owned(),
        Verdict::Interrupted { .. } => "Interrupted".to_owned(),
    });
    let id = opening.recording.to_string();
    let facts = Facts {
        reason: Some(reason.to_owned()),
        recording: Some(event::Recording {
            id: id.clone(),
            verdict,
            chain_head: sealed.map(|manifest| manifest.chain_head.to_string()),
        }),
        ..recorded(opening)
    };
    Event::now(Type::Removed, facts).named(&["Removed", &id])
}

/// What a recording says of whose it is.
fn recorded(opening: &Opening) -> Facts {
    Facts {
        session: Some(opening.session.clone()),
        user: Some(opening.user.clone()),
        connection: Some(opening.recording.to_string()),
        ..Facts::default()
    }
}

fn who(facts: &mut Facts, session: &Session) {
    facts.session = Some(named(session));
    facts.user = Some(session.user.clone());
    facts.mode = Some(format!("{:?}", session.mode));
    facts.justification.clone_from(&session.reason);
    facts.expires_at = session.expires_at;
}

fn named(session: &Session) -> event::Session {
    event::Session {
        namespace: session.namespace.clone(),
        name: session.name.clone(),
        uid: session.uid.clone(),
    }
}

fn pod(session: &Session, target: &ResolvedTarget) -> Pod {
    Pod {
        namespace: session.namespace.clone(),
        name: target.pod.clone(),
        uid: Some(target.pod_uid.clone()),
        container: Some(target.container.clone()),
        node: Some(target.node.clone()),
    }
}

#[cfg(test)]
mod tests {
    use drawbridge_protocol::transcode::Streams;

    use super::*;
    use crate::bridge::{Stop, Tally};
    use crate::refusal::Kind;
    use crate::route::{Action, Transport};
    use crate::session::tests::ready;

    fn opened() -> Facts {
        let session = ready();
        let target = session.target.clone().expect("granted");
        let stream = Stream {
            action: Action::Exec,
            transport: Transport::WebSocket,
            namespace: "shop".into(),
            pod: "web".into(),
            container: None,
            command: vec!["sh".into(), "-i".into()],
            streams: Streams {
                stdin: true,
                stdout: true,
                stderr: false,
                tty: true,
            },
        };
        let client = client(&HeaderMap::new(), ([127, 0, 0, 1], 9).into());
        let account = Some("system:serviceaccount:drawbridge-sessions:cs-6f1c".to_owned());
        console(&session, &target, &stream, "c-1", client, account)
    }

    #[test]
    fn a_console_is_told_with_everything_that_joins_it_to_other_logs() {
        let event = connected(opened());
        assert_eq!(event.kind(), Type::Connected);
        let told = serde_json::to_value(event.facts()).expect("JSON");
        assert_eq!(
            told,
            serde_json::json!({
                "session": {"namespace": "shop", "name": "fix-cart", "uid": "6f1c"},
                "user": "alice@example.com",
                "pod": {"namespace": "shop", "name": "web", "uid": "p-1", "container": "app", "node": "n1"},
                "argv": ["sh", "-i"], "mode": "Exec", "tty": true, "connection": "c-1",
                "client": {"address": "127.0.0.1:9"},
                "upstream": {"user": "system:serviceaccount:drawbridge-sessions:cs-6f1c", "auditId": "c-1"},
                "outcome": "Success", "expiresAt": "2030-01-01T01:00:00Z",
            })
        );
    }

    #[test]
    fn an_end_is_told_with_its_outcome_and_exit_code() {
        let ended = |closed, outcome| Ended {
            closed,
            outcome,
            tally: Tally {
                bytes_in: 3,
                bytes_out: 5,
                dropped: 0,
            },
        };
        for (end, outcome, code) in [
            (
                Some(ended(Closed::ByPod, Some(Outcome::Success))),
                event::Outcome::Success,
                Some(0),
            ),
            (
                Some(ended(Closed::ByPod, Some(Outcome::Exit(7)))),
                event::Outcome::Failure,
                Some(7),
            ),
            (
                Some(ended(
                    Closed::Stopped(Stop::Revoked),
                    Some(Outcome::Success),
                )),
                event::Outcome::Interrupted,
                Some(0),
            ),
            (
                Some(ended(Closed::ClientLost, None)),
                event::Outcome::Interrupted,
                None,
            ),
            (None, event::Outcome::Interrupted, None),
        ] {
            let event = disconnected(opened(), end.as_ref(), "why", Duration::from_secs(2));
            let facts = event.facts();
            assert_eq!(
                (facts.outcome, facts.exit_code),
                (Some(outcome), code),
                "{end:?}"
            );
            let bytes = end.map_or(0, |_| 5);
            assert_eq!(facts.bytes.map(|bytes| bytes.from_pod), Some(bytes));
            assert_eq!(facts.duration_seconds, Some(2.0));
        }
    }

    #[test]
    fn a_copy_by_kubectl_is_told_with_its_direction_and_hash() {
        let sha256 = drawbridge_audit::hash::Sha256::of(b"archive");
        let event = |argv: &[&str], stream| {
            let facts = Facts {
                argv: argv.iter().map(|&word| word.to_owned()).collect(),
                ..opened()
            };
            let carried = Carried {
                stream,
                bytes: 7,
                sha256: Some(sha256),
            };
            let event = transferred(facts, carried);
            assert_eq!(event.kind(), Type::Transferred);
            serde_json::to_value(event.facts()).expect("JSON")
        };
        let up = event(&["tar", "-xmf", "-", "-C", "/tmp"], Channel::Stdin);
        assert_eq!(
            up["transfer"],
            serde_json::json!({
                "stream": "stdin", "direction": "in", "bytes": 7, "sha256": sha256.to_string(), "archive": true,
            })
        );
        assert_eq!(up["connection"], "c-1");
        let down = event(&["tar", "cf", "-", "/etc/hosts"], Channel::Stdout);
        assert_eq!(
            (&down["transfer"]["direction"], &down["transfer"]["archive"]),
            (&"out".into(), &true.into())
        );
        for (argv, stream) in [
            (&["cat", "f"][..], Channel::Stdout),
            (&["tar", "cf", "-", "f"], Channel::Stderr),
        ] {
            assert_eq!(event(argv, stream)["transfer"]["archive"], false);
        }
    }

    #[test]
    fn a_refusal_is_told_with_what_was_asked_and_by_whom_if_that_is_proven() {
        let mut case = Case::new(&HeaderMap::new(), ([127, 0, 0, 1], 9).into());
        let refusal = Refusal::new(Kind::NotGranted, "not this pod");
        case.asks(&Route::Pod {
            namespace: "prod".into(),
            pod: "db".into(),
        });
        case.of(&Arc::new(ready()));
        let (stranger, facts) = case.refused(&refusal);
        assert!(!stranger);
        let pod = facts.pod.expect("told");
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("prod", "db"));
        assert_eq!(facts.user.as_deref(), Some("alice@example.com"));
        assert_eq!(
            (facts.code, facts.reason.as_deref()),
            (Some(403), Some("not_granted"))
        );
        let case = Case::new(&HeaderMap::new(), ([127, 0, 0, 1], 9).into());
        let (stranger, facts) = case.refused(&refusal);
        assert!(stranger && facts.session.is_none());
    }
}
