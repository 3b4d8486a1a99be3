//! All reads of a pass, and its only clock.

use std::sync::Arc;

use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, ObservedSession};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};

use super::plan::{Observed, PodLife, PodSeen, granted_pod, needs_subject};
use super::{Ctx, Error, in_time};
use crate::Guarded;

/// The pod's annotation that names the container to enter by default; kubectl reads the same.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Reads everything the decision needs: from the watch caches, but for a pod that is about to be granted or seems lost.
pub(super) async fn gather(ctx: &Ctx, session: Arc<ConsoleSession>) -> Result<Observed, Error> {
    let now = Timestamp::now();
    let (pod, other) = if needs_subject(&session, now) {
        // First say that the pod or session matters, then look: a change in between wakes us again.
        ctx.watches.interest.register(&session);
        (pod(ctx, &session).await?, other(ctx, &session).await?)
    } else {
        (None, None)
    };
    let namespace = session.namespace().unwrap_or_default();
    let namespace = ctx.watches.namespaces.get(&ObjectRef::new(&namespace));
    let account = names::account(&session.uid().unwrap_or_default());
    let account = ctx.watches.accounts.get(&ctx.sessions_namespace, &account);
    let made = account.and_then(|account| account.metadata.creation_timestamp.clone());
    Ok(Observed {
        account_made: made.map(|made| made.0),
        namespace_deleting: namespace
            .is_some_and(|found| found.metadata.deletion_timestamp.is_some()),
        session,
        pod,
        recording: ctx.recording,
        other,
        now,
    })
}

/// The pod of the target's name. The cache may say that a granted session's pod lives, or is being deleted; that it is
/// gone or another is asked of the API server, because the cache may be the one that is behind.
async fn pod(ctx: &Ctx, session: &ConsoleSession) -> Result<Option<PodSeen>, Error> {
    let Some(name) = session.spec.pod() else {
        return Ok(None);
    };
    let namespace = session.namespace().unwrap_or_default();
    let cached = ctx
        .watches
        .pods
        .get(&ObjectRef::new(name).within(&namespace));
    if let Some((granted, cached)) = granted_pod(session).zip(cached)
        && cached.metadata.uid.as_deref() == Some(granted)
    {
        return Ok(Some(PodSeen {
            uid: granted.into(),
            deleting: cached.metadata.deletion_timestamp.is_some(),
            life: PodLife::Live,
        }));
    }
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = in_time("pod", name, pods.get_opt(name)).await?;
    found
        .map_err(|source| Error::Read {
            what: "pod",
            name: name.to_owned(),
            source,
        })
        .map(|pod| pod.map(facts))
}

/// The session that one of `mode: Observe` names, unless that is granted already. Asked of the API server: what the cache
/// shows may be a deleted one of the same name.
async fn other(ctx: &Ctx, session: &ConsoleSession) -> Result<Option<ObservedSession>, Error> {
    let granted = session
        .status
        .as_ref()
        .is_some_and(|status| status.observed.is_some());
    let Some(name) = session.spec.observe.as_ref().map(|other| &other.session) else {
        return Ok(None);
    };
    if granted {
        return Ok(None);
    }
    let namespace = session.namespace().unwrap_or_default();
    let sessions: Api<Guarded> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = in_time("session", name, sessions.get_opt(name)).await?;
    let found = found.map_err(|source| Error::Read {
        what: "session",
        name: name.clone(),
        source,
    })?;
    Ok(found.and_then(|found| {
        let meta = found.meta();
        meta.deletion_timestamp.is_none().then_some(())?;
        Some(ObservedSession {
            session: name.clone(),
            uid: meta.uid.clone()?,
        })
    }))
}

fn facts(pod: Pod) -> PodSeen {
    let preferred = pod.annotations().get(DEFAULT_CONTAINER).cloned();
    let phase = pod
        .status
        .and_then(|status| status.phase)
        .unwrap_or_default();
    let spec = pod.spec.unwrap_or_default();
    let life = match phase.as_str() {
        "Succeeded" | "Failed" => PodLife::Finished,
        "Running" => {
            // The default is the annotated one, else the first; sidecars and ephemeral containers must be named.
            let regular = spec.containers.into_iter().map(|container| container.name);
            let init = spec.init_containers.into_iter().flatten();
            let sidecars = init
                .filter(|container| container.restart_policy.as_deref() == Some("Always"))
                .map(|container| container.name);
            let ephemeral = spec
                .ephemeral_containers
                .into_iter()
                .flatten()
                .map(|container| container.name);
            let mut containers: Vec<String> = regular.collect();
            let named_only: Vec<String> = sidecars.chain(ephemeral).collect();
            containers.extend_from_slice(&named_only);
            if let Some(at) = containers
                .iter()
                .position(|name| Some(name) == preferred.as_ref())
            {
                containers[..=at].rotate_right(1);
            }
            PodLife::Running {
                containers,
                named_only,
                node: spec.node_name.unwrap_or_default(),
            }
        }
        other => PodLife::Waiting(
            if other.is_empty() {
                "unscheduled"
            } else {
                other
            }
            .into(),
        ),
    };
    PodSeen {
        uid: pod.metadata.uid.unwrap_or_default(),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        life,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_default_container_is_the_annotated_one_else_the_first() {
        for (annotated, expected) in [
            (json!({}), vec!["a", "b", "sidecar", "debugger"]),
            (
                json!({DEFAULT_CONTAINER: "b"}),
                vec!["b", "a", "sidecar", "debugger"],
            ),
            (
                json!({DEFAULT_CONTAINER: "nowhere"}),
                vec!["a", "b", "sidecar", "debugger"],
            ),
        ] {
            let pod = serde_json::from_value(json!({
                "metadata": {"uid": "u", "annotations": annotated},
                "spec": {
                    "nodeName": "n",
                    "containers": [{"name": "a"}, {"name": "b"}],
                    "initContainers": [{"name": "init"}, {"name": "sidecar", "restartPolicy": "Always"}],
                    "ephemeralContainers": [{"name": "debugger"}],
                },
                "status": {"phase": "Running"},
            }));
            let life = facts(pod.expect("a pod")).life;
            let containers = expected.into_iter().map(String::from).collect();
            assert_eq!(
                life,
                PodLife::Running {
                    containers,
                    named_only: vec!["sidecar".into(), "debugger".into()],
                    node: "n".into()
                }
            );
        }
    }
}
