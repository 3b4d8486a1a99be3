//! Which kinds there are: those built in, and those of CustomResourceDefinitions.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::schema::Structural;

/// A kind as one version of an API group serves it.
#[derive(Debug)]
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
    /// Whether `status` is written through a subresource of its own, and `generation` counts changes of the rest.
    pub status: bool,
    /// Subresources beside `status`, e.g. `exec`, `log`, `token`.
    pub subresources: Vec<&'static str>,
    /// `create` only and nothing stored: reviews.
    pub virtual_only: bool,
    /// Columns of `kubectl get`.
    pub columns: Vec<Column>,
    /// What objects look like.
    pub schema: Schema,
}

/// What is known of the form of a kind's objects.
#[derive(Debug)]
pub enum Schema {
    /// OpenAPI v3 of a built-in kind. Objects are checked by its Rust type.
    Builtin(Value),
    /// A CustomResourceDefinition's.
    Custom(Box<Structural>),
}

/// A column of `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `boolean`, `date`
    pub kind: String,
    /// Shown with `-o wide` only if above 0.
    pub priority: i32,
    /// For `kubectl describe` of the column itself.
    pub description: String,
    /// Where the value is.
    pub value: Source,
}

/// Where the value of a column is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// JSONPath of a CustomResourceDefinition, e.g. `.status.phase`.
    Path(String),
    /// A built-in kind's own.
    Code(fn(&Value) -> Value),
}

impl Kind {
    /// `v1`, or `rbac.authorization.k8s.io/v1`
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The store's name for it: `pods`, or `consolesessions.drawbridge.dev`.
    #[must_use]
    pub fn resource(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }
}

/// All kinds served now.
#[derive(Debug, Default)]
pub struct Kinds {
    all: RwLock<Arc<Vec<Arc<Kind>>>>,
}

impl Kinds {
    /// Those built in.
    #[must_use]
    pub fn builtin() -> Self {
        todo!("kinds")
    }

    /// All of them, in a stable order.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<Kind>>> {
        Arc::clone(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The kind at `/apis/{group}/{version}/…/{plural}`.
    #[must_use]
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.all()
            .iter()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
            .cloned()
    }

    /// The kind an object says it is of.
    #[must_use]
    pub fn of(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.all()
            .iter()
            .find(|known| known.kind == kind && known.api_version() == api_version)
            .cloned()
    }

    /// Serves `kinds` as the kinds of a CustomResourceDefinition in place of those it had; an empty list for none.
    pub fn define(&self, group: &str, plural: &str, kinds: Vec<Kind>) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let mut next: Vec<Arc<Kind>> = all
            .iter()
            .filter(|kind| kind.group != group || kind.plural != plural)
            .cloned()
            .collect();
        next.extend(kinds.into_iter().map(Arc::new));
        *all = Arc::new(next);
    }
}
