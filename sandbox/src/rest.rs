//! Create, read, update, patch, delete: what Kubernetes does around the store, the same for every kind.

mod delete;
mod list;
mod meta;
mod special;
mod write;

use std::sync::Arc;

use serde_json::Value;

use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::request::Query;
use crate::selector::Selector;
use crate::status::Failure;
use crate::store::Key;

pub(crate) use delete::{FOREGROUND, ORPHAN};
pub(crate) use list::too_large;
pub use write::Change;

/// What Kubernetes says to a write that came too late.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
/// How often a write that does not insist on a revision is tried again after somebody else's, as in Kubernetes.
const ATTEMPTS: u32 = 5;

/// Who asks for what, and how.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks.
    pub who: Identity,
    /// Of the objects.
    pub kind: Arc<Kind>,
    /// Empty for kinds that are in none, and for all.
    pub namespace: String,
    /// Empty for an object that is to be created, and for all.
    pub name: String,
    /// `status`, `ephemeralcontainers`, `finalize`; empty for the object itself.
    pub subresource: String,
    /// Options, named as in a URL: `dryRun`, `fieldManager`, `labelSelector` and so on.
    pub query: Query,
}

impl Call {
    /// One with these options, e.g. `fieldManager=me`.
    #[must_use]
    pub fn new(who: Identity, kind: &Arc<Kind>, namespace: &str, name: &str, query: &str) -> Self {
        Self {
            who,
            kind: Arc::clone(kind),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            query: Query::parse(query),
        }
    }

    /// Whether nothing is to be stored.
    #[must_use]
    pub fn dry_run(&self) -> bool {
        !self.query.get("dryRun").is_empty()
    }

    /// What the objects must meet.
    ///
    /// # Errors
    /// 400 for selectors that are none.
    pub fn selector(&self) -> Result<Selector, Failure> {
        let selector = |name| self.query.get(name);
        Selector::parse(
            &self.kind,
            selector("labelSelector"),
            selector("fieldSelector"),
        )
    }

    fn conflict(&self, why: &str) -> Failure {
        Failure::conflict(&self.kind.group, &self.kind.plural, &self.name, why)
    }
}

impl Cluster {
    /// Where an object of this kind is.
    #[must_use]
    pub fn place(kind: &Kind, namespace: &str, name: &str) -> Key {
        let namespace = if kind.namespaced { namespace } else { "" };
        Key::new(&kind.resource(), namespace, name)
    }

    /// The object there.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Value>, Failure> {
        let found = self.store.get(&Self::place(kind, namespace, name));
        found
            .map(|object| kind.convert(object))
            .ok_or_else(|| Failure::not_found(&kind.group, &kind.plural, name))
    }

    /// Gives a new object its UID and so on.
    pub(crate) fn stamp(&self, kind: &Kind, object: &mut Value) {
        meta::begin(kind, object, self.clock.now());
    }
}
