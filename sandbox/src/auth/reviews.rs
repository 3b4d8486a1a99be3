//! Reviews: kinds that are asked and never stored.

#[cfg(test)]
mod tests;

use k8s_openapi::api::authentication::v1::TokenReviewSpec;
use k8s_openapi::api::authorization::v1::SubjectAccessReviewSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rbac::rule::Rule;
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
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_str().into();
    let kind = kind.kind.as_str();
    let status = match kind {
        "TokenReview" => token(cluster, read(kind, &object)?)?,
        "SubjectAccessReview" => access(cluster, None, kind, read(kind, &object)?)?,
        "LocalSubjectAccessReview" => {
            let spec: SubjectAccessReviewSpec = read(kind, &object)?;
            let asked = spec.resource_attributes.as_ref();
            let asked = asked.and_then(|asked| asked.namespace.as_deref());
            let asked = asked.unwrap_or_default();
            if asked != namespace {
                let why = "must match metadata.namespace";
                let field = "spec.resourceAttributes.namespace";
                return Err(invalid(kind, field, &format!("{asked:?}"), why));
            }
            access(cluster, None, kind, spec)?
        }
        "SelfSubjectAccessReview" => access(cluster, Some(who), kind, read(kind, &object)?)?,
        "SelfSubjectRulesReview" => rules(cluster, who, &object)?,
        "SelfSubjectReview" => json!({"userInfo": who.user_info()}),
        _ => {
            return Err(Failure::bad_request(format!("{kind:?} is no review")));
        }
    };
    object["status"] = status;
    Ok(object)
}

fn token(cluster: &Cluster, spec: TokenReviewSpec) -> Result<Value, Failure> {
    let token = spec.token.unwrap_or_default();
    if token.is_empty() {
        let why = "token is required for TokenReview in authentication";
        return Err(Failure::bad_request(why));
    }
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
    who: Option<&Identity>,
    kind: &str,
    spec: SubjectAccessReviewSpec,
) -> Result<Value, Failure> {
    let what = match (spec.resource_attributes, spec.non_resource_attributes) {
        (Some(asked), None) => Attributes {
            verb: asked.verb.unwrap_or_default(),
            resource_request: true,
            group: asked.group.unwrap_or_default(),
            version: asked.version.unwrap_or_default(),
            namespace: asked.namespace.unwrap_or_default(),
            resource: asked.resource.unwrap_or_default(),
            subresource: asked.subresource.unwrap_or_default(),
            name: asked.name.unwrap_or_default(),
            path: String::new(),
        },
        (None, Some(asked)) => Attributes {
            verb: asked.verb.unwrap_or_default(),
            path: asked.path.unwrap_or_default(),
            ..Attributes::default()
        },
        (asked, _) => {
            let mut field = "spec.resourceAttributes";
            let mut why =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            if asked.is_some() {
                field = "spec.nonResourceAttributes";
                why = "cannot be specified in combination with resourceAttributes";
            }
            return Err(invalid(kind, field, "null", why));
        }
    };
    let decision = if let Some(who) = who {
        rbac::decide(cluster, who, &what)
    } else {
        let (user, groups) = (
            spec.user.unwrap_or_default(),
            spec.groups.unwrap_or_default(),
        );
        if user.is_empty() && groups.is_empty() {
            let why = "at least one of user or group must be specified";
            return Err(invalid(kind, "spec.user", "\"\"", why));
        }
        // As it is asked: nobody is put into `system:authenticated` here.
        let who = Identity {
            username: user,
            uid: spec.uid.unwrap_or_default(),
            groups,
            extra: Vec::new(),
        };
        rbac::decide(cluster, &who, &what)
    };
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    Ok(status)
}

fn rules(cluster: &Cluster, who: &Identity, object: &Value) -> Result<Value, Failure> {
    let namespace = object["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let (found, missing) = rbac::rules(cluster, who, namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in found {
        let Rule {
            verbs,
            api_groups,
            resources: named,
            resource_names,
            non_resource_urls,
        } = rule;
        if !named.is_empty() {
            let mut rule = json!({"verbs": verbs, "apiGroups": api_groups, "resources": named});
            if !resource_names.is_empty() {
                rule["resourceNames"] = json!(resource_names);
            }
            resources.push(rule);
        }
        if !non_resource_urls.is_empty() {
            paths.push(json!({"verbs": verbs, "nonResourceURLs": non_resource_urls}));
        }
    }
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    if !missing.is_empty() {
        status["evaluationError"] = rbac::aggregated(&missing).into();
    }
    Ok(status)
}

fn read<T: Default + for<'a> Deserialize<'a>>(kind: &str, object: &Value) -> Result<T, Failure> {
    let spec: Option<T> = Deserialize::deserialize(&object["spec"]).map_err(|error| {
        Failure::bad_request(format!(
            "{kind} in version \"v1\" cannot be handled as a {kind}: {error}"
        ))
    })?;
    Ok(spec.unwrap_or_default())
}

fn invalid(kind: &str, field: &str, value: &str, why: &str) -> Failure {
    let cause = Cause {
        reason: "FieldValueInvalid",
        field: field.to_owned(),
        message: format!("Invalid value: {value}: {why}"),
    };
    Failure::invalid("authorization.k8s.io", kind, "", &[cause])
}
