//! Lists: selection, pages, revisions.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Call;
use crate::cluster::Cluster;
use crate::object::{name, namespace};
use crate::status::Failure;

/// A `continue`: the revision of the list, and namespace and name of the last object shown.
type Token = (u64, String, String);

impl Cluster {
    /// All that is selected and the revision it is of: now, or as it was at a revision.
    ///
    /// # Errors
    /// 400 for selectors that are none, 410 for a revision whose objects are no longer known.
    pub fn select(&self, call: &Call, at: Option<u64>) -> Result<(u64, Vec<Arc<Value>>), Failure> {
        let (selector, resource) = (call.selector()?, call.kind.resource());
        let namespace = Some(call.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let (revision, found) = match at {
            None => self.store.list(&resource, namespace),
            Some(revision) => {
                let found = self.store.list_at(&resource, namespace, revision);
                let why = "too old a list: begin again from its start";
                (revision, found.ok_or_else(|| Failure::new(410, why))?)
            }
        };
        let found = found.into_iter().map(|one| call.kind.convert(one));
        let found = found.filter(|object| selector.matches(object));
        Ok((revision, found.collect()))
    }

    /// A page of what is selected, in order of namespace and name, and the `metadata` of the list.
    ///
    /// # Errors
    /// 400 for options that are none, 410 for a token that is too old, 504 for a revision not reached yet.
    pub fn list(&self, call: &Call) -> Result<(Value, Vec<Arc<Value>>), Failure> {
        let (query, now) = (&call.query, self.store.revision());
        let asked = query.number("resourceVersion")?.unwrap_or(0);
        if asked > now {
            return Err(too_large(asked, now));
        }
        let mut at = (query.get("resourceVersionMatch") == "Exact").then_some(asked);
        let mut start = None;
        if !query.get("continue").is_empty() {
            let token = BASE64_URL_SAFE_NO_PAD.decode(query.get("continue"));
            let token = token
                .ok()
                .and_then(|token| serde_json::from_slice(&token).ok());
            let why = "continue key is not valid: it is none that was given out";
            let (revision, namespace, name): Token = token.ok_or(Failure::bad_request(why))?;
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
}

/// 504 for a revision the store has not reached.
pub(crate) fn too_large(revision: u64, now: u64) -> Failure {
    let message = format!("Timeout: Too large resource version: {revision}, current: {now}");
    let cause =
        json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    let mut failure = Failure::new(504, message);
    failure.details = json!({"causes": [cause], "retryAfterSeconds": 1});
    failure
}
