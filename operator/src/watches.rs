//! Everything the operator watches, and which session each change concerns.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::ConsoleSession;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::Guarded;
use crate::cache::Cache;
use crate::grant::digested;
use crate::metrics::{ErrorKind, Metrics};

/// Sessions to look at, waiting to be taken up. A full queue stops the watches until there is room.
const QUEUE: usize = 1024;

/// The watch caches; each is one watch on the API server.
#[derive(Debug)]
pub struct Watches {
    /// Every session.
    pub sessions: Cache<Guarded>,
    /// Metadata of every pod that has not completed.
    pub pods: Store<PartialObjectMeta<Pod>>,
    /// Metadata of every namespace.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Session accounts.
    pub accounts: Cache<ServiceAccount>,
    /// Anchors and users' Secrets, values digested.
    pub secrets: Cache<Secret>,
    /// Roles made for sessions.
    pub roles: Cache<Role>,
    /// Role bindings made for sessions.
    pub bindings: Cache<RoleBinding>,
    /// Which sessions a pod, or another session, concerns.
    pub interest: Interest,
}

/// The writing ends of [`Watches`], to be handed to [`Feeds::spawn`].
#[derive(Debug, Default)]
pub struct Feeds {
    pub(crate) sessions: Writer<Guarded>,
    pub(crate) pods: Writer<PartialObjectMeta<Pod>>,
    pub(crate) namespaces: Writer<PartialObjectMeta<Namespace>>,
    pub(crate) accounts: Writer<ServiceAccount>,
    pub(crate) secrets: Writer<Secret>,
    pub(crate) roles: Writer<Role>,
    pub(crate) bindings: Writer<RoleBinding>,
}

/// Sessions that wait for, or stand on, a pod or another session, by its namespace and name.
#[derive(Debug, Default)]
pub struct Interest(Mutex<HashMap<(String, Thing), HashSet<String>>>);

/// What a session may wait for, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Thing {
    Pod(String),
    /// The session that one of `mode: Observe` looks at.
    Session(String),
}

impl Interest {
    /// From now on, changes of the session's pod, or of the session it looks at, concern it. Call before looking.
    pub fn register(&self, session: &ConsoleSession) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(key(session))
            .or_default()
            .insert(session.name_any());
    }

    /// The session is over, or gone.
    pub fn forget(&self, session: &ConsoleSession) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(session);
        if let Some(sessions) = map.get_mut(&key) {
            sessions.remove(&session.name_any());
            if sessions.is_empty() {
                map.remove(&key);
            }
        }
    }

    fn of(&self, namespace: &str, thing: Thing) -> Vec<ObjectRef<Guarded>> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = map.get(&(namespace.to_owned(), thing));
        sessions
            .into_iter()
            .flatten()
            .map(|session| ObjectRef::new(session).within(namespace))
            .collect()
    }
}

fn key(session: &ConsoleSession) -> (String, Thing) {
    let spec = &session.spec;
    let thing = match (&spec.target, &spec.observe) {
        (None, Some(observe)) => Thing::Session(observe.session.clone()),
        _ => Thing::Pod(spec.pod().unwrap_or_default().to_owned()),
    };
    (session.namespace().unwrap_or_default(), thing)
}

impl Feeds {
    /// The reading ends.
    #[must_use]
    pub fn watches(&self) -> Watches {
        Watches {
            sessions: Cache::new(self.sessions.as_reader()),
            pods: self.pods.as_reader(),
            namespaces: self.namespaces.as_reader(),
            accounts: Cache::new(self.accounts.as_reader()),
            secrets: Cache::new(self.secrets.as_reader()),
            roles: Cache::new(self.roles.as_reader()),
            bindings: Cache::new(self.bindings.as_reader()),
            interest: Interest::default(),
        }
    }

