//! Create, read, update, patch, delete: what Kubernetes does around the store, the same for every kind.

use std::sync::Arc;

use serde_json::Value;

use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::status::Failure;

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
    /// `status`; empty for the object itself. Other subresources do not come here.
    pub subresource: String,
}

/// How an object is to change.
#[derive(Clone, Debug)]
pub enum Patch {
    /// `application/json-patch+json`
    Json(Value),
    /// `application/merge-patch+json`
    Merge(Value),
    /// `application/strategic-merge-patch+json`
    Strategic(Value),
    /// `application/apply-patch+yaml`
    Apply(Value),
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
    /// The object there.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, _kind: &Kind, _namespace: &str, _name: &str) -> Result<Arc<Value>, Failure> {
        todo!("rest")
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// Whatever makes it unacceptable.
    pub async fn create(
        &self,
        _who: &Identity,
        _kind: &Kind,
        _namespace: &str,
        _object: Value,
        _options: &Options,
    ) -> Result<Written, Failure> {
        todo!("rest")
    }

    /// Replaces an object (`PUT`); without a `resourceVersion` whatever it is now.
    ///
    /// # Errors
    /// As [`Cluster::create`], 404, 409.
    pub async fn update(
        &self,
        _who: &Identity,
        _kind: &Kind,
        _namespace: &str,
        _name: &str,
        _object: Value,
        _options: &Options,
    ) -> Result<Written, Failure> {
        todo!("rest")
    }

    /// Changes an object; an apply patch creates it if it is not there.
    ///
    /// # Errors
    /// As [`Cluster::update`].
    pub async fn patch(
        &self,
        _who: &Identity,
        _kind: &Kind,
        _namespace: &str,
        _name: &str,
        _patch: &Patch,
        _options: &Options,
    ) -> Result<Written, Failure> {
        todo!("rest")
    }

    /// Deletes an object, or marks it if something must be done first (finalizers, a pod's grace). Returns what is left
    /// of it; `None` when it is gone.
    ///
    /// # Errors
    /// 404, 409.
    pub async fn delete(
        &self,
        _who: &Identity,
        _kind: &Kind,
        _namespace: &str,
        _name: &str,
        _delete: &Delete,
    ) -> Result<Option<Arc<Value>>, Failure> {
        todo!("rest")
    }
}
