//! Straight to the kubelet, with the gateway's own right to `nodes/proxy`: opt-in.
//!
//! `get nodes/proxy` is code execution in every pod of every node: whoever takes over a gateway that has it has the
//! cluster. No RBAC, admission or audit of the API server sees what happens. What is gained is one hop less.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use drawbridge_protocol::subprotocol::UpstreamOffer;
use k8s_openapi::api::core::v1::Node;
use kube::client::ConfigExt;
use kube::{Api, Config};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::dial::{Endpoint, Handshake};
use super::sign::Signer;
use super::{Call, DialError, query, segment};
use crate::bridge::Leg;
use crate::metrics::Metrics;
use crate::reload::Reloading;
use crate::transport::Transport;

/// The port of a kubelet that names none.
const PORT: u16 = 10250;
/// How long a node's address is remembered. Addresses change when a node is replaced, under another name as a rule.
const REMEMBERED_FOR: Duration = Duration::from_mins(1);
/// Nodes remembered: the largest clusters have 5,000; the rest are looked up each time.
const MAX_NODES: usize = 8192;

/// Flags of the kubelet upstream.
#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// File with the CA certificates (PEM) that kubelets' serving certificates are checked against. Required with
    /// `--upstream=kubelet`; they are always checked.
    #[arg(long, env = "DRAWBRIDGE_KUBELET_CA")]
    pub kubelet_ca: Option<PathBuf>,
    /// File with a client certificate (PEM) for kubelets. Default: the gateway's own credentials.
    #[arg(
        long,
        env = "DRAWBRIDGE_KUBELET_CLIENT_CERT",
        requires = "kubelet_client_key"
    )]
    pub kubelet_client_cert: Option<PathBuf>,
    /// File with the key (PEM) of that certificate.
    #[arg(
        long,
        env = "DRAWBRIDGE_KUBELET_CLIENT_KEY",
        requires = "kubelet_client_cert"
    )]
    pub kubelet_client_key: Option<PathBuf>,
    /// Subprotocols offered to kubelets, in order, comma-separated; empty offers none. Runtimes that know neither of the
    /// defaults are the only reason to change it.
    #[arg(long, env = "DRAWBRIDGE_KUBELET_SUBPROTOCOL", default_value_t)]
    pub kubelet_subprotocol: UpstreamOffer,
}

/// Opens streams at kubelets.
pub struct Kubelet {
    nodes: Api<Node>,
    addresses: Mutex<HashMap<String, (Address, Instant)>>,
    tls: Arc<Reloading<ClientConfig>>,
    signer: Signer,
    offer: UpstreamOffer,
}

/// Where a kubelet listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

impl Kubelet {
    /// With the credentials of `config` or those of `flags`. `client` looks up nodes.
    ///
    /// # Errors
    /// When a file is missing, or holds no such thing.
    pub fn new(config: &Config, client: kube::Client, flags: Flags) -> anyhow::Result<Self> {
        let ca = flags.kubelet_ca.context(
            "--upstream=kubelet needs --kubelet-ca: kubelets' certificates are always checked",
        )?;
        let mut config = config.clone();
        config.accept_invalid_certs = false;
        config.root_cert_file = None;
        config.tls_server_name = None;
        let mut files = vec![ca];
        if let (Some(cert), Some(key)) = (flags.kubelet_client_cert, flags.kubelet_client_key) {
            // These and nothing else: the gateway's own token is not for kubelets then.
            config.auth_info = kube::config::AuthInfo::default();
            files.extend([cert, key]);
        }
        let signer = Signer::new(&config)?;
        Ok(Self {
            nodes: Api::all(client),
            addresses: Mutex::default(),
            tls: Arc::new(Reloading::load(files, move |contents| {
                tls(&config, contents)
            })?),
            signer,
            offer: flags.kubelet_subprotocol,
        })
    }

    /// The certificate files, to be watched with [`Kubelet::keep`].
    #[must_use]
    pub fn files(&self) -> Files {
        Files(Arc::clone(&self.tls))
    }

    pub(super) async fn dial(&self, call: &Call<'_>) -> Result<Leg<Transport>, DialError> {
        let Address { host, port } = self.address(&call.target.node).await?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| DialError::NoAddress(call.target.node.clone()))?;
        let endpoint = Endpoint {
            host,
            port,
            tls: Some((self.tls.current(), name)),
        };
        let (io, authorization) =
            tokio::try_join!(endpoint.connect(), self.signer.authorization())?;
        let handshake = Handshake {
            target: target(call),
            authority: endpoint.authority(),
            authorization,
            impersonate: None, // kubelets do not know impersonation
            connection: call.connection,
            offer: &self.offer,
        };
        handshake.upgrade(io).await
    }

    async fn address(&self, node: &str) -> Result<Address, DialError> {
        let now = Instant::now();
        let known = self
            .lock()
            .get(node)
            .filter(|(_, until)| now < *until)
            .map(|(address, _)| address.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let lookup = |source| DialError::Lookup {
            what: format!("node {node:?}"),
            source: Box::new(source),
        };
        let found = address(&self.nodes.get(node).await.map_err(lookup)?)
            .ok_or_else(|| DialError::NoAddress(node.to_owned()))?;
        let mut addresses = self.lock();
        if addresses.len() >= MAX_NODES {
            addresses.retain(|_, (_, until)| now < *until);
        }
        if addresses.len() < MAX_NODES {
            addresses.insert(node.to_owned(), (found.clone(), now + REMEMBERED_FOR));
        }
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Address, Instant)>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificate files of a [`Kubelet`].
pub struct Files(Arc<Reloading<ClientConfig>>);

impl Files {
    /// Loads them anew when they change, for ever.
    pub async fn keep(&self, interval: Duration, metrics: &Metrics) {
        self.0.keep(interval, metrics).await;
    }
}

impl std::fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelet")
            .field("offer", &self.offer)
            .finish_non_exhaustive()
    }
}

