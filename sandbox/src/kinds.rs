//! Which kinds there are: those built in, and those of CustomResourceDefinitions.

mod builtin;
mod definitions;
mod events;

use std::{borrow::Cow, sync::Arc};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

pub(crate) use definitions::definitions;

use crate::{release::Release, schema::Structural};

/// A kind as one version of an API group serves it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "each is a fact of its own about the kind, named as Kubernetes does"
)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `Pod`
    pub kind: String,
    /// `pods`
    pub plural: String,
    /// `pod`
    pub singular: String,
    /// `PodList`
    pub list_kind: String,
    /// `po`
    pub short_names: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
    /// Whether objects are in a namespace.
    pub namespaced: bool,
    /// Whether `status` is written through a subresource of its own.
    pub status: bool,
    /// Whether `metadata.generation` counts the changes of all but `metadata` (and `status`, if it is a subresource).
    pub generation: bool,
    /// Subresources beside `status`, e.g. `exec`, `log`, `token`.
    pub subresources: Vec<String>,
    /// `create` only and nothing stored: reviews.
    pub virtual_only: bool,
    /// Columns of `kubectl get`; the name and, if there are none, the age are added when they are printed.
    pub columns: Vec<Column>,
    /// Of a built-in kind: its name among the [`definitions`].
    #[serde(skip)]
    pub definition: Cow<'static, str>,
    /// What objects look like, if a CustomResourceDefinition says so. See [`Structural::of`].
    #[serde(skip)]
    pub structural: Option<Arc<Structural>>,
}

/// A column of `kubectl get`, as a CustomResourceDefinition has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`; empty for `string`.
    #[serde(rename = "type")]
    pub kind: String,
    /// OpenAPI format, e.g. `int64`; `name` for the object's name; empty for none.
    pub format: String,
    /// Shown with `-o wide` only if above 0.
    pub priority: i32,
    /// For people.
    pub description: String,
    /// Where the value is: a JSONPath, and of a built-in kind what `builtin.yaml` says at its top.
    #[serde(alias = "jsonPath")]
    pub value: String,
}

impl Kind {
    /// `v1`, or `rbac.authorization.k8s.io/v1`
    pub fn api_version(&self) -> String {
        let both = format!("{}/{}", self.group, self.version);
        both.trim_start_matches('/').to_owned()
    }

    /// The store's name for it: `pods`, or `consolesessions.drawbridge.dev`. All versions share it, and so do the two
    /// groups that have events: what is read from the store is to be [converted](Kind::convert).
    pub fn resource(&self) -> String {
        let core = self.group == events::GROUP;
        crate::status::qualified(if core { "" } else { &self.group }, &self.plural)
    }

    /// A stored object as this kind shows it. The store has each object in the version it was written in last.
    pub fn convert(&self, object: Arc<Value>) -> Arc<Value> {
        let api_version = self.api_version();
        if object["apiVersion"] == *api_version {
            return object;
        }
        let mut object = Arc::unwrap_or_clone(object);
        if self.kind == "Event" && !self.custom() {
            events::convert(&mut object, &self.group);
        }
        object["apiVersion"] = api_version.into();
        Arc::new(object)
    }

    /// What can be done with its objects. Kubernetes empties one namespace at a time.
    pub fn verbs(&self) -> &'static [&'static str] {
        const ALL: &str = "deletecollection";
        const STORED: &[&str] = &[
            "create", "delete", "get", "list", "patch", "update", "watch", ALL,
        ];
        match self.kind.as_str() {
            _ if self.virtual_only => &STORED[..1],
            "Namespace" => &STORED[..7],
            _ => STORED,
        }
    }

    /// Whether it is defined by a CustomResourceDefinition. Such a kind has no strategic merge patch.
    pub fn custom(&self) -> bool {
        self.structural.is_some()
    }
}

/// All kinds served now.
#[derive(Debug, Default)]
pub struct Kinds {
    all: watch::Sender<Arc<Vec<Arc<Kind>>>>,
}

impl Kinds {
    /// Those built in, as `release` has them.
    pub fn builtin(release: Release) -> Self {
        let kinds = builtin::kinds(release).map(Arc::new);
        Self {
            all: watch::Sender::new(Arc::new(kinds.collect())),
        }
    }

    /// All of them, in a stable order.
    pub fn all(&self) -> Arc<Vec<Arc<Kind>>> {
        Arc::clone(&self.all.borrow())
    }

    fn first(&self, is: impl Fn(&Kind) -> bool) -> Option<Arc<Kind>> {
        self.all().iter().find(|kind| is(kind)).cloned()
    }

    /// The kind at `/apis/{group}/{version}/…/{plural}`.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.first(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// The kind an object says it is of.
    pub fn of(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.first(|known| known.kind == kind && known.api_version() == api_version)
    }

    /// Serves `kinds` as the kinds of a CustomResourceDefinition in place of those it had; an empty list for none.
    pub fn define(&self, group: &str, plural: &str, kinds: Vec<Kind>) {
        self.all.send_modify(|all| {
            let all = Arc::make_mut(all);
            all.retain(|kind| kind.group != group || kind.plural != plural);
            all.extend(kinds.into_iter().map(Arc::new));
        });
    }
}
