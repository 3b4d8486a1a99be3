//! Reading `/metrics` and `/readyz` of an admin port.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Scrapes the admin port at `addr`.
    ///
    /// # Errors
    /// When it does not answer 200.
    pub async fn scrape(addr: SocketAddr) -> Result<Self> {
        let (code, body) = get(addr, "/metrics").await?;
        ensure!(code == 200, "/metrics answered {code}: {body}");
        Ok(Self::parse(&body))
    }

    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.filter_map(|line| line.rsplit_once(' '));
        Self(
            pairs
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// The sum of every sample whose name, labels included, begins with `prefix`; zero if there is none.
    #[must_use]
    pub fn sum(&self, prefix: &str) -> f64 {
        self.0
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, value)| value)
            .sum()
    }

    /// The sample of exactly this name, labels included.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// `GET path` from an admin port: code and body.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr)
        .await
        .with_context(|| format!("nobody listens on {addr}"))?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no HTTP answer from {addr}: {answer:?}"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((
        code.with_context(|| format!("no status code from {addr}: {head:?}"))?,
        body.to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_add_up() {
        let text = "# HELP a help\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3.5\nab_total 7\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert!((metrics.sum("a_total{") - 5.5).abs() < 1e-9);
        assert_eq!(metrics.get("a_total{x=\"1\"}"), Some(2.0));
        assert_eq!(metrics.get("a_total"), None);
    }
}
