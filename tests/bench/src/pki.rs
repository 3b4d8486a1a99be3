//! A certificate authority and one certificate for 127.0.0.1, for the length of a run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Where the PEM files are.
pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one file, as haproxy wants them.
    pub(crate) both: PathBuf,
}

impl Pki {
    /// Makes the files in `dir`. Keys are ECDSA P-256, rcgen's default and what clusters commonly use.
    pub(crate) fn write(dir: &Path) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority
            .distinguished_name
            .push(DnType::CommonName, "drawbridge-bench");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let cert = CertificateParams::new(names)?.signed_by(&key, &authority)?;

        let pki = Self {
            ca: dir.join("ca.pem"),
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            both: dir.join("both.pem"),
        };
        fs::write(&pki.ca, authority.pem())?;
        fs::write(&pki.cert, cert.pem())?;
        fs::write(&pki.key, key.serialize_pem())?;
        fs::write(&pki.both, cert.pem() + &key.serialize_pem())?;
        Ok(pki)
    }
}
