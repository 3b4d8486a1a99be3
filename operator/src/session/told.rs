//! What the audit log is told of a session's life.

use drawbridge_audit::event::{Event, Facts, Outcome, Pod, Session, Type};
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use kube::ResourceExt;

use super::plan::{Access, Plan, Subject};

/// What a pass that brings `session` to `plan` changes: nothing, or the new phase, and before a first one that the
/// session was declared. A pass that is repeated, after a conflict or a crash, tells the same events by the same ids.
pub(super) fn changes(session: &ConsoleSession, plan: &Plan) -> Vec<Event> {
    let before = session.status.as_ref().and_then(|status| status.phase);
    let mut events = Vec::new();
    if before.is_none() {
        events.push(event(session, plan, Type::Requested));
    }
    let kind = match plan.phase {
        Phase::Pending => None, // that it was declared says it all
        Phase::Scheduled => Some(Type::Scheduled),
        Phase::Ready => Some(Type::Granted),
        Phase::Expired => Some(Type::Expired),
        Phase::Revoked => Some(Type::Revoked),
        Phase::Failed => Some(Type::Failed),
    };
    if before != Some(plan.phase) {
        events.extend(kind.map(|kind| event(session, plan, kind)));
    }
    events
}

/// Something was missing or changed, and was restored.
pub(super) fn repaired(session: &ConsoleSession, plan: &Plan, what: &str) -> Event {
    let mut facts = facts(session, plan);
    facts.message = Some(format!("restored what was missing or changed: {what}"));
    Event::now(Type::Repaired, facts)
}

fn event(session: &ConsoleSession, plan: &Plan, kind: Type) -> Event {
    let facts = facts(session, plan);
    let facts = match kind {
        Type::Requested => facts,
        _ => Facts {
            outcome: match kind {
                Type::Granted | Type::Scheduled => Some(Outcome::Success),
                Type::Failed => Some(Outcome::Failure),
                _ => None,
            },
            reason: Some(plan.reason.to_owned()),
            message: Some(plan.message.clone()),
            ..facts
        },
    };
    let uid = session.uid().unwrap_or_default();
    Event::now(kind, facts).named(&[&uid, &format!("{kind:?}")])
}

fn facts(session: &ConsoleSession, plan: &Plan) -> Facts {
    let spec = &session.spec;
    let namespace = session.namespace().unwrap_or_default();
    let status = session.status.as_ref();
    let (target, expires_at) = match &plan.access {
        Access::Open {
            subject,
            expires_at,
            ..
        } => {
            let target = match subject {
                Subject::Pod(target) => Some(target),
                Subject::Session(_) => None,
            };
            (target, Some(*expires_at))
        }
        Access::Closed => (
            status.and_then(|status| status.target.as_ref()),
            status.and_then(|status| status.expires_at.as_ref().map(|at| at.0)),
        ),
    };
    let pod = match (target, spec.target.as_ref()) {
        (Some(target), _) => Some(Pod {
            namespace: namespace.clone(),
            name: target.pod.clone(),
            uid: Some(target.pod_uid.clone()),
            container: Some(target.container.clone()),
            node: Some(target.node.clone()),
        }),
        (None, Some(target)) => Some(Pod {
            namespace: namespace.clone(),
            name: target.pod.name.clone(),
            uid: None,
            container: target.container.clone(),
            node: None,
        }),
        (None, None) => None,
    };
    Facts {
        session: Some(Session {
            namespace,
            name: session.name_any(),
            uid: session.uid().unwrap_or_default(),
        }),
        user: Some(spec.user.clone()),
        pod,
        argv: spec.command.clone(),
        mode: Some(format!("{:?}", spec.mode)),
        justification: spec.reason.clone(),
        expires_at,
        ..Facts::default()
    }
}
