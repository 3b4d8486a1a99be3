//! The gateway's own access to the API server.

use std::path::PathBuf;

use anyhow::{Context, bail};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tracing::warn;

/// Loads a kubeconfig, or what a pod or a user's environment has.
///
/// # Errors
/// When there is none, or it cannot be used for this: it impersonates, or names a proxy (streams are dialled directly).
pub async fn config(kubeconfig: Option<PathBuf>) -> anyhow::Result<Config> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(&path)
                .with_context(|| format!("failed to read kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("kubeconfig {} cannot be used", path.display()))?
        }
        None => Config::infer()
            .await
            .context("no access to a cluster: not in a pod, and no kubeconfig found")?,
    };
    check(&config)?;
    Ok(config)
}

fn check(config: &Config) -> anyhow::Result<()> {
    let auth = &config.auth_info;
    if auth.impersonate.is_some()
        || auth.impersonate_groups.is_some()
        || auth.impersonate_uid.is_some()
    {
        bail!(
            "the kubeconfig impersonates; the gateway acts as sessions' accounts itself: give it its own credentials"
        );
    }
    if let Some(proxy) = &config.proxy_url {
        bail!(
            "the kubeconfig or HTTPS_PROXY names the proxy {proxy}; the gateway dials the API server directly: unset it for this process"
        );
    }
    if config.accept_invalid_certs {
        warn!(
            "the kubeconfig says insecure-skip-tls-verify: whoever is between here and the API server can open consoles"
        );
    }
    if config.cluster_url.scheme_str() == Some("http") {
        warn!("the API server is reached over plain HTTP: whoever is in between can open consoles");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_that_impersonates_or_needs_a_proxy_is_refused() {
        let config = || Config::new("https://127.0.0.1:6443".parse().expect("a URI"));
        assert!(check(&config()).is_ok());
        let mut impersonating = config();
        impersonating.auth_info.impersonate = Some("alice@example.com".into());
        assert!(check(&impersonating).is_err());
        let mut proxied = config();
        proxied.proxy_url = Some("http://127.0.0.1:3128".parse().expect("a URI"));
        assert!(check(&proxied).is_err());
    }
}
