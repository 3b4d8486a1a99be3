//! All writes but the status: in dependency order, then prune.

use std::sync::Arc;

use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::ConsoleSession;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::{Ctx, Error, in_time};
use crate::cache::Cache;
use crate::grant::{self, Bound, Grant, Made, Names, PodAccess};
use crate::metrics::Verb;
use crate::{FIELD_MANAGER, Guarded};

/// What a granted session has, after the pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// Name of the user's Secret.
    pub(super) secret: String,
    /// When the token in it expires.
    pub(super) token_expires_at: Timestamp,
    /// What had to be made or changed; empty at rest.
    pub(super) written: Vec<&'static str>,
}

/// Makes everything the grant needs. The token comes last: until it is there, nothing made before is of use to anybody.
pub(super) async fn open(
    ctx: &Ctx,
    session: &ConsoleSession,
    wanted: Grant,
    until: Timestamp,
    now: Timestamp,
) -> Result<Applied, Error> {
    let Grant {
        account,
        anchor,
        pod,
        user_role,
        user_binding,
    } = wanted; // no `..`: a new object must be handled here
    let names = Names::of(session).ok_or(Error::NeverStored)?;
    let watches = &ctx.watches;
    let beside = async {
        let Some(PodAccess { role, binding }) = pod else {
            // It never had any: but whatever bears the names of such rights goes.
            let namespace = session.namespace().unwrap_or_default();
            let name = &names.grant;
            remove(ctx, &watches.bindings, "RoleBinding", &namespace, name).await?;
            remove(ctx, &watches.roles, "Role", &namespace, name).await?;
            return Ok([None, None]);
        };
        // A role before the binding that names it: there is no moment in which a binding gives what nobody decided.
        let role = ensure(ctx, &watches.roles, "Role", role).await?;
        let binding = ensure(ctx, &watches.bindings, "RoleBinding", binding).await?;
        Ok::<_, Error>([role.1, binding.1])
    };
    let user = async {
        let role = ensure(ctx, &watches.roles, "user's Role", user_role).await?;
        let binding = ensure(ctx, &watches.bindings, "user's RoleBinding", user_binding).await?;
        Ok::<_, Error>([role.1, binding.1])
    };
    let (account, anchor, beside, user) = futures_util::try_join!(
        ensure(ctx, &watches.accounts, "ServiceAccount", account),
        ensure(ctx, &watches.secrets, "anchor Secret", anchor),
        beside,
        user,
    )?;
    let bound = Bound {
        account_uid: account.0.uid().unwrap_or_default(),
        anchor_uid: anchor.0.uid().unwrap_or_default(),
        until,
    };
    let (secret, token_expires_at, issued) = credential(ctx, session, &bound, now).await?;
    let written = [account.1, anchor.1]
        .into_iter()
        .chain(beside)
        .chain(user)
        .chain([issued]);
    Ok(Applied {
        secret,
        token_expires_at,
        written: written.flatten().collect(),
    })
}

/// The user's Secret: kept if its token is good, else written with a new one.
async fn credential(
    ctx: &Ctx,
    session: &ConsoleSession,
    bound: &Bound,
    now: Timestamp,
) -> Result<(String, Timestamp, Option<&'static str>), Error> {
    let names = Names::of(session).ok_or(Error::NeverStored)?;
    let namespace = session.namespace().unwrap_or_default();
    let found = ctx.watches.secrets.get(&namespace, &names.grant);
    if let Some(found) = &found {
        if found.metadata.deletion_timestamp.is_some() {
            return Err(Error::Deleting {
                what: "token Secret",
                name: names.grant,
            });
        }
        if let Some(expires_at) = grant::token_expiry(found, bound, &ctx.gateway, now) {
            return Ok((names.grant, expires_at, None));
        }
    }
    let accounts: Api<ServiceAccount> =
        Api::namespaced(ctx.client.clone(), &ctx.sessions_namespace);
    let request = grant::token_request(&names.account, bound, now);
    let params = PostParams::default();
    let issued = accounts.create_token_request(&names.account, &params, &request);
    let issued = write(ctx, Verb::Token, "token of account", &names.account, issued).await?;
    let issued = issued
        .status
        .ok_or_else(|| Error::NoToken(names.account.clone()))?;
    let expires_at = issued.expiration_timestamp.0;
    let wanted = grant::credential(session, &ctx.gateway, bound, &issued.token, expires_at)
        .ok_or(Error::NeverStored)?;
    put(ctx, &ctx.watches.secrets, "token Secret", found, wanted).await?;
    Ok((names.grant, expires_at, Some("token Secret")))
}