/// TLS towards kubelets: the CA in the first file, and the certificate in the other two if they are there.
fn tls(config: &Config, contents: &[Vec<u8>]) -> anyhow::Result<ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let mut config = config.clone();
    let (ca, client) = contents
        .split_first()
        .context("the kubelets' CA file is missing")?;
    let roots = CertificateDer::pem_slice_iter(ca)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .context("the kubelets' CA file is not PEM")?;
    anyhow::ensure!(
        !roots.is_empty(),
        "the kubelets' CA file holds no certificate"
    );
    config.root_cert = Some(roots);
    if let [cert, key] = client {
        use base64::Engine as _;
        let encode = |pem: &[u8]| base64::engine::general_purpose::STANDARD.encode(pem);
        config.auth_info.client_certificate_data = Some(encode(cert));
        config.auth_info.client_key_data = Some(encode(key).into());
    }
    let mut tls = config
        .rustls_client_config()
        .context("the kubelet credentials cannot be used")?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

fn address(node: &Node) -> Option<Address> {
    let status = node.status.as_ref()?;
    let internal = status
        .addresses
        .as_ref()?
        .iter()
        .find(|address| address.type_ == "InternalIP")?;
    let port = status
        .daemon_endpoints
        .as_ref()
        .and_then(|endpoints| endpoints.kubelet_endpoint.as_ref())
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|port| *port != 0);
    Some(Address {
        host: internal.address.clone(),
        port: port.unwrap_or(PORT),
    })
}

/// The path names the pod's UID, so the kubelet itself refuses another pod of the same name.
fn target(call: &Call<'_>) -> String {
    format!(
        "/{}/{}/{}/{}/{}?{}",
        call.action.verb(),
        segment(&call.session.namespace),
        segment(&call.target.pod),
        segment(&call.target.pod_uid),
        segment(&call.target.container),
        query(call, None, ["input", "output", "error"]),
    )
}

#[cfg(test)]
mod tests {
    use drawbridge_protocol::transcode::Streams;

    use super::*;
    use crate::route::Action;
    use crate::session::tests::ready;

    #[test]
    fn the_request_names_the_pods_uid_and_speaks_the_kubelets_dialect() {
        let session = ready();
        let granted = session.target.clone().expect("granted");
        let argv: Vec<String> = ["sh", "-c", "id"].map(Into::into).into();
        let mut call = Call {
            session: &session,
            target: &granted,
            action: Action::Exec,
            command: &argv,
            streams: Streams {
                stdin: true,
                stdout: true,
                stderr: true,
                tty: true,
            },
            connection: "",
        };
        assert_eq!(
            target(&call),
            "/exec/shop/web/p-1/app?command=sh&command=-c&command=id&input=1&output=1&tty=1"
        );
        call.streams.tty = false;
        call.streams.stdin = false;
        call.command = &[];
        call.action = Action::Attach;
        assert_eq!(target(&call), "/attach/shop/web/p-1/app?output=1&error=1");
    }

    #[test]
    fn a_nodes_internal_address_is_dialled_on_the_port_it_names() {
        let node = |status: serde_json::Value| {
            address(
                &serde_json::from_value(serde_json::json!({"metadata": {}, "status": status}))
                    .expect("a node"),
            )
        };
        let addresses = serde_json::json!([
            {"type": "Hostname", "address": "n1"}, {"type": "ExternalIP", "address": "192.0.2.1"},
            {"type": "InternalIP", "address": "198.51.100.2"}, {"type": "InternalIP", "address": "fd00::2"},
        ]);
        let at = |port| {
            Some(Address {
                host: "198.51.100.2".into(),
                port,
            })
        };
        assert_eq!(node(serde_json::json!({"addresses": addresses})), at(10250));
        let endpoint = serde_json::json!({"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": 10255}}});
        assert_eq!(node(endpoint), at(10255));
        assert_eq!(
            node(serde_json::json!({"addresses": [{"type": "Hostname", "address": "n1"}]})),
            None
        );
    }

    #[test]
    fn a_ca_is_required_and_must_be_one() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = Config::new("https://127.0.0.1:1".parse().expect("a URI"));
        let (cert, key) = crate::tls::tests::pair();
        let (cert, key) = (cert.into_bytes(), key.into_bytes());
        assert!(tls(&config, &[b"nothing".to_vec()]).is_err());
        assert!(tls(&config, std::slice::from_ref(&cert)).is_ok());
        assert!(tls(&config, &[cert.clone(), cert.clone(), key]).is_ok());
        assert!(tls(&config, &[cert.clone(), cert, b"no key".to_vec()]).is_err());
    }
}
