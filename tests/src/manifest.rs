//! Manifests applied as `kubectl apply` would, without kubectl.

use anyhow::{Context as _, Result};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use serde::Deserialize as _;
use serde_json::Value;

use crate::cluster::Cluster;

/// The documents of a YAML (or JSON) text.
///
/// # Errors
/// When it is neither.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
    Ok(documents.into_iter().filter(Value::is_object).collect())
}

/// Creates every object of a text, or brings the one that is there in line with it.
///
/// # Errors
/// When one is refused; the error says which.
pub(crate) async fn apply(cluster: &Cluster, text: &str) -> Result<()> {
    for document in documents(text)? {
        let name = format!("{} {}", document["kind"], document["metadata"]["name"]);
        apply_one(cluster, document).await.context(name)?;
    }
    Ok(())
}

async fn apply_one(cluster: &Cluster, document: Value) -> Result<()> {
    let object = DynamicObject::deserialize(&document)?;
    let types = object.types.as_ref().context("an object has a kind")?;
    let kind = GroupVersionKind::try_from(types)?;
    let (resource, scope): (ApiResource, Scope) = {
        let (resource, capabilities) = pinned_kind(&cluster.client, &kind).await?;
        (resource, capabilities.scope)
    };
    let client = cluster.client.clone();
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<DynamicObject> = match scope {
        Scope::Cluster => Api::all_with(client, &resource),
        Scope::Namespaced => Api::namespaced_with(client, namespace, &resource),
    };
    // Not by server-side apply: releases that know no CEL would refuse the rules of a CustomResourceDefinition instead
    // of dropping them.
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let name = object.metadata.name.clone().context("it has a name")?;
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&document))
                .await?;
        }
        other => drop(other?),
    }
    Ok(())
}
