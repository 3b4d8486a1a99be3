//! Create, read, update, patch, delete: what Kubernetes does around the store, the same for every kind.

mod delete;
mod rules;
mod write;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::status::{Failure, Result};
use crate::{auth::Identity, cluster::Cluster, kinds::Kind};
use crate::{request::Query, selector::Selector, store::Key};

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
            namespace: if kind.namespaced { namespace } else { "" }.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            query: Query::parse(query),
        }
    }

    /// Whether nothing is to be stored.
    pub(crate) fn dry_run(&self) -> bool {
        !self.query.get("dryRun").is_empty()
    }

    /// What the objects must meet.
    ///
    /// # Errors
    /// 400 for selectors that are none.
    pub(crate) fn selector(&self) -> Result<Selector> {
        let texts = ["labelSelector", "fieldSelector"].map(|name| self.query.get(name));
        Selector::parse(&self.kind, texts[0], texts[1])
    }

    fn conflict(&self, why: &str) -> Failure {
        Failure::conflict(&self.kind.group, &self.kind.plural, &self.name, why)
    }
}

impl Cluster {
    /// Where an object of this kind is.
    pub(crate) fn place(kind: &Kind, namespace: &str, name: &str) -> Key {
        let namespace = if kind.namespaced { namespace } else { "" };
        Key::new(&kind.resource(), namespace, name)
    }

    /// The object there.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Value>> {
        let found = self.store.get(&Self::place(kind, namespace, name));
        let found = found.map(|object| kind.convert(object));
        found.ok_or_else(|| Failure::not_found(&kind.group, &kind.plural, name))
    }

    /// All that is selected and the revision it is of: now, or as it was at a revision.
    ///
    /// # Errors
    /// 400 for selectors that are none, 410 for a revision whose objects are no longer known.
    pub fn select(&self, call: &Call, at: Option<u64>) -> Result<(u64, Vec<Arc<Value>>)> {
        let (selector, resource) = (call.selector()?, call.kind.resource());
        let found = self.store.list_at(&resource, &call.namespace, at);
        let too_old = || Failure::new(410, "too old a list: begin again from its start");
        let (revision, found) = found.ok_or_else(too_old)?;
        let found = found.into_iter().map(|one| call.kind.convert(one));
        let found = found.filter(|object| selector.matches(object));
        Ok((revision, found.collect()))
    }

    /// A page of what is selected, in order of namespace and name, and the `metadata` of the list. Its `continue` is the
    /// revision of the list and how many objects were shown.
    ///
    /// # Errors
    /// 400 for options that are none, 410 for a token that is too old.
    pub fn list(&self, call: &Call) -> Result<(Value, Vec<Arc<Value>>)> {
        let (token, limit) = (call.query.get("continue"), call.query.number("limit")?);
        let (mut at, mut shown) = (None, 0);
        if !token.is_empty() {
            let parts = token.split_once('.').unwrap_or_default();
            let (Ok(revision), Ok(count)) = (parts.0.parse(), parts.1.parse()) else {
                let why = "continue key is not valid: it was not given out";
                return Err(Failure::bad_request(why));
            };
            (at, shown) = (Some(revision), count);
        }
        let (revision, items) = self.select(call, at)?;
        let mut items: Vec<_> = items.into_iter().skip(shown).collect();
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let Some(limit) = limit.filter(|limit| (1..items.len()).contains(limit)) {
            metadata["continue"] = format!("{revision}.{}", shown + limit).into();
            items.truncate(limit);
        }
        Ok((metadata, items))
    }
}
