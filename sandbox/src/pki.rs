//! The sandbox's certificates: one authority, the API server's and the kubelet's, and any client's.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::auth::Identity;

/// Names the API server and the kubelet are reached by.
const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc"];

type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority and what it signed.
#[derive(Debug)]
pub struct Pki {
    authority: Authority,
    pem: String,
    server: Arc<ServerConfig>,
}

/// A certificate with its key, in PEM.
pub struct Issued {
    /// Certificate.
    pub certificate: String,
    /// Key.
    pub key: String,
}

impl Pki {
    /// A new authority, and a server certificate for `localhost`, loopback addresses and `kubernetes.default.svc`.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = named("drawbridge-sandbox");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let issued = serving(&authority, &NAMES)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            server: Arc::new(config),
            pem: authority.pem(),
            authority,
        })
    }

    /// The authority's certificate, in PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.pem
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
        let mut params = named(user);
        for &group in groups {
            let names = &mut params.distinguished_name;
            names.push(DnType::OrganizationName, group);
        }
        sign(&self.authority, params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for another server of the sandbox, such as a webhook or the gateway, by host names and addresses.
    ///
    /// # Errors
    /// When a name cannot be put into a certificate.
    pub fn server(&self, names: &[&str]) -> anyhow::Result<Issued> {
        serving(&self.authority, names)
    }

    /// TLS for the API server and the kubelet: asks for client certificates of this authority and lets clients without
    /// one in. ALPN `http/1.1`.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

/// Whom a client certificate names: `CN` the user, each `O` a group.
#[must_use]
pub fn subject(certificate: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject.iter_organization();
    let groups = groups.map(|group| Some(group.as_str().ok()?.to_owned()));
    Some(Identity::user(user, groups.collect::<Option<_>>()?))
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn serving(authority: &Authority, names: &[&str]) -> anyhow::Result<Issued> {
    let mut params = named(names.first().context("a server has a name")?);
    let all: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    params.subject_alt_names = CertificateParams::new(all)?.subject_alt_names;
    sign(authority, params, ExtendedKeyUsagePurpose::ServerAuth)
}

fn sign(
    authority: &Authority,
    mut params: CertificateParams,
    purpose: ExtendedKeyUsagePurpose,
) -> anyhow::Result<Issued> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    // Strict clients want to be told which key signed.
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok(Issued {
        certificate: params.signed_by(&key, authority)?.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests;
