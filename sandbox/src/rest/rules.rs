//! What the API server fills in and what nobody may change: of every object, and of those of one kind.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::Call;
use crate::object::{deleting, meta, metadata_mut, text, texts};
use crate::status::{Cause, Failure, Result};
use crate::{auth::rbac, cluster::Cluster, kinds::Kind};

/// What only the API server writes in `metadata`.
const OURS: &str =
    "uid creationTimestamp deletionTimestamp deletionGracePeriodSeconds generation resourceVersion";

impl Cluster {
    /// Gives a new object its UID and so on.
    pub(crate) fn stamp(&self, kind: &Kind, object: &mut Value) {
        metadata_mut(object);
        for field in OURS.split(' ') {
            put(object, &format!("/metadata/{field}"), None);
        }
        object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
        object["metadata"]["creationTimestamp"] = format!("{:.0}", self.clock.now()).into();
        if kind.generation {
            bump(object);
        }
    }
}

/// `wanted` with all that stays as it is in `live`: what only the API server writes, and what another path is for.
pub(super) fn carry(call: &Call, live: &Value, wanted: &Value) -> Value {
    let (base, other, part) = match call.subresource.as_str() {
        "status" => (live, wanted, "/status"),
        "ephemeralcontainers" => (live, wanted, "/spec/ephemeralContainers"),
        _ if call.kind.status => (wanted, live, "/status"),
        _ => (wanted, wanted, "/status"),
    };
    let mut next = base.clone();
    put(&mut next, part, other.pointer(part));
    let managed = "/metadata/managedFields";
    put(&mut next, managed, wanted.pointer(managed));
    for field in OURS.split(' ') {
        let path = format!("/metadata/{field}");
        put(&mut next, &path, live.pointer(&path));
    }
    next
}

/// Sets what is at a JSON pointer, or takes it out if there is nothing to set.
pub(super) fn put(object: &mut Value, path: &str, value: Option<&Value>) {
    let (parent, field) = path.rsplit_once('/').unwrap_or_default();
    let Some(Value::Object(fields)) = object.pointer_mut(parent) else {
        return;
    };
    match value {
        None | Some(Value::Null) => fields.remove(field),
        Some(value) => fields.insert(field.to_owned(), value.clone()),
    };
}

/// Gives the object a name and counts its generation; refuses what may not be done to metadata.
pub(super) fn complete(kind: &Kind, live: Option<&Value>, object: &mut Value) -> Result<()> {
    if meta(object, "name").is_empty() {
        let base = meta(object, "generateName");
        if base.is_empty() {
            let why = "Required value: name or generateName is required";
            let cause = Cause::new("FieldValueRequired", "metadata.name", why);
            return fail(kind, object, &[cause]);
        }
        // As much of the base as leaves a valid name, and five characters, as in Kubernetes.
        let random = uuid::Uuid::new_v4().simple().to_string();
        object["metadata"]["name"] = format!("{base:.58}{random:.5}").into();
    }
    let Some(live) = live else {
        return Ok(());
    };
    let [old, mut new] = [live, object].map(|object| texts(object, "metadata", "finalizers"));
    new.retain(|one| !old.contains(one));
    if deleting(live) && !new.is_empty() {
        let why = "Forbidden: no new finalizers can be added if the object is being deleted";
        let cause = Cause::new("FieldValueForbidden", "metadata.finalizers", why);
        return fail(kind, object, &[cause]);
    }
    let meant = |object: &Value| {
        let mut object = object.clone();
        put(&mut object, "/metadata", None);
        if kind.status {
            put(&mut object, "/status", None);
        }
        object
    };
    if kind.generation && meant(live) != meant(object) {
        bump(object);
    }
    Ok(())
}

/// Raises `metadata.generation` by one.
pub(super) fn bump(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    object["metadata"]["generation"] = (generation + 1).into();
}

/// 422 if there is any cause for it.
pub(super) fn fail(kind: &Kind, object: &Value, causes: &[Cause]) -> Result<()> {
    if causes.is_empty() {
        return Ok(());
    }
    let name = meta(object, "name");
    Err(Failure::invalid(&kind.group, &kind.kind, name, causes))
}

/// Fills in what every written object of this kind gets.
pub(super) fn fill_in(kind: &Kind, object: &mut Value) {
    match kind.resource().as_str() {
        "secrets" => {
            let texts = object["stringData"].take();
            for (key, value) in texts.as_object().into_iter().flatten() {
                let data = BASE64_STANDARD.encode(text(value));
                json_patch::merge(object, &json!({"data": {key: data}}));
            }
            put(object, "/stringData", None);
        }
        "namespaces" if !meta(object, "name").is_empty() => {
            let name = json!({"kubernetes.io/metadata.name": meta(object, "name")});
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
) -> Result<()> {
    let kind = &call.kind;
    match (kind.resource().as_str(), live) {
        ("pods", Some(live)) if call.subresource.is_empty() && frozen(live) != frozen(object) => {
            let why = "pod updates may not change fields other than images of containers";
            let why = format!("Forbidden: {why}");
            fail(
                kind,
                object,
                &[Cause::new("FieldValueForbidden", "spec", why)],
            )
        }
        ("customresourcedefinitions.apiextensions.k8s.io", _) => {
            let kinds = crate::schema::kinds_of(object, cluster.release);
            fail(kind, object, &kinds.err().unwrap_or_default())
        }
        _ if kind.group == rbac::GROUP => rbac::check_escalation(cluster, &call.who, object),
        _ => Ok(()),
    }
}

/// The part of a pod's spec that may not change: all but the images of its containers. Kubernetes lets change a few
/// numbers, too.
fn frozen(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            put(container, "/image", None);
        }
    }
    spec
}

/// Seconds a deleted object has to end: only a pod whose processes run has anything to end.
pub(super) fn grace(kind: &Kind, object: &Value, asked: Option<i64>) -> i64 {
    let over = matches!(text(&object["status"]["phase"]), "Succeeded" | "Failed");
    if over || kind.resource() != "pods" {
        return 0;
    }
    let usual = &object["spec"]["terminationGracePeriodSeconds"];
    let grace = asked.or(usual.as_i64()).unwrap_or(0);
    // Below 0 means at once, as it does in Kubernetes.
    if grace < 0 { 1 } else { grace }
}
