//! What a cluster needs before the programs start: the manifests of this repository, by server-side apply.

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::Discovery;
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt as _};

/// What is applied, in this order.
const MANIFESTS: [(&str, &str); 5] = [
    (
        "deploy/namespaces.yaml",
        include_str!("../../../deploy/namespaces.yaml"),
    ),
    (
        "crds/yaml/consolesession.yaml",
        include_str!("../../../crds/yaml/consolesession.yaml"),
    ),
    (
        "deploy/operator-rbac.yaml",
        include_str!("../../../deploy/operator-rbac.yaml"),
    ),
    (
        "deploy/gateway-rbac.yaml",
        include_str!("../../../deploy/gateway-rbac.yaml"),
    ),
    ("scene.yaml", include_str!("scene.yaml")),
];

/// Namespace of both programs, as in `deploy/`.
const SYSTEM_NAMESPACE: &str = "drawbridge-system";

/// Who applies.
const MANAGER: &str = "drawbridge-demo";

/// How long the programs' tokens last, in seconds: longer than anybody looks at a demo.
const TOKEN_SECONDS: i64 = 12 * 3600;

/// Applies everything, and waits until ConsoleSessions are served.
pub(crate) async fn install(client: &Client) -> Result<()> {
    let discovery = Discovery::new(client.clone()).run().await?;
    for (file, text) in MANIFESTS {
        let objects: Vec<DynamicObject> = serde_saphyr::from_multiple(text).context(file)?;
        for object in objects {
            apply(client, &discovery, object).await.context(file)?;
        }
    }
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    await_condition(
        definitions,
        "consolesessions.drawbridge.dev",
        is_crd_established(),
    )
    .await?;
    Ok(())
}

async fn apply(client: &Client, discovery: &Discovery, object: DynamicObject) -> Result<()> {
    let TypeMeta { api_version, kind } = object.types.clone().context("it has no kind")?;
    let name = object.name_any();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let kind = GroupVersionKind::gvk(group, version, &kind);
    let (resource, _) = discovery
        .resolve_gvk(&kind)
        .with_context(|| format!("{kind:?} is not served"))?;
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(&object))
        .await
        .with_context(|| format!("{} {name}", resource.kind))?;
    Ok(())
}

/// A token of one of the programs' accounts.
pub(crate) async fn token(client: &Client, account: &str) -> Result<String> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("no token for {account}"))?;
    Ok(answer
        .status
        .context("a TokenRequest is answered with a status")?
        .token)
}
