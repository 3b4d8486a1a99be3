//! Reviews: kinds that are asked and never stored.

#[cfg(test)]
mod tests;

use k8s_openapi::api::authentication::v1::TokenReviewSpec;
use k8s_openapi::api::authorization::v1::SubjectAccessReviewSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Identity, rbac, tokens};
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::request::Attributes;
use crate::status::{Cause, Failure};

/// Answers a TokenReview, SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview,
/// SelfSubjectRulesReview or SelfSubjectReview: the object with its `status`. `kind` and `namespace` are the path's.
///
/// # Errors
/// 400 or 422 for an object that makes no sense.
pub fn review(
    cluster: &Cluster,
    who: &Identity,
    kind: &Kind,
    namespace: &str,
    mut object: Value,
) -> Result<Value, Failure> {
    let spec = &object["spec"];
    let status = match kind.kind.as_str() {
        "TokenReview" => token(cluster, read(spec)?)?,
        "SelfSubjectReview" => json!({"userInfo": who.user_info()}),
        "SelfSubjectRulesReview" => {
            let namespace = spec["namespace"].as_str().unwrap_or_default();
            let rules = rbac::rules(cluster, who, namespace).into_iter();
            let (paths, resources): (Vec<_>, Vec<_>) =
                rules.partition(|rule| rule.resources.is_empty());
            json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
        }
        "SelfSubjectAccessReview" => access(cluster, kind, Some(who), read(spec)?)?,
        name => {
            let asked = &spec["resourceAttributes"]["namespace"];
            if name == "LocalSubjectAccessReview" && *asked != namespace {
                let field = "spec.resourceAttributes.namespace";
                return Err(invalid(kind, field, "must match metadata.namespace"));
            }
            access(cluster, kind, None, read(spec)?)?
        }
    };
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_str().into();
    object["status"] = status;
    Ok(object)
}

fn token(cluster: &Cluster, spec: TokenReviewSpec) -> Result<Value, Failure> {
    let token = spec
        .token
        .filter(|token| !token.is_empty())
        .ok_or_else(|| {
            Failure::bad_request("token is required for TokenReview in authentication")
        })?;
    let audiences = spec.audiences.unwrap_or_default();
    Ok(match tokens::verify(cluster, &token, &audiences) {
        Ok(verified) => json!({
            "authenticated": true,
            "user": verified.identity.user_info(),
            "audiences": verified.audiences,
        }),
        Err(why) => json!({"user": {}, "error": why}),
    })
}

/// Whether `who`, or else whom the review names, may do what it asks about.
fn access(
    cluster: &Cluster,
    kind: &Kind,
    who: Option<&Identity>,
    spec: SubjectAccessReviewSpec,
) -> Result<Value, Failure> {
    let what = match (spec.resource_attributes, spec.non_resource_attributes) {
        (Some(asked), None) => Attributes {
            subresource: asked.subresource.unwrap_or_default(),
            ..Attributes::about(
                &asked.verb.unwrap_or_default(),
                &asked.group.unwrap_or_default(),
                &asked.namespace.unwrap_or_default(),
                &asked.resource.unwrap_or_default(),
                &asked.name.unwrap_or_default(),
            )
        },
        (None, Some(asked)) => Attributes {
            verb: asked.verb.unwrap_or_default(),
            path: asked.path.unwrap_or_default(),
            ..Attributes::default()
        },
        _ => {
            let why =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(invalid(kind, "spec.resourceAttributes", why));
        }
    };
    // As it is asked: nobody is put into `system:authenticated` here.
    let named = Identity {
        username: spec.user.unwrap_or_default(),
        groups: spec.groups.unwrap_or_default(),
        ..Identity::default()
    };
    let who = who.unwrap_or(&named);
    if *who == Identity::default() {
        let why = "at least one of user or group must be specified";
        return Err(invalid(kind, "spec.user", why));
    }
    let decision = rbac::decide(cluster, who, &what);
    let mut status = json!({"allowed": decision.allowed});
    if decision.allowed {
        status["reason"] = decision.reason.into();
    }
    Ok(status)
}

fn read<T: Default + for<'a> Deserialize<'a>>(spec: &Value) -> Result<T, Failure> {
    let spec: Result<Option<T>, _> = Deserialize::deserialize(spec);
    let spec = spec.map_err(|error| Failure::bad_request(format!("spec: {error}")))?;
    Ok(spec.unwrap_or_default())
}

fn invalid(kind: &Kind, field: &str, why: &str) -> Failure {
    let cause = Cause {
        reason: "FieldValueInvalid",
        field: field.to_owned(),
        message: format!("Invalid value: {why}"),
    };
    Failure::invalid(&kind.group, &kind.kind, "", &[cause])
}
