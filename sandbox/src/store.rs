//! Objects by kind, namespace and name; every change has a revision and can be watched.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use crate::object::metadata_mut;

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
#[derive(Debug)]
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
    fn of<'a>(
        &'a self,
        resource: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let from = Key::new(resource, namespace.unwrap_or_default(), "");
        self.objects
            .range(from..)
            .take_while(move |(key, _)| key.is(resource, namespace))
    }

    fn known_since(&self, revision: u64) -> Result<(), TooOld> {
        let oldest = self.forgotten;
        if revision < oldest {
            Err(TooOld { oldest })
        } else {
            Ok(())
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            revision: watch::Sender::new(0),
        }
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
        let all = inner.of(resource, namespace);
        (
            inner.revision,
            all.map(|(_, object)| Arc::clone(object)).collect(),
        )
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
        let mut then: BTreeMap<&Key, &Arc<Value>> = inner.of(resource, namespace).collect();
        let later = inner.log.iter().rev();
        let later = later.take_while(|event| event.revision > revision);
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
        let inner = self.lock();
        let all = inner.objects.iter();
        all.map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect()
    }

    /// Stores a new object and gives it its `resourceVersion`.
    ///
    /// # Errors
    /// [`Rejected::Exists`]
    pub fn create(&self, key: Key, object: Value) -> Result<Arc<Value>, Rejected> {
        let mut inner = self.lock();
        if inner.objects.contains_key(&key) {
            return Err(Rejected::Exists);
        }
        Ok(self.commit(&mut inner, key, Change::Added, object, None))
    }

    /// Replaces an object that still has the revision `expected`. An object equal to the one stored is no change: it
    /// gets no new revision and nobody is told.
    ///
    /// # Errors
    /// [`Rejected::Missing`], [`Rejected::Changed`]
    pub fn replace(
        &self,
        key: &Key,
        expected: u64,
        mut object: Value,
    ) -> Result<Arc<Value>, Rejected> {
        let mut inner = self.lock();
        let before = Self::expect(&inner, key, expected)?;
        metadata_mut(&mut object).insert("resourceVersion".into(), expected.to_string().into());
        if *before == object {
            return Ok(before);
        }
        Ok(self.commit(
            &mut inner,
            key.clone(),
            Change::Modified,
            object,
            Some(before),
        ))
    }

    /// Removes an object that still has the revision `expected`; returns its last state.
    ///
    /// # Errors
    /// [`Rejected::Missing`], [`Rejected::Changed`]
    pub fn remove(&self, key: &Key, expected: u64) -> Result<Arc<Value>, Rejected> {
        let mut inner = self.lock();
        let before = Self::expect(&inner, key, expected)?;
        inner.objects.remove(key);
        let last = (*before).clone();
        Ok(self.commit(&mut inner, key.clone(), Change::Deleted, last, Some(before)))
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

    fn expect(inner: &Inner, key: &Key, expected: u64) -> Result<Arc<Value>, Rejected> {
        let before = inner.objects.get(key).ok_or(Rejected::Missing)?;
        if crate::object::revision(before) == expected {
            Ok(Arc::clone(before))
        } else {
            Err(Rejected::Changed)
        }
    }

    fn commit(
        &self,
        inner: &mut Inner,
        key: Key,
        change: Change,
        mut object: Value,
        before: Option<Arc<Value>>,
    ) -> Arc<Value> {
        inner.revision += 1;
        metadata_mut(&mut object)
            .insert("resourceVersion".into(), inner.revision.to_string().into());
        let object = Arc::new(object);
        if change != Change::Deleted {
            inner.objects.insert(key.clone(), Arc::clone(&object));
        }
        if inner.log.len() == KEPT {
            inner.forgotten = inner.log.pop_front().map_or(0, |event| event.revision);
        }
        inner.log.push_back(Event {
            revision: inner.revision,
            change,
            key,
            object: Arc::clone(&object),
            before,
        });
        self.revision.send_replace(inner.revision);
        object
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
            if self
                .revision
                .wait_for(|revision| *revision > seen)
                .await
                .is_err()
            {
                std::future::pending::<()>().await; // cannot be: `store` holds the sender
            }
        }
    }

    /// The next change that has happened already.
    ///
    /// # Errors
    /// When the watch fell behind so far that changes were forgotten.
    pub fn take(&mut self) -> Result<Option<Event>, TooOld> {
        let inner = self.store.lock();
        inner.known_since(self.seen)?;
        let begin = inner
            .log
            .partition_point(|event| event.revision <= self.seen);
        for event in inner.log.iter().skip(begin) {
            self.seen = event.revision;
            let resource = self.resource.as_deref();
            if resource.is_none_or(|resource| event.key.is(resource, self.namespace.as_deref())) {
                return Ok(Some(event.clone()));
            }
        }
        self.seen = self.seen.max(inner.revision);
        Ok(None)
    }
}
