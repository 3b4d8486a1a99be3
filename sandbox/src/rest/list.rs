//! Lists: selection, pages, revisions.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{name, namespace};
use crate::selector::Selector;
use crate::status::{Cause, Failure};

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
    /// From the answer before.
    pub token: String,
    /// `resourceVersion`
    pub revision: String,
    /// `resourceVersionMatch`
    pub revision_match: String,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// `metadata` of the list.
    pub metadata: Value,
    /// In order of namespace and name.
    pub items: Vec<Arc<Value>>,
}

/// What a `continue` token says.
#[derive(Deserialize, Serialize)]
struct Token {
    v: String,
    rv: u64,
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Cluster {
    /// All that is selected, as it is now.
    #[must_use]
    pub fn select(&self, kind: &Kind, selection: &Selection) -> (u64, Vec<Arc<Value>>) {
        let (revision, mut found) = self
            .store
            .list(&kind.resource(), selection.namespace.as_deref());
        found.retain(|object| selection.selector.matches(object));
        (
            revision,
            found.into_iter().map(|one| kind.convert(one)).collect(),
        )
    }

    /// A page of what is selected.
    ///
    /// # Errors
    /// 400 for a token or revision that is none, 410 for one too old, 504 for one not reached yet.
    pub fn list(
        &self,
        kind: &Kind,
        selection: &Selection,
        page: &Page,
    ) -> Result<Listing, Failure> {
        let now = self.store.revision();
        let asked = page.revision(now)?;
        let token = page.token()?;
        let (revision, found) = match (&token, asked) {
            (Some(token), _) => {
                let too_old = "The provided continue parameter is too old to display a consistent list result. You can \
                     start a new list without the continue parameter.";
                (token.rv, self.list_at(kind, selection, token.rv, too_old)?)
            }
            (None, Some(revision)) if page.revision_match == "Exact" => {
                let too_old = "The resourceVersion for the provided list is too old.";
                (revision, self.list_at(kind, selection, revision, too_old)?)
            }
            _ => self.select(kind, selection),
        };
        let start = token.map(|token| token.start);
        let start = start.as_deref().and_then(|start| start.split_once('/'));
        let mut items = found;
        items.retain(|object| start.is_none_or(|start| (namespace(object), name(object)) > start));
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if page.limit > 0 && items.len() > page.limit {
            let left = items.len() - page.limit;
            items.truncate(page.limit);
            let token = Token {
                v: TOKEN_VERSION.to_owned(),
                rv: revision,
                start: items.last().map_or_else(String::new, |last| {
                    format!("{}/{}", namespace(last), name(last))
                }),
            };
            let token = serde_json::to_vec(&token).unwrap_or_default();
            metadata["continue"] = BASE64_URL_SAFE_NO_PAD.encode(token).into();
            // Kubernetes does not count what it has to search.
            if selection.selector.is_empty() {
                metadata["remainingItemCount"] = left.into();
            }
        }
        Ok(Listing { metadata, items })
    }

    fn list_at(
        &self,
        kind: &Kind,
        selection: &Selection,
        revision: u64,
        too_old: &str,
    ) -> Result<Vec<Arc<Value>>, Failure> {
        let mut found = self
            .store
            .list_at(&kind.resource(), selection.namespace.as_deref(), revision)
            .map_err(|_| Failure::expired(too_old))?;
        found.retain(|object| selection.selector.matches(object));
        Ok(found.into_iter().map(|one| kind.convert(one)).collect())
    }
}

impl Page {
    fn token(&self) -> Result<Option<Token>, Failure> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let token = BASE64_URL_SAFE_NO_PAD
            .decode(self.token.trim_end_matches('='))
            .ok()
            .and_then(|token| serde_json::from_slice::<Token>(&token).ok())
            .filter(|token| token.v == TOKEN_VERSION);
        match token {
            Some(token) => Ok(Some(token)),
            None => Err(Failure::bad_request(
                "continue key is not valid: encoded continue value cannot be decoded",
            )),
        }
    }

    /// The revision the list must be of or newer than.
    fn revision(&self, now: u64) -> Result<Option<u64>, Failure> {
        let invalid = |field: &str, reason: &'static str, message: String| {
            let field = field.to_owned();
            let cause = Cause {
                reason,
                field,
                message,
            };
            Err(Failure::invalid("meta.k8s.io", "ListOptions", "", &[cause]))
        };
        let (wanted, how) = (self.revision.as_str(), self.revision_match.as_str());
        if !how.is_empty() {
            let field = "resourceVersionMatch";
            let forbidden =
                |why: &str| invalid(field, "FieldValueForbidden", format!("Forbidden: {why}"));
            if wanted.is_empty() {
                return forbidden(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            if !self.token.is_empty() {
                return forbidden("resourceVersionMatch is forbidden when continue is provided");
            }
            if !matches!(how, "Exact" | "NotOlderThan") {
                return invalid(
                    field,
                    "FieldValueNotSupported",
                    format!(
                        "Unsupported value: {how:?}: supported values: \"Exact\", \"NotOlderThan\""
                    ),
                );
            }
            if how == "Exact" && wanted == "0" {
                return forbidden(
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
        }
        if wanted.is_empty() {
            return Ok(None);
        }
        let revision: u64 = wanted.parse().map_err(|_| {
            Failure::bad_request(format!(
                "Invalid value: {wanted:?}: strconv.ParseUint: parsing {wanted:?}: invalid syntax"
            ))
        })?;
        if revision > now {
            return Err(too_large(revision, now));
        }
        Ok(Some(revision))
    }
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
