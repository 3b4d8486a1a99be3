//! The request to a webhook: one connection each, TLS of its `caBundle`, bounded in time and size.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, ServiceReference};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::Cluster;
use crate::store::Key;

/// Bytes of an answer, as much as the API server takes of a request.
const ANSWER: usize = 3 << 20;

/// Where a webhook is.
struct Target {
    address: (IpAddr, u16),
    /// Whom its certificate must name.
    name: String,
    authority: String,
    path: String,
}

/// Sends a review to a webhook; returns what it answered.
pub(super) async fn call(
    cluster: &Cluster,
    hook: &MutatingWebhook,
    review: &Value,
) -> Result<Bytes, String> {
    let config = &hook.client_config;
    let target = match (&config.url, &config.service) {
        (Some(url), _) => by_url(url)?,
        (None, Some(service)) => by_service(cluster, service)?,
        (None, None) => {
            return Err("webhook configuration must have either service or URL".to_owned());
        }
    };
    let bundle = config
        .ca_bundle
        .as_ref()
        .map_or(&[][..], |bundle| &bundle.0);
    let tls = trusting(bundle).map_err(|error| format!("caBundle: {error}"))?;
    let seconds = hook.timeout_seconds.unwrap_or(10).clamp(1, 30);
    let url = format!(
        "https://{}{}?timeout={seconds}s",
        target.authority, target.path
    );
    let exchange = exchange(cluster, &target, tls, &url, review);
    match tokio::time::timeout(
        Duration::from_secs(u64::from(seconds.unsigned_abs())),
        exchange,
    )
    .await
    {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(format!("Post {url:?}: {why:#}")),
        Err(_) => Err(format!("Post {url:?}: context deadline exceeded")),
    }
}

fn by_url(url: &str) -> Result<Target, String> {
    let parsed: Uri = url
        .parse()
        .map_err(|error| format!("Unparsable URL: {error}"))?;
    if parsed.scheme_str() != Some("https") {
        return Err(format!("{url:?} is no https URL"));
    }
    let host = parsed.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = parsed.port_u16().unwrap_or(443);
    Ok(Target {
        address: (loopback(host)?, port),
        name: host.to_owned(),
        authority: parsed
            .authority()
            .map_or(String::new(), |authority| authority.as_str().to_owned()),
        path: parsed.path().to_owned(),
    })
}

fn by_service(cluster: &Cluster, service: &ServiceReference) -> Result<Target, String> {
    let (namespace, name) = (&service.namespace, &service.name);
    let path = service.path.as_deref().unwrap_or_default();
    let found = cluster.store.get(&Key {
        resource: "services".into(),
        namespace: namespace.clone(),
        name: name.clone(),
    });
    let found = found.ok_or_else(|| format!("service {name:?} not found"))?;
    if found["spec"]["type"] != "ExternalName" {
        return Err(format!(
            "service {name:?} is not of type ExternalName, which is the only one a webhook of the sandbox can have"
        ));
    }
    let host = found["spec"]["externalName"].as_str().unwrap_or_default();
    let port = service.port.map_or(Ok(443), u16::try_from);
    let port = port.map_err(|error| format!("port: {error}"))?;
    Ok(Target {
        address: (loopback(host)?, port),
        name: format!("{name}.{namespace}.svc"),
        authority: format!("{name}.{namespace}.svc:{port}"),
        path: format!("/{}", path.trim_start_matches('/')),
    })
}

/// The sandbox calls nobody but this machine.
fn loopback(host: &str) -> Result<IpAddr, String> {
    if host == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => Ok(address),
        _ => Err(format!("{host:?} is no loopback host")),
    }
}

fn trusting(pem: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn exchange(
    cluster: &Cluster,
    target: &Target,
    tls: Arc<ClientConfig>,
    url: &str,
    review: &Value,
) -> anyhow::Result<Bytes> {
    let name = ServerName::try_from(target.name.clone())?;
    let stream = TcpStream::connect(target.address)
        .await
        .context("dial tcp")?;
    let stream = TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .context("tls")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with `sender`.
    cluster.tasks.spawn(connection);
    let uri: Uri = url.parse()?;
    let request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, &target.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER).collect().await;
    let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
    ensure!(status.is_success(), "the server answered with {status}");
    Ok(body)
}
