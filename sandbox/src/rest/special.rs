//! What Kubernetes does for one kind and not for others.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::meta::{self, put};
use crate::auth::{Identity, rbac};
use crate::cluster::{Cluster, NODE};
use crate::kinds::Kind;
use crate::object::{deleting, metadata_mut, name};
use crate::release::Release;
use crate::status::{Cause, Failure};
use crate::store::Key;

/// Namespaces nobody may delete.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// Fields of a pod's containers that may change.
const CHANGEABLE_OF_CONTAINERS: &str = "image";
/// Fields of a pod's spec that may change.
const CHANGEABLE_OF_PODS: [&str; 3] = [
    "activeDeadlineSeconds",
    "terminationGracePeriodSeconds",
    "tolerations",
];

fn is(kind: &Kind, group: &str, plural: &str) -> bool {
    kind.group == group && kind.plural == plural
}

fn is_rbac(kind: &Kind) -> bool {
    kind.group == "rbac.authorization.k8s.io"
}

fn is_definition(kind: &Kind) -> bool {
    is(kind, "apiextensions.k8s.io", "customresourcedefinitions")
}

/// Fills in what a new object of this kind gets.
pub(super) fn begin(
    cluster: &Cluster,
    kind: &Kind,
    namespace: &str,
    object: &mut Value,
) -> Result<(), Failure> {
    fill_in(cluster.release, kind, object);
    if is(kind, "", "pods") {
        begin_pod(cluster, kind, namespace, object)?;
    } else if is(kind, "", "namespaces") {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        object["status"] = json!({"phase": "Active"});
    } else if is_definition(kind) {
        let versions = object["spec"]["versions"].as_array().into_iter().flatten();
        let stored: Vec<&Value> = versions
            .filter(|version| version["storage"] == true)
            .map(|version| &version["name"])
            .collect();
        object["status"] = json!({
            "acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": stored,
        });
    }
    Ok(())
}

fn begin_pod(
    cluster: &Cluster,
    kind: &Kind,
    namespace: &str,
    pod: &mut Value,
) -> Result<(), Failure> {
    if !pod["spec"].is_object() {
        return Ok(()); // said by the schema
    }
    let account = match pod["spec"]["serviceAccountName"].as_str() {
        None | Some("") => "default".to_owned(),
        Some(account) => account.to_owned(),
    };
    let key = Key {
        resource: "serviceaccounts".into(),
        namespace: namespace.to_owned(),
        name: account.clone(),
    };
    if cluster.store.get(&key).is_none() {
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
        );
        return Err(Failure::forbidden("", &kind.plural, name(pod), &why));
    }
    pod["spec"]["serviceAccountName"] = account.as_str().into();
    pod["spec"]["serviceAccount"] = account.into();
    // There is one node and nothing to choose.
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        pod["spec"]["nodeName"] = NODE.into();
    }
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.remove("ephemeralContainers");
    }
    // As the admission plugins do that every cluster has.
    pod["spec"]["priority"] = 0.into();
    pod["spec"]["preemptionPolicy"] = "PreemptLowerPriority".into();
    for taint in ["not-ready", "unreachable"] {
        let key = format!("node.kubernetes.io/{taint}");
        let tolerations = &mut pod["spec"]["tolerations"];
        if tolerations.is_null() {
            *tolerations = json!([]);
        }
        if let Some(tolerations) = tolerations.as_array_mut()
            && !tolerations.iter().any(|one| one["key"] == key)
        {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            }));
        }
    }
    pod["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
    Ok(())
}

/// Fills in what every written object of this kind gets.
pub(super) fn fill_in(release: Release, kind: &Kind, object: &mut Value) {
    if is(kind, "", "secrets")
        && let Some(Value::Object(texts)) = object
            .as_object_mut()
            .and_then(|secret| secret.remove("stringData"))
    {
        for (key, value) in texts {
            let value = value.as_str().unwrap_or_default();
            if !object["data"].is_object() {
                object["data"] = json!({});
            }
            object["data"][key] = BASE64_STANDARD.encode(value).into();
        }
    } else if is(kind, "", "namespaces") {
        let name = name(object).to_owned();
        let labels = metadata_mut(object)
            .entry("labels")
            .or_insert_with(|| json!({}));
        if labels.is_object() && !name.is_empty() {
            labels["kubernetes.io/metadata.name"] = name.into();
        }
    } else if is_definition(kind) && release < Release::V1_30 {
        crate::schema::forget_rules(object);
    }
}

