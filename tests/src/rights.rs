//! ServiceAccounts' tokens, and who may do what, as the API server itself answers.

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;

use crate::cluster::Cluster;

impl Cluster {
    /// A token of a ServiceAccount, good for so many seconds (at least 600), for an audience or the API server itself.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn token(
        &self,
        namespace: &str,
        account: &str,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<String> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audience.map(str::to_owned).into_iter().collect(),
                expiration_seconds: Some(seconds),
                ..Default::default()
            },
            ..Default::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("failed to get a token for {namespace}/{account}"))?;
        Ok(answer.status.context("a TokenRequest has a status")?.token)
    }

    /// Whether a user, who is in no group but that of the authenticated, may do something: `pods`, `pods:exec`,
    /// `roles.rbac.authorization.k8s.io`, `secrets/name`. An empty namespace is every namespace.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn can(&self, user: &str, namespace: &str, verb: &str, what: &str) -> Result<bool> {
        let (what, name) = what.split_once('/').unwrap_or((what, ""));
        let (what, subresource) = what.split_once(':').unwrap_or((what, ""));
        let (resource, group) = what.split_once('.').unwrap_or((what, ""));
        let some = |text: &str| Some(text.to_owned());
        let mut groups = vec!["system:authenticated".to_owned()];
        let account = user.strip_prefix("system:serviceaccount:");
        if let Some((namespace, _)) = account.and_then(|account| account.split_once(':')) {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: some(user),
                groups: Some(groups),
                resource_attributes: Some(ResourceAttributes {
                    namespace: some(namespace),
                    verb: some(verb),
                    group: some(group),
                    resource: some(resource),
                    subresource: some(subresource),
                    name: some(name),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.context("a review has a status")?.allowed)
    }
}