    /// Starts every watch; none ends by itself. Answers the sessions to look at, as they change.
    #[expect(clippy::too_many_lines, reason = "one watch after another")]
    pub fn spawn(
        self,
        client: &Client,
        sessions_namespace: &str,
        watches: &Arc<Watches>,
        metrics: &Arc<Metrics>,
        tasks: &mut JoinSet<()>,
    ) -> mpsc::Receiver<ObjectRef<Guarded>> {
        let (queue, queued) = mpsc::channel(QUEUE);
        let feed = Feed {
            watches: Arc::clone(watches),
            metrics: Arc::clone(metrics),
            queue,
        };
        let all = watcher::Config::default();
        let ours = all.clone().labels(names::SESSION_UID_LABEL);
        // Pods that have completed are of no use to anybody here, and there may be many of them.
        let live = all
            .clone()
            .fields("status.phase!=Succeeded,status.phase!=Failed");

        let Self {
            sessions,
            pods,
            namespaces,
            accounts,
            secrets,
            roles,
            bindings,
        } = self;
        tasks.spawn(feed.clone().run(
            Api::all(client.clone()),
            all.clone(),
            sessions,
            |session: &mut Guarded| session.meta_mut().managed_fields = None,
            |watches, session: &Guarded| {
                watches.sessions.settle(session);
                if let (Ok(parsed), None) = (
                    &session.0,
                    watches
                        .sessions
                        .watched()
                        .get(&ObjectRef::from_obj(session)),
                ) {
                    watches.interest.forget(parsed); // deleted
                }
                let namespace = session.namespace().unwrap_or_default();
                let own = Thing::Session(session.name_any());
                let mut concerned = watches.interest.of(&namespace, own);
                concerned.push(ObjectRef::from_obj(session));
                concerned
            },
        ));
        tasks.spawn(feed.clone().run(
            Api::all(client.clone()),
            live,
            pods,
            strip,
            |watches, pod: &PartialObjectMeta<Pod>| {
                let namespace = pod.namespace().unwrap_or_default();
                watches.interest.of(&namespace, Thing::Pod(pod.name_any()))
            },
        ));
        tasks.spawn(feed.clone().run(
            Api::all(client.clone()),
            all,
            namespaces,
            strip,
            |watches, namespace: &PartialObjectMeta<Namespace>| {
                if namespace.metadata.deletion_timestamp.is_none() {
                    return Vec::new();
                }
                watches.sessions_in(&namespace.name_any())
            },
        ));
        tasks.spawn(feed.clone().run(
            Api::namespaced(client.clone(), sessions_namespace),
            ours.clone(),
            accounts,
            |account: &mut ServiceAccount| account.metadata.managed_fields = None,
            |watches, account| {
                watches.accounts.settle(account);
                session_of(account)
            },
        ));
        tasks.spawn(feed.clone().run(
            Api::all(client.clone()),
            ours.clone(),
            secrets,
            |secret: &mut Secret| {
                secret.metadata.managed_fields = None;
                *secret = digested(std::mem::take(secret));
            },
            |watches, secret| {
                watches.secrets.settle(secret);
                session_of(secret)
            },
        ));
        tasks.spawn(feed.clone().run(
            Api::all(client.clone()),
            ours.clone(),
            roles,
            |role: &mut Role| role.metadata.managed_fields = None,
            |watches, role| {
                watches.roles.settle(role);
                session_of(role)
            },
        ));
        tasks.spawn(feed.run(
            Api::all(client.clone()),
            ours,
            bindings,
            |binding: &mut RoleBinding| binding.metadata.managed_fields = None,
            |watches, binding| {
                watches.bindings.settle(binding);
                session_of(binding)
            },
        ));
        queued
    }
}

impl Watches {
    /// Waits until every cache has been filled once.
    ///
    /// # Errors
    /// When a watch ended before.
    pub async fn synced(&self) -> Result<(), kube::runtime::reflector::store::WriterDropped> {
        self.sessions.watched().wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.namespaces.wait_until_ready().await?;
        self.accounts.watched().wait_until_ready().await?;
        self.secrets.watched().wait_until_ready().await?;
        self.roles.watched().wait_until_ready().await?;
        self.bindings.watched().wait_until_ready().await
    }

