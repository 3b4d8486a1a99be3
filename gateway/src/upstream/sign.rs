//! The `Authorization` header of our own requests, from whatever credentials the kubeconfig has.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{Ready, ready};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use http_body_util::Empty;
use kube::Config;
use kube::client::ConfigExt;
use kube::client::middleware::AuthLayer;
use tower::{BoxError, Layer, Service, ServiceExt};

use super::DialError;

/// Signs requests as the gateway. Token files are read again when they rotate; kube does that.
#[derive(Clone, Debug)]
pub(super) struct Signer(Option<<AuthLayer as Layer<Echo>>::Service>);

impl Signer {
    /// With the credentials of `config`.
    pub(super) fn new(config: &Config) -> kube::Result<Self> {
        Ok(Self(config.auth_layer()?.map(|layer| layer.layer(Echo))))
    }

    /// The header's value; `None` when a client certificate, or nothing, is the credential.
    pub(super) async fn authorization(&self) -> Result<Option<HeaderValue>, DialError> {
        let Some(service) = self.0.clone() else {
            return Ok(None);
        };
        let signed = service
            .oneshot(Request::new(Empty::<Bytes>::new()))
            .await
            .map_err(DialError::Credentials)?;
        Ok(signed.headers().get(AUTHORIZATION).cloned())
    }
}

/// Answers a request with its own `Authorization` header: the inside of kube's layer, which only knows how to sign a
/// request on its way to a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Echo;

impl<B> Service<Request<B>> for Echo {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut response = Response::new(());
        if let Some(value) = request.headers_mut().remove(AUTHORIZATION) {
            response.headers_mut().insert(AUTHORIZATION, value);
        }
        ready(Ok::<_, Infallible>(response).map_err(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use kube::config::AuthInfo;

    use super::*;

    async fn header(auth_info: AuthInfo) -> Option<String> {
        let mut config = Config::new("https://127.0.0.1:1".parse().expect("a URI"));
        config.auth_info = auth_info;
        let signer = Signer::new(&config).expect("signs");
        let value = signer.authorization().await.expect("signed")?;
        assert!(value.is_sensitive(), "it must not be logged");
        Some(value.to_str().expect("text").to_owned())
    }

    #[tokio::test]
    async fn requests_are_signed_with_the_configured_token_or_token_file() {
        assert_eq!(header(AuthInfo::default()).await, None);
        let token = AuthInfo {
            token: Some("inline".to_owned().into()),
            ..AuthInfo::default()
        };
        assert_eq!(header(token).await.as_deref(), Some("Bearer inline"));
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        std::fs::write(&file, "from-file").expect("writes");
        let token = AuthInfo {
            token_file: Some(file.to_string_lossy().into_owned()),
            ..AuthInfo::default()
        };
        assert_eq!(header(token).await.as_deref(), Some("Bearer from-file"));
    }
}
