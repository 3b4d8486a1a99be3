//! Whether a token is good now.

use std::sync::Arc;

use jsonwebtoken::decode_header;
use jsonwebtoken::errors::Error;
use serde_json::Value;

use super::{Claims, ISSUER, Ref, Verified};
use crate::auth::Identity;
use crate::auth::rbac::{aggregated, rule::quoted};
use crate::cluster::Cluster;
use crate::object;
use crate::store::Key;

/// Seconds by which clocks may differ, and for which what is being deleted still counts.
const LEEWAY: i64 = 60;

const INVALIDATED: &str = "service account token has been invalidated";

/// Checks a token for `audiences` (empty: the API server's own): signature, times by the sandbox's clock, account and
/// bound object still there with the same UID. A good one is good for [`super::CACHED`] seconds, whatever happens.
///
/// # Errors
/// Why not, as TokenReview's `status.error` says it.
pub fn verify(cluster: &Cluster, token: &str, audiences: &[String]) -> Result<Verified, String> {
    const INVALID: &str = "invalid bearer token";
    let now = cluster.clock.now().as_second();
    if let Some(verified) = cluster.tokens.remembered(token, audiences, now) {
        return Ok(verified);
    }
    // The API server asks an authenticator of its own first, which knows none of these tokens.
    let verified = check(cluster, token, audiences, now).map_err(|why| match why {
        None => INVALID.to_owned(),
        Some(why) => aggregated(&[INVALID.to_owned(), why]),
    })?;
    cluster.tokens.remember(token, audiences, now, &verified);
    Ok(verified)
}

/// The same without the cache; `None` for what is no token of this issuer.
fn check(
    cluster: &Cluster,
    token: &str,
    audiences: &[String],
    now: i64,
) -> Result<Verified, Option<String>> {
    let claims = cluster
        .tokens
        .read(token)
        .map_err(|error| foreign(cluster, token, &error))?;
    if claims.iss != ISSUER {
        return Err(None);
    }
    let own = [ISSUER.to_owned()];
    let wanted = if audiences.is_empty() {
        &own
    } else {
        audiences
    };
    let common: Vec<String> = claims
        .aud
        .iter()
        .filter(|audience| wanted.contains(audience))
        .cloned()
        .collect();
    if common.is_empty() {
        return Err(Some(format!(
            "token audiences {} is invalid for the target audiences {}",
            quoted(&claims.aud),
            quoted(wanted)
        )));
    }
    let identity = identity(cluster, &claims, now).map_err(Some)?;
    Ok(Verified {
        identity,
        audiences: common,
    })
}

/// Why a token this key did not sign is refused.
fn foreign(cluster: &Cluster, token: &str, error: &Error) -> Option<String> {
    let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    if claims["iss"] != ISSUER {
        return None;
    }
    let known = decode_header(token).is_ok_and(|header| {
        header
            .kid
            .is_none_or(|id| id.is_empty() || id == cluster.tokens.id)
    });
    tracing::debug!(%error, known, "a token of another key");
    Some(if known {
        "go-jose/go-jose: error in cryptographic primitive".to_owned()
    } else {
        "invalid signature, no keys found".to_owned()
    })
}

fn identity(cluster: &Cluster, claims: &Claims, now: i64) -> Result<Identity, String> {
    let refused = if now - LEEWAY > claims.exp {
        Some("has expired")
    } else if now + LEEWAY < claims.nbf {
        Some("is not valid yet")
    } else if now + LEEWAY < claims.iat {
        Some("is issued in the future")
    } else {
        None
    };
    if let Some(refused) = refused {
        return Err(format!("service account token {refused}"));
    }
    let bound = &claims.kubernetes;
    let (namespace, account) = (&bound.namespace, &bound.serviceaccount);
    let Some(found) = get(cluster, "serviceaccounts", namespace, &account.name) else {
        return Err(format!("serviceaccounts {:?} not found", account.name));
    };
    if gone(&found, now) {
        return Err(format!(
            "service account {namespace}/{} has been deleted",
            account.name
        ));
    }
    if object::uid(&found) != account.uid {
        return Err(format!(
            "service account UID ({}) does not match claim ({})",
            object::uid(&found),
            account.uid
        ));
    }
    let there = |kind: &str, namespace: &str, bound: &Option<Ref>| {
        let Some(bound) = bound else { return Ok(()) };
        let found = get(cluster, &format!("{kind}s"), namespace, &bound.name)
            .filter(|found| !gone(found, now))
            .ok_or_else(|| INVALIDATED.to_owned())?;
        if object::uid(&found) == bound.uid {
            return Ok(());
        }
        Err(format!(
            "{kind} UID ({}) does not match service account {kind} ref claim ({})",
            object::uid(&found),
            bound.uid
        ))
    };
    there("secret", namespace, &bound.secret)?;
    there("pod", namespace, &bound.pod)?;
    if bound.pod.is_none() {
        // A pod's node is only told.
        there("node", "", &bound.node)?;
    }
    let mut identity = Identity::account(namespace, &account.name, &account.uid);
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            let key = format!("authentication.kubernetes.io/{key}");
            identity.extra.push((key, vec![value.to_owned()]));
        }
    };
    if let Some(id) = &claims.jti {
        extra("credential-id", &format!("JTI={id}"));
    }
    for (kind, bound) in [("node", &bound.node), ("pod", &bound.pod)] {
        if let Some(bound) = bound {
            extra(&format!("{kind}-name"), &bound.name);
            extra(&format!("{kind}-uid"), &bound.uid);
        }
    }
    Ok(identity)
}

pub(super) fn get(
    cluster: &Cluster,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Option<Arc<Value>> {
    cluster.store.get(&Key {
        resource: resource.into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Whether an object should have been deleted for a while.
fn gone(object: &Value, now: i64) -> bool {
    object::meta(object, "deletionTimestamp")
        .parse()
        .is_ok_and(|at: jiff::Timestamp| at.as_second() < now - LEEWAY)
}
