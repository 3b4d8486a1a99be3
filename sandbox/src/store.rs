//! Objects by kind, namespace and name; every change has a revision and can be watched.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

/// Changes kept for watchers that come later; who asks for older ones is told to list again (410). A thousand sessions
/// make about ten objects each.
pub const KEPT: usize = 20_000;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `pods`, or `consolesessions.drawbridge.dev`: resource and group, without the version.
    pub resource: Arc<str>,
    /// Empty for what is in none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// Where the object of this name is; `namespace` is empty for what is in none.
    #[must_use]
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn is(&self, resource: &str, namespace: &str) -> bool {
        *self.resource == *resource && ["", self.namespace.as_str()].contains(&namespace)
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    /// Grows by one with each change of any object.
    pub revision: u64,
    /// Where.
    pub key: Key,
    /// The object before it; `None` for a new one.
    pub before: Option<Arc<Value>>,
    /// The object after it; of one removed the last state, at the revision of its removal.
    pub object: Arc<Value>,
    /// Whether it was removed.
    pub gone: bool,
}

/// A write that came too late: what is there is not what it was to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was changed meanwhile")]
pub struct Raced;

/// All objects.
#[derive(Debug, Default)]
pub struct Store {
    inner: Mutex<Inner>,
    /// Of the last change; written while `inner` is locked.
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Event>,
    /// Revision before the oldest change in `log`.
    forgotten: u64,
}

impl Inner {
    fn since(&self, revision: u64) -> Option<impl DoubleEndedIterator<Item = &Event>> {
        let begin = self.log.partition_point(|event| event.revision <= revision);
        (revision >= self.forgotten).then(|| self.log.range(begin..))
    }
}

impl Store {
    /// Revision of the last change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// The object there.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().objects.get(key).cloned()
    }

    /// The objects of one kind, in one namespace or all (`""`), in order of namespace and name, and the revision at which
    /// this was so.
    pub(crate) fn list(&self, resource: &str, namespace: &str) -> (u64, Vec<Arc<Value>>) {
        let now = self.list_at(resource, namespace, None);
        now.unwrap_or_default() // what is now is known
    }

    /// The same as it was at a revision, if one is given; `None` if the changes since then are no longer known.
    pub(crate) fn list_at(
        &self,
        resource: &str,
        namespace: &str,
        at: Option<u64>,
    ) -> Option<(u64, Vec<Arc<Value>>)> {
        let inner = self.lock();
        let at = at.unwrap_or_else(|| self.revision());
        let rest = inner.objects.range(Key::new(resource, namespace, "")..);
        let all = rest.take_while(|(key, _)| key.is(resource, namespace));
        let mut then: BTreeMap<&Key, &Arc<Value>> = all.collect();
        let later = inner.since(at)?.rev();
        for event in later.filter(|event| event.key.is(resource, namespace)) {
            match &event.before {
                Some(before) => then.insert(&event.key, before),
                None => then.remove(&event.key),
            };
        }
        Some((at, then.into_values().cloned().collect()))
    }

    /// Every object, whatever its kind.
    pub(crate) fn all(&self) -> Vec<(Key, Arc<Value>)> {
        self.lock().objects.clone().into_iter().collect()
    }

    /// Stores `next` in place of `live`, or removes it if there is no `next`; without `live`, `next` is new. Returns what
    /// is stored, with its new `resourceVersion`, or the last state of what was removed. An object equal to the one
    /// stored is no change: it gets no new revision and nobody is told.
    ///
    /// # Errors
    /// When what is there has another revision than `live`, or is there or not there against expectation.
    pub fn write(
        &self,
        key: &Key,
        live: Option<&Value>,
        next: Option<Value>,
    ) -> Result<Arc<Value>, Raced> {
        let mut inner = self.lock();
        let before = inner.objects.get(key).cloned();
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        if before.as_deref().map(version) != live.map(version) {
            return Err(Raced);
        }
        let gone = next.is_none();
        let mut object = next.unwrap_or_else(|| before.as_deref().cloned().unwrap_or_default());
        if let Some(before) = before.as_ref().filter(|_| !gone) {
            object["metadata"]["resourceVersion"] = version(before);
            if **before == object {
                return Ok(Arc::clone(before));
            }
        }
        let revision = self.revision() + 1;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let object = Arc::new(object);
        if gone {
            inner.objects.remove(key);
        } else {
            inner.objects.insert(key.clone(), Arc::clone(&object));
        }
        if inner.log.len() == KEPT {
            inner.forgotten = inner.log.pop_front().map_or(0, |event| event.revision);
        }
        inner.log.push_back(Event {
            revision,
            key: key.clone(),
            before,
            object: Arc::clone(&object),
            gone,
        });
        self.revision.send_replace(revision);
        Ok(object)
    }

    /// Changes after the revision `since`, of one kind (empty for every) and from one namespace or all (`""`).
    #[must_use]
    pub fn watch(self: &Arc<Self>, resource: &str, namespace: &str, since: u64) -> Watch {
        Watch {
            store: Arc::clone(self),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            seen: since,
        }
    }

    /// Forgets all changes up to now, so that older watches get 410.
    pub fn compact(&self) {
        let mut inner = self.lock();
        inner.log.clear();
        inner.forgotten = self.revision();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the sequence of changes.
#[derive(Debug)]
pub struct Watch {
    store: Arc<Store>,
    resource: String,
    namespace: String,
    /// Revision up to which everything was returned.
    pub seen: u64,
}

impl Watch {
    /// The next change; waits for it. Can be dropped while it waits without losing one. `None` once the changes since what
    /// was seen are no longer known.
    pub async fn next(&mut self) -> Option<Event> {
        let mut revision = self.store.revision.subscribe();
        loop {
            let found = {
                let inner = self.store.lock();
                let wanted = |event: &&Event| {
                    self.resource.is_empty() || event.key.is(&self.resource, &self.namespace)
                };
                let found = inner.since(self.seen)?.find(wanted).cloned();
                self.seen = self.seen.max(self.store.revision());
                found
            };
            if let Some(event) = found {
                self.seen = event.revision;
                return Some(event);
            }
            let seen = self.seen;
            // Cannot fail: `store` holds the sender.
            let _ = revision.wait_for(|revision| *revision > seen).await;
        }
    }
}
