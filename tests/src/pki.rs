//! A certificate authority and a gateway certificate for loopback, for the length of a run.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where the PEM files are.
#[derive(Clone)]
pub struct Pki {
    /// The authority's certificate: what clients trust, and what goes into the users' kubeconfigs.
    pub ca: PathBuf,
    /// The gateway's certificate, for `127.0.0.1` and `localhost`.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    authority: Arc<CertifiedIssuer<'static, KeyPair>>,
}

impl Pki {
    /// Makes the files in `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(dir: &Path) -> Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority
            .distinguished_name
            .push(DnType::CommonName, "drawbridge-tests");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let pki = Self {
            ca: dir.join("ca.pem"),
            cert: dir.join("tls.crt"),
            key: dir.join("tls.key"),
            authority: Arc::new(authority),
        };
        fs::write(&pki.ca, pki.authority.pem())?;
        pki.renew()?;
        Ok(pki)
    }

    /// Replaces the gateway's certificate and key by new ones of the same authority.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn renew(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let cert = CertificateParams::new(names)?.signed_by(&key, &self.authority)?;
        for (path, text) in [(&self.cert, cert.pem()), (&self.key, key.serialize_pem())] {
            // As a Secret's volume does: never half a file.
            let new = path.with_extension("new");
            fs::write(&new, text)?;
            fs::rename(&new, path)?;
        }
        Ok(())
    }

    /// The certificate a server shows now, as DER.
    ///
    /// # Errors
    /// When it cannot be reached, or shows one of another authority.
    pub async fn shown_by(&self, addr: SocketAddr) -> Result<Vec<u8>> {
        let stream = TcpStream::connect(addr).await?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(self.client(&[])?)
            .connect(name, stream)
            .await?;
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        Ok(shown.context("a TLS server shows a certificate")?.to_vec())
    }

    /// A TLS client that trusts this authority alone and offers `alpn`.
    ///
    /// # Errors
    /// When the authority's file cannot be read.
    pub fn client(&self, alpn: &[&str]) -> Result<Arc<ClientConfig>> {
        let ca = CertificateDer::from_pem_file(&self.ca)
            .with_context(|| format!("no certificate in {}", self.ca.display()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(tls))
    }
}
