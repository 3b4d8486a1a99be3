//! What a controller manager does in a cluster: namespaces and their contents, owners and what they own, the ServiceAccount
//! and the certificate of each namespace, CustomResourceDefinitions that become served.

use std::sync::Arc;

use crate::cluster::Cluster;

/// Runs all of them until the sandbox stops.
pub async fn run(_cluster: Arc<Cluster>) {
    todo!("controllers")
}
