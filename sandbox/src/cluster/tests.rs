//! A cluster without servers, for the tests of its parts.

use super::*;

impl Cluster {
    /// One that serves nothing, with the kinds built in and the roles every cluster begins with.
    pub(crate) fn for_tests(release: Release) -> Arc<Self> {
        let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
        let pki = Pki::new().unwrap();
        let cluster = Self {
            store: Arc::default(),
            kinds: Kinds::builtin(release),
            clock: Clock::default(),
            release,
            tls: pki.server_config().unwrap(),
            pki,
            tokens: Tokens::new().unwrap(),
            faults: watch::Sender::default(),
            pods: crate::pods::Pods::default(),
            address: nowhere,
            kubelet: nowhere,
            audit: tempfile::tempfile().unwrap(),
            dir: PathBuf::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        for object in crate::auth::rbac::bootstrap() {
            cluster.put(object);
        }
        Arc::new(cluster)
    }

    /// Where an object of a built-in kind is stored.
    pub(crate) fn key(&self, object: &serde_json::Value) -> crate::store::Key {
        let text = |field: &str| object[field].as_str().unwrap();
        let kind = self.kinds.of(text("apiVersion"), text("kind")).unwrap();
        crate::store::Key {
            resource: kind.resource().into(),
            namespace: crate::object::namespace(object).to_owned(),
            name: crate::object::name(object).to_owned(),
        }
    }

    /// Stores an object as it is, with a UID of its own unless it has one. Returns the UID.
    pub(crate) fn put(&self, mut object: serde_json::Value) -> String {
        let fresh = uuid::Uuid::new_v4().to_string();
        let metadata = crate::object::metadata_mut(&mut object);
        metadata.entry("uid").or_insert(fresh.into());
        let uid = crate::object::uid(&object).to_owned();
        let key = self.key(&object);
        self.store.write(&key, None, Some(object)).unwrap();
        uid
    }

    /// Removes an object.
    pub(crate) fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let key = self.key(&serde_json::json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"namespace": namespace, "name": name},
        }));
        let live = self.store.get(&key).unwrap();
        self.store.write(&key, Some(&live), None).unwrap();
    }
}
