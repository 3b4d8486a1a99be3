//! What Kubernetes does for one kind and not for others.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::Call;
use super::meta::{self, put};
use crate::auth::rbac;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{deleting, name};
use crate::status::{Cause, Failure};
use crate::store::Key;

/// Fields of a pod's spec that may change, beside the images of its containers.
const CHANGEABLE: &str = "activeDeadlineSeconds terminationGracePeriodSeconds tolerations";

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// What a new object gets: a pod needs its ServiceAccount and has no ephemeral containers yet.
pub(super) fn begin(cluster: &Cluster, call: &Call, object: &mut Value) -> Result<(), Failure> {
    match call.kind.resource().as_str() {
        "pods" => begin_pod(cluster, call, object)?,
        DEFINITIONS => {
            let versions = object["spec"]["versions"].as_array().into_iter().flatten();
            let stored = versions.filter(|version| version["storage"] == true);
            let stored: Vec<&Value> = stored.map(|version| &version["name"]).collect();
            object["status"] = json!({
                "acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": stored,
            });
        }
        _ => {}
    }
    Ok(())
}

fn begin_pod(cluster: &Cluster, call: &Call, pod: &mut Value) -> Result<(), Failure> {
    put(pod, "/spec/ephemeralContainers", None);
    let account = match pod["spec"]["serviceAccountName"].as_str() {
        None | Some("") => "default",
        Some(account) => account,
    };
    let key = Key::new("serviceaccounts", &call.namespace, account);
    if cluster.store.get(&key).is_some() {
        return Ok(());
    }
    let why = format!("there is no service account {account:?}");
    Err(Failure::forbidden("", "pods", name(pod), &why))
}

/// Fills in what every written object of this kind gets.
pub(super) fn fill_in(kind: &Kind, object: &mut Value) {
    match kind.resource().as_str() {
        "secrets" => {
            let texts = object["stringData"].take();
            for (key, value) in texts.as_object().into_iter().flatten() {
                let data = BASE64_STANDARD.encode(value.as_str().unwrap_or_default());
                json_patch::merge(object, &json!({"data": {key: data}}));
            }
            put(object, "/stringData", None);
        }
        "namespaces" if !name(object).is_empty() => {
            let name = json!({"kubernetes.io/metadata.name": name(object)});
            json_patch::merge(object, &json!({"metadata": {"labels": name}}));
        }
        _ => {}
    }
}

/// What Kubernetes refuses for this kind beyond what its schema says.
pub(super) fn check(
    cluster: &Cluster,
    call: &Call,
    object: &Value,
    live: Option<&Value>,
) -> Result<(), Failure> {
    let mut causes = Vec::new();
    match (call.kind.resource().as_str(), live) {
        ("pods", Some(live)) => {
            causes.extend(check_pod(live, object, &call.subresource));
        }
        (DEFINITIONS, _) => {
            let kinds = crate::schema::kinds_of(object, cluster.release);
            causes = kinds.err().unwrap_or_default();
        }
        _ if call.kind.group == "rbac.authorization.k8s.io" => {
            rbac::check_escalation(cluster, &call.who, object)?;
        }
        _ => {}
    }
    meta::fail(&call.kind, object, &causes)
}

fn check_pod(before: &Value, pod: &Value, subresource: &str) -> Option<Cause> {
    let frozen = |pod: &Value| {
        let mut pod = pod.clone();
        for field in CHANGEABLE.split(' ') {
            put(&mut pod, &format!("/spec/{field}"), None);
        }
        if subresource == "ephemeralcontainers" {
            put(&mut pod, "/spec/ephemeralContainers", None);
        }
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                put(container, "/image", None);
            }
        }
        pod["spec"].take()
    };
    let why = "Forbidden: pod updates may not change fields other than images of containers";
    let why = format!("{why}, {CHANGEABLE}");
    (frozen(before) != frozen(pod)).then(|| Cause::new("FieldValueForbidden", "spec", why))
}

/// Seconds a deleted object has to end: only a pod whose processes run has anything to end.
pub(super) fn grace(kind: &Kind, object: &Value, asked: Option<i64>) -> i64 {
    let phase = object["status"]["phase"].as_str();
    match phase {
        Some("Succeeded" | "Failed") => 0,
        _ if kind.resource() != "pods" => 0,
        _ => {
            let usual = &object["spec"]["terminationGracePeriodSeconds"];
            let grace = asked.or(usual.as_i64()).unwrap_or(0);
            // Below 0 means at once, as it does in Kubernetes.
            if grace < 0 { 1 } else { grace }
        }
    }
}

/// Whether a deleted object has nothing left to wait for: no grace, no finalizer.
pub(super) fn done(kind: &Kind, object: &Value) -> bool {
    let spec = object["spec"]["finalizers"].as_array();
    let held = kind.resource() == "namespaces" && spec.is_some_and(|list| !list.is_empty());
    deleting(object)
        && object["metadata"]["deletionGracePeriodSeconds"] == 0
        && !held
        && meta::finalizers(object).is_empty()
}
