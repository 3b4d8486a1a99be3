//! Pods, read from the API server as the session's account.

use std::time::Duration;

use bytes::Bytes;
use drawbridge_crds::v1alpha1::ResolvedTarget;
use http::header::{ACCEPT, RETRY_AFTER};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::Pod;
use kube::api::GetParams;
use kube::client::Body;
use kube::core::PartialObjectMeta;
use kube::core::request::Request as Resource;

use crate::refusal::{Kind, Refusal};
use crate::upstream::{Answer, DialError};

/// Longest pod passed on, in bytes: etcd holds no larger object.
const MAX_POD: usize = 2 * 1024 * 1024;
/// Longest wait for a pod.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The one header by which the API server acts as somebody else; set on single requests, never on the client.
const IMPERSONATE: &str = "impersonate-user";

/// Reads pods as somebody else.
#[derive(Clone)]
pub struct Pods(kube::Client);

impl Pods {
    /// With the gateway's own client.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self(client)
    }

    /// Whether the pod of the granted name is the pod that was granted.
    ///
    /// # Errors
    /// [`DialError::Replaced`] when it is not; the API server's answer when there is none, or `user` may not know.
    pub async fn compare_uid(
        &self,
        user: &str,
        namespace: &str,
        target: &ResolvedTarget,
    ) -> Result<(), DialError> {
        let request =
            Resource::new(path(namespace)).get_metadata(&target.pod, &GetParams::default());
        let lookup = |source| DialError::Lookup {
            what: format!("pod {:?}", target.pod),
            source: Box::new(source),
        };
        let mut request = request.map_err(|error| lookup(kube::Error::BuildRequest(error)))?;
        request
            .headers_mut()
            .insert(IMPERSONATE, HeaderValue::from_str(user)?);
        match self.0.request::<PartialObjectMeta<Pod>>(request).await {
            Ok(pod) if pod.metadata.uid.as_deref() == Some(&target.pod_uid) => Ok(()),
            Ok(_) => Err(DialError::Replaced {
                pod: target.pod.clone(),
            }),
            Err(kube::Error::Api(status)) => Err(DialError::Answered(Answer {
                code: status.code,
                body: serde_json::to_vec(&*status).unwrap_or_default().into(),
                retry_after: None,
            })),
            Err(error) => Err(lookup(error)),
        }
    }

    /// The pod as JSON, for a client to read.
    ///
    /// # Errors
    /// The API server's own refusal; 502 and 504 when there is none.
    pub async fn get(&self, user: &str, namespace: &str, pod: &str) -> Result<Bytes, Refusal> {
        let failed = || {
            Refusal::new(
                Kind::UpstreamFailed,
                "the API server could not be asked for the pod",
            )
        };
        let request = Resource::new(path(namespace))
            .get(pod, &GetParams::default())
            .map_err(|error| failed().because(error))?;
        let mut request: Request<Body> = request.map(Body::from);
        let headers = request.headers_mut();
        headers.insert(
            IMPERSONATE,
            HeaderValue::from_str(user).map_err(|error| failed().because(error))?,
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = tokio::time::timeout(TIMEOUT, async {
            let response = self
                .0
                .send(request)
                .await
                .map_err(|error| failed().because(error))?;
            read(response).await
        });
        let timeout = || {
            Refusal::new(
                Kind::UpstreamTimeout,
                "the API server did not answer in time",
            )
        };
        let answer = answer.await.map_err(|_| timeout())??;
        if answer.code == 200 {
            Ok(answer.body)
        } else {
            Err(DialError::Answered(answer).into())
        }
    }
}

async fn read(response: Response<Body>) -> Result<Answer, Refusal> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_POD)
        .collect()
        .await
        .map_err(|error| {
            Refusal::new(
                Kind::UpstreamFailed,
                "the pod could not be read from the API server",
            )
            .because(error)
        })?;
    Ok(Answer {
        code: head.status.as_u16(),
        body: body.to_bytes(),
        retry_after: head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok()),
    })
}

fn path(namespace: &str) -> String {
    <Pod as kube::Resource>::url_path(&(), Some(namespace))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use tower::{BoxError, service_fn};

    use super::*;

    /// The requests a fake API server was sent, as `user method path`.
    pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

    /// A fake API server with pod `web` (UID `p-1`) and a version; everything else is not there.
    pub(crate) fn cluster() -> (kube::Client, Asked) {
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Body>| {
            let user = request
                .headers()
                .get(IMPERSONATE)
                .map_or("-", |user| user.to_str().expect("text"))
                .to_owned();
            let line = format!("{user} {} {}", request.method(), request.uri().path());
            log.lock().expect("not poisoned").push(line);
            let (code, body) = match request.uri().path() {
                "/api/v1/namespaces/shop/pods/web" => (
                    200,
                    r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"shop","uid":"p-1"}}"#,
                ),
                "/version" => (200, include_str!("pods/version.json")),
                _ => (
                    404,
                    r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"not there","reason":"NotFound","code":404}"#,
                ),
            };
            let response = Response::builder()
                .status(code)
                .body(Body::from(body.as_bytes().to_vec()));
            async move { Ok::<_, BoxError>(response?) }
        });
        (kube::Client::new(service, "default"), asked)
    }

    fn target(pod: &str, uid: &str) -> ResolvedTarget {
        ResolvedTarget {
            pod: pod.into(),
            pod_uid: uid.into(),
            container: "app".into(),
            containers: Vec::new(),
            node: "n1".into(),
        }
    }

    #[tokio::test]
    async fn the_pod_that_was_granted_passes_and_one_that_took_its_name_does_not() {
        let (client, asked) = cluster();
        let pods = Pods::new(client);
        pods.compare_uid("someone", "shop", &target("web", "p-1"))
            .await
            .expect("the same");
        let other = pods
            .compare_uid("someone", "shop", &target("web", "p-2"))
            .await;
        assert!(
            matches!(other, Err(DialError::Replaced { .. })),
            "{other:?}"
        );
        let gone = pods
            .compare_uid("someone", "shop", &target("db", "p-1"))
            .await
            .expect_err("not there");
        let refusal = Refusal::from(gone);
        assert_eq!((refusal.code(), refusal.public()), (404, "not there"));
        assert_eq!(
            asked.lock().expect("not poisoned")[0],
            "someone GET /api/v1/namespaces/shop/pods/web"
        );
    }

    #[tokio::test]
    async fn a_pod_is_read_as_somebody_else_and_refusals_are_passed_on() {
        let (client, asked) = cluster();
        let pods = Pods::new(client);
        let pod = pods.get("someone", "shop", "web").await.expect("there");
        assert!(pod.starts_with(br#"{"kind":"Pod""#));
        assert_eq!(
            pods.get("someone", "shop", "db")
                .await
                .expect_err("not there")
                .code(),
            404
        );
        assert!(
            asked
                .lock()
                .expect("not poisoned")
                .iter()
                .all(|line| line.starts_with("someone GET "))
        );
    }
}
