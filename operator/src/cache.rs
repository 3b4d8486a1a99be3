//! A watch cache that also knows what this process wrote a moment ago.
//!
//! A pass must not act on the state before its predecessor's writes: it would write them again, or decide twice. A
//! watch is milliseconds behind; so each write is remembered with the versions it replaced, and wins over the watch for
//! as long as the watch still shows one of those.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tokio::time::Instant;

/// A write the watch has not shown after this long is forgotten: the object was deleted again before anybody looked, or
/// the watch is broken, and then stale writes fail on their preconditions.
pub const FORGET_AFTER: Duration = Duration::from_secs(10);

/// Objects of one kind, by namespace and name. Never asks the API server.
#[derive(Debug)]
pub struct Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store: Store<K>,
    written: Mutex<HashMap<Key, Written<K>>>,
}

type Key = (String, String);

#[derive(Debug)]
struct Written<K> {
    /// Resource versions that were replaced; `None` stands for "there was no such object".
    replaced: Vec<Option<String>>,
    /// What there is now.
    now: Option<Arc<K>>,
    at: Instant,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    /// A cache over what a watch puts into `store`.
    #[must_use]
    pub fn new(store: Store<K>) -> Self {
        Self {
            store,
            written: Mutex::default(),
        }
    }

    /// What the watch shows, all of it.
    #[must_use]
    pub fn watched(&self) -> &Store<K> {
        &self.store
    }

    /// The object, as the watch shows it or as this process wrote it, whichever is newer.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let watched = self.store.get(&ObjectRef::new(name).within(namespace));
        let mut written = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let Some(write) = written.get(&key) else {
            return watched;
        };
        let version = watched
            .as_ref()
            .and_then(|object| object.resource_version());
        if write.replaced.contains(&version) && write.at.elapsed() < FORGET_AFTER {
            return write.now.clone();
        }
        written.remove(&key);
        watched
    }

    /// Whether [`Cache::get`] would answer from a write the watch has not shown yet.
    #[must_use]
    pub fn is_ahead(&self, namespace: &str, name: &str) -> bool {
        let _ = self.get(namespace, name); // forgets what is settled
        self.lock()
            .contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// Remembers that this process replaced `before` (as [`Cache::get`] gave it) by `now`; `None` means no object.
    pub fn wrote(&self, namespace: &str, name: &str, before: Option<&K>, now: Option<Arc<K>>) {
        let mut written = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let mut replaced = written
            .remove(&key)
            .map(|write| write.replaced)
            .unwrap_or_default();
        replaced.push(before.and_then(ResourceExt::resource_version));
        let at = Instant::now();
        written.insert(key, Written { replaced, now, at });
    }

    /// Drops memories the watch has overtaken or that are too old. Called for every object the watch reports.
    pub fn settle(&self, object: &K) {
        let _ = self.get(&object.namespace().unwrap_or_default(), &object.name_any());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Written<K>>> {
        // Every critical section is one lookup or insert: a panic elsewhere leaves nothing half done.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceAccount;
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;

    use super::*;

    fn account(version: &str) -> ServiceAccount {
        let mut account = ServiceAccount::default();
        account.metadata.namespace = Some("ns".into());
        account.metadata.name = Some("a".into());
        account.metadata.resource_version = Some(version.into());
        account
    }

    fn cached(cache: &Cache<ServiceAccount>) -> Option<String> {
        cache
            .get("ns", "a")
            .and_then(|object| object.resource_version())
    }

    fn cache() -> (Writer<ServiceAccount>, Cache<ServiceAccount>) {
        let writer = Writer::default();
        let cache = Cache::new(writer.as_reader());
        (writer, cache)
    }

    #[tokio::test]
    async fn a_write_is_seen_before_the_watch_shows_it_and_not_after_something_newer() {
        let (mut writer, cache) = cache();
        assert_eq!(cached(&cache), None);
        cache.wrote("ns", "a", None, Some(Arc::new(account("1"))));
        assert_eq!(cached(&cache).as_deref(), Some("1"), "created");
        cache.wrote("ns", "a", Some(&account("1")), Some(Arc::new(account("2"))));
        assert_eq!(cached(&cache).as_deref(), Some("2"), "changed");
        writer.apply_watcher_event(&Event::Apply(account("1")));
        assert_eq!(cached(&cache).as_deref(), Some("2"), "the watch is behind");
        writer.apply_watcher_event(&Event::Apply(account("3")));
        assert_eq!(
            cached(&cache).as_deref(),
            Some("3"),
            "somebody else was faster"
        );
        cache.wrote("ns", "a", Some(&account("3")), None);
        assert_eq!(cached(&cache), None, "deleted");
        writer.apply_watcher_event(&Event::Delete(account("3")));
        writer.apply_watcher_event(&Event::Apply(account("4")));
        assert_eq!(cached(&cache).as_deref(), Some("4"), "made again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_the_watch_never_shows_is_forgotten() {
        let (_writer, cache) = cache();
        cache.wrote("ns", "a", None, Some(Arc::new(account("1"))));
        assert!(cache.is_ahead("ns", "a"));
        tokio::time::advance(FORGET_AFTER).await;
        assert_eq!(cached(&cache), None);
        assert!(!cache.is_ahead("ns", "a"));
    }

    #[tokio::test]
    async fn an_object_that_comes_and_goes_leaves_nothing_behind() {
        let (mut writer, cache) = cache();
        cache.wrote("ns", "a", None, Some(Arc::new(account("1"))));
        writer.apply_watcher_event(&Event::Apply(account("1")));
        cache.settle(&account("1"));
        writer.apply_watcher_event(&Event::Delete(account("1")));
        cache.settle(&account("1"));
        assert_eq!(cached(&cache), None);
        assert!(cache.lock().is_empty());
    }
}