/// What a write may change where a kind has more than the object and its status.
pub(super) fn carry(kind: &Kind, live: &Value, wanted: Value, subresource: &str) -> Value {
    let only = |parent: &str, field: &str| {
        let mut next = live.clone();
        put(&mut next[parent], field, &wanted[parent][field]);
        put(
            &mut next["metadata"],
            "resourceVersion",
            &wanted["metadata"]["resourceVersion"],
        );
        next
    };
    match subresource {
        "ephemeralcontainers" => only("spec", "ephemeralContainers"),
        "finalize" => only("spec", "finalizers"),
        "" if is(kind, "", "namespaces") => {
            let mut next = wanted;
            put(&mut next, "spec", &live["spec"]);
            next
        }
        _ => wanted,
    }
}

/// What Kubernetes refuses for this kind beyond what its schema says; `before` with the subresource it is changed by.
pub(super) fn check(
    cluster: &Cluster,
    who: &Identity,
    kind: &Kind,
    object: &Value,
    before: Option<(&Value, &str)>,
) -> Result<(), Failure> {
    let mut causes = Vec::new();
    if is_rbac(kind) {
        rbac::check_escalation(cluster, who, before.map(|(before, _)| before), object)?;
    } else if is_definition(kind) {
        causes = crate::schema::kinds_of(object, cluster.release)
            .err()
            .unwrap_or_default();
    } else if is(kind, "", "pods")
        && let Some((before, subresource)) = before
    {
        causes.extend(check_pod(before, object, subresource));
    }
    meta::fail(kind, object, &causes)
}

fn check_pod(before: &Value, pod: &Value, subresource: &str) -> Option<Cause> {
    let forbidden = |field: &str, message: &str| Cause {
        reason: "FieldValueForbidden",
        field: field.to_owned(),
        message: format!("Forbidden: {message}"),
    };
    let frozen = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in CHANGEABLE_OF_PODS {
            put(&mut spec, field, &Value::Null);
        }
        if subresource == "ephemeralcontainers" {
            put(&mut spec, "ephemeralContainers", &Value::Null);
        }
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                put(container, CHANGEABLE_OF_CONTAINERS, &Value::Null);
            }
        }
        spec
    };
    if frozen(before) != frozen(pod) {
        return Some(forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n",
        ));
    }
    let list = |pod: &Value| {
        let list = pod["spec"]["ephemeralContainers"].as_array();
        list.cloned().unwrap_or_default()
    };
    let now = list(pod);
    list(before).iter().find_map(|old| {
        let happened = match now.iter().find(|new| new["name"] == old["name"]) {
            None => "removed",
            Some(new) if new != old => "changed",
            Some(_) => return None,
        };
        let why = format!(
            "existing ephemeral containers {} may not be {happened}\n",
            old["name"]
        );
        Some(forbidden("spec.ephemeralContainers", &why))
    })
}

/// Why an object may not be deleted at all.
pub(super) fn check_delete(kind: &Kind, name: &str) -> Result<(), Failure> {
    if is(kind, "", "namespaces") && IMMORTAL.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(Failure::forbidden("", &kind.plural, name, why));
    }
    Ok(())
}

/// Seconds a deleted object has to end; 0 for what has nothing to end.
pub(super) fn grace(kind: &Kind, object: &Value, asked: Option<u64>) -> u64 {
    let over = matches!(
        object["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if !is(kind, "", "pods") || over || object["spec"]["nodeName"].is_null() {
        return 0;
    }
    asked.unwrap_or_else(|| {
        let usual = object["spec"]["terminationGracePeriodSeconds"].as_u64();
        usual.unwrap_or(30)
    })
}

/// Marks what is about to be deleted where the kind shows it.
pub(super) fn mark(kind: &Kind, object: &mut Value) {
    if is(kind, "", "namespaces") {
        object["status"]["phase"] = "Terminating".into();
    }
}

/// Whether an object has something that must be done before it can go.
pub(super) fn held(kind: &Kind, object: &Value) -> bool {
    let spec = object["spec"]["finalizers"].as_array();
    !meta::finalizers(object).is_empty()
        || is(kind, "", "namespaces") && spec.is_some_and(|list| !list.is_empty())
}

/// Whether a deleted object has nothing left to wait for.
pub(super) fn done(kind: &Kind, object: &Value) -> bool {
    deleting(object) && object["metadata"]["deletionGracePeriodSeconds"] == 0 && !held(kind, object)
}

/// Kinds whose `PUT` must say which revision it replaces.
pub(super) fn insists_on_revision(kind: &Kind) -> bool {
    kind.custom() || is_definition(kind) || is(kind, "coordination.k8s.io", "leases")
}

/// Kinds whose `PUT` makes an object that is not there.
pub(super) fn created_by_update(kind: &Kind) -> bool {
    is_rbac(kind)
        || is(kind, "coordination.k8s.io", "leases")
        || kind.plural == "events"
        || is(kind, "", "services")
        || is(kind, "", "endpoints")
}

/// Kinds whose deletion is answered with the object.
pub(super) fn shown_when_deleted(kind: &Kind) -> bool {
    is(kind, "", "pods") || is(kind, "", "serviceaccounts") || is(kind, "", "services")
}
