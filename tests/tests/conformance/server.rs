//! Connections to the API server and the kubelet; one for each request, so that facts cannot disturb each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::Config;
use kube::client::ConfigExt as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use drawbridge_tests::soon;

/// Longest wait for a connection or the head of an answer; an API server allows itself 60 s for webhooks and such.
const LIMIT: Duration = Duration::from_secs(30);

/// A server, and the administrator's and nobody's way to it.
#[derive(Clone)]
pub(crate) struct Server {
    /// `host:port`
    authority: String,
    administrator: Arc<ClientConfig>,
    nobody: Arc<ClientConfig>,
}

impl Server {
    /// The API server of a configuration.
    pub(crate) fn api(config: &Config) -> Result<Self> {
        let mut nobody = config.clone();
        nobody.auth_info = kube::config::AuthInfo::default();
        let host = config.cluster_url.host().context("the server has a host")?;
        let port = config.cluster_url.port_u16().unwrap_or(443);
        Ok(Self {
            authority: format!("{host}:{port}"),
            administrator: Arc::new(config.rustls_client_config()?),
            nobody: Arc::new(nobody.rustls_client_config()?),
        })
    }

    /// Another address with the same certificates.
    pub(crate) fn at(&self, authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            ..self.clone()
        }
    }

    /// Our own address as the server sees it.
    pub(crate) async fn our_address(&self) -> Result<SocketAddr> {
        let stream = TcpStream::connect(&self.authority).await?;
        Ok(stream.local_addr()?)
    }

    /// Sends a request on a connection of its own, with the administrator's certificate or without.
    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        certificate: bool,
    ) -> Result<Response<Incoming>> {
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(&*self.authority, |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        let tls = if certificate {
            &self.administrator
        } else {
            &self.nobody
        };
        let connector = TlsConnector::from(Arc::clone(tls));
        request
            .headers_mut()
            .insert("host", self.authority.parse()?);
        let sent = async {
            let stream = TcpStream::connect(&self.authority).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection.with_upgrades());
            anyhow::Ok(sender.send_request(request).await?)
        };
        soon(&format!("an answer of {}", self.authority), LIMIT, sent).await?
    }
}
