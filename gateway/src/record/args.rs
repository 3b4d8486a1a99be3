//! The flags of recording, and the recorder they make.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use drawbridge_audit::log::Log;
use drawbridge_audit::recording::Recipients;
use drawbridge_audit::store::Store;
use drawbridge_crds::names;
use kube::Client;
use tracing::info;

use super::ledger::ApiServer;
use super::retain::Retention;
use super::spool::Spool;
use super::{Recorder, Rules, keys};
use crate::args::duration;
use crate::metrics::Metrics;

/// Where recordings go.
#[derive(clap::Args, Clone, Debug)]
pub struct RecordingFlags {
    /// Directory for what is not in the store yet. It must survive a restart of the gateway, and be no other gateway's.
    #[arg(long, env = "DRAWBRIDGE_SPOOL", default_value = "/var/lib/drawbridge")]
    spool: PathBuf,
    /// Most bytes in it, e.g. `4Gi`. When they are used, connections that must be recorded are refused.
    #[arg(long, env = "DRAWBRIDGE_SPOOL_MAX", default_value = "4Gi", value_parser = bytes)]
    spool_max: u64,
    /// Where finished recordings are kept: `file:///DIRECTORY`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
    /// `az://CONTAINER/PREFIX`; credentials from `AWS_…`, `GOOGLE_…`, `AZURE_…`. Default: `store` in the spool's directory.
    #[arg(long, env = "DRAWBRIDGE_RECORDING_STORE")]
    recording_store: Option<String>,
    /// age public key that recordings are encrypted to, `age1…`; nobody else can read them then, the gateway neither. May
    /// be repeated.
    #[arg(long, env = "DRAWBRIDGE_RECORDING_RECIPIENT", value_delimiter = ',')]
    recording_recipient: Vec<String>,
    /// Delete recordings this long after they began, e.g. `2160h`. Default: keep them.
    #[arg(long, env = "DRAWBRIDGE_RECORDING_RETENTION", value_parser = duration)]
    recording_retention: Option<Duration>,
    /// Delete the oldest recordings while all have more bytes than this, e.g. `100Gi`. Default: keep them.
    #[arg(long, env = "DRAWBRIDGE_RECORDING_RETENTION_BYTES", value_parser = bytes)]
    recording_retention_bytes: Option<u64>,
    /// Namespace of the Secret with the key that records are signed with, and of the ConfigMap with all public ones; the operator's `--lease-namespace`.
    #[arg(long, env = "DRAWBRIDGE_SYSTEM_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    system_namespace: String,
    /// What this gateway calls itself in records. Default: the host's name.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
}

impl RecordingFlags {
    /// Where the keys are.
    #[must_use]
    pub fn system_namespace(&self) -> &str {
        &self.system_namespace
    }

    /// The recorder.
    ///
    /// # Errors
    /// A spool or store that cannot be used, a recipient that is none.
    pub fn recorder(
        self,
        client: &Client,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> anyhow::Result<Recorder> {
        let Self {
            spool,
            spool_max,
            recording_store,
            recording_recipient: recipients,
            recording_retention: age,
            recording_retention_bytes,
            system_namespace,
            identity,
        } = self;
        Recipients::parse(&recipients).context("--recording-recipient is no age public key")?;
        let store = match recording_store {
            Some(url) => Store::open(&url),
            None => Store::directory(&spool.join("store")),
        };
        let store = store.context("failed to use --recording-store")?;
        let opened = Spool::open(&spool, spool_max);
        let opened =
            opened.with_context(|| format!("failed to use --spool {}", spool.display()))?;
        info!(store = store.url(), spool = %spool.display(), "recordings");
        let instance = identity
            .filter(|identity| !identity.is_empty())
            .or_else(|| std::env::var("HOSTNAME").ok())
            .unwrap_or_else(|| "drawbridge-gateway".to_owned());
        let rules = Rules {
            recipients,
            retention: Retention {
                age,
                bytes: recording_retention_bytes,
            },
            instance,
        };
        let key = keys::follow(client.clone(), &system_namespace);
        let ledger = Arc::new(ApiServer(client.clone()));
        Ok(Recorder::new(
            opened, store, key, ledger, rules, metrics, log,
        ))
    }
}

/// A number of bytes, as Kubernetes writes quantities: `500M`, `4Gi`.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err("write it like 500M or 4Gi".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "write it like 500M or 4Gi".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "that is more than there can be".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_quantities() {
        assert_eq!(bytes("4Gi"), Ok(4 << 30));
        assert_eq!(bytes("500M"), Ok(500_000_000));
        assert_eq!(bytes("17"), Ok(17));
        for wrong in ["", "Gi", "4GiB", "-1", "1.5Gi", "99999999999Ti"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
