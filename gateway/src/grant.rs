//! Whether a session allows a request. Pure: the session, the request and the time decide.

use drawbridge_crds::v1alpha1::{EndReason, Mode, ObservedSession, Phase, ResolvedTarget};
use jiff::Timestamp;

use crate::bridge::Stop;
use crate::route::Action;
use crate::session::{Session, State};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The pod object.
    Pod { namespace: &'a str, pod: &'a str },
    /// A stream into a container. `container: None` means the one granted.
    Stream {
        action: Action,
        namespace: &'a str,
        pod: &'a str,
        container: Option<&'a str>,
        command: &'a [String],
    },
    /// The session itself, by name, and the console it grants.
    Session { namespace: &'a str, name: &'a str },
}

/// What a session allows now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// The pod and container, by name and UID.
    pub target: &'a ResolvedTarget,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Why a session does not allow it. The text is told to the holder of the session's token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("this session {}", ending(*.0))]
    Ended(Stop),
    #[error("this session is not granted yet: {}", waiting(*.0))]
    NotReady(Option<Phase>),
    #[error("this session may be used from {0}")]
    NotBefore(Timestamp),
    #[error("this session is for namespace {granted:?}, not {asked:?}")]
    Namespace { granted: String, asked: String },
    #[error("this session is for pod {granted:?}, not {asked:?}")]
    Pod { granted: String, asked: String },
    #[error("this session is for {granted}, not {asked:?}")]
    Container { granted: String, asked: String },
    #[error("this session allows {}, not {}", granted.verb(), asked.verb())]
    Action { granted: Action, asked: Action },
    #[error("this session opens no pod: it is for looking at recordings of session {0:?}")]
    OnlyLooks(String),
    #[error(
        "this session opens no recording: that takes one of mode Observe, or an identity that may get consolesessions/recordings"
    )]
    MayNotLook,
    #[error("this session is for looking at session {granted:?}, not {asked:?}")]
    OtherSession { granted: String, asked: String },
    #[error("this session allows one command only, and this is another; see its spec.command")]
    Command,
    #[error("this token is for session {granted:?}, not {asked:?}")]
    Session { granted: String, asked: String },
}

/// What a session does with its pod; `None` with [`Mode::Observe`], which does nothing with any.
#[must_use]
pub fn action(mode: Mode) -> Option<Action> {
    match mode {
        Mode::Exec => Some(Action::Exec),
        Mode::Attach => Some(Action::Attach),
        Mode::Observe => None,
    }
}

fn waiting(phase: Option<Phase>) -> &'static str {
    match phase {
        Some(Phase::Scheduled) => "its time has not come",
        Some(Phase::Pending) => "what it opens is not there, or does not run yet",
        _ => "the operator has not looked at it yet",
    }
}

/// How a session ended, to follow "this session".
pub(crate) fn ending(stop: Stop) -> &'static str {
    match stop {
        Stop::Expired => "has expired",
        Stop::Revoked => "was revoked",
        Stop::SessionDeleted => "was deleted",
        Stop::Draining => "is being moved: this gateway is shutting down, connect again",
        Stop::SessionEnded(reason) => match reason {
            EndReason::Expired => "has expired",
            EndReason::WindowMissed => "was not granted before its notAfter",
            EndReason::Revoked => "was revoked",
            EndReason::SessionDeleted => "was deleted",
            EndReason::NamespaceDeleted => "has ended: its namespace is being deleted",
            EndReason::PodDeleted => "has ended: its pod was deleted",
            EndReason::PodReplaced => "has ended: another pod took the place of its pod",
            EndReason::PodFinished => "has ended: its pod has finished",
            EndReason::ContainerNotFound => "was not granted: its pod has no such container",
            EndReason::InvalidSpec => "was not granted: its spec is not valid",
        },
    }
}

/// Until when a session can be used, or why it cannot. Says nothing about what it may be used for.
///
/// # Errors
/// The reason an open connection must be cut for.
pub fn holds(session: Option<&Session>, now: Timestamp) -> Result<Timestamp, Stop> {
    let Some(session) = session else {
        return Err(Stop::SessionDeleted);
    };
    match (session.state, session.expires_at) {
        (State::Ended(stop), _) => Err(stop),
        (_, Some(expires_at)) if expires_at <= now => Err(Stop::Expired),
        (State::Ready, Some(expires_at)) => Ok(expires_at),
        // Granted sessions do not go back to waiting; one that does is no longer granted.
        (State::Ready | State::Waiting(_), _) => Err(Stop::SessionEnded(EndReason::InvalidSpec)),
    }
}

