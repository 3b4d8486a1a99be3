//! Objects by kind, namespace and name; every change has a revision and can be watched.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use crate::object::{metadata_mut, revision};

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

    fn is(&self, resource: &str, namespace: Option<&str>) -> bool {
        *self.resource == *resource && namespace.is_none_or(|wanted| self.namespace == wanted)
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Created.
    Added,
    /// Replaced.
    Modified,
    /// Removed; the object is the last one, at the revision of its removal.
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    /// Grows by one with each change of any object.
    pub revision: u64,
    /// What happened.
    pub change: Change,
    /// Where.
    pub key: Key,
    /// The object after it.
    pub object: Arc<Value>,
    /// The object before it, for selectors that matched then and do not now. `None` for `Added`.
    pub before: Option<Arc<Value>>,
}

/// A write that cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The name is taken.
    #[error("it exists already")]
    Exists,
    /// There is none.
    #[error("there is none")]
    Missing,
    /// It has another revision than expected.
    #[error("it was changed meanwhile")]
    Changed,
}

/// The revision asked for is no longer known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the changes since that revision are no longer known")]
pub struct TooOld {
    /// The oldest revision a watch can start from.
    pub oldest: u64,
}

/// All objects.
#[derive(Debug, Default)]
pub struct Store {
    inner: Mutex<Inner>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    revision: u64,
    /// Revision before the oldest change in `log`.
    forgotten: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Event>,
}

impl Inner {
    fn of(&self, resource: &str, namespace: Option<&str>) -> BTreeMap<&Key, &Arc<Value>> {
        let from = Key::new(resource, namespace.unwrap_or_default(), "");
        let rest = self.objects.range(from..);
        let all = rest.take_while(|(key, _)| key.is(resource, namespace));
        all.collect()
    }

    fn known_since(&self, revision: u64) -> Result<(), TooOld> {
        let oldest = self.forgotten;
        (revision >= oldest).then_some(()).ok_or(TooOld { oldest })
    }
}

