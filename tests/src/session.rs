//! A granted session and what its user holds.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use drawbridge_crds::v1alpha1::ConsoleSession;
use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::kubectl::Kubectl;

/// A session that is Ready.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its namespace, and the pod's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The pod it is for.
    pub pod: String,
    /// The token in the user's Secret.
    pub token: String,
    /// The kubeconfig in the user's Secret, as a file.
    pub kubeconfig: PathBuf,
    /// The object as it was when it had become Ready.
    pub object: ConsoleSession,
}

impl Session {
    /// kubectl as the user runs it: with the kubeconfig of the Secret and nothing else.
    ///
    /// # Errors
    /// When there is none, or no directory for its cache can be made.
    pub async fn kubectl(&self, cluster: &Cluster) -> Result<Kubectl> {
        cluster.kubectl_with(&self.kubeconfig).await
    }

    /// When access ends.
    ///
    /// # Errors
    /// When the status does not say, which it must.
    pub fn expires_at(&self) -> Result<Timestamp> {
        let status = self
            .object
            .status
            .as_ref()
            .and_then(|status| status.expires_at.as_ref());
        Ok(status.context("a Ready session has an expiresAt")?.0)
    }
}