    /// What every watch does for each object it shows; for tests that fill the caches by hand.
    #[cfg(test)]
    pub(crate) fn settle_all(&self) {
        self.sessions
            .watched()
            .state()
            .iter()
            .for_each(|object| self.sessions.settle(object));
        self.accounts
            .watched()
            .state()
            .iter()
            .for_each(|object| self.accounts.settle(object));
        self.secrets
            .watched()
            .state()
            .iter()
            .for_each(|object| self.secrets.settle(object));
        self.roles
            .watched()
            .state()
            .iter()
            .for_each(|object| self.roles.settle(object));
        self.bindings
            .watched()
            .state()
            .iter()
            .for_each(|object| self.bindings.settle(object));
    }

    fn sessions_in(&self, namespace: &str) -> Vec<ObjectRef<Guarded>> {
        let sessions = self.sessions.watched().state();
        let inside = sessions
            .iter()
            .filter(|session| session.meta().namespace.as_deref() == Some(namespace));
        inside
            .map(|session| ObjectRef::from_obj(&**session))
            .collect()
    }
}

/// Keeps of an object only what identifies it: there is one of these for every pod of the cluster.
fn strip<K>(object: &mut PartialObjectMeta<K>) {
    object.types = None;
    let metadata = &mut object.metadata;
    *metadata = ObjectMeta {
        namespace: metadata.namespace.take(),
        name: metadata.name.take(),
        uid: metadata.uid.take(),
        resource_version: metadata.resource_version.take(),
        deletion_timestamp: metadata.deletion_timestamp.take(),
        ..ObjectMeta::default()
    };
}

/// The session an object was made for, by its labels.
fn session_of(object: &impl ResourceExt) -> Vec<ObjectRef<Guarded>> {
    let labels = object.labels();
    let namespace = labels.get(names::SESSION_NAMESPACE_LABEL);
    let name = labels.get(names::SESSION_NAME_LABEL);
    let session = namespace.zip(name);
    session
        .map(|(namespace, name)| ObjectRef::new(name).within(namespace))
        .into_iter()
        .collect()
}

#[derive(Clone)]
struct Feed {
    watches: Arc<Watches>,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<ObjectRef<Guarded>>,
}

impl Feed {
    /// Copies a watch into its cache, and queues the sessions its changes concern. Ends when nobody reads the queue.
    async fn run<K>(
        self,
        api: Api<K>,
        config: watcher::Config,
        mut writer: Writer<K>,
        mut trim: impl FnMut(&mut K) + Send + 'static,
        concerns: impl Fn(&Watches, &K) -> Vec<ObjectRef<Guarded>> + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let kind = K::kind(&());
        let mut failing = false;
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event.modify(&mut trim),
                Err(error) => {
                    self.metrics.error(ErrorKind::Watch);
                    warn!(%kind, error = chain(&error), "watch failed, starting it again; may the operator list and watch it?");
                    failing = true;
                    continue;
                }
            };
            // `Init` only says that it is about to be tried.
            if failing && !matches!(event, Event::Init) {
                failing = false;
                info!(%kind, "watch works again");
            }
            writer.apply_watcher_event(&event);
            let concerned = match &event {
                Event::Apply(object) | Event::Delete(object) => concerns(&self.watches, object),
                // What disappeared while nobody watched is not reported: look at everything.
                Event::InitDone => {
                    let sessions = self.watches.sessions.watched().state();
                    sessions
                        .iter()
                        .map(|session| ObjectRef::from_obj(&**session))
                        .collect()
                }
                Event::Init | Event::InitApply(_) => Vec::new(),
            };
            for session in concerned {
                if self.queue.send(session).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// An error and its causes in one line; of an answer of the API server, what a person needs.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        return format!("{} ({} {})", status.message, status.code, status.reason);
    }
    let text = error.to_string();
    let Some(source) = error.source() else {
        return text;
    };
    // Some errors end in the text of their source, some do not.
    match text.strip_suffix(&source.to_string()) {
        Some("") => chain(source),
        Some(text) => format!("{text}{}", chain(source)),
        None => format!("{text}: {}", chain(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_cause_once() {
        let status = kube::core::Status::failure("pods is forbidden", "Forbidden").with_code(403);
        let error = watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
        assert_eq!(
            chain(&error),
            "failed to perform initial object list: pods is forbidden (403 Forbidden)"
        );
    }
}