/// Whether `session` allows `ask` at `now`.
///
/// # Errors
/// The first rule broken; an ended session comes before everything else.
pub fn check<'a>(session: &'a Session, ask: Ask<'_>, now: Timestamp) -> Result<Grant<'a>, Denied> {
    let (Some(granted), Some(target)) = (action(session.mode), &session.target) else {
        usable(session, now)?;
        return Err(match &session.observed {
            Some(other) => Denied::OnlyLooks(other.session.clone()),
            None => Denied::NotReady(None), // Ready without anything granted: not what the operator writes
        });
    };
    let grant = Grant {
        target,
        expires_at: usable(session, now)?,
    };
    match ask {
        Ask::Pod { namespace, pod } => place(session, grant.target, namespace, pod)?,
        Ask::Stream {
            action,
            namespace,
            pod,
            container,
            command,
        } => {
            place(session, grant.target, namespace, pod)?;
            if let Some(asked) = container.filter(|name| !grant.target.admits(name)) {
                return Err(Denied::Container {
                    granted: containers(grant.target),
                    asked: asked.to_owned(),
                });
            }
            if action != granted {
                return Err(Denied::Action {
                    granted,
                    asked: action,
                });
            }
            if action == Action::Exec && !session.command.is_empty() && session.command != command {
                return Err(Denied::Command);
            }
        }
        Ask::Session { namespace, name } => own(session, namespace, name)?,
    }
    Ok(grant)
}

/// Which session's recordings `session` lets its holder look at, at `now`, if that is `namespace`/`name`: the one it
/// names, or its own name, which stands for the one it names.
///
/// # Errors
/// [`Denied::MayNotLook`] for a session that opens a pod, whatever it asks for.
pub fn look<'a>(
    session: &'a Session,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Result<&'a ObservedSession, Denied> {
    usable(session, now)?;
    let other = match (session.mode, &session.observed) {
        (Mode::Exec | Mode::Attach, _) => return Err(Denied::MayNotLook),
        (Mode::Observe, None) => return Err(Denied::NotReady(None)),
        (Mode::Observe, Some(other)) => other,
    };
    if session.namespace == namespace && (other.session == name || session.name == name) {
        return Ok(other);
    }
    Err(Denied::OtherSession {
        granted: format!("{}/{}", session.namespace, other.session),
        asked: format!("{namespace}/{name}"),
    })
}

/// The containers granted, in words.
fn containers(target: &ResolvedTarget) -> String {
    match target.containers.as_slice() {
        [] | [_] => format!("container {:?}", target.container),
        several => format!("containers {several:?}"),
    }
}

/// Whether `namespace`/`name` is this very session.
///
/// # Errors
/// [`Denied::Session`] when it is another.
pub fn own(session: &Session, namespace: &str, name: &str) -> Result<(), Denied> {
    if session.namespace == namespace && session.name == name {
        return Ok(());
    }
    Err(Denied::Session {
        granted: format!("{}/{}", session.namespace, session.name),
        asked: format!("{namespace}/{name}"),
    })
}

/// Until when the session can be used at `now`, for whatever it is.
fn usable(session: &Session, now: Timestamp) -> Result<Timestamp, Denied> {
    if let State::Ended(stop) = session.state {
        return Err(Denied::Ended(stop));
    }
    if session.expires_at.is_some_and(|end| end <= now) {
        return Err(Denied::Ended(Stop::Expired));
    }
    if let Some(from) = session.not_before.filter(|from| now < *from) {
        return Err(Denied::NotBefore(from));
    }
    match (session.state, session.expires_at) {
        (State::Ready, Some(expires_at)) => Ok(expires_at),
        (State::Waiting(phase), _) => Err(Denied::NotReady(phase)),
        _ => Err(Denied::NotReady(None)), // Ready without an end: not what the operator writes
    }
}

