//! New tokens: `POST …/serviceaccounts/{name}/token`.

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::verify::get;
use super::{Bound, Claims, ISSUER, Ref};
use crate::cluster::Cluster;
use crate::object;
use crate::status::{Cause, Failure};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

/// Seconds a token is good for if nobody says: an hour.
const DEFAULT: i64 = 3600;

/// Answers `POST …/serviceaccounts/{name}/token` with a TokenRequest.
///
/// # Errors
/// 404 for an account or a bound object that is not there; 409 for one of another UID; 422 for an expiry under 600 s or
/// over 2³² s; 400 for an object that tokens cannot be bound to.
pub fn request(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    mut request: Value,
) -> Result<Value, Failure> {
    let spec = Option::<TokenRequestSpec>::deserialize(&request["spec"]).map_err(|error| {
        Failure::bad_request(format!(
            "{KIND} in version \"v1\" cannot be handled as a {KIND}: {error}"
        ))
    })?;
    let spec = spec.unwrap_or_default();
    for (field, expected) in [("name", account), ("namespace", namespace)] {
        let given = object::meta(&request, field);
        if !given.is_empty() && given != expected {
            let why = format!(
                "Invalid value: {given:?}: must match the service account {field} if specified"
            );
            return Err(invalid(account, &format!("metadata.{field}"), why));
        }
    }
    let found = get(cluster, "serviceaccounts", namespace, account)
        .ok_or_else(|| Failure::not_found("", "serviceaccounts", account))?;
    let uid = object::uid(&found);
    let given = object::uid(&request);
    if cluster.release.minor() >= 34 && !given.is_empty() && given != uid {
        let why = format!(
            "the UID in the token request ({given}) does not match the UID of the service account ({uid})"
        );
        return Err(Failure::conflict(GROUP, KIND, account, &why));
    }
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT);
    let why = match seconds {
        ..600 => "may not specify a duration less than 10 minutes",
        600..=0x1_0000_0000 => "",
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    if !why.is_empty() {
        let why = format!("Invalid value: {seconds}: {why}");
        return Err(invalid("", "spec.expirationSeconds", why));
    }
    let mut kubernetes = Bound {
        namespace: namespace.to_owned(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: Ref {
            name: account.to_owned(),
            uid: uid.to_owned(),
        },
    };
    if let Some(reference) = &spec.bound_object_ref {
        bind(cluster, &mut kubernetes, reference)?;
    }
    let mut audiences = spec.audiences;
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let now = cluster.clock.now();
    let expires = now.as_second() + seconds;
    let token = cluster.tokens.sign(&Claims {
        aud: audiences.clone(),
        exp: expires,
        iat: now.as_second(),
        iss: ISSUER.to_owned(),
        jti: (cluster.release.minor() >= 30).then(|| uuid::Uuid::new_v4().to_string()),
        kubernetes,
        nbf: now.as_second(),
        sub: format!("system:serviceaccount:{namespace}:{account}"),
    });
    let token =
        token.map_err(|error| Failure::internal(&format!("failed to generate token: {error}")))?;

    request["apiVersion"] = format!("{GROUP}/v1").into();
    request["kind"] = KIND.into();
    let metadata = object::metadata_mut(&mut request);
    metadata.insert("name".into(), account.into());
    metadata.insert("namespace".into(), namespace.into());
    metadata.insert("creationTimestamp".into(), time(now.as_second()).into());
    if cluster.release.minor() >= 34 {
        metadata.insert("uid".into(), uid.into());
    }
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": time(expires)});
    Ok(request)
}

/// Binds a token to what a request names.
fn bind(
    cluster: &Cluster,
    bound: &mut Bound,
    reference: &BoundObjectReference,
) -> Result<(), Failure> {
    let given = |field: &Option<String>| field.clone().unwrap_or_default();
    let (api_version, kind) = (&given(&reference.api_version), &given(&reference.kind));
    let (name, uid) = (&given(&reference.name), &given(&reference.uid));
    let namespace = &bound.namespace;
    let core = !api_version.contains('/');
    let found = |resource: &str, namespace: &str| {
        get(cluster, resource, namespace, name)
            .ok_or_else(|| Failure::not_found("", resource, name))
    };
    let minor = cluster.release.minor();
    let object = match kind.as_str() {
        "Pod" if core => {
            let pod = found("pods", namespace)?;
            let account = &bound.serviceaccount.name;
            if pod["spec"]["serviceAccountName"] != account.as_str() {
                return Err(Failure::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|_| minor >= 30) {
                let uid = get(cluster, "nodes", "", node);
                let uid = uid.map(|node| object::uid(&node).to_owned());
                bound.node = Some(Ref {
                    name: node.to_owned(),
                    uid: uid.unwrap_or_default(),
                });
            }
            pod
        }
        "Secret" if core => found("secrets", namespace)?,
        "Node" if core && minor >= 31 => found("nodes", "")?,
        "Node" if core && minor >= 29 => {
            return Err(Failure::bad_request(
                "cannot bind token to a Node object as the \"ServiceAccountTokenNodeBinding\" feature-gate is disabled",
            ));
        }
        _ => {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            return Err(Failure::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let there = object::uid(&object);
    if !uid.is_empty() && uid != there {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Failure::conflict("", kind, name, &why));
    }
    let to = Some(Ref {
        name: name.clone(),
        uid: there.to_owned(),
    });
    match kind.as_str() {
        "Pod" => bound.pod = to,
        "Secret" => bound.secret = to,
        _ => bound.node = to,
    }
    Ok(())
}

fn invalid(name: &str, field: &str, message: String) -> Failure {
    let cause = Cause {
        reason: "FieldValueInvalid",
        field: field.to_owned(),
        message,
    };
    Failure::invalid(GROUP, KIND, name, &[cause])
}

/// As `metav1.Time`.
fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}
