//! Create, read, update, patch, delete: what Kubernetes does around the store, the same for every kind.

mod delete;
mod rules;
mod write;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{name, namespace};
use crate::request::Query;
use crate::selector::Selector;
use crate::status::{Failure, Result};
use crate::store::Key;

pub use write::Change;

/// What Kubernetes says to a write that came too late.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
/// How often a write that does not insist on a revision is tried again after somebody else's, as in Kubernetes.
const ATTEMPTS: u32 = 5;

/// A `continue`: the revision of the list, and namespace and name of the last object shown.
type Token = (u64, String, String);

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

    /// Gives a new object its UID and so on.
    pub(crate) fn stamp(&self, kind: &Kind, object: &mut Value) {
        rules::begin(kind, object, self.clock.now());
    }

    /// All that is selected and the revision it is of: now, or as it was at a revision.
    ///
    /// # Errors
    /// 400 for selectors that are none, 410 for a revision whose objects are no longer known.
    pub fn select(&self, call: &Call, at: Option<u64>) -> Result<(u64, Vec<Arc<Value>>)> {
        let (selector, resource) = (call.selector()?, call.kind.resource());
        let namespace = Some(call.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let found = self.store.list_at(&resource, namespace, at);
        let too_old = || Failure::new(410, "too old a list: begin again from its start");
        let (revision, found) = found.ok_or_else(too_old)?;
        let found = found.into_iter().map(|one| call.kind.convert(one));
        let found = found.filter(|object| selector.matches(object));
        Ok((revision, found.collect()))
    }

    /// A page of what is selected, in order of namespace and name, and the `metadata` of the list.
    ///
    /// # Errors
    /// 400 for options that are none, 410 for a token that is too old, 504 for a revision not reached yet.
    pub fn list(&self, call: &Call) -> Result<(Value, Vec<Arc<Value>>)> {
        let query = &call.query;
        let asked = query.number("resourceVersion")?.unwrap_or(0);
        self.check_reached(asked)?;
        let mut at = (query.get("resourceVersionMatch") == "Exact").then_some(asked);
        let mut start = None;
        if !query.get("continue").is_empty() {
            let token = BASE64_URL_SAFE_NO_PAD.decode(query.get("continue"));
            let token = token.unwrap_or_default();
            let why = |_| Failure::bad_request("continue key is not valid: it was not given out");
            let (revision, namespace, name): Token = serde_json::from_slice(&token).map_err(why)?;
            (at, start) = (Some(revision), Some((namespace, name)));
        }
        let (revision, mut items) = self.select(call, at)?;
        let place = |object: &Arc<Value>| (namespace(object).to_owned(), name(object).to_owned());
        items.retain(|object| start.as_ref().is_none_or(|last| place(object) > *last));
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        let limit = query.number::<usize>("limit")?.filter(|limit| *limit > 0);
        if let Some(limit) = limit.filter(|limit| *limit < items.len()) {
            let (namespace, name) = place(&items[limit - 1]);
            let token = json!([revision, namespace, name]).to_string();
            metadata["continue"] = BASE64_URL_SAFE_NO_PAD.encode(token).into();
            // Kubernetes does not count what it has to search.
            if call.selector()?.is_empty() {
                metadata["remainingItemCount"] = (items.len() - limit).into();
            }
            items.truncate(limit);
        }
        Ok((metadata, items))
    }

    /// 504 for a revision the store has not reached.
    pub(crate) fn check_reached(&self, revision: u64) -> Result<()> {
        let now = self.store.revision();
        if revision <= now {
            return Ok(());
        }
        let why = "Too large resource version";
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": why});
        let mut failure = Failure::new(504, format!("Timeout: {why}: {revision}, current: {now}"));
        failure.details = json!({"causes": [cause], "retryAfterSeconds": 1});
        Err(failure)
    }
}
