//! A certificate authority and a gateway certificate for loopback, for the length of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Where the PEM files are.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate: what clients trust, and what goes into the users' kubeconfigs.
    pub ca: PathBuf,
    /// The gateway's certificate, for `127.0.0.1` and `localhost`.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
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
        let key = KeyPair::generate()?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let cert = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        let pki = Self {
            ca: dir.join("ca.pem"),
            cert: dir.join("tls.crt"),
            key: dir.join("tls.key"),
        };
        fs::write(&pki.ca, authority.pem())?;
        fs::write(&pki.cert, cert.pem())?;
        fs::write(&pki.key, key.serialize_pem())?;
        Ok(pki)
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
