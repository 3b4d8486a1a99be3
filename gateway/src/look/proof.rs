//! What is checked of a recording before anything is said about it: who vouches for its manifest, that it is this
//! recording's, and that what it names is there. The segments' hashes are checked as they are replayed.

use std::collections::BTreeMap;
use std::time::Duration;

use drawbridge_audit::dsse;
use drawbridge_audit::keys::{KeyId, KeySet};
use drawbridge_audit::recording::{Broken, Manifest, ManifestError, Place};
use drawbridge_crds::names;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::time::timeout;
use uuid::Uuid;

use super::Watched;

/// Longest wait for the public keys.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where the keys are that recordings may be signed with.
#[derive(Clone, Debug)]
pub enum Keys {
    /// In the `ConfigMap` that the operator keeps, earlier keys included. Asked for each time: somebody looks rarely.
    Published(Box<Api<ConfigMap>>),
    /// Here; `None`: they cannot be read.
    #[cfg(test)]
    Here(Option<KeySet>),
}

/// Who vouches for a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The holder of this key.
    Signed(KeyId),
    /// Nobody that this gateway knows of; why, as a sentence's end.
    Unverified(String),
}

impl Keys {
    /// Those the operator publishes in `namespace`.
    #[must_use]
    pub fn published(client: Client, namespace: &str) -> Self {
        Self::Published(Box::new(Api::namespaced(client, namespace)))
    }

    /// The keys, or why they cannot be had.
    ///
    /// # Errors
    /// When the API server does not give them, or they are none.
    pub async fn read(&self) -> Result<KeySet, String> {
        let api = match self {
            Self::Published(api) => api,
            #[cfg(test)]
            Self::Here(keys) => return keys.clone().ok_or_else(|| "not now".to_owned()),
        };
        let map = timeout(TIMEOUT, api.get(names::SIGNING_KEYS)).await;
        let map = map
            .map_err(|_| "no answer from the API server".to_owned())?
            .map_err(|error| error.to_string())?;
        let all: String = map.data.unwrap_or_default().into_values().collect();
        KeySet::from_pem(&all).map_err(|error| error.to_string())
    }
}

/// What the manifest in `file` proves of recording `id` of `of`, of which the store has `segments` by name and length.
///
/// # Errors
/// What is wrong, and where: it is no manifest, or a forged one, or another recording's, or something it names is not
/// there as it says.
pub fn check(
    file: &[u8],
    keys: &Result<KeySet, String>,
    of: &Watched,
    id: Uuid,
    segments: &BTreeMap<String, u64>,
) -> Result<(Manifest, Proof), Broken> {
    let (manifest, proof) = if let Ok(keys) = keys {
        match Manifest::verify(file, keys) {
            Ok((manifest, key)) => (manifest, Proof::Signed(key)),
            Err(ManifestError::Envelope(error @ dsse::Error::Untrusted(_))) => {
                (read(file)?, Proof::Unverified(error.to_string()))
            }
            Err(error) => return Err(broken(&error)),
        }
    } else {
        let why = "the public keys cannot be read at the moment";
        (read(file)?, Proof::Unverified(why.to_owned()))
    };
    let opening = &manifest.opening;
    if opening.recording != id || opening.session.uid != of.uid {
        return Err(broken(&"it is another recording's"));
    }
    for (number, segment) in (0..).zip(&manifest.segments) {
        let place = Place::Segment(number);
        match segments.get(&segment.name) {
            None => return Err(at(place, &"it is not there")),
            Some(&bytes) if bytes != segment.bytes => {
                let why = format!("it has {bytes} bytes, not {}", segment.bytes);
                return Err(at(place, &why));
            }
            Some(_) => {}
        }
    }
    if segments.len() != manifest.segments.len() {
        return Err(broken(&"there are segments that it does not name"));
    }
    Ok((manifest, proof))
}

fn read(file: &[u8]) -> Result<Manifest, Broken> {
    Manifest::read(file).map_err(|error| broken(&error))
}

fn broken(why: &impl ToString) -> Broken {
    at(Place::Manifest, why)
}

fn at(place: Place, why: &impl ToString) -> Broken {
    let why = why.to_string();
    Broken { place, why }
}
