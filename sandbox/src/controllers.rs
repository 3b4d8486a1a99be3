//! What a controller manager does in a cluster: namespaces and their contents, owners and what they own, the ServiceAccount
//! and the certificate of each namespace, CustomResourceDefinitions that become served.

mod definitions;
mod namespaces;
mod owners;
mod roles;

use std::sync::Arc;

use serde_json::Value;

use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::store::{Change, Key};

/// What a controller does about one change. A change it cannot answer now (a write came in between) is followed by
/// another one, which it can.
trait Controller: Send + Sync + 'static {
    /// `before` and `after` are `None` for what was not there, and is not.
    fn seen(
        &self,
        key: &Key,
        before: Option<&Value>,
        after: Option<&Arc<Value>>,
    ) -> impl Future<Output = ()> + Send;
}

/// Starts all of them, until the sandbox stops. Returns once every namespace has what it needs.
pub async fn start(cluster: &Arc<Cluster>) {
    let namespaces = namespaces::Namespaces(Arc::clone(cluster));
    namespaces.furnish_all().await;
    let definitions = definitions::Definitions(Arc::clone(cluster));
    let owners = owners::Owners(Arc::clone(cluster));
    let roles = roles::Roles(Arc::clone(cluster));
    for (key, object) in cluster.store.all() {
        roles.seen(&key, None, Some(&object)).await;
    }
    run(cluster, namespaces);
    run(cluster, definitions);
    run(cluster, owners);
    run(cluster, roles);
}

/// Shows a controller everything there is, and then every change. Starts over when it fell behind.
fn run(cluster: &Arc<Cluster>, controller: impl Controller) {
    let (store, stop) = (Arc::clone(&cluster.store), cluster.stop.clone());
    cluster.tasks.spawn(async move {
        let follow = async {
            loop {
                let mut watch = store.watch_all();
                for (key, object) in store.all() {
                    controller.seen(&key, None, Some(&object)).await;
                }
                while let Ok(event) = watch.next().await {
                    let after = (event.change != Change::Deleted).then_some(&event.object);
                    let before = match event.change {
                        Change::Deleted => Some(&*event.object),
                        _ => event.before.as_deref(),
                    };
                    controller.seen(&event.key, before, after).await;
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    });
}

/// As whom a controller acts.
fn identity(name: &str) -> Identity {
    Identity::sandbox(&format!("system:serviceaccount:kube-system:{name}"))
}

/// The kind of a stored object.
fn kind_of(cluster: &Cluster, object: &Value) -> Option<Arc<Kind>> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    cluster.kinds.of(text("apiVersion"), text("kind"))
}

/// Brings the condition of a type up to date; its transition time only if its status changes.
fn set_condition(object: &mut Value, now: &str, kind: &str, status: bool, why: (&str, &str)) {
    let (status, (reason, message)) = (if status { "True" } else { "False" }, why);
    let conditions = &mut object["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = Value::Array(Vec::new());
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut next = serde_json::json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|known| known["type"] == kind) {
        Some(known) => {
            if known["status"] == next["status"] {
                next["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = next;
        }
        None => conditions.push(next),
    }
}

/// The time as conditions have it.
fn time(cluster: &Cluster) -> String {
    let now = cluster.clock.now();
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
