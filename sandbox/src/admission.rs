//! Admission webhooks, called over TLS as their configurations in the store say.
//!
//! A webhook's `clientConfig` has a `url` whose host is this machine; its certificate must be of `caBundle`, nobody else is
//! trusted. One with `service` counts as one that could not be asked. Conditions and declared side effects are not looked
//! at. None is asked a second time.

mod call;
mod rules;
#[cfg(test)]
mod tests;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{cluster::Cluster, object::name, rest::Call, status::Failure};

const GROUP: &str = "admissionregistration.k8s.io";
/// What webhooks are asked and answer in.
const VERSION: &str = "admission.k8s.io/v1";

/// Which webhooks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Those that may change the object.
    Mutating,
    /// Those that see what has become of it.
    Validating,
}

/// A write on its way, as webhooks see it.
struct Write<'a> {
    call: &'a Call,
    before: Option<&'a Value>,
    object: Value,
}

impl Write<'_> {
    /// What is done, and the kind of its options.
    fn operation(&self) -> (&'static str, &'static str) {
        match self.before {
            None => ("CREATE", "CreateOptions"),
            Some(_) if self.object.is_null() => ("DELETE", "DeleteOptions"),
            Some(_) => ("UPDATE", "UpdateOptions"),
        }
    }
}

/// Passes an object (`Null` for one that is to be deleted) through the webhooks of a stage that want to see it. `before` is
/// what there is now. Returns it with warnings.
///
/// # Errors
/// What a webhook refused, or 500 when it could not be asked and its `failurePolicy` is `Fail`.
pub(crate) async fn admit(
    cluster: &Cluster,
    stage: Stage,
    call: &Call,
    before: Option<&Value>,
    object: Value,
) -> Result<(Value, Vec<String>), Failure> {
    let mut warnings = Vec::new();
    let mut write = Write {
        call,
        before,
        object,
    };
    for hook in hooks(cluster, call, stage) {
        if !rules::wants(cluster, &hook, &write) {
            continue;
        }
        let name = &hook.name;
        match ask(&mut write, &hook, stage).await {
            Ok(answer) if answer["allowed"] != true => return Err(denied(name, &answer["status"])),
            Ok(answer) => {
                let more = Vec::<String>::deserialize(&answer["warnings"]);
                warnings.extend(more.unwrap_or_default());
            }
            Err(why) => {
                let why = format!("failed calling webhook {name:?}: {why:#}");
                if hook.failure_policy.as_deref() != Some("Ignore") {
                    return Err(Failure::new(500, format!("Internal error occurred: {why}")));
                }
                tracing::warn!("{why}");
            }
        }
    }
    Ok((write.object, warnings))
}

/// Those of a stage by the names of their configurations; a validating one is a mutating one whose patch does not count.
/// Configurations themselves are shown to nobody, so that they can be repaired.
fn hooks(cluster: &Cluster, call: &Call, stage: Stage) -> Vec<MutatingWebhook> {
    if call.kind.group == GROUP {
        return Vec::new();
    }
    let resource = format!("{stage:?}WebhookConfigurations.{GROUP}").to_lowercase();
    let (_, configurations) = cluster.store.list(&resource, "");
    let hooks = configurations.iter();
    let hooks = hooks.filter_map(|one| Vec::deserialize(&one["webhooks"]).ok());
    hooks.flatten().collect()
}

fn patch(object: &mut Value, answer: &Value) -> anyhow::Result<()> {
    let Some(patch) = answer["patch"].as_str() else {
        return Ok(());
    };
    let kind = &answer["patchType"];
    anyhow::ensure!(kind == "JSONPatch", "its patchType is not JSONPatch");
    let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch)?)?;
    Ok(json_patch::patch(object, &patch)?)
}

/// Asks a webhook about a write, and changes it as a mutating one says. Returns the `response` of the `AdmissionReview`
/// it answers with.
async fn ask(write: &mut Write<'_>, hook: &MutatingWebhook, stage: Stage) -> anyhow::Result<Value> {
    let uid = uuid::Uuid::new_v4().to_string();
    let (call, before, object) = (write.call, write.before, &write.object);
    let (of, (operation, options)) = (&call.kind, write.operation());
    let shown = before.filter(|_| object.is_null()).unwrap_or(object);
    let kind = json!({"group": of.group, "version": of.version, "kind": of.kind});
    let resource = json!({"group": of.group, "version": of.version, "resource": of.plural});
    let options = json!({
        "kind": options, "apiVersion": "meta.k8s.io/v1", "fieldManager": call.query.get("fieldManager"),
    });
    let request = json!({
        "uid": uid, "operation": operation, "dryRun": call.dry_run(),
        "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
        "subResource": call.subresource, "requestSubResource": call.subresource,
        "name": name(shown), "namespace": call.namespace,
        "userInfo": call.who, "object": object, "oldObject": before, "options": options,
    });
    let request = json!({"apiVersion": VERSION, "kind": "AdmissionReview", "request": request});
    let mut review: Value = serde_json::from_slice(&call::call(hook, &request).await?)?;
    let version = &review["apiVersion"];
    anyhow::ensure!(version == VERSION, "its answer is not of {VERSION}");
    let answer = review["response"].take();
    anyhow::ensure!(answer["uid"] == uid, "it answered another request");
    if stage == Stage::Mutating && answer["allowed"] == true {
        patch(&mut write.object, &answer)?;
    }
    Ok(answer)
}

/// The Status of a write a webhook denied: its own, made a failure.
fn denied(name: &str, status: &Value) -> Failure {
    let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
    let why = text("message").or(text("reason"));
    let why = why.map_or(" without explanation".to_owned(), |why| format!(": {why}"));
    let code = u16::try_from(status["code"].as_u64().unwrap_or_default()).ok();
    let code = code.filter(|code| (400..600).contains(code));
    let message = format!("admission webhook {name:?} denied the request{why}");
    let mut failure = Failure::new(code.unwrap_or(400), message);
    failure.reason = text("reason").unwrap_or_default().to_owned().into();
    failure.details = status["details"].clone();
    failure
}
