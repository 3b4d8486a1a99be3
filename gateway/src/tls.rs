//! TLS towards clients: certificate files, reloaded, HTTP/1.1 only.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::reload::Reloading;

/// The certificate in use. Connections that were opened with an older one keep it.
pub type Certificate = Reloading<CertifiedKey>;

/// Loads a certificate chain and its key, both PEM.
///
/// # Errors
/// When a file is missing or holds no such thing, or when key and certificate do not belong together.
pub fn certificate(cert: PathBuf, key: PathBuf) -> anyhow::Result<Certificate> {
    Reloading::load(vec![cert, key], |contents| {
        let [cert, key] = contents else {
            bail!("two files were expected");
        };
        certified(cert, key)
    })
}

fn certified(cert: &[u8], key: &[u8]) -> anyhow::Result<CertifiedKey> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .context("the certificate file is not PEM")?;
    if chain.is_empty() {
        bail!("the certificate file holds no certificate");
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).context("the key file holds no private key in PEM")?;
    let provider = aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider)
        .context("the key and the certificate cannot be used together")?;
    Ok(certified)
}

/// What the listener speaks: TLS 1.2 and 1.3, HTTP/1.1 only (a WebSocket cannot be opened on h2 here), resumption by
/// tickets, nothing kept per client.
///
/// # Errors
/// When the cryptography library refuses.
pub fn server(certificate: Arc<Certificate>) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("failed to choose TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Current(certificate)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().context("failed to make ticket keys")?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    // A client that resumes needs one; each costs a key derivation and a write.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

struct Current(Arc<Certificate>);

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::metrics::Metrics;

    /// A certificate for `localhost`, its key, both PEM.
    pub(crate) fn pair() -> (String, String) {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
                .expect("makes");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// Trusts one certificate.
    pub(crate) fn trusting(cert: &str, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM"))
            .expect("a certificate");
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    type Client = tokio_rustls::client::TlsStream<tokio::io::DuplexStream>;
    type Server = tokio_rustls::server::TlsStream<tokio::io::DuplexStream>;

    async fn connect(
        server: &Arc<ServerConfig>,
        client: Arc<rustls::ClientConfig>,
    ) -> std::io::Result<(Client, Server)> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let name = "localhost".try_into().expect("a name");
        let (client, server) = tokio::join!(
            TlsConnector::from(client).connect(name, theirs),
            TlsAcceptor::from(Arc::clone(server)).accept(ours)
        );
        Ok((client?, server?))
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_certificate_is_served_to_new_connections_while_old_ones_go_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let write = |pair: &(String, String)| {
            std::fs::write(&cert, &pair.0).expect("writes");
            std::fs::write(&key, &pair.1).expect("writes");
        };
        let (first, second) = (pair(), pair());
        write(&first);
        let certificate = Arc::new(certificate(cert.clone(), key.clone()).expect("loads"));
        let server = server(Arc::clone(&certificate)).expect("serves");
        let (mut client, mut peer) = connect(&server, trusting(&first.0, &[]))
            .await
            .expect("connects");

        let keeper = {
            let certificate = Arc::clone(&certificate);
            tokio::spawn(async move {
                certificate
                    .keep(Duration::from_secs(10), &Metrics::unregistered())
                    .await;
            })
        };
        tokio::time::sleep(Duration::from_secs(1)).await; // paused clock: the keeper has looked once
        write(&second);
        tokio::time::sleep(Duration::from_secs(10)).await; // and once more
        keeper.abort();

        connect(&server, trusting(&second.0, &[]))
            .await
            .expect("the new certificate is served");
        assert!(
            connect(&server, trusting(&first.0, &[])).await.is_err(),
            "the old one is not"
        );
        client.write_all(b"still here").await.expect("writes");
        let mut heard = [0; 10];
        peer.read_exact(&mut heard).await.expect("reads");
        assert_eq!(&heard, b"still here");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, two) = (pair(), pair());
        assert!(certified(one.0.as_bytes(), one.1.as_bytes()).is_ok());
        assert!(certified(one.0.as_bytes(), two.1.as_bytes()).is_err());
        assert!(certified(b"", one.1.as_bytes()).is_err());
        assert!(certified(one.0.as_bytes(), b"").is_err());
    }

    #[tokio::test]
    async fn only_http_1_1_is_negotiated_and_clients_without_alpn_are_served() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let made = pair();
        std::fs::write(&cert, &made.0).expect("writes");
        std::fs::write(&key, &made.1).expect("writes");
        let server = server(Arc::new(certificate(cert, key).expect("loads"))).expect("serves");
        for (offer, want) in [
            (&[&b"h2"[..], b"http/1.1"][..], Some(&b"http/1.1"[..])),
            (&[], None),
        ] {
            let (client, _) = connect(&server, trusting(&made.0, offer))
                .await
                .expect("connects");
            assert_eq!(client.get_ref().1.alpn_protocol(), want);
        }
        assert!(
            connect(&server, trusting(&made.0, &[b"h2"])).await.is_err(),
            "h2 alone is refused in the handshake"
        );
    }
}
