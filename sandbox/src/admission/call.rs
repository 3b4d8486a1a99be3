//! The request to a webhook: one connection each, TLS of its `caBundle`, bounded in time and size.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use rustls::{ClientConfig, RootCertStore};
use rustls::{crypto::aws_lc_rs, pki_types::CertificateDer, pki_types::pem::PemObject as _};
use serde_json::Value;

/// Bytes of an answer, as much as the API server takes of a request.
const ANSWER: usize = 3 << 20;

/// Sends a review to a webhook; returns what it answered.
pub(super) async fn call(hook: &MutatingWebhook, review: &Value) -> anyhow::Result<Bytes> {
    let config = &hook.client_config;
    let url = config.url.as_deref();
    let uri: Uri = url
        .context("the sandbox calls webhooks by url only")?
        .parse()?;
    let host = uri.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse();
    let here = host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback());
    ensure!(here, "{host:?} is no loopback host");
    let bundle = config.ca_bundle.as_ref().map_or(&[][..], |pem| &pem.0);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trusting(bundle)?)
        .https_only()
        .enable_http1()
        .build();
    let seconds = hook.timeout_seconds.unwrap_or(10).clamp(1, 30);
    let request = Request::post(format!("{uri}?timeout={seconds}s"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))?;
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let exchange = async {
        let answer = client.request(request).await?;
        let status = answer.status();
        ensure!(status.is_success(), "it answered with {status}");
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        Ok(body.map_err(anyhow::Error::from_boxed)?.to_bytes())
    };
    let limit = Duration::from_secs(seconds.unsigned_abs().into());
    let answer = tokio::time::timeout(limit, exchange).await;
    answer.with_context(|| format!("it did not answer within {seconds} s"))?
}

fn trusting(pem: &[u8]) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.context("caBundle")?)?;
    }
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(config.with_no_client_auth())
}
