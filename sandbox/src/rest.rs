//! Create, read, update, patch, delete: what Kubernetes does around the store, the same for every kind.

mod change;
mod conform;
mod delete;
mod list;
mod meta;
mod special;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::admission;
use crate::apply::{self, Writer};
use crate::auth::{Identity, rbac};
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{meta as meta_text, metadata_mut};
use crate::status::Failure;
use crate::store::{Key, Rejected};

pub(crate) use delete::{FOREGROUND, ORPHAN};
pub(crate) use list::too_large;
pub use list::{Listing, Page, Selection};

/// What Kubernetes says to a write that came too late.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
/// How often a write that does not insist on a revision is tried again after somebody else's, as in Kubernetes.
const ATTEMPTS: u32 = 5;
/// Names made up for a `generateName` before giving up, as Kubernetes has it since 1.30.
const NAME_ATTEMPTS: u32 = 8;

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
    /// Where an object of this kind is.
    #[must_use]
    pub fn place(kind: &Kind, namespace: &str, name: &str) -> Key {
        Key {
            resource: kind.resource().into(),
            namespace: if kind.namespaced { namespace } else { "" }.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Where an object of a kind that is in no namespace is.
    pub(crate) fn cluster_key(resource: &str, name: &str) -> Key {
        Key {
            resource: resource.into(),
            namespace: String::new(),
            name: name.to_owned(),
        }
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
        let status = object["status"].take();
        meta::begin(kind, object, self.clock.now());
        meta::put(object, "status", &status);
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
        let object = Self::accept(kind, namespace, object)?;
        let (object, warnings) = conform::known_fields(kind, object, options, None)?;
        self.store_new(who, kind, namespace, object, options, warnings)
            .await
    }

    /// What [`Cluster::create`] does once the object is well-formed.
    async fn store_new(
        &self,
        who: &Identity,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        options: &Options,
        mut warnings: Vec<String>,
    ) -> Result<Written, Failure> {
        if !meta_text(&object, "resourceVersion").is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(Failure::new(500, "", message));
        }
        if kind.namespaced {
            self.require_namespace(kind, namespace, meta_text(&object, "name"))?;
        }
        meta::begin(kind, &mut object, self.clock.now());
        special::begin(self, kind, namespace, &mut object)?;
        conform::defaults(kind, &mut object);
        let writer = Writer {
            manager: &options.manager,
            subresource: &options.subresource,
            now: self.clock.now(),
        };
        if object["metadata"]["managedFields"].is_null() {
            apply::record(None, &mut object, kind, writer);
        }
        let name = meta_text(&object, "name").to_owned();
        let write = admission::Write {
            operation: "CREATE",
            kind,
            subresource: "",
            namespace,
            name: &name,
            before: None,
            dry_run: options.dry_run,
            options: &options.review("CreateOptions"),
            who,
        };
        let (object, more) = admission::mutate(self, write, object).await?;
        warnings.extend(more);
        let generated = meta_text(&object, "name").is_empty();
        let base = meta_text(&object, "generateName").to_owned();
        for attempt in 1.. {
            let mut object = object.clone();
            if generated && !base.is_empty() {
                metadata_mut(&mut object).insert("name".into(), meta::generated(&base).into());
            }
            meta::check_new(kind, &object)?;
            conform::check(kind, &mut object, None)?;
            special::check(self, who, kind, &object, None)?;
            let name = meta_text(&object, "name").to_owned();
            let write = admission::Write {
                name: &name,
                ..write
            };
            warnings.extend(admission::validate(self, write, &object).await?);
            let key = Self::place(kind, namespace, &name);
            let stored = if options.dry_run {
                match self.store.get(&key) {
                    Some(_) => Err(Rejected::Exists),
                    None => Ok(Arc::new(object)),
                }
            } else {
                self.store.create(key, object)
            };
            match stored {
                Ok(object) => {
                    return Ok(Written {
                        object,
                        created: true,
                        warnings,
                    });
                }
                Err(_) if generated && attempt < NAME_ATTEMPTS => {}
                Err(_) => {
                    return Err(Failure::already_exists(&kind.group, &kind.plural, &name));
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// An object as it came, if it is of the kind and in the namespace its path says.
    fn accept(kind: &Kind, namespace: &str, mut object: Value) -> Result<Value, Failure> {
        let (wanted, version) = (&kind.kind, kind.api_version());
        if !object.is_object() {
            return Err(Failure::bad_request(format!(
                "{wanted} in version {:?} cannot be handled as a {wanted}: json: cannot unmarshal into Go value of type {}.{wanted}",
                kind.version, kind.version
            )));
        }
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (said_version, said_kind) = (text("apiVersion"), text("kind"));
        if kind.custom() && said_kind.is_empty() {
            return Err(Failure::bad_request("Object 'Kind' is missing"));
        }
        if kind.custom() && said_version.is_empty() {
            return Err(Failure::bad_request("Object 'apiVersion' is missing"));
        }
        if !said_version.is_empty() && said_version != version {
            return Err(Failure::bad_request(format!(
                "the API version in the data ({said_version}) does not match the expected API version ({version})"
            )));
        }
        if !said_kind.is_empty() && said_kind != *wanted {
            return Err(Failure::bad_request(format!(
                "{said_kind} in version {:?} cannot be handled as a {wanted}: converting ({}.{said_kind}) to ({}.{wanted}): unknown conversion",
                kind.version, kind.version, kind.version
            )));
        }
        object["apiVersion"] = version.into();
        object["kind"] = wanted.as_str().into();
        let said = meta_text(&object, "namespace");
        if kind.namespaced && !said.is_empty() && said != namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let metadata = metadata_mut(&mut object);
        if kind.namespaced {
            metadata.insert("namespace".into(), namespace.into());
        } else {
            metadata.remove("namespace");
        }
        metadata.remove("selfLink");
        Ok(object)
    }

    /// New objects need a namespace that is there and not about to go.
    fn require_namespace(&self, kind: &Kind, namespace: &str, name: &str) -> Result<(), Failure> {
        let key = Key {
            resource: "namespaces".into(),
            namespace: String::new(),
            name: namespace.to_owned(),
        };
        let found = self
            .store
            .get(&key)
            .ok_or_else(|| Failure::not_found("", "namespaces", namespace))?;
        if !crate::object::deleting(&found) {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut failure = Failure::forbidden(&kind.group, &kind.plural, name, &why);
        failure.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        Err(failure)
    }

    /// Whether `who` may do something else with the object than the request was authorised for.
    fn require_also(
        &self,
        who: &Identity,
        kind: &Kind,
        verb: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Failure> {
        let what = crate::request::Attributes {
            verb: verb.to_owned(),
            resource_request: true,
            group: kind.group.clone(),
            version: kind.version.clone(),
            namespace: namespace.to_owned(),
            resource: kind.plural.clone(),
            name: name.to_owned(),
            ..Default::default()
        };
        rbac::require(self, who, &what)
    }
}

impl Options {
    /// As webhooks are told of them.
    fn review(&self, kind: &str) -> Value {
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if !self.manager.is_empty() {
            options["fieldManager"] = self.manager.as_str().into();
        }
        if !self.field_validation.is_empty() {
            options["fieldValidation"] = self.field_validation.as_str().into();
        }
        if self.force {
            options["force"] = true.into();
        }
        options
    }
}
