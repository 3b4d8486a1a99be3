//! The rules of the API that CEL states in the CRD, for API servers that drop CEL (before 1.25).
//!
//! A test evaluates every CEL rule beside the function here on the same objects and fails when they differ.

use std::fmt;
use std::time::Duration;

use kube::ResourceExt;

use crate::names::MAX_SESSION_NAME;
use crate::v1alpha1::{ConsoleSession, Mode};

/// A broken rule; its `Display` says which field must be what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(&'static str);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Checks everything the CRD's CEL rules state about a stored object.
///
/// That the spec was not changed is told from `metadata.generation`, which counts changes of the spec: it is 1, or
/// `revoked` is set. Sizes and patterns are left to the schema, which every supported API server enforces.
///
/// # Errors
/// The first rule that is broken.
pub fn check(session: &ConsoleSession) -> Result<(), Violation> {
    let spec = &session.spec;
    let within = |duration: kube::core::Duration, min: u64, max: u64| {
        duration >= Duration::from_secs(min) && duration <= Duration::from_secs(max)
    };
    let window = spec.not_before.as_ref().zip(spec.not_after.as_ref());
    let rules = [
        (
            session.name_any().len() <= MAX_SESSION_NAME,
            "metadata.name must be no longer than 63 characters",
        ),
        (
            spec.revoked
                || session
                    .metadata
                    .generation
                    .is_none_or(|generation| generation <= 1),
            "spec is immutable but for revoked; make a new session instead",
        ),
        (
            spec.user != "system:anonymous",
            "user must be somebody: system:anonymous is everybody",
        ),
        (
            within(spec.duration, MINUTE, 24 * HOUR),
            "duration must be between 1m and 24h",
        ),
        (
            within(spec.idle_timeout, 10, 24 * HOUR),
            "idleTimeout must be between 10s and 24h",
        ),
        (
            window.is_none_or(|(from, until)| from.0 < until.0),
            "notBefore must be earlier than notAfter",
        ),
        (
            spec.mode == Mode::Observe || spec.target.is_some(),
            "target must say which pod to open",
        ),
        (
            spec.mode != Mode::Observe || spec.target.is_none(),
            "target has no meaning with mode Observe, which opens no pod",
        ),
        (
            (spec.mode == Mode::Observe) == spec.observe.is_some(),
            "observe must say which session to look at with mode Observe, and has no meaning with another",
        ),
        (
            spec.mode == Mode::Exec || spec.command.is_empty(),
            "command has no meaning with mode Attach or Observe, which start no process",
        ),
        (
            spec.command
                .first()
                .is_none_or(|program| !program.is_empty()),
            "command must begin with the program to run",
        ),
        (
            spec.ttl_after_finished
                .is_none_or(|ttl| within(ttl, 0, 720 * HOUR)),
            "ttlAfterFinished must be between 0s and 720h",
        ),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err(Violation(broken)),
        None => Ok(()),
    }
}
