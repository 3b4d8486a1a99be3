//! `Impersonate-*` headers: who a request is for, if its sender may act for him.
//!
//! As before 1.36; its constrained impersonation (`impersonate:…` and `impersonate-on:…` verbs) is not there, and what
//! is here goes on working in 1.36 as well.

use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::auth::rbac;
use crate::auth::{ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED, account_of};
use crate::cluster::Cluster;
use crate::request::Attributes;
use crate::status::Failure;

/// API group of what is impersonated beside users, groups and accounts.
const AUTHENTICATION: &str = "authentication.k8s.io";

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// Who the headers name, or `None` if they name nobody; takes them out.
pub(super) fn impersonate(
    cluster: &Cluster,
    sender: &Identity,
    parts: &mut Parts,
) -> Result<Option<Identity>, Failure> {
    let wanted = wanted(cluster, parts)?;
    let Some(mut wanted) = wanted else {
        return Ok(None);
    };
    let may = |group: &str, namespace: &str, resource: &str, name: &str| {
        let what = Attributes::about("impersonate", group, namespace, resource, name);
        rbac::require(cluster, sender, &what)
    };
    let account = account_of(&wanted.username);
    match account {
        Some((namespace, name)) => may("", namespace, "serviceaccounts", name)?,
        None => may("", "", "users", &wanted.username)?,
    }
    if !wanted.uid.is_empty() {
        may(AUTHENTICATION, "", "uids", &wanted.uid)?;
    }
    for group in &wanted.groups {
        may("", "", "groups", group)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            may(AUTHENTICATION, "", &format!("userextras/{key}"), value)?;
        }
    }
    // Groups named by the sender take the place of a ServiceAccount's own.
    if let Some((namespace, name)) = account
        && wanted.groups.is_empty()
    {
        wanted.groups = Identity::account(namespace, name, "").groups;
    }
    if wanted.username == ANONYMOUS {
        wanted.join(UNAUTHENTICATED);
    } else if !wanted.is_in(UNAUTHENTICATED) {
        wanted.join(AUTHENTICATED);
    }
    Ok(Some(wanted))
}

/// The headers' content; none of them are left.
fn wanted(cluster: &Cluster, parts: &mut Parts) -> Result<Option<Identity>, Failure> {
    let mut wanted = Identity::default();
    let mut names = Vec::new();
    for (name, value) in &parts.headers {
        let header = name.as_str();
        if !header.starts_with("impersonate-") {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match header {
            USER if wanted.username.is_empty() => wanted.username = value,
            UID if wanted.uid.is_empty() => wanted.uid = value,
            GROUP => wanted.groups.push(value),
            _ => match header.strip_prefix(EXTRA) {
                Some(key) => {
                    let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
                    let found = wanted.extra.iter_mut().find(|(known, _)| *known == key);
                    match found {
                        Some((_, values)) => values.push(value),
                        None => wanted.extra.push((key, vec![value])),
                    }
                }
                None => continue,
            },
        }
        names.push(name.clone());
    }
    for name in names {
        parts.headers.remove(name);
    }
    if !wanted.username.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == Identity::default() {
        return Ok(None);
    }
    if cluster.release.minor() >= 36 {
        let why = format!("requested {wanted:?} without impersonating a user name");
        return Err(Failure::bad_request(why));
    }
    let groups = wanted.groups.iter();
    let asked: Vec<String> = groups
        .map(|group| format!("{{Group  {group}    }}"))
        .collect();
    let why = format!(
        "Internal Server Error: {:?}: requested [{}] without impersonating a user",
        parts.uri.path(),
        asked.join(" ")
    );
    let mut failure = Failure::new(500, "InternalError", why);
    failure.plain = true;
    Err(failure)
}