/// Makes `wanted` so, if it is not. Answers the object, and `what` if it had to be written.
async fn ensure<K: Made>(
    ctx: &Ctx,
    cache: &Cache<K>,
    what: &'static str,
    wanted: K,
) -> Result<(Arc<K>, Option<&'static str>), Error> {
    let found = cache.get(&wanted.namespace().unwrap_or_default(), &wanted.name_any());
    match found {
        Some(found)
            if found.meta().deletion_timestamp.is_none() && grant::in_sync(&*found, &wanted) =>
        {
            Ok((found, None))
        }
        found => put(ctx, cache, what, found, wanted)
            .await
            .map(|made| (made, Some(what))),
    }
}

/// Writes `wanted` over `found`.
///
/// What is not there is created by POST, which fails if it is there after all, and not by an apply, which would quietly
/// take over an object that somebody else made.
async fn put<K: Made>(
    ctx: &Ctx,
    cache: &Cache<K>,
    what: &'static str,
    found: Option<Arc<K>>,
    wanted: K,
) -> Result<Arc<K>, Error> {
    let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut found = found;
    if found.is_none() {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        match write(ctx, Verb::Create, what, &name, api.create(&params, &wanted)).await {
            Ok(made) => return Ok(remember(cache, None, made)),
            Err(Error::Write {
                source: kube::Error::Api(status),
                ..
            }) if status.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        let read = in_time(what, &name, api.get_opt(&name)).await?;
        let there = read.map_err(|source| Error::Read {
            what,
            name: name.clone(),
            source,
        })?;
        found = there.map(|there| Arc::new(there.for_cache()));
    }
    // Deleted between the two requests: the next pass makes it.
    let Some(found) = found else {
        return Err(Error::Conflict);
    };
    if !grant::same_session(&*found, &wanted) {
        return Err(Error::NameTaken { what, name });
    }
    if found.meta().deletion_timestamp.is_some() {
        return Err(Error::Deleting { what, name });
    }
    if !found.can_become(&wanted) {
        delete(ctx, cache, what, &found).await?;
        return Err(Error::Conflict); // the next pass makes it
    }
    let mut patch = wanted;
    // Of the object that was seen, and no other of its name.
    patch.meta_mut().uid = found.uid();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patched = write(
        ctx,
        Verb::Patch,
        what,
        &name,
        api.patch(&name, &params, &Patch::Apply(&patch)),
    )
    .await?;
    Ok(remember(cache, Some(&found), patched))
}

fn remember<K: Made>(cache: &Cache<K>, before: Option<&K>, now: K) -> Arc<K> {
    let now = Arc::new(now.for_cache());
    cache.wrote(
        &now.namespace().unwrap_or_default(),
        &now.name_any(),
        before,
        Some(Arc::clone(&now)),
    );
    now
}

/// Takes away everything made for the session, the account first: without it the token is dead.
///
/// Works from names alone, so it does not matter whether [`open`] ever ran, or how far it got.
pub(super) async fn close(ctx: &Ctx, session: &ConsoleSession) -> Result<(), Error> {
    let names = Names::of(session).ok_or(Error::NeverStored)?;
    let namespace = session.namespace().unwrap_or_default();
    let held = session
        .finalizers()
        .iter()
        .any(|name| name == names::FINALIZER);
    let watches = &ctx.watches;
    futures_util::try_join!(
        close_account(ctx, &names.account, held),
        remove(
            ctx,
            &watches.bindings,
            "RoleBinding",
            &namespace,
            &names.grant
        ),
        remove(ctx, &watches.roles, "Role", &namespace, &names.grant),
        remove(
            ctx,
            &watches.bindings,
            "user's RoleBinding",
            &namespace,
            &names.user
        ),
        remove(ctx, &watches.roles, "user's Role", &namespace, &names.user),
        remove(
            ctx,
            &watches.secrets,
            "token Secret",
            &namespace,
            &names.grant
        ),
    )?;
    if held {
        set_finalizer(ctx, session.meta(), false).await?;
    }
    Ok(())
}

/// Removes account and anchor: those the caches show, or, if `blindly`, whatever they show.
pub(super) async fn close_account(ctx: &Ctx, account: &str, blindly: bool) -> Result<(), Error> {
    let (accounts, secrets) = (&ctx.watches.accounts, &ctx.watches.secrets);
    let namespace = &ctx.sessions_namespace;
    if blindly {
        // The finalizer holds the session: a failure here is tried again, and what the cache missed is not left behind.
        futures_util::try_join!(
            remove_blindly(ctx, accounts, "ServiceAccount", namespace, account),
            remove_blindly(ctx, secrets, "anchor Secret", namespace, account),
        )?;
    } else {
        futures_util::try_join!(
            remove(ctx, accounts, "ServiceAccount", namespace, account),
            remove(ctx, secrets, "anchor Secret", namespace, account),
        )?;
    }
    Ok(())
}

async fn remove<K: Made>(
    ctx: &Ctx,
    cache: &Cache<K>,
    what: &'static str,
    namespace: &str,
    name: &str,
) -> Result<(), Error> {
    match cache.get(namespace, name) {
        Some(found) if found.meta().deletion_timestamp.is_none() => {
            delete(ctx, cache, what, &found).await
        }
        _ => Ok(()),
    }
}

async fn remove_blindly<K: Made>(
    ctx: &Ctx,
    cache: &Cache<K>,
    what: &'static str,
    namespace: &str,
    name: &str,
) -> Result<(), Error> {
    if cache.get(namespace, name).is_some() {
        return remove(ctx, cache, what, namespace, name).await;
    }
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    gone(
        write(
            ctx,
            Verb::Delete,
            what,
            name,
            api.delete(name, &DeleteParams::default()),
        )
        .await,
    )
}

/// Deletes this very object, not another of its name.
pub(crate) async fn delete<K: Made>(
    ctx: &Ctx,
    cache: &Cache<K>,
    what: &'static str,
    found: &K,
) -> Result<(), Error> {
    let (namespace, name) = (found.namespace().unwrap_or_default(), found.name_any());
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: found.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    gone(write(ctx, Verb::Delete, what, &name, api.delete(&name, &params)).await)?;
    cache.wrote(&namespace, &name, Some(found), None);
    Ok(())
}

/// Not there: what was to be deleted is gone. A conflict says that another of its name took its place, or only that the
/// API server was busy with it: the next pass sees which.
fn gone<T>(answer: Result<T, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) => Ok(()),
        Err(Error::Write {
            source: kube::Error::Api(status),
            ..
        }) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sets or clears our finalizer. Answers the session as it is now; `None` when it is gone.
pub(super) async fn set_finalizer(
    ctx: &Ctx,
    meta: &kube::api::ObjectMeta,
    held: bool,
) -> Result<Option<Arc<Guarded>>, Error> {
    let (namespace, name) = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let others = meta
        .finalizers
        .iter()
        .flatten()
        .filter(|name| *name != names::FINALIZER);
    let mut finalizers: Vec<&str> = others.map(String::as_str).collect();
    if held {
        finalizers.push(names::FINALIZER);
    }
    // A list is replaced whole by a merge patch: only if nobody changed the object meanwhile.
    let patch = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": finalizers,
    }});
    let api: Api<Guarded> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(&patch);
    let answer = api.patch(&name, &params, &patch);
    match write(ctx, Verb::Patch, "finalizer of session", &name, answer).await {
        Ok(patched) => Ok(Some(super::remember(ctx, meta, patched))),
        Err(Error::Write {
            source: kube::Error::Api(status),
            ..
        }) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes the session itself, its time after the end being over.
pub(super) async fn delete_session(ctx: &Ctx, session: &ConsoleSession) -> Result<(), Error> {
    let api: Api<Guarded> =
        Api::namespaced(ctx.client.clone(), &session.namespace().unwrap_or_default());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: session.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let name = session.name_any();
    gone(
        write(
            ctx,
            Verb::Delete,
            "session",
            &name,
            api.delete(&name, &params),
        )
        .await,
    )
}

/// Sends one write: counted, bounded in time, its failure told with what it was for.
pub(super) async fn write<T>(
    ctx: &Ctx,
    verb: Verb,
    what: &'static str,
    name: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    ctx.metrics.write(verb);
    match in_time(what, name, call).await? {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) if status.is_conflict() => Err(Error::Conflict),
        Err(source) => Err(Error::Write {
            what,
            name: name.into(),
            source,
        }),
    }
}
