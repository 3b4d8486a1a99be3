//! Lists: selection, pages, revisions.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{name, namespace};
use crate::selector::Selector;
use crate::status::Failure;

/// Which objects of a kind are meant.
#[derive(Clone, Debug)]
pub struct Selection {
    /// `None` for all.
    pub namespace: Option<String>,
    /// What they must meet.
    pub selector: Selector,
}

/// The parts of `metav1.ListOptions` that choose a page and a time.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Most objects in one answer; 0 for all.
    pub limit: usize,
    /// `continue`, from the answer before.
    pub token: String,
    /// `resourceVersion`: that old at most, or just that old.
    pub revision: u64,
    /// `resourceVersionMatch=Exact`
    pub exact: bool,
}

impl Cluster {
    /// All that is selected and the revision it is of: now, or as it was at a revision.
    ///
    /// # Errors
    /// 410 for a revision whose objects are no longer known.
    pub fn select(
        &self,
        kind: &Kind,
        selection: &Selection,
        at: Option<u64>,
    ) -> Result<(u64, Vec<Arc<Value>>), Failure> {
        let (resource, namespace) = (kind.resource(), selection.namespace.as_deref());
        let (revision, mut found) = match at {
            None => self.store.list(&resource, namespace),
            Some(revision) => {
                let found = self.store.list_at(&resource, namespace, revision);
                let too_old = |_| Failure::expired("too old a list: begin again from its start");
                (revision, found.map_err(too_old)?)
            }
        };
        found.retain(|object| selection.selector.matches(object));
        let found = found.into_iter().map(|one| kind.convert(one));
        Ok((revision, found.collect()))
    }

    /// A page of what is selected, in order of namespace and name, and the `metadata` of the list.
    ///
    /// # Errors
    /// 400 for a token that is none, 410 for one too old, 504 for a revision not reached yet.
    pub fn list(
        &self,
        kind: &Kind,
        selection: &Selection,
        page: &Page,
    ) -> Result<(Value, Vec<Arc<Value>>), Failure> {
        let now = self.store.revision();
        if page.revision > now {
            return Err(too_large(page.revision, now));
        }
        let mut at = page.exact.then_some(page.revision);
        let mut start = None;
        if !page.token.is_empty() {
            let why = "continue key is not valid: it is none that was given out";
            let token = read_token(&page.token).ok_or_else(|| Failure::bad_request(why))?;
            (at, start) = (Some(token.0), Some((token.1, token.2)));
        }
        let (revision, mut items) = self.select(kind, selection, at)?;
        if let Some((in_namespace, after)) = &start {
            let last = (in_namespace.as_str(), after.as_str());
            items.retain(|object| (namespace(object), name(object)) > last);
        }
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if page.limit > 0 && items.len() > page.limit {
            let last = &items[page.limit - 1];
            let token = format!("{revision}/{}/{}", namespace(last), name(last));
            metadata["continue"] = BASE64_URL_SAFE_NO_PAD.encode(token).into();
            // Kubernetes does not count what it has to search.
            if selection.selector.is_empty() {
                metadata["remainingItemCount"] = (items.len() - page.limit).into();
            }
            items.truncate(page.limit);
        }
        Ok((metadata, items))
    }
}

/// Revision, and namespace and name of the last object shown.
fn read_token(token: &str) -> Option<(u64, String, String)> {
    let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let token = String::from_utf8(token).ok()?;
    let mut parts = token.splitn(3, '/');
    let revision = parts.next()?.parse().ok()?;
    Some((revision, parts.next()?.to_owned(), parts.next()?.to_owned()))
}

/// 504 for a revision the store has not reached.
pub(crate) fn too_large(revision: u64, now: u64) -> Failure {
    let message = format!("Timeout: Too large resource version: {revision}, current: {now}");
    let mut failure = Failure::new(504, "Timeout", message);
    failure.details = json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    });
    failure
}
