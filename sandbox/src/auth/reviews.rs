//! Reviews: kinds that are asked and never stored.

#[cfg(test)]
mod tests;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{Identity, rbac, tokens};
use crate::status::{Cause, Failure};
use crate::{cluster::Cluster, kinds::Kind, object::text, request::Attributes};

/// Answers a TokenReview, SubjectAccessReview, SelfSubjectAccessReview or SelfSubjectReview: the object with its `status`.
///
/// # Errors
/// 400 or 422 for an object that makes no sense.
pub(crate) fn review(
    cluster: &Cluster,
    who: &Identity,
    kind: &Kind,
    mut object: Value,
) -> Result<Value, Failure> {
    let spec = &object["spec"];
    let status = match kind.kind.as_str() {
        "TokenReview" => token(cluster, spec)?,
        "SelfSubjectReview" => json!({"userInfo": who}),
        "SelfSubjectAccessReview" => access(cluster, who, spec),
        _ => {
            // As it is asked: nobody is put into `system:authenticated` here.
            let named = Identity {
                username: text(&spec["user"]).to_owned(),
                groups: texts(&spec["groups"]),
                ..Identity::default()
            };
            if named == Identity::default() {
                let why = "at least one of user or group must be specified";
                let cause = Cause::new("FieldValueInvalid", "spec.user", why);
                return Err(Failure::invalid(&kind.group, &kind.kind, "", &[cause]));
            }
            access(cluster, &named, spec)
        }
    };
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_str().into();
    object["status"] = status;
    Ok(object)
}

fn texts(value: &Value) -> Vec<String> {
    Vec::deserialize(value).unwrap_or_default()
}

fn token(cluster: &Cluster, spec: &Value) -> Result<Value, Failure> {
    let token = text(&spec["token"]);
    if token.is_empty() {
        let why = "token is required for TokenReview in authentication";
        return Err(Failure::bad_request(why));
    }
    let verified = tokens::verify(cluster, token, &texts(&spec["audiences"]));
    let answer =
        |(user, audiences)| json!({"authenticated": true, "user": user, "audiences": audiences});
    Ok(verified.map_or_else(|why| json!({"user": {}, "error": why}), answer))
}

/// Whether `who` may do what a review asks about.
fn access(cluster: &Cluster, who: &Identity, spec: &Value) -> Value {
    let (asked, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let part = |field: &str| text(&asked[field]);
    let resource = format!("{}/{}", part("resource"), part("subresource"));
    let (group, namespace, name) = (part("group"), part("namespace"), part("name"));
    let verb = format!("{}{}", part("verb"), text(&path["verb"]));
    let what = Attributes {
        resource_request: asked.is_object(),
        path: text(&path["path"]).to_owned(),
        ..Attributes::about(&verb, group, namespace, &resource, name)
    };
    let decision = rbac::decide(cluster, who, &what);
    match decision {
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => json!({"allowed": false}),
    }
}
