//! Admission webhooks, called over TLS as their configurations in the store say.
//!
//! A webhook's `clientConfig` leads to this machine or nowhere: `url` has a loopback host, and `service` names a Service of
//! `type: ExternalName` whose `externalName` is one (the port is the webhook's own, and the certificate is checked for
//! `name.namespace.svc`, as in a cluster). Its certificate must be of `caBundle`; nobody else is trusted.
//! A webhook with `matchConditions` counts as one that could not be asked.

mod call;
mod hook;
mod review;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use futures_util::future::join_all;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use serde_json::Value;

use self::hook::{hooks, wants};
use self::review::Verdict;

use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::status::Failure;

/// A write on its way.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`
    pub operation: &'static str,
    /// Of the object.
    pub kind: &'a Kind,
    /// `status`, `exec`; empty for none.
    pub subresource: &'a str,
    /// Empty for what is in none.
    pub namespace: &'a str,
    /// Empty for a `generateName` not yet made.
    pub name: &'a str,
    /// What there is now; `None` for `CREATE`.
    pub before: Option<&'a Value>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The request's `CreateOptions`, `UpdateOptions`, …
    pub options: &'a Value,
    /// Who writes.
    pub who: &'a Identity,
}

/// Why a webhook did not let a write pass.
enum Refused {
    /// It could not be asked, or did not answer: `failurePolicy` decides.
    Failed(String),
    /// It, or the API server itself, said no.
    Denied(Failure),
}

/// Passes an object (`Null` for `DELETE`) through the mutating webhooks that want to see it. Returns it with warnings.
///
/// # Errors
/// What a webhook refused, or 500 when it could not be asked and its `failurePolicy` is `Fail`.
pub async fn mutate(
    cluster: &Cluster,
    write: Write<'_>,
    mut object: Value,
) -> Result<(Value, Vec<String>), Failure> {
    let hooks = hooks(cluster, &write, "mutatingwebhookconfigurations");
    let mut warnings = Vec::new();
    // Those to be asked a second time if an object changes after they saw it, and those it changed for.
    let (mut seen, mut again) = (Vec::new(), BTreeSet::new());
    for (index, hook) in hooks.iter().enumerate() {
        let changed = one(cluster, write, hook, &mut object, &mut warnings).await?;
        if changed == Some(true) {
            again.extend(seen.iter().copied());
        }
        if changed.is_some() && hook.reinvocation_policy.as_deref() == Some("IfNeeded") {
            seen.push(index);
        }
    }
    for index in again {
        one(cluster, write, &hooks[index], &mut object, &mut warnings).await?;
    }
    Ok((object, warnings))
}

/// Passes an object through one mutating webhook. `None` if it does not want to see it, else whether it changed it.
async fn one(
    cluster: &Cluster,
    write: Write<'_>,
    hook: &MutatingWebhook,
    object: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<Option<bool>, Failure> {
    let asked = ask(cluster, write, hook, object).await;
    let Some(verdict) = settle(hook, asked)? else {
        return Ok(None);
    };
    warnings.extend(verdict.warnings);
    let Some(patch) = verdict.patch.filter(|patch| !patch.0.is_empty()) else {
        return Ok(Some(false));
    };
    if object.is_null() {
        return Err(Failure::internal(&format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    }
    let before = object.clone();
    json_patch::patch(object, &patch).map_err(|error| Failure::internal(&error.to_string()))?;
    Ok(Some(before != *object))
}

/// Shows an object to the validating webhooks that want to see it, all at a time. Returns their warnings.
///
/// # Errors
/// As [`mutate`].
pub async fn validate(
    cluster: &Cluster,
    write: Write<'_>,
    object: &Value,
) -> Result<Vec<String>, Failure> {
    let hooks = hooks(cluster, &write, "validatingwebhookconfigurations");
    let asked = join_all(hooks.iter().map(|hook| ask(cluster, write, hook, object)));
    let mut warnings = Vec::new();
    for (hook, asked) in hooks.iter().zip(asked.await) {
        if let Some(verdict) = settle(hook, asked)? {
            warnings.extend(verdict.warnings);
        }
    }
    Ok(warnings)
}

/// Asks a webhook about a write if it wants to see it.
async fn ask(
    cluster: &Cluster,
    write: Write<'_>,
    hook: &MutatingWebhook,
    object: &Value,
) -> Result<Option<Verdict>, Refused> {
    if !wants(cluster, hook, &write, object)? {
        return Ok(None);
    }
    if write.dry_run && !matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun") {
        return Err(Refused::Denied(Failure::bad_request(format!(
            "admission webhook {:?} does not support dry run",
            hook.name
        ))));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review::request(&write, object, &uid);
    let answer = call::call(cluster, hook, &review)
        .await
        .map_err(|why| Refused::Failed(format!("failed to call webhook: {why}")))?;
    review::verdict(&hook.name, &uid, &answer).map(Some)
}

/// What a webhook that failed means by its `failurePolicy`: nothing, or that the write fails.
fn settle(
    hook: &MutatingWebhook,
    asked: Result<Option<Verdict>, Refused>,
) -> Result<Option<Verdict>, Failure> {
    match asked {
        Ok(verdict) => Ok(verdict),
        Err(Refused::Denied(failure)) => Err(failure),
        Err(Refused::Failed(why)) => {
            let why = format!("failed calling webhook {:?}: {why}", hook.name);
            if hook.failure_policy.as_deref() == Some("Ignore") {
                tracing::warn!("{why}");
                Ok(None)
            } else {
                Err(Failure::internal(&why))
            }
        }
    }
}
