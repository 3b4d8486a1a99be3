//! As much of a kubeconfig as an exec client needs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::net::lookup_host;

use super::Endpoint;
use crate::{net::client_tls, ws::Socket};

/// An endpoint and the credential for it.
pub(super) struct Access {
    endpoint: Endpoint,
    token: Option<String>,
    /// The context's namespace.
    pub(super) namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextRefs,
}

#[derive(Deserialize)]
struct ContextRefs {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

impl Access {
    /// Reads the current context of a kubeconfig: HTTPS, a certificate authority, and a token or a client certificate.
    pub(super) async fn load(path: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
            .await
            .with_context(|| format!("{} cannot be used", path.display()))
    }

    async fn parse(text: &str, dir: &Path) -> anyhow::Result<Self> {
        let Kubeconfig {
            current_context,
            contexts,
            clusters,
            users,
        } = serde_saphyr::from_str(text)?;
        let context = contexts
            .into_iter()
            .find(|item| item.name == current_context)
            .context("no such current-context")?
            .context;
        let cluster = clusters
            .into_iter()
            .find(|item| item.name == context.cluster)
            .context("no such cluster")?
            .cluster;
        let user = users
            .into_iter()
            .find(|item| item.name == context.user)
            .context("no such user")?
            .user;

        let host = cluster
            .server
            .strip_prefix("https://")
            .context("the server is not https://")?
            .trim_end_matches('/');
        ensure!(!host.contains('/'), "the server has a path, {host}");
        let (name, port) = host.rsplit_once(':').unwrap_or((host, "443"));
        let name = name.trim_matches(['[', ']']).to_owned();
        let address = lookup_host((name.as_str(), port.parse()?))
            .await?
            .next()
            .context("the server has no address")?;

        let ca = read(
            dir,
            cluster.certificate_authority_data,
            cluster.certificate_authority,
        )?
        .context("no certificate-authority")?;
        let roots = CertificateDer::pem_slice_iter(&ca)
            .collect::<Result<Vec<_>, _>>()
            .context("certificate-authority")?;
        let chain = read(dir, user.client_certificate_data, user.client_certificate)?;
        let identity = match chain.zip(read(dir, user.client_key_data, user.client_key)?) {
            None => None,
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(&chain)
                    .collect::<Result<Vec<_>, _>>()
                    .context("client-certificate")?;
                Some((
                    chain,
                    PrivateKeyDer::from_pem_slice(&key).context("client-key")?,
                ))
            }
        };
        let token = match (user.token, user.token_file) {
            (None, Some(file)) => Some(
                fs::read_to_string(dir.join(file))
                    .context("tokenFile")?
                    .trim()
                    .to_owned(),
            ),
            (token, _) => token,
        };
        if token.is_none() && identity.is_none() {
            bail!("neither a token nor a client certificate");
        }
        let tls = Some((client_tls(roots, identity)?, ServerName::try_from(name)?));
        // v4: what every API server speaks, and what the gateway then speaks on both legs.
        let endpoint = Endpoint {
            address,
            host: host.to_owned(),
            tls,
            protocol: "v4.channel.k8s.io",
        };
        Ok(Self {
            endpoint,
            token,
            namespace: context.namespace,
        })
    }

    pub(super) async fn open(&self, path: &str, size: usize) -> anyhow::Result<Socket> {
        self.endpoint.open(self.token.as_deref(), path, size).await
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        self.endpoint.get(self.token.as_deref(), path).await
    }
}

/// What is given in place, in base64, or else in a file.
fn read(
    dir: &Path,
    data: Option<String>,
    file: Option<PathBuf>,
) -> anyhow::Result<Option<Vec<u8>>> {
    Ok(match (data, file) {
        (Some(data), _) => Some(BASE64_STANDARD.decode(data.trim()).context("not base64")?),
        (None, Some(file)) => Some(
            fs::read(dir.join(&file)).with_context(|| format!("cannot read {}", file.display()))?,
        ),
        (None, None) => None,
    })
}
