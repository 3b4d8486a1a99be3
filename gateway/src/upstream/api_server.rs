//! Through the API server, as the session's account: its RBAC, admission and audit see the session, not the gateway.

use std::sync::Arc;

use drawbridge_crds::names;
use drawbridge_protocol::subprotocol::UpstreamOffer;
use kube::Config;
use kube::client::ConfigExt;
use rustls::pki_types::ServerName;

use super::dial::{Endpoint, Handshake};
use super::sign::Signer;
use super::{Call, DialError, query, segment};
use crate::bridge::Leg;
use crate::pods::Pods;
use crate::transport::Transport;

/// Opens streams through the API server.
pub struct ApiServer {
    endpoint: Endpoint,
    /// Path of the server in the kubeconfig, without a trailing slash.
    prefix: String,
    signer: Signer,
    pods: Pods,
    sessions_namespace: String,
    offer: UpstreamOffer,
}

/// Why the API server cannot be dialled at all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The kubeconfig's server is not something to connect to.
    #[error("the server {0} of the kubeconfig is not an http or https URL with a host")]
    Server(http::Uri),
    /// `tls-server-name`, or the host, is no name.
    #[error("{0:?} is not a name that a certificate can have")]
    Name(String),
    /// The credentials or the CA cannot be loaded.
    #[error("failed to load the gateway's own credentials")]
    Kube(#[from] kube::Error),
}

impl ApiServer {
    /// With the server, CA and credentials of `config`; `pods` reads pods there.
    ///
    /// # Errors
    /// When `config` names no server to connect to, or its credentials cannot be loaded.
    pub fn new(
        config: &Config,
        pods: Pods,
        sessions_namespace: String,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            endpoint: endpoint(config)?,
            prefix: config.cluster_url.path().trim_end_matches('/').to_owned(),
            signer: Signer::new(config)?,
            pods,
            sessions_namespace,
            offer: UpstreamOffer::default(),
        })
    }

    /// Opens a stream. The pod's UID is compared while the connection is set up, before anything is asked of the pod:
    /// the API server knows pods by name only, and another may have taken the name.
    pub(super) async fn dial(&self, call: &Call<'_>) -> Result<Leg<Transport>, DialError> {
        let user = names::account_username(&self.sessions_namespace, &call.session.uid);
        let (io, authorization, ()) = tokio::try_join!(
            self.endpoint.connect(),
            self.signer.authorization(),
            self.pods
                .compare_uid(&user, &call.session.namespace, call.target)
        )?;
        let handshake = Handshake {
            target: self.target(call),
            authority: self.endpoint.authority(),
            authorization,
            impersonate: Some(user),
            connection: call.connection,
            offer: &self.offer,
        };
        handshake.upgrade(io).await
    }

    fn target(&self, call: &Call<'_>) -> String {
        format!(
            "{}/api/v1/namespaces/{}/pods/{}/{}?{}",
            self.prefix,
            segment(&call.session.namespace),
            segment(&call.target.pod),
            call.action.verb(),
            query(
                call,
                Some(&call.target.container),
                ["stdin", "stdout", "stderr"]
            ),
        )
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("authority", &self.endpoint.authority())
            .finish_non_exhaustive()
    }
}

fn endpoint(config: &Config) -> Result<Endpoint, ConfigError> {
    let server = &config.cluster_url;
    let wrong = || ConfigError::Server(server.clone());
    let host = server
        .host()
        .ok_or_else(wrong)?
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let (default, tls) = match server.scheme_str() {
        Some("https") => {
            let mut tls = config.rustls_client_config()?;
            // A WebSocket is opened on HTTP/1.1; a server that prefers h2 would choose it otherwise.
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            let name = config.tls_server_name.as_ref().unwrap_or(&host);
            let name =
                ServerName::try_from(name.clone()).map_err(|_| ConfigError::Name(name.clone()))?;
            (443, Some((Arc::new(tls), name)))
        }
        Some("http") => (80, None),
        _ => return Err(wrong()),
    };
    Ok(Endpoint {
        host,
        port: server.port_u16().unwrap_or(default),
        tls,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use drawbridge_protocol::transcode::Streams;

    use super::*;
    use crate::route::Action;
    use crate::session::tests::ready;

    #[test]
    fn servers_of_a_kubeconfig_are_understood_or_refused() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        for (server, want) in [
            ("https://10.0.0.1:6443", Some(("10.0.0.1:6443", true))),
            (
                "https://api.example.com/k8s/c1/",
                Some(("api.example.com:443", true)),
            ),
            ("https://[fd00::1]:6443", Some(("[fd00::1]:6443", true))),
            ("http://127.0.0.1:8001", Some(("127.0.0.1:8001", false))),
            ("ftp://127.0.0.1", None),
        ] {
            let mut config = Config::new(server.parse().expect("a URI"));
            config.root_cert = Some(Vec::new());
            let found = endpoint(&config)
                .ok()
                .map(|endpoint| (endpoint.authority(), endpoint.tls.is_some()));
            assert_eq!(
                found,
                want.map(|(authority, tls)| (authority.to_owned(), tls)),
                "{server}"
            );
        }
    }

    #[tokio::test]
    async fn the_request_says_exactly_what_was_granted_and_asked() {
        let config = Config::new("http://127.0.0.1:1/k8s/c1/".parse().expect("a URI"));
        let (client, _) = crate::pods::tests::cluster();
        let server = ApiServer::new(&config, Pods::new(client), "ns".into()).expect("an upstream");
        let session = ready();
        let target = session.target.clone().expect("granted");
        let argv: Vec<String> = ["echo", "a;b&c=d", "", "é %"].map(Into::into).into();
        let streams = Streams {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let call = Call {
            session: &session,
            target: &target,
            action: Action::Exec,
            command: &argv,
            streams,
            connection: "",
        };
        assert_eq!(
            server.target(&call),
            "/k8s/c1/api/v1/namespaces/shop/pods/web/exec?command=echo&command=a%3Bb%26c%3Dd&command=&command=%C3%A9+%25\
             &container=app&stdin=1&stdout=1&stderr=1"
        );
        let call = Call {
            action: Action::Attach,
            command: &[],
            streams: Streams {
                tty: true,
                ..streams
            },
            ..call
        };
        assert_eq!(
            server.target(&call),
            "/k8s/c1/api/v1/namespaces/shop/pods/web/attach?container=app&stdin=1&stdout=1&tty=1"
        );
    }
}