impl Store {
    /// Revision of the last change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// The object there.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().objects.get(key).cloned()
    }

    /// The objects of one kind, in one namespace or all, in order of namespace and name, and the revision at which this
    /// was so.
    #[must_use]
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> (u64, Vec<Arc<Value>>) {
        let inner = self.lock();
        let all = inner.of(resource, namespace).into_values().cloned();
        (inner.revision, all.collect())
    }

    /// The same as it was at `revision`.
    ///
    /// # Errors
    /// When the changes since then are no longer known.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Vec<Arc<Value>>, TooOld> {
        let inner = self.lock();
        inner.known_since(revision)?;
        let mut then = inner.of(resource, namespace);
        let latest = inner.log.iter().rev();
        let later = latest.take_while(|event| event.revision > revision);
        for event in later.filter(|event| event.key.is(resource, namespace)) {
            match &event.before {
                Some(before) => then.insert(&event.key, before),
                None => then.remove(&event.key),
            };
        }
        Ok(then.into_values().cloned().collect())
    }

    /// Every object, whatever its kind.
    #[must_use]
    pub fn all(&self) -> Vec<(Key, Arc<Value>)> {
        self.lock().objects.clone().into_iter().collect()
    }

    /// Stores a new object and gives it its `resourceVersion`.
    ///
    /// # Errors
    /// [`Rejected::Exists`]
    #[expect(clippy::needless_pass_by_value, reason = "it is kept")]
    pub fn create(&self, key: Key, object: Value) -> Result<Arc<Value>, Rejected> {
        self.write(&key, None, Some(object))
    }

    /// Replaces an object that still has the revision `expected`. An object equal to the one stored is no change: it
    /// gets no new revision and nobody is told.
    ///
    /// # Errors
    /// [`Rejected::Missing`], [`Rejected::Changed`]
    pub fn replace(&self, key: &Key, expected: u64, object: Value) -> Result<Arc<Value>, Rejected> {
        self.write(key, Some(expected), Some(object))
    }

    /// Removes an object that still has the revision `expected`; returns its last state.
    ///
    /// # Errors
    /// [`Rejected::Missing`], [`Rejected::Changed`]
    pub fn remove(&self, key: &Key, expected: u64) -> Result<Arc<Value>, Rejected> {
        self.write(key, Some(expected), None)
    }

    /// Changes of one kind after `revision`, from one namespace or all.
    ///
    /// # Errors
    /// When they are no longer known.
    pub fn watch(
        self: &Arc<Self>,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Watch, TooOld> {
        self.lock().known_since(revision)?;
        Ok(Watch {
            resource: Some(resource.to_owned()),
            namespace: namespace.map(str::to_owned),
            seen: revision,
            ..self.watch_all()
        })
    }

    /// Changes of every kind from now on, for controllers.
    #[must_use]
    pub fn watch_all(self: &Arc<Self>) -> Watch {
        Watch {
            store: Arc::clone(self),
            resource: None,
            namespace: None,
            seen: self.revision(),
            revision: self.revision.subscribe(),
        }
    }

    /// Forgets all changes up to now, so that older watches get 410.
    pub fn compact(&self) {
        let mut inner = self.lock();
        inner.log.clear();
        inner.forgotten = inner.revision;
    }

    /// Every change: `expected` is the revision before it, `object` what is there after it, each `None` for nothing.
    fn write(
        &self,
        key: &Key,
        expected: Option<u64>,
        object: Option<Value>,
    ) -> Result<Arc<Value>, Rejected> {
        let mut inner = self.lock();
        let before = inner.objects.get(key).cloned();
        let change = match (&before, expected) {
            (None, None) => Change::Added,
            (None, Some(_)) => return Err(Rejected::Missing),
            (Some(_), None) => return Err(Rejected::Exists),
            (Some(before), Some(expected)) if revision(before) != expected => {
                return Err(Rejected::Changed);
            }
            _ if object.is_none() => Change::Deleted,
            _ => Change::Modified,
        };
        let mut object = object.unwrap_or_else(|| before.as_deref().cloned().unwrap_or_default());
        let stamp = |object: &mut Value, revision: u64| {
            metadata_mut(object).insert("resourceVersion".into(), revision.to_string().into());
        };
        if let (Change::Modified, Some(before)) = (change, &before) {
            stamp(&mut object, revision(before));
            if **before == object {
                return Ok(Arc::clone(before));
            }
        }
        inner.revision += 1;
        let revision = inner.revision;
        stamp(&mut object, revision);
        let object = Arc::new(object);
        match change {
            Change::Deleted => inner.objects.remove(key),
            _ => inner.objects.insert(key.clone(), Arc::clone(&object)),
        };
        if inner.log.len() == KEPT {
            inner.forgotten = inner.log.pop_front().map_or(0, |event| event.revision);
        }
        inner.log.push_back(Event {
            revision,
            change,
            key: key.clone(),
            object: Arc::clone(&object),
            before,
        });
        self.revision.send_replace(revision);
        Ok(object)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the sequence of changes.
#[derive(Debug)]
pub struct Watch {
    store: Arc<Store>,
    resource: Option<String>,
    namespace: Option<String>,
    seen: u64,
    revision: watch::Receiver<u64>,
}

impl Watch {
    /// Revision up to which everything was returned.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The next change; waits for it. Can be dropped while it waits without losing one.
    ///
    /// # Errors
    /// When the watch fell behind so far that changes were forgotten.
    pub async fn next(&mut self) -> Result<Event, TooOld> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(event);
            }
            let seen = self.seen;
            // Cannot fail: `store` holds the sender.
            let _ = self.revision.wait_for(|revision| *revision > seen).await;
        }
    }

    /// The next change that has happened already.
    ///
    /// # Errors
    /// When the watch fell behind so far that changes were forgotten.
    pub fn take(&mut self) -> Result<Option<Event>, TooOld> {
        let inner = self.store.lock();
        inner.known_since(self.seen)?;
        let (log, seen) = (&inner.log, self.seen);
        let begin = log.partition_point(|event| event.revision <= seen);
        let (resource, namespace) = (self.resource.as_deref(), self.namespace.as_deref());
        let wanted =
            |event: &&Event| resource.is_none_or(|resource| event.key.is(resource, namespace));
        let found = log.range(begin..).find(wanted).cloned();
        let last = found.as_ref().map(|event| event.revision);
        self.seen = last.unwrap_or(seen.max(inner.revision));
        Ok(found)
    }
}
