//! The key that records are signed with: made once, replaced from time to time, its public half published for good.
//!
//! | object | where | what |
//! |---|---|---|
//! | Secret `drawbridge-signing` | beside the operator | the key in use |
//! | ConfigMap `drawbridge-signing-keys` | beside it | every public key that was ever in use, so that old records can be verified |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drawbridge_audit::keys::SigningKey;
use drawbridge_audit::log::Log;
use drawbridge_crds::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::FIELD_MANAGER;
use crate::watches::chain;

/// Annotation of the Secret: since when its key is in use (RFC 3339).
const SINCE: &str = "drawbridge.dev/signs-since";
/// How often the key is looked at.
const LOOK: Duration = Duration::from_mins(10);
/// The same after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait for one answer of the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The signing key's keeper. Only the replica that leads may be at work.
#[derive(Clone, Debug)]
pub struct Signing {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    rotation: Duration,
    log: Log,
}

/// Why there may be no key, or not the right one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("failed to {what}")]
    Api {
        /// To do what.
        what: &'static str,
        /// Why.
        source: kube::Error,
    },
    /// It did not answer.
    #[error("no answer from the API server within 10 s: failed to {0}")]
    Timeout(&'static str),
    /// The Secret holds something else. It is not overwritten: records may be signed with what it held.
    #[error(
        "the Secret {} holds no signing key; delete it and a new one is made",
        names::SIGNING_SECRET
    )]
    NoKey,
}

/// What is to be done about the key.
#[derive(Debug, PartialEq, Eq)]
enum Todo {
    /// Nothing but to see that it is published.
    Keep,
    /// Make the first.
    Make,
    /// Make the next.
    Replace,
}

impl Signing {
    /// The keeper of the key in `namespace`, which is replaced after `rotation`.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, rotation: Duration) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client.clone(), namespace),
            rotation,
            log: Log::discard(),
        }
    }

    /// Has the checkpoints of `log` signed with the key in use.
    #[must_use]
    pub fn signing(mut self, log: Log) -> Self {
        self.log = log;
        self
    }

    /// Keeps the key. Never returns.
    pub async fn keep(&self) {
        loop {
            let pause = match self.ensure(Timestamp::now()).await {
                Ok(()) => LOOK.min(self.rotation),
                Err(error) => {
                    warn!(error = chain(&error), "the signing key cannot be kept");
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    /// Sees that there is a key, that it is not too old, and that everybody can verify with it.
    ///
    /// # Errors
    /// What could not be read or written; nothing is signed with a key that is not published.
    pub async fn ensure(&self, now: Timestamp) -> Result<(), Error> {
        let found = call(
            "read the Secret",
            self.secrets.get_opt(names::SIGNING_SECRET),
        )
        .await?;
        let since = found.as_ref().and_then(since);
        match (todo(found.is_some(), since, self.rotation, now), found) {
            (Todo::Keep, Some(secret)) => {
                let key = key_of(&secret).ok_or(Error::NoKey)?;
                self.publish(&key, since.unwrap_or(now), None).await?;
                self.log.sign_with(Arc::new(key));
                Ok(())
            }
            (Todo::Replace, Some(secret)) => {
                let old = key_of(&secret).ok_or(Error::NoKey)?;
                let new = SigningKey::generate();
                self.publish(&new, now, None).await?;
                let written = self.put(&new, now, secret.resource_version()).await?;
                info!(key = %new.id(), replaces = %old.id(), "made the next signing key");
                if written {
                    self.publish(&old, since.unwrap_or(now), Some(now)).await?;
                    self.log.sign_with(Arc::new(new));
                }
                Ok(())
            }
            _ => {
                let key = SigningKey::generate();
                self.publish(&key, now, None).await?;
                if self.put(&key, now, None).await? {
                    info!(key = %key.id(), "made the first signing key");
                    self.log.sign_with(Arc::new(key));
                }
                Ok(())
            }
        }
    }

    /// Puts a key into the Secret; `false`: somebody else was faster.
    async fn put(
        &self,
        key: &SigningKey,
        now: Timestamp,
        over: Option<String>,
    ) -> Result<bool, Error> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(names::SIGNING_SECRET.into()),
                annotations: Some(BTreeMap::from([(SINCE.into(), now.to_string())])),
                resource_version: over.clone(),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(
                names::SIGNING_KEY.into(),
                ByteString(key.to_pem().into_bytes()),
            )])),
            type_: Some("Opaque".into()),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let written = if over.is_some() {
            let patch = Patch::Merge(&secret);
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PatchParams::default()
            };
            let name = names::SIGNING_SECRET;
            call("replace the key", self.secrets.patch(name, &params, &patch)).await
        } else {
            call("write the Secret", self.secrets.create(&params, &secret)).await
        };
        match written {
            Ok(_) => Ok(true),
            Err(Error::Api {
                source: kube::Error::Api(status),
                ..
            }) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds a public key to the ConfigMap, or says until when it was in use. Others in it stay as they are.
    async fn publish(
        &self,
        key: &SigningKey,
        since: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<(), Error> {
        let name = format!("{}.pem", key.id());
        let text = published(key, since, until);
        let found = call("read the ConfigMap", self.maps.get_opt(names::SIGNING_KEYS)).await?;
        let Some(found) = found else {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(names::SIGNING_KEYS.into()),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(name, text)])),
                ..ConfigMap::default()
            };
            let params = PostParams::default();
            let create = self.maps.create(&params, &map);
            return call("write the ConfigMap", create).await.map(drop);
        };
        let there = found.data.as_ref().and_then(|data| data.get(&name));
        if there == Some(&text) {
            return Ok(());
        }
        let patch = json!({"data": {name: text}});
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(&patch);
        let patch = self.maps.patch(names::SIGNING_KEYS, &params, &patch);
        call("publish the key", patch).await.map(drop)
    }
}

