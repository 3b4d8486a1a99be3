//! What a webhook is asked, and what it answered. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Refused, Write};
use crate::status::Failure;

/// Warnings of one answer that are passed on; each is cut at [`WARNING`] characters, as the API server does.
const WARNINGS: usize = 64;
const WARNING: usize = 256;

/// A webhook that lets a write pass.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) patch: Option<json_patch::Patch>,
    pub(super) warnings: Vec<String>,
}

/// Group, version and kind of what is shown, which for an exec are its options'.
pub(super) fn kind(write: &Write<'_>, object: &Value) -> (String, String, String) {
    match (object["apiVersion"].as_str(), object["kind"].as_str()) {
        (Some(version), Some(kind)) => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            (group.to_owned(), version.to_owned(), kind.to_owned())
        }
        _ => (
            write.kind.group.clone(),
            write.kind.version.clone(),
            write.kind.kind.clone(),
        ),
    }
}

/// The `AdmissionReview` a webhook gets.
pub(super) fn request(write: &Write<'_>, object: &Value, uid: &str) -> Value {
    let (group, version, kind) = kind(write, object);
    let kind = json!({"group": group, "version": version, "kind": kind});
    let of = write.kind;
    let resource = json!({"group": of.group, "version": of.version, "resource": of.plural});
    let mut request = json!({
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "operation": write.operation,
        "userInfo": write.who.user_info(),
        "object": object,
        "oldObject": write.before,
        "dryRun": write.dry_run,
        "options": write.options,
    });
    for (field, value) in [
        ("subResource", write.subresource),
        ("requestSubResource", write.subresource),
        ("name", write.name),
        ("namespace", write.namespace),
    ] {
        if !value.is_empty() {
            request[field] = value.into();
        }
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    allowed: bool,
    #[serde(default)]
    status: Value,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
}

/// What a webhook answered to the request with this UID.
pub(super) fn verdict(name: &str, uid: &str, answer: &[u8]) -> Result<Verdict, Refused> {
    let invalid =
        |why: String| Refused::Failed(format!("received invalid webhook response: {why}"));
    let review: Value =
        serde_json::from_slice(answer).map_err(|error| invalid(error.to_string()))?;
    let (version, kind) = (&review["apiVersion"], &review["kind"]);
    if version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
        let (version, kind) = (version.as_str(), kind.as_str());
        return Err(invalid(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
            version.unwrap_or_default(),
            kind.unwrap_or_default()
        )));
    }
    if !review["response"].is_object() {
        return Err(invalid("webhook response was absent".to_owned()));
    }
    let response =
        Response::deserialize(&review["response"]).map_err(|error| invalid(error.to_string()))?;
    if response.uid != uid {
        let got = response.uid;
        return Err(invalid(format!(
            "expected response.uid={uid:?}, got {got:?}"
        )));
    }
    if !response.allowed {
        return Err(Refused::Denied(denied(name, &response.status)));
    }
    let patch = match (response.patch.as_deref(), response.patch_type.as_deref()) {
        (None | Some(""), None) => None,
        (None | Some(""), Some(_)) => {
            let why = "webhook returned response.patchType but not response.patch";
            return Err(invalid(why.to_owned()));
        }
        (Some(_), None) => {
            let why = "webhook returned response.patch but not response.patchType";
            return Err(invalid(why.to_owned()));
        }
        (Some(patch), Some("JSONPatch")) => Some(decode(patch)?),
        (Some(_), Some(other)) => {
            return Err(invalid(format!(
                "webhook returned invalid response.patchType of {other:?}"
            )));
        }
    };
    let warnings = response.warnings.unwrap_or_default();
    let warnings = warnings.iter().take(WARNINGS);
    Ok(Verdict {
        patch,
        warnings: warnings
            .map(|text| text.chars().take(WARNING).collect())
            .collect(),
    })
}

fn decode(patch: &str) -> Result<json_patch::Patch, Refused> {
    let undecodable = |why: String| {
        Refused::Failed(format!(
            "received undecodable patch in webhook response: {why}"
        ))
    };
    let raw = STANDARD
        .decode(patch)
        .map_err(|error| undecodable(error.to_string()))?;
    serde_json::from_slice(&raw).map_err(|error| undecodable(error.to_string()))
}

/// The Status of a write a webhook denied: its own, made a failure.
fn denied(name: &str, status: &Value) -> Failure {
    let by = format!("admission webhook {name:?} denied the request");
    let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
    let message = match text("message").or_else(|| text("reason")) {
        Some(why) => format!("{by}: {why}"),
        None => format!("{by} without explanation"),
    };
    let code = status["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let reason = text("reason").unwrap_or_default().to_owned();
    let mut failure = Failure::new(code, reason, message);
    failure.details = status["details"].clone();
    failure
}
