//! Admission webhooks, called over TLS as their configurations in the store say.
//!
//! A webhook's `clientConfig` has a `url` whose host is this machine; its certificate must be of `caBundle`, nobody else is
//! trusted. One with `service` or `matchConditions` counts as one that could not be asked. None is asked a second time.

mod call;
mod rules;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::object::name;
use crate::rest::Call;
use crate::status::Failure;

const GROUP: &str = "admissionregistration.k8s.io";
/// What webhooks are asked and answer in.
const VERSION: &str = "admission.k8s.io/v1";

/// Which webhooks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Those that may change the object.
    Mutating,
    /// Those that see what has become of it.
    Validating,
}

/// A write on its way, as webhooks see it.
#[derive(Clone, Copy, Debug)]
struct Write<'a> {
    /// `CREATE`, `UPDATE` or `DELETE`
    operation: &'static str,
    call: &'a Call,
    before: Option<&'a Value>,
}

/// What a webhook answers.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    uid: String,
    allowed: bool,
    status: Value,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
}

/// Passes an object (`Null` for one that is to be deleted) through the webhooks of a stage that want to see it. `before` is
/// what there is now. Returns it with warnings.
///
/// # Errors
/// What a webhook refused, or 500 when it could not be asked and its `failurePolicy` is `Fail`.
pub async fn admit(
    cluster: &Cluster,
    stage: Stage,
    call: &Call,
    before: Option<&Value>,
    mut object: Value,
) -> Result<(Value, Vec<String>), Failure> {
    let operation = match before {
        None => "CREATE",
        Some(_) if object.is_null() => "DELETE",
        Some(_) => "UPDATE",
    };
    let write = Write {
        operation,
        call,
        before,
    };
    let mut warnings = Vec::new();
    for hook in hooks(cluster, &write, stage) {
        let answer = ask(cluster, write, &hook, &object).await?;
        warnings.extend(answer.warnings.unwrap_or_default());
        if let Some(patch) = answer.patch.filter(|_| stage == Stage::Mutating) {
            let patched = patched(&mut object, &patch, answer.patch_type.as_deref());
            patched.map_err(|why| Failure::internal(&format!("webhook {:?}: {why}", hook.name)))?;
        }
    }
    Ok((object, warnings))
}

fn patched(object: &mut Value, patch: &str, kind: Option<&str>) -> anyhow::Result<()> {
    anyhow::ensure!(kind == Some("JSONPatch"), "its patchType is not JSONPatch");
    let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch)?)?;
    Ok(json_patch::patch(object, &patch)?)
}

/// Webhooks of the configurations of a stage, by the configurations' names; a validating one is a mutating one that
/// returns no patch. Configurations themselves are shown to nobody, so that they can be repaired.
fn hooks(cluster: &Cluster, write: &Write<'_>, stage: Stage) -> Vec<MutatingWebhook> {
    if write.call.kind.group == GROUP {
        return Vec::new();
    }
    let stage = format!("{stage:?}").to_lowercase();
    let (_, configurations) =
        (cluster.store).list(&format!("{stage}webhookconfigurations.{GROUP}"), None);
    let hooks = configurations
        .iter()
        .filter_map(|one| one["webhooks"].as_array());
    let hooks = hooks
        .flatten()
        .filter_map(|hook| MutatingWebhook::deserialize(hook).ok());
    hooks.collect()
}

/// Asks a webhook about a write. The default stands for one that does not want to see it, or failed and may.
async fn ask(
    cluster: &Cluster,
    write: Write<'_>,
    hook: &MutatingWebhook,
    object: &Value,
) -> Result<Answer, Failure> {
    let name = &hook.name;
    if !rules::wants(cluster, hook, &write, object) {
        return Ok(Answer::default());
    }
    if write.call.dry_run() && !hook.side_effects.starts_with("None") {
        let why = format!("admission webhook {name:?} does not support dry run");
        return Err(Failure::bad_request(why));
    }
    match exchange(write, hook, object).await {
        Ok(answer) if answer.allowed => Ok(answer),
        Ok(answer) => Err(denied(name, &answer.status)),
        Err(why) if hook.failure_policy.as_deref() == Some("Ignore") => {
            tracing::warn!("failed calling webhook {name:?}: {why:#}");
            Ok(Answer::default())
        }
        Err(why) => Err(Failure::internal(&format!(
            "failed calling webhook {name:?}: {why:#}"
        ))),
    }
}

async fn exchange(
    write: Write<'_>,
    hook: &MutatingWebhook,
    object: &Value,
) -> anyhow::Result<Answer> {
    anyhow::ensure!(
        hook.match_conditions.iter().flatten().count() == 0,
        "the sandbox does not evaluate matchConditions"
    );
    let uid = uuid::Uuid::new_v4().to_string();
    let raw = call::call(hook, &review(&write, object, &uid)).await?;
    let mut review: Value = serde_json::from_slice(&raw)?;
    anyhow::ensure!(
        review["apiVersion"] == VERSION,
        "its answer is not of {VERSION}"
    );
    let answer = Answer::deserialize(review["response"].take())?;
    anyhow::ensure!(answer.uid == uid, "it answered another request");
    Ok(answer)
}

/// The `AdmissionReview` a webhook gets.
fn review(write: &Write<'_>, object: &Value, uid: &str) -> Value {
    let (call, operation) = (write.call, write.operation);
    let of = &call.kind;
    let kind = json!({"group": of.group, "version": of.version, "kind": of.kind});
    let resource = json!({"group": of.group, "version": of.version, "resource": of.plural});
    let options = match operation {
        "CREATE" => "CreateOptions",
        "DELETE" => "DeleteOptions",
        _ => "UpdateOptions",
    };
    let options = json!({
        "kind": options, "apiVersion": "meta.k8s.io/v1", "fieldManager": call.query.get("fieldManager"),
    });
    let shown = write.before.filter(|_| object.is_null());
    let mut request = json!({
        "uid": uid, "operation": operation, "dryRun": call.dry_run(),
        "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
        "userInfo": call.who, "object": object, "oldObject": write.before, "options": options,
    });
    for (field, value) in [
        ("subResource", &*call.subresource),
        ("requestSubResource", &*call.subresource),
        ("name", name(shown.unwrap_or(object))),
        ("namespace", &*call.namespace),
    ] {
        if !value.is_empty() {
            request[field] = value.into();
        }
    }
    json!({"apiVersion": VERSION, "kind": "AdmissionReview", "request": request})
}

/// The Status of a write a webhook denied: its own, made a failure.
fn denied(name: &str, status: &Value) -> Failure {
    let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
    let why = text("message").or(text("reason"));
    let why = why.map_or(" without explanation".to_owned(), |why| format!(": {why}"));
    let code = status["code"]
        .as_u64()
        .filter(|code| (400..600).contains(code));
    let code = code.and_then(|code| code.try_into().ok()).unwrap_or(400);
    let reason = text("reason").unwrap_or_default().to_owned();
    let message = format!("admission webhook {name:?} denied the request{why}");
    let mut failure = Failure::new(code, message);
    failure.reason = reason.into();
    failure.details = status["details"].clone();
    failure
}
