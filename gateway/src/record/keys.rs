//! The key that manifests are signed with: the operator makes and rotates it.

use std::sync::Arc;
use std::time::Duration;

use drawbridge_audit::keys::SigningKey;
use drawbridge_crds::names;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::{info, warn};

/// How often the Secret is read. The old key is published after a rotation as before it, so nobody is in a hurry.
const LOOK: Duration = Duration::from_mins(1);
/// The same, as long as there is no key: nothing can be recorded until then.
const LOOK_FOR_THE_FIRST: Duration = Duration::from_millis(500);
/// Longest wait for an answer of the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The key in use, once there is one.
pub type Key = watch::Receiver<Option<Arc<SigningKey>>>;

/// Follows the Secret in `namespace` from now on, in a task of its own.
#[must_use]
pub fn follow(client: Client, namespace: &str) -> Key {
    let (tx, rx) = watch::channel(None);
    let secrets = Api::namespaced(client, namespace);
    tokio::spawn(async move {
        let mut told = None;
        while !tx.is_closed() {
            match read(&secrets).await {
                Ok(key) => {
                    told = None;
                    let new = |now: &Option<Arc<SigningKey>>| {
                        now.as_ref().is_none_or(|now| now.id() != key.id())
                    };
                    if new(&tx.borrow()) {
                        info!(key = %key.id(), "records are signed with this key from now on");
                        tx.send_replace(Some(Arc::new(key)));
                    }
                }
                Err(error) => {
                    if told.as_ref() != Some(&error) {
                        warn!(error, "cannot read the key that records are signed with");
                        told = Some(error);
                    }
                }
            }
            let pause = if tx.borrow().is_some() {
                LOOK
            } else {
                LOOK_FOR_THE_FIRST
            };
            tokio::time::sleep(pause).await;
        }
    });
    rx
}

async fn read(secrets: &Api<Secret>) -> Result<SigningKey, String> {
    let secret = tokio::time::timeout(CALL_TIMEOUT, secrets.get(names::SIGNING_SECRET));
    let secret = secret
        .await
        .map_err(|_| "no answer from the API server".to_owned())?
        .map_err(|error| error.to_string())?;
    let data = secret.data.unwrap_or_default();
    let pem = data
        .get(names::SIGNING_KEY)
        .and_then(|pem| std::str::from_utf8(&pem.0).ok())
        .ok_or("the Secret holds no key")?;
    SigningKey::from_pem(pem).map_err(|error| error.to_string())
}
