//! The request to a webhook: one connection each, TLS of its `caBundle`, bounded in time and size.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of an answer, as much as the API server takes of a request.
const ANSWER: usize = 3 << 20;

/// Sends a review to a webhook; returns what it answered.
pub(super) async fn call(hook: &MutatingWebhook, review: &Value) -> anyhow::Result<Bytes> {
    let seconds = hook
        .timeout_seconds
        .unwrap_or(10)
        .clamp(1, 30)
        .unsigned_abs();
    let limit = Duration::from_secs(seconds.into());
    let answer = tokio::time::timeout(limit, exchange(hook, seconds, review)).await;
    answer.with_context(|| format!("it did not answer within {seconds} s"))?
}

async fn exchange(hook: &MutatingWebhook, seconds: u32, review: &Value) -> anyhow::Result<Bytes> {
    let config = &hook.client_config;
    let url = config
        .url
        .as_deref()
        .context("the sandbox calls webhooks by url only")?;
    let uri: Uri = url.parse()?;
    ensure!(uri.scheme_str() == Some("https"), "{url} is no https URL");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = match host {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    };
    ensure!(address.is_loopback(), "{host:?} is no loopback host");
    let bundle = config
        .ca_bundle
        .as_ref()
        .map_or(&[][..], |bundle| &bundle.0);
    let stream = TcpStream::connect((address, uri.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let tls = TlsConnector::from(trusting(bundle)?).connect(name, stream);
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls.await?)).await?;
    let request = Request::post(format!("{}?timeout={seconds}s", uri.path()))
        .header(
            HOST,
            uri.authority().map_or(host, |authority| authority.as_str()),
        )
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        ensure!(status.is_success(), "it answered with {status}");
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        Ok(body.map_err(anyhow::Error::from_boxed)?.to_bytes())
    };
    // The connection ends with the exchange.
    tokio::select! {
        answer = exchange => answer,
        Err(error) = connection => Err(error.into()),
    }
}

fn trusting(pem: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.context("caBundle")?)?;
    }
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
