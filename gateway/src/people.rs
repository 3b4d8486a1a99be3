//! Who may look without a session of mode `Observe`: identities that RBAC lets `get` `consolesessions/recordings`.
//!
//! Two questions to the API server: whose the token is (`TokenReview`, for the API server's own audience), and whether that
//! one may (`SubjectAccessReview`). The first answer is remembered for a moment, the second is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drawbridge_crds::names;
use drawbridge_protocol::subprotocol::Bearer;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::time::timeout;
use tracing::warn;

use crate::auth::{ApiServer, Auth, Reviewer};
use crate::metrics::Metrics;
use crate::refusal::{Kind, Refusal};

/// Longest wait for the second answer.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Somebody the API server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The username.
    pub user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Knows who may look.
pub struct People {
    auth: Arc<Auth<Arc<Identity>>>,
    reviews: Api<SubjectAccessReview>,
}

impl People {
    /// Asks the API server by `client`.
    #[must_use]
    pub fn new(client: kube::Client, sessions_namespace: String, metrics: Arc<Metrics>) -> Self {
        let reviewer = ApiServer::for_its_own(client.clone());
        Self::with(reviewer, client, sessions_namespace, metrics)
    }

    /// The same, asking `reviewer` whose a token is.
    pub(crate) fn with(
        reviewer: impl Reviewer,
        client: kube::Client,
        sessions_namespace: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        let judge = move |status: &TokenReviewStatus| judge(status, &sessions_namespace);
        Self {
            auth: Arc::new(Auth::judging(reviewer, judge, metrics)),
            reviews: Api::all(client),
        }
    }

