//! Reviews: kinds that are asked and never stored.

#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::{Value, json};

use super::rbac::rule::Rule;
use super::{Identity, rbac, tokens};
use crate::cluster::Cluster;
use crate::request::Attributes;
use crate::status::{Cause, Failure};

/// Answers a TokenReview, SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview,
/// SelfSubjectRulesReview or SelfSubjectReview: the object with its `status`. `namespace` is the path's.
///
/// # Errors
/// 400 or 422 for an object that makes no sense.
pub fn review(
    cluster: &Cluster,
    who: &Identity,
    namespace: &str,
    mut object: Value,
) -> Result<Value, Failure> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let status = match kind.as_str() {
        "TokenReview" => token(cluster, read(&kind, &object)?)?,
        "SubjectAccessReview" => access(cluster, None, &kind, read(&kind, &object)?)?,
        "LocalSubjectAccessReview" => {
            let spec: Access = read(&kind, &object)?;
            let asked = spec.resource_attributes.as_ref();
            let asked = asked.map_or("", |asked| asked.namespace.as_str());
            if asked != namespace {
                let why = "must match metadata.namespace";
                let field = "spec.resourceAttributes.namespace";
                return Err(invalid(&kind, field, &format!("{asked:?}"), why));
            }
            access(cluster, None, &kind, spec)?
        }
        "SelfSubjectAccessReview" => access(cluster, Some(who), &kind, read(&kind, &object)?)?,
        "SelfSubjectRulesReview" => rules(cluster, who, &object)?,
        "SelfSubjectReview" => json!({"userInfo": who.user_info()}),
        _ => {
            return Err(Failure::bad_request(format!("{kind:?} is no review")));
        }
    };
    object["status"] = status;
    Ok(object)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Token {
    token: String,
    audiences: Option<Vec<String>>,
}

fn token(cluster: &Cluster, spec: Token) -> Result<Value, Failure> {
    if spec.token.is_empty() {
        return Err(Failure::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences = spec.audiences.unwrap_or_default();
    Ok(match tokens::verify(cluster, &spec.token, &audiences) {
        Ok(verified) => json!({
            "authenticated": true,
            "user": verified.identity.user_info(),
            "audiences": verified.audiences,
        }),
        Err(why) => json!({"user": {}, "error": why}),
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Access {
    resource_attributes: Option<Asked>,
    non_resource_attributes: Option<Path>,
    user: String,
    groups: Option<Vec<String>>,
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Path {
    path: String,
    verb: String,
}

/// Whether `who`, or else whom the review names, may do what it asks about.
fn access(
    cluster: &Cluster,
    who: Option<&Identity>,
    kind: &str,
    spec: Access,
) -> Result<Value, Failure> {
    let what = match (spec.resource_attributes, spec.non_resource_attributes) {
        (Some(asked), None) => Attributes {
            verb: asked.verb,
            resource_request: true,
            group: asked.group,
            version: asked.version,
            namespace: asked.namespace,
            resource: asked.resource,
            subresource: asked.subresource,
            name: asked.name,
            path: String::new(),
        },
        (None, Some(asked)) => Attributes {
            verb: asked.verb,
            path: asked.path,
            ..Attributes::default()
        },
        (asked, _) => {
            let (field, why) = if asked.is_some() {
                (
                    "spec.nonResourceAttributes",
                    "cannot be specified in combination with resourceAttributes",
                )
            } else {
                (
                    "spec.resourceAttributes",
                    "exactly one of nonResourceAttributes or resourceAttributes must be specified",
                )
            };
            return Err(invalid(kind, field, "null", why));
        }
    };
    let decision = if let Some(who) = who {
        rbac::decide(cluster, who, &what)
    } else {
        let groups = spec.groups.unwrap_or_default();
        if spec.user.is_empty() && groups.is_empty() {
            let why = "at least one of user or group must be specified";
            return Err(invalid(kind, "spec.user", "\"\"", why));
        }
        // As it is asked: nobody is put into `system:authenticated` here.
        let who = Identity {
            username: spec.user,
            uid: spec.uid,
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