/// What the ConfigMap says of a key: PEM, with a line before it for people.
fn published(key: &SigningKey, since: Timestamp, until: Option<Timestamp>) -> String {
    let pem = key.public().to_pem().replace('\r', "");
    match until {
        None => format!("Signs records since {since}.\n{pem}"),
        Some(until) => format!("Signed records from {since} until {until}.\n{pem}"),
    }
}

fn todo(exists: bool, since: Option<Timestamp>, rotation: Duration, now: Timestamp) -> Todo {
    if !exists {
        return Todo::Make;
    }
    let most = SignedDuration::try_from(rotation).unwrap_or(SignedDuration::MAX);
    match since {
        Some(since) if now.duration_since(since) >= most => Todo::Replace,
        // Without a time somebody else made it, and replaces it.
        _ => Todo::Keep,
    }
}

fn since(secret: &Secret) -> Option<Timestamp> {
    secret.annotations().get(SINCE)?.parse().ok()
}

fn key_of(secret: &Secret) -> Option<SigningKey> {
    let pem = &secret.data.as_ref()?.get(names::SIGNING_KEY)?.0;
    SigningKey::from_pem(std::str::from_utf8(pem).ok()?).ok()
}

async fn call<T>(
    what: &'static str,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    let answer = timeout(CALL_TIMEOUT, answer).await;
    answer
        .map_err(|_| Error::Timeout(what))?
        .map_err(|source| Error::Api { what, source })
}

#[cfg(test)]
mod tests {
    use drawbridge_audit::keys::KeySet;

    use super::*;
    use crate::fake;

    const SECRET: &str = "/api/v1/namespaces/drawbridge-system/secrets/drawbridge-signing";
    const MAP: &str = "/api/v1/namespaces/drawbridge-system/configmaps/drawbridge-signing-keys";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn signing(api: &fake::Api) -> Signing {
        let rotation = Duration::from_secs(1000);
        Signing::new(&api.client(), names::SYSTEM_NAMESPACE, rotation)
    }

    fn secret(api: &fake::Api) -> Secret {
        serde_json::from_value(api.get(SECRET).expect("made")).expect("a Secret")
    }

    /// Every key published.
    fn keys(api: &fake::Api) -> KeySet {
        let map: ConfigMap =
            serde_json::from_value(api.get(MAP).expect("made")).expect("a ConfigMap");
        let all: String = map.data.unwrap_or_default().into_values().collect();
        KeySet::from_pem(&all).expect("keys")
    }

    #[tokio::test]
    async fn a_key_is_made_published_kept_and_replaced_when_its_time_is_over() {
        let api = fake::Api::default();
        let signing = signing(&api);
        signing.ensure(at(0)).await.expect("made");
        let first = key_of(&secret(&api)).expect("a key").id();
        assert!(keys(&api).get(first).is_some());
        signing.ensure(at(999)).await.expect("kept");
        assert_eq!(key_of(&secret(&api)).expect("a key").id(), first);
        signing.ensure(at(1000)).await.expect("replaced");
        let second = key_of(&secret(&api)).expect("a key").id();
        assert_ne!(second, first);
        let published = keys(&api);
        assert!(
            published.get(first).is_some(),
            "old records can be verified"
        );
        assert!(published.get(second).is_some());
        let text = api.get(MAP).expect("made").to_string();
        assert!(text.contains("until 1970-01-01T00:16:40Z"), "{text}");
        assert!(!text.contains("PRIVATE"));
    }

    #[tokio::test]
    async fn a_key_that_is_not_published_any_more_is_published_again() {
        let api = fake::Api::default();
        let signing = signing(&api);
        signing.ensure(at(0)).await.expect("made");
        api.remove(MAP);
        signing.ensure(at(1)).await.expect("published");
        assert_eq!(keys(&api).len(), 1);
    }

    #[test]
    fn a_key_of_unknown_age_is_left_to_whoever_made_it() {
        let day = Duration::from_hours(24);
        assert_eq!(todo(true, None, day, at(1 << 32)), Todo::Keep);
        assert_eq!(todo(false, None, day, at(0)), Todo::Make);
        assert_eq!(todo(true, Some(at(0)), day, at(86_400)), Todo::Replace);
        assert_eq!(
            todo(true, Some(at(500)), day, at(0)),
            Todo::Keep,
            "a clock set back"
        );
    }
}