    /// Whose `token` is, if that one may look at session `name` of `namespace`.
    ///
    /// # Errors
    /// 401 when it is nobody's, 403 when that one may not, 503 when nobody could say.
    pub async fn may_look(
        &self,
        token: &Bearer,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Identity>, Refusal> {
        let identity = self.whose(token).await?;
        self.may(identity, namespace, name).await
    }

    /// Whose `token` is.
    ///
    /// # Errors
    /// 401 when it is nobody's, 503 when nobody could say.
    pub async fn whose(&self, token: &Bearer) -> Result<Arc<Identity>, Refusal> {
        self.auth.identify(token).await
    }

    /// The same identity, if it may look at session `name` of `namespace`.
    ///
    /// # Errors
    /// 403 when it may not, 503 when nobody could say.
    pub async fn may(
        &self,
        identity: Arc<Identity>,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Identity>, Refusal> {
        let question = question(&identity, namespace, name);
        let failed = || {
            Refusal::new(
                Kind::Unavailable,
                "the API server could not be asked what this identity may; try again",
            )
            .retry_after(1)
        };
        let params = PostParams::default();
        let answer = timeout(TIMEOUT, self.reviews.create(&params, &question))
            .await
            .map_err(|error| failed().because(error))?
            .map_err(|error| {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "an access could not be reviewed; may this account create subjectaccessreviews?"
                );
                failed().because(error)
            })?;
        let status = answer.status.unwrap_or_default();
        if status.allowed && status.denied != Some(true) {
            return Ok(identity);
        }
        Err(Refusal::new(
            Kind::NotGranted,
            "this identity may not get consolesessions/recordings of that session; ask for a session of mode Observe, or for that right",
        ))
    }
}

fn question(identity: &Identity, namespace: &str, name: &str) -> SubjectAccessReview {
    SubjectAccessReview {
        metadata: ObjectMeta::default(),
        spec: SubjectAccessReviewSpec {
            user: Some(identity.user.clone()),
            uid: identity.uid.clone(),
            groups: Some(identity.groups.clone()),
            extra: Some(identity.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                group: Some("drawbridge.dev".into()),
                resource: Some("consolesessions".into()),
                subresource: Some("recordings".into()),
                verb: Some("get".into()),
                namespace: Some(namespace.into()),
                name: Some(name.into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        status: None,
    }
}

/// The identity a review names; `None` unless it says yes, about somebody who is not a session's account.
fn judge(status: &TokenReviewStatus, sessions_namespace: &str) -> Option<Arc<Identity>> {
    if status.authenticated != Some(true) {
        return None;
    }
    let user = status.user.as_ref()?;
    let name = user.username.as_deref().filter(|name| !name.is_empty())?;
    if names::session_uid(sessions_namespace, name).is_some() {
        return None; // it comes with its session's rules, or not at all
    }
    Some(Arc::new(Identity {
        user: name.to_owned(),
        uid: user.uid.clone(),
        groups: user.groups.clone().unwrap_or_default(),
        extra: user.extra.clone().unwrap_or_default(),
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::BoxFuture;
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use kube::client::Body;
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::auth::tests::yes;

    /// Takes the token `auditor` for `alice@example.com`, and `nobody-special` for an account without rights.
    pub(crate) struct Known;

    impl Reviewer for Known {
        fn review<'a>(
            &'a self,
            token: &'a Bearer,
        ) -> BoxFuture<'a, Result<TokenReviewStatus, kube::Error>> {
            Box::pin(async move {
                Ok(match token.expose() {
                    "auditor" => person("alice@example.com"),
                    "nobody-special" => person("system:serviceaccount:shop:default"),
                    "down" => return Err(kube::Error::LinesCodecMaxLineLengthExceeded),
                    _ => TokenReviewStatus::default(),
                })
            })
        }
    }

    fn person(name: &str) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            user: Some(UserInfo {
                username: Some(name.into()),
                groups: Some(vec!["auditors".into()]),
                ..UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        }
    }

    /// What an API server was asked.
    pub(crate) type Questions = Arc<Mutex<Vec<SubjectAccessReview>>>;

    /// People of an API server that lets the group `auditors` look at `shop/fix-cart`, if they are not accounts, and as
    /// long as the flag is set.
    pub(crate) fn people() -> (People, Questions, Arc<AtomicBool>) {
        let questions = Questions::default();
        let log = Arc::clone(&questions);
        let allows = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&allows);
        let service = service_fn(move |request: Request<Body>| {
            let (log, flag) = (Arc::clone(&log), Arc::clone(&flag));
            async move {
                let body = request.into_body().collect().await?.to_bytes();
                let mut review: SubjectAccessReview = serde_json::from_slice(&body)?;
                let asked = review.spec.resource_attributes.as_ref().expect("asked");
                let user = review.spec.user.clone().unwrap_or_default();
                let fits = asked.name.as_deref() == Some("fix-cart")
                    && asked.namespace.as_deref() == Some("shop");
                let allowed = fits && user == "alice@example.com" && flag.load(Ordering::Relaxed);
                log.lock().expect("not poisoned").push(review.clone());
                review.status = Some(
                    k8s_openapi::api::authorization::v1::SubjectAccessReviewStatus {
                        allowed,
                        ..Default::default()
                    },
                );
                let answer = serde_json::to_vec(&review)?;
                Ok::<_, BoxError>(Response::builder().status(201).body(Body::from(answer))?)
            }
        });
        let client = kube::Client::new(service, "default");
        let (namespace, metrics) = (
            names::SESSIONS_NAMESPACE.to_owned(),
            Arc::new(Metrics::unregistered()),
        );
        let people = People::with(Known, client, namespace, metrics);
        (people, questions, allows)
    }

    fn bearer(text: &str) -> Bearer {
        Bearer::from(text.to_owned())
    }

    #[tokio::test]
    async fn who_may_get_the_recordings_of_a_session_may_look_and_nobody_else() {
        let (people, questions, _) = people();
        let who = people
            .may_look(&bearer("auditor"), "shop", "fix-cart")
            .await
            .expect("allowed");
        assert_eq!(who.user, "alice@example.com");
        let asked = serde_json::to_value(&questions.lock().expect("not poisoned")[0].spec)
            .expect("serialises");
        assert_eq!(
            asked,
            serde_json::json!({
                "user": "alice@example.com", "groups": ["auditors"], "extra": {},
                "resourceAttributes": {
                    "group": "drawbridge.dev", "resource": "consolesessions", "subresource": "recordings", "verb": "get",
                    "namespace": "shop", "name": "fix-cart",
                },
            })
        );
        for (token, namespace, name, code) in [
            ("auditor", "shop", "other", 403),
            ("auditor", "prod", "fix-cart", 403),
            ("nobody-special", "shop", "fix-cart", 403),
            ("unknown", "shop", "fix-cart", 401),
            ("down", "shop", "fix-cart", 503),
        ] {
            let refusal = people
                .may_look(&bearer(token), namespace, name)
                .await
                .expect_err(token);
            assert_eq!(refusal.code(), code, "{token} {namespace}/{name}");
        }
    }

    #[test]
    fn a_sessions_account_is_nobody_here_whatever_rights_it_has() {
        assert_eq!(judge(&yes("6f1c"), names::SESSIONS_NAMESPACE), None);
        let mut nameless = person("");
        assert_eq!(judge(&nameless, names::SESSIONS_NAMESPACE), None);
        nameless.user = None;
        assert_eq!(judge(&nameless, names::SESSIONS_NAMESPACE), None);
    }
}
