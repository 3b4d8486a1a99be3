//! What this repository installs on a cluster: CustomResourceDefinitions, namespaces, accounts and their rights.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;

use crate::cluster::Cluster;
use crate::manifest::{apply, documents};
use crate::programs::repository;
use crate::wait::soon;

/// Namespace of both programs' ServiceAccounts and of the operator's Lease, as in `deploy/`.
pub const SYSTEM_NAMESPACE: &str = "drawbridge-system";
/// Label of every namespace the tests make: what an interrupted run left is swept by the next.
pub(crate) const TEST_LABEL: &str = "drawbridge.dev/end-to-end-test";
/// The account of the gateways that go to kubelets, made by the tests.
pub(crate) const KUBELET_ACCOUNT: &str = "drawbridge-gateway-kubelet-test";
/// What such a gateway needs on top of any other.
const KUBELET_RBAC: &str = "deploy/gateway-kubelet-rbac.yaml";

/// Longest wait for the API server to take one manifest.
const LIMIT: Duration = Duration::from_mins(1);

/// Installs everything, and sweeps what a run left that was interrupted.
pub(crate) async fn install(cluster: &Cluster) -> Result<()> {
    let mut files = manifests("crds/yaml")?;
    files.extend(manifests("deploy")?);
    // The namespaces first: the rest lives in them.
    files.sort_by_key(|file| !file.ends_with("deploy/namespaces.yaml"));
    for file in files {
        // The rights of a gateway that goes to kubelets are for an account of its own.
        if !file.ends_with(KUBELET_RBAC) {
            let text = std::fs::read_to_string(&file)?;
            apply(cluster, &text)
                .await
                .with_context(|| file.display().to_string())?;
        }
    }
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let established = await_condition(
        definitions,
        "consolesessions.drawbridge.dev",
        is_crd_established(),
    );
    soon(
        "the API server serves ConsoleSessions",
        LIMIT,
        Box::pin(established),
    )
    .await??;
    // Namespaces that were not cleaned up, and a Lease whose holder is gone.
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let left = ListParams::default().labels(&format!("{TEST_LABEL}=true"));
    for namespace in namespaces.list_metadata(&left).await? {
        let name = namespace.metadata.name.unwrap_or_default();
        let gone = namespaces.delete(&name, &DeleteParams::default()).await;
        gone.map(drop).or_else(gone_already)?;
    }
    let leases = Api::<Lease>::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
    leases
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    Ok(())
}

/// What is gone already need not be deleted.
pub(crate) fn gone_already(error: kube::Error) -> Result<(), kube::Error> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        other => Err(other),
    }
}

/// Gives [`KUBELET_ACCOUNT`] what the manifests give to the gateway's account, whose own rights stay as they are.
pub(crate) async fn install_kubelet_account(cluster: &Cluster) -> Result<()> {
    for file in ["deploy/gateway-rbac.yaml", KUBELET_RBAC] {
        let file = repository().join(file);
        for mut object in documents(&std::fs::read_to_string(file)?)? {
            if object["kind"] == "ServiceAccount" {
                object["metadata"]["name"] = KUBELET_ACCOUNT.into();
            }
            if let Some(subjects) = object["subjects"].as_array_mut() {
                for subject in subjects {
                    subject["name"] = KUBELET_ACCOUNT.into();
                }
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                object["metadata"]["name"] = format!("{name}-test").into();
            }
            apply(cluster, &object.to_string()).await?;
        }
    }
    Ok(())
}

/// The YAML files of a directory of this repository, by name.
fn manifests(dir: &str) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(repository().join(dir)).with_context(|| format!("there is no {dir}"))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    Ok(files)
}
