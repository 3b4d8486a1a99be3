//! The sandbox's certificates: one authority, the API server's and the kubelet's, and any client's.

use std::sync::Arc;

use anyhow::ensure;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::auth::Identity;

/// Names the API server and the kubelet are reached by.
const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc"];

/// An authority.
#[derive(Debug)]
pub struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub authority: String,
}

/// A certificate with its key, in PEM.
pub struct Issued {
    /// Certificate.
    pub certificate: String,
    /// Key.
    pub key: String,
}

impl Pki {
    /// A new authority.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = named("drawbridge-sandbox", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = issuer.pem();
        Ok(Self { issuer, authority })
    }

    /// A client certificate: `CN` is the user, `O` a group. At most one group, as rcgen writes no more.
    ///
    /// # Errors
    /// More than one group.
    pub fn client(&self, user: &str, groups: &[&str]) -> anyhow::Result<Issued> {
        ensure!(
            groups.len() < 2,
            "a client certificate holds at most one group"
        );
        let mut params = named(user, &[])?;
        for &group in groups {
            let names = &mut params.distinguished_name;
            names.push(DnType::OrganizationName, group);
        }
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a server, such as a webhook or the gateway, by host names and addresses.
    ///
    /// # Errors
    /// When a name cannot be put into a certificate.
    pub fn server(&self, names: &[&str]) -> anyhow::Result<Issued> {
        self.sign(named("server", names)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<Issued> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        // Strict clients want to be told which key signed.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Issued {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// TLS for the API server and the kubelet, with a certificate for `localhost`, loopback addresses and
    /// `kubernetes.default.svc`: asks for client certificates of this authority and lets clients without one in. ALPN
    /// `http/1.1`.
    pub(crate) fn server_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let issued = self.server(&NAMES)?;
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let verifier = WebPkiClientVerifier::builder(roots.into()).allow_unauthenticated();
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Whom a client certificate names: `CN` the user, each `O` a group.
pub(crate) fn subject(certificate: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject.iter_organization();
    let groups = groups.map(|group| group.as_str().map(str::to_owned));
    Some(Identity::user(user, groups.collect::<Result<_, _>>().ok()?))
}

/// What every certificate has: who it is of, and other names for it.
fn named(name: &str, others: &[&str]) -> anyhow::Result<CertificateParams> {
    let others: Vec<String> = others.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(others)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

#[cfg(test)]
mod tests;
