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
use crate::status::Failure;
use crate::store::Key;

pub(crate) use delete::{FOREGROUND, ORPHAN};
pub(crate) use list::too_large;
pub use list::{Page, Selection};

/// What Kubernetes says to a write that came too late.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
/// How often a write that does not insist on a revision is tried again after somebody else's, as in Kubernetes.
const ATTEMPTS: u32 = 5;

/// Options a write may carry.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `dryRun=All`
    pub dry_run: bool,
    /// `fieldManager`
    pub manager: String,
    /// `force`, for apply.
    pub force: bool,
    /// `fieldValidation`: `Strict`, `Warn`, `Ignore`; empty for the default, `Warn`.
    pub field_validation: String,
    /// `status`, `ephemeralcontainers`, `finalize`; empty for the object itself.
    pub subresource: String,
}

/// What a write brings.
#[derive(Clone, Debug)]
pub enum Change {
    /// `POST`: an object that is not there yet.
    Create(Value),
    /// `PUT`: the object as it is to be.
    Update(Value),
    /// `application/json-patch+json`
    Json(Value),
    /// `application/merge-patch+json`
    Merge(Value),
    /// `application/strategic-merge-patch+json`
    Strategic(Value),
    /// `application/apply-patch+yaml`, which creates the object if it is not there.
    Apply(Value),
}

/// A write that is asked for.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// Who writes.
    pub who: &'a Identity,
    /// Of the object.
    pub kind: &'a Kind,
    /// Of the path; empty for kinds that are in none.
    pub namespace: &'a str,
    /// Of the path; empty for [`Change::Create`].
    pub name: &'a str,
    /// What it brings.
    pub change: Change,
    /// The rest.
    pub options: &'a Options,
}

/// What a write led to.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object stored, or to be stored if this was no dry run.
    pub object: Arc<Value>,
    /// Whether it is new (201).
    pub created: bool,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

/// `metav1.DeleteOptions`
#[derive(Clone, Debug, Default)]
pub struct Delete {
    /// `gracePeriodSeconds`
    pub grace: Option<u64>,
    /// `propagationPolicy`: `Orphan`, `Background`, `Foreground`; empty for the default.
    pub propagation: String,
    /// `preconditions.uid`
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`
    pub revision: Option<String>,
    /// `dryRun=All`
    pub dry_run: bool,
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
        self.store
            .get(&Self::place(kind, namespace, name))
            .map(|object| kind.convert(object))
            .ok_or_else(|| Failure::not_found(&kind.group, &kind.plural, name))
    }

    /// Gives a new object its UID and so on.
    pub(crate) fn stamp(&self, kind: &Kind, object: &mut Value) {
        meta::begin(kind, object, self.clock.now());
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// Whatever makes it unacceptable.
    pub async fn create(
        &self,
        who: &Identity,
        kind: &Kind,
        namespace: &str,
        object: Value,
        options: &Options,
    ) -> Result<Written, Failure> {
        self.write(&Write {
            who,
            kind,
            namespace,
            name: "",
            change: Change::Create(object),
            options,
        })
        .await
    }
}
