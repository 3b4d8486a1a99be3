//! The sandbox's certificates: one authority, the API server's and the kubelet's, and any client's.

use std::sync::Arc;

/// An authority and what it signed.
pub struct Pki {}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pki")
    }
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
        todo!("pki")
    }

    /// The authority's certificate, in PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        todo!("pki")
    }

    /// A client certificate: `CN` is the user, each `O` a group.
    ///
    /// # Errors
    /// When a name cannot be put into a certificate.
    pub fn client(&self, _user: &str, _groups: &[&str]) -> anyhow::Result<Issued> {
        todo!("pki")
    }

    /// TLS for the API server and the kubelet: asks for client certificates of this authority and lets clients without
    /// one in. ALPN `http/1.1`.
    #[must_use]
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        todo!("pki")
    }
}

/// User and groups a client certificate names: `CN` and each `O`.
#[must_use]
pub fn subject(_certificate: &[u8]) -> Option<(String, Vec<String>)> {
    todo!("pki")
}