fn place(
    session: &Session,
    target: &ResolvedTarget,
    namespace: &str,
    pod: &str,
) -> Result<(), Denied> {
    if session.namespace != namespace {
        return Err(Denied::Namespace {
            granted: session.namespace.clone(),
            asked: namespace.to_owned(),
        });
    }
    if target.pod != pod {
        return Err(Denied::Pod {
            granted: target.pod.clone(),
            asked: pod.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::ready;

    fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().expect("a time")
    }

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn exec(command: &[String]) -> Ask<'_> {
        Ask::Stream {
            action: Action::Exec,
            namespace: "shop",
            pod: "web",
            container: None,
            command,
        }
    }

    #[test]
    fn what_was_granted_is_allowed_until_it_ends() {
        let session = ready();
        let sh = argv(&["sh"]);
        for ask in [
            exec(&sh),
            Ask::Stream {
                action: Action::Exec,
                namespace: "shop",
                pod: "web",
                container: Some("app"),
                command: &sh,
            },
            Ask::Pod {
                namespace: "shop",
                pod: "web",
            },
            Ask::Session {
                namespace: "shop",
                name: "fix-cart",
            },
        ] {
            let grant = check(&session, ask, now()).expect("granted");
            assert_eq!(
                (
                    grant.target.container.as_str(),
                    grant.expires_at.as_second()
                ),
                ("app", 1_893_459_600),
                "{ask:?}"
            );
        }
    }

    #[test]
    fn several_containers_are_entered_by_name_and_no_other_is() {
        let mut session = ready();
        session.target.as_mut().expect("granted").containers = vec!["app".into(), "log".into()];
        let sh = argv(&["sh"]);
        let ask = |container| Ask::Stream {
            action: Action::Exec,
            namespace: "shop",
            pod: "web",
            container,
            command: &sh,
        };
        for container in [None, Some("app"), Some("log")] {
            check(&session, ask(container), now()).expect("granted");
        }
        for container in ["proxy", "", "App"] {
            let denied = check(&session, ask(Some(container)), now()).expect_err("denied");
            assert_eq!(
                denied.to_string(),
                format!(r#"this session is for containers ["app", "log"], not {container:?}"#)
            );
        }
    }

    #[test]
    fn nothing_else_is_allowed() {
        let session = ready();
        let sh = argv(&["sh"]);
        let stream = |action, namespace, pod, container| Ask::Stream {
            action,
            namespace,
            pod,
            container,
            command: &sh,
        };
        for (ask, text) in [
            (
                stream(Action::Exec, "prod", "web", None),
                r#"this session is for namespace "shop", not "prod""#,
            ),
            (
                stream(Action::Exec, "shop", "db", None),
                r#"this session is for pod "web", not "db""#,
            ),
            (
                stream(Action::Exec, "shop", "web", Some("proxy")),
                r#"this session is for container "app", not "proxy""#,
            ),
            (
                stream(Action::Exec, "shop", "web", Some("")),
                r#"this session is for container "app", not """#,
            ),
            (
                stream(Action::Attach, "shop", "web", None),
                "this session allows exec, not attach",
            ),
            (
                Ask::Pod {
                    namespace: "prod",
                    pod: "web",
                },
                r#"this session is for namespace "shop", not "prod""#,
            ),
            (
                Ask::Pod {
                    namespace: "shop",
                    pod: "db",
                },
                r#"this session is for pod "web", not "db""#,
            ),
            (
                Ask::Session {
                    namespace: "shop",
                    name: "x",
                },
                r#"this token is for session "shop/fix-cart", not "shop/x""#,
            ),
        ] {
            assert_eq!(
                check(&session, ask, now()).expect_err("denied").to_string(),
                text,
                "{ask:?}"
            );
        }
    }

    #[test]
    fn a_fixed_command_allows_exactly_that_argv() {
        let mut session = ready();
        session.command = argv(&["psql", "-c", "select 1"]);
        assert!(check(&session, exec(&argv(&["psql", "-c", "select 1"])), now()).is_ok());
        for other in [
            &["psql"][..],
            &["psql", "-c", "select 1", ""],
            &["psql", "select 1", "-c"],
            &[],
        ] {
            assert_eq!(
                check(&session, exec(&argv(other)), now()),
                Err(Denied::Command),
                "{other:?}"
            );
        }
    }

    #[test]
    fn an_attach_session_attaches_and_does_not_exec() {
        let mut session = ready();
        session.mode = Mode::Attach;
        let attach = Ask::Stream {
            action: Action::Attach,
            namespace: "shop",
            pod: "web",
            container: None,
            command: &[],
        };
        assert!(check(&session, attach, now()).is_ok());
        let denied = check(&session, exec(&argv(&["sh"])), now());
        assert_eq!(
            denied,
            Err(Denied::Action {
                granted: Action::Attach,
                asked: Action::Exec
            })
        );
    }

    #[test]
    fn time_decides_to_the_instant() {
        let mut session = ready();
        session.not_before = Some(now());
        let end = session.expires_at.expect("has one");
        let tick = std::time::Duration::from_nanos(1);
        let sh = argv(&["sh"]);
        for (at, want) in [
            (now() - tick, Err(Denied::NotBefore(now()))),
            (now(), Ok(())),
            (end - tick, Ok(())),
            (end, Err(Denied::Ended(Stop::Expired))),
        ] {
            assert_eq!(check(&session, exec(&sh), at).map(drop), want, "{at}");
        }
    }

    #[test]
    fn an_ended_session_says_how_whatever_is_asked_and_open_connections_are_cut_for_it() {
        for stop in [
            Stop::Revoked,
            Stop::SessionDeleted,
            Stop::SessionEnded(EndReason::PodReplaced),
        ] {
            let mut session = ready();
            session.state = State::Ended(stop);
            let asked = check(
                &session,
                Ask::Pod {
                    namespace: "no",
                    pod: "no",
                },
                now(),
            );
            assert_eq!(asked, Err(Denied::Ended(stop)));
            assert_eq!(holds(Some(&session), now()), Err(stop));
        }
        assert_eq!(holds(None, now()), Err(Stop::SessionDeleted));
    }

    #[test]
    fn a_session_that_is_not_granted_yet_allows_nothing() {
        for phase in [None, Some(Phase::Pending), Some(Phase::Scheduled)] {
            let mut session = ready();
            session.state = State::Waiting(phase);
            assert_eq!(
                check(&session, exec(&argv(&["sh"])), now()),
                Err(Denied::NotReady(phase))
            );
            assert!(holds(Some(&session), now()).is_err());
        }
        for broken in [
            |session: &mut Session| session.target = None,
            |session: &mut Session| session.expires_at = None,
        ] {
            let mut session = ready();
            broken(&mut session);
            assert_eq!(
                check(&session, exec(&argv(&["sh"])), now()),
                Err(Denied::NotReady(None))
            );
        }
    }

    fn observing() -> Session {
        let mut session = ready();
        session.name = "audit-cart".into();
        session.mode = Mode::Observe;
        session.target = None;
        session.observed = Some(ObservedSession {
            session: "fix-cart".into(),
            uid: "6f1c".into(),
        });
        session
    }

    #[test]
    fn one_who_looks_may_look_at_one_session_and_open_nothing() {
        let session = observing();
        for name in ["fix-cart", "audit-cart"] {
            let other = look(&session, "shop", name, now()).expect("granted");
            assert_eq!(other.uid, "6f1c", "{name}");
        }
        for (namespace, name) in [("shop", "other"), ("prod", "fix-cart"), ("shop", "")] {
            let denied = look(&session, namespace, name, now()).expect_err("denied");
            assert!(matches!(denied, Denied::OtherSession { .. }), "{denied}");
        }
        let sh = argv(&["sh"]);
        for ask in [
            exec(&sh),
            Ask::Pod {
                namespace: "shop",
                pod: "web",
            },
            Ask::Session {
                namespace: "shop",
                name: "audit-cart",
            },
        ] {
            let denied = check(&session, ask, now()).expect_err("denied");
            assert_eq!(denied, Denied::OnlyLooks("fix-cart".into()), "{ask:?}");
        }
        // Nor with a target in its status, which the operator does not write.
        let mut session = session;
        session.target = ready().target;
        assert!(check(&session, exec(&sh), now()).is_err());
    }

    #[test]
    fn a_shell_opens_no_recording_its_own_neither() {
        for mode in [Mode::Exec, Mode::Attach] {
            let mut session = ready();
            session.mode = mode;
            session.observed = observing().observed;
            for name in ["fix-cart", "other"] {
                assert_eq!(
                    look(&session, "shop", name, now()),
                    Err(Denied::MayNotLook),
                    "{mode:?} {name}"
                );
            }
        }
    }

    #[test]
    fn looking_ends_with_its_session() {
        let mut session = observing();
        let end = session.expires_at.expect("has one");
        assert_eq!(
            look(&session, "shop", "fix-cart", end),
            Err(Denied::Ended(Stop::Expired))
        );
        session.state = State::Ended(Stop::Revoked);
        assert_eq!(
            look(&session, "shop", "fix-cart", now()),
            Err(Denied::Ended(Stop::Revoked))
        );
        session.state = State::Waiting(Some(Phase::Pending));
        assert_eq!(
            look(&session, "shop", "fix-cart", now()),
            Err(Denied::NotReady(Some(Phase::Pending)))
        );
    }
}
