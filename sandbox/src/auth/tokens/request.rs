//! New tokens: `POST …/serviceaccounts/{name}/token`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{Bound, Claims, ISSUER, Ref};
use crate::cluster::Cluster;
use crate::object::{metadata_mut, name, uid};
use crate::status::{Cause, Failure};
use crate::store::Key;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

/// Seconds a token may be good for: ten minutes to 2³² seconds, an hour if nobody says.
const SECONDS: std::ops::RangeInclusive<i64> = 600..=0x1_0000_0000;
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
    let spec = &request["spec"];
    let there = find(cluster, "serviceaccounts", namespace, account)?;
    let seconds = match &spec["expirationSeconds"] {
        Value::Null => DEFAULT,
        given => given.as_i64().unwrap_or_default(),
    };
    if !SECONDS.contains(&seconds) {
        let cause = Cause {
            reason: "FieldValueInvalid",
            field: "spec.expirationSeconds".to_owned(),
            message: format!("Invalid value: {seconds}: must be 10 minutes to 2^32 seconds"),
        };
        return Err(Failure::invalid(GROUP, KIND, "", &[cause]));
    }
    let mut objects = BTreeMap::from([("serviceaccount".to_owned(), Ref::to(&there))]);
    if spec["boundObjectRef"].is_object() {
        objects.extend([bound(cluster, namespace, account, &spec["boundObjectRef"])?]);
    }
    let mut audiences: Vec<String> = Vec::deserialize(&spec["audiences"]).unwrap_or_default();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let now = cluster.clock.now().as_second();
    let token = cluster.tokens.sign(&Claims {
        aud: audiences.clone(),
        exp: now + seconds,
        iat: now,
        iss: ISSUER.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        nbf: now,
        sub: format!("system:serviceaccount:{namespace}:{account}"),
        bound: Bound {
            namespace: namespace.to_owned(),
            objects,
        },
    });
    let token = token.map_err(|error| Failure::internal(&error.to_string()))?;
    let time = |seconds| {
        let time = jiff::Timestamp::from_second(seconds);
        json!(time.unwrap_or(jiff::Timestamp::MAX).to_string())
    };
    request["apiVersion"] = format!("{GROUP}/v1").into();
    request["kind"] = KIND.into();
    let metadata = metadata_mut(&mut request);
    metadata.insert("name".into(), account.into());
    metadata.insert("namespace".into(), namespace.into());
    metadata.insert("creationTimestamp".into(), time(now));
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": time(now + seconds)});
    Ok(request)
}

impl Ref {
    fn to(object: &Value) -> Self {
        Self {
            name: name(object).to_owned(),
            uid: uid(object).to_owned(),
        }
    }
}

fn find(cluster: &Cluster, of: &str, at: &str, name: &str) -> Result<Arc<Value>, Failure> {
    let found = cluster.store.get(&Key::new(of, at, name));
    found.ok_or_else(|| Failure::not_found("", of, name))
}

/// The object a token is to be bound to, by its kind in lower case.
fn bound(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    reference: &Value,
) -> Result<(String, Ref), Failure> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (kind, named, same) = (text("kind"), text("name"), text("uid"));
    if !["Pod", "Secret", "Node"].contains(&kind) {
        let version = text("apiVersion");
        let why = format!("cannot bind token to object of type /{version}, Kind={kind}");
        return Err(Failure::bad_request(why));
    }
    let namespace = if kind == "Node" { "" } else { namespace };
    let object = find(
        cluster,
        &format!("{}s", kind.to_lowercase()),
        namespace,
        named,
    )?;
    if kind == "Pod" && object["spec"]["serviceAccountName"] != account {
        return Err(Failure::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    if !same.is_empty() && same != uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({same}) does not match the UID in record"
        );
        return Err(Failure::conflict("", kind, named, &why));
    }
    Ok((kind.to_lowercase(), Ref::to(&object)))
}
