//! TLS towards sinks: the certificates named, else those of the system.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::sink::SinkError;

/// A client that trusts the certificates in `ca` (PEM), or those of the system.
pub(crate) fn client(ca: Option<&PathBuf>) -> Result<ClientConfig, SinkError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| SinkError::Tls(format!("{}: {error}", path.display())))?;
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    if roots.is_empty() {
        return Err(SinkError::Tls(
            "there is no certificate to trust; name a file with ca=PATH".into(),
        ));
    }
    trusting(roots)
}

/// A client that trusts nobody: for connections without TLS.
pub(crate) fn nobody() -> Result<ClientConfig, SinkError> {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, SinkError> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SinkError::Tls(error.to_string()))
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let wrong = |error: rustls::pki_types::pem::Error| {
        SinkError::Tls(format!("{}: {error}", path.display()))
    };
    CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect::<Result<_, _>>()
        .map_err(wrong)
}
