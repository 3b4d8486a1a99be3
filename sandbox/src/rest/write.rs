//! The one way of every write: what is wanted, what is filled in, what webhooks make of it, what is checked, the store.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ATTEMPTS, Call, MODIFIED, rules};
use crate::admission::{Stage, admit};
use crate::object::{deleting, meta, metadata_mut, name as name_of, over, text, uid};
use crate::schema::{self, Structural};
use crate::status::{Cause, Failure, Result};
use crate::store::{Key, Raced};
use crate::{apply, auth::rbac, cluster::Cluster, patch, request::Attributes};

/// What the body of a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `POST`: an object that is not there yet.
    Create,
    /// `PUT`: the object as it is to be.
    Update,
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/apply-patch+yaml`, which creates the object if it is not there.
    Apply,
}

/// What a write led to: 201 if the object is new, otherwise 200; the object stored, or to be stored if this was no dry
/// run; and warnings.
type Written = (u16, Arc<Value>, Vec<String>);

impl Cluster {
    /// Creates or changes an object.
    ///
    /// # Errors
    /// Whatever makes it unacceptable.
    pub async fn write(&self, call: &Call, change: Change, body: &Value) -> Result<Written> {
        for _ in 0..ATTEMPTS {
            let found = self.get(&call.kind, &call.namespace, &call.name).ok();
            let live = found.filter(|_| change != Change::Create);
            let live = live.as_deref();
            let attempt = Attempt {
                cluster: self,
                call,
                change,
                live,
            };
            if let Some(written) = attempt.write(body).await? {
                return Ok(written);
            }
        }
        Err(call.conflict(MODIFIED))
    }
}

/// A write, and the object there is before it.
struct Attempt<'a> {
    cluster: &'a Cluster,
    call: &'a Call,
    change: Change,
    live: Option<&'a Value>,
}

impl Attempt<'_> {
    /// Writes; `None` if somebody else was faster.
    async fn write(&self, body: &Value) -> Result<Option<Written>> {
        let (cluster, call, live) = (self.cluster, self.call, self.live);
        let (kind, store) = (&*call.kind, &cluster.store);
        let (wanted, mut warnings) = self.wanted(body)?;
        self.check_conditions(&wanted)?;
        let object = self.fill_in(wanted);
        let (mut object, more) = admit(cluster, Stage::Mutating, call, live, object).await?;
        warnings.extend(more);
        if let Some(live) = live {
            object = rules::carry(call, live, &object);
        }
        rules::complete(kind, live, &mut object)?;
        let structural = Structural::of(kind);
        structural.prune(&mut object); // a webhook may have added what the kind does not have
        structural.default(&mut object);
        rules::fail(kind, &object, &structural.validate(&object, live))?;
        rules::check(cluster, call, &object, live)?;
        let (object, more) = admit(cluster, Stage::Validating, call, live, object).await?;
        warnings.extend(more);
        let key = Cluster::place(kind, &call.namespace, name_of(&object));
        let stored = match live {
            None if call.dry_run() && store.get(&key).is_some() => Err(Raced),
            _ if call.dry_run() => Ok(Arc::new(object)),
            // A finalizer that was waited for may have been the last.
            Some(_) if over(&object) => store.write(&key, live, None).map(|_| Arc::new(object)),
            _ => store.write(&key, live, Some(object)),
        };
        let code = if live.is_none() { 201 } else { 200 };
        match stored {
            Ok(object) => Ok(Some((code, object, warnings))),
            Err(Raced) if self.change == Change::Create => {
                Err(Failure::exists(&kind.group, &kind.plural, &key.name))
            }
            Err(Raced) => Ok(None),
        }
    }

    /// What the object is to be if nobody objects, and warnings. Its `resourceVersion` is what the client insists on.
    fn wanted(&self, body: &Value) -> Result<(Value, Vec<String>)> {
        let (call, kind) = (self.call, &self.call.kind);
        let (group, plural, name) = (&kind.group, &kind.plural, &call.name);
        let next = match (self.change, self.live) {
            (Change::Json, Some(live)) => patch::json(live, body)?,
            (Change::Merge, Some(live)) => patch::merge(live, body),
            (Change::Strategic, Some(live)) => patch::strategic(kind, live, body),
            (Change::Apply, None) if call.subresource.is_empty() => {
                let create = Attributes::about("create", group, &call.namespace, plural, name);
                rbac::require(self.cluster, &call.who, &create)?;
                body.clone()
            }
            (Change::Create, _) | (_, Some(_)) => body.clone(),
            _ => return Err(Failure::not_found(group, plural, name)),
        };
        let mut next = self.accept(next)?;
        let warnings = self.known_fields(&mut next)?;
        if self.change == Change::Apply {
            if !next["metadata"]["managedFields"].is_null() {
                return Err(Failure::bad_request("metadata.managedFields must be nil"));
            }
            next = apply::apply(self.live, &next, call, self.cluster.clock.now())?;
        }
        Ok((next, warnings))
    }

    /// An object as it came, if it is what its path says it is.
    fn accept(&self, mut object: Value) -> Result<Value> {
        let (call, kind) = (self.call, &self.call.kind);
        if !object.is_object() {
            return Err(Failure::bad_request(format!("it is no {}", kind.kind)));
        }
        metadata_mut(&mut object);
        if !kind.namespaced {
            rules::put(&mut object, "/metadata/namespace", None);
        }
        let must_say = kind.custom() || self.change == Change::Apply;
        for (at, wanted, must_say) in [
            ("/apiVersion", &kind.api_version(), must_say),
            ("/kind", &kind.kind, must_say),
            ("/metadata/namespace", &call.namespace, false),
            ("/metadata/name", &call.name, false),
        ] {
            if wanted.is_empty() {
                continue;
            }
            let said = object.pointer(at).map_or("", text);
            if said != wanted && (must_say || !said.is_empty()) {
                let field = at.rsplit('/').next().unwrap_or_default();
                let why = format!("the {field} of the object ({said}) does not match");
                let why = format!("{why} the {field} on the URL ({wanted})");
                return Err(Failure::bad_request(why));
            }
            rules::put(&mut object, at, Some(&wanted.as_str().into()));
        }
        Ok(object)
    }

    /// Takes out the fields the kind does not have, and returns warnings about them; refuses them if the write is strict,
    /// and values of another type than a built-in kind's fields have.
    fn known_fields(&self, object: &mut Value) -> Result<Vec<String>> {
        let mut warnings = schema::decode(&self.call.kind, object)?;
        for field in &mut warnings {
            *field = format!("unknown field {field:?}");
        }
        match self.call.query.get("fieldValidation") {
            "Ignore" => Ok(Vec::new()),
            "Strict" if !warnings.is_empty() => {
                let why = format!("strict decoding error: {}", warnings.join(", "));
                Err(Failure::bad_request(why))
            }
            _ => Ok(warnings),
        }
    }

    /// What the client insists on: a UID, a revision, a namespace that is there and not about to go.
    fn check_conditions(&self, wanted: &Value) -> Result<()> {
        let (said, expected) = (uid(wanted), meta(wanted, "resourceVersion"));
        let there = self.live.map_or("", |live| uid(live));
        match self.live {
            None if !expected.is_empty() => {
                let why = "resourceVersion should not be set on objects to be created";
                Err(Failure::new(500, why))
            }
            None if said.is_empty() || self.change == Change::Create => {
                self.check_namespace(wanted)
            }
            Some(_) if expected.is_empty() && self.call.kind.custom() => {
                let why = "Invalid value: 0x0: must be specified for an update";
                let cause = Cause::new("FieldValueInvalid", "metadata.resourceVersion", why);
                rules::fail(&self.call.kind, wanted, &[cause])
            }
            _ if !said.is_empty() && said != there => {
                let why = format!("UID in precondition: {said}, UID in object meta: {there}");
                Err(self.call.conflict(&format!("Precondition failed: {why}")))
            }
            Some(live) if !expected.is_empty() && expected != meta(live, "resourceVersion") => {
                Err(self.call.conflict(MODIFIED))
            }
            _ => Ok(()),
        }
    }

    fn check_namespace(&self, wanted: &Value) -> Result<()> {
        let (kind, namespace) = (&self.call.kind, self.call.namespace.as_str());
        if !kind.namespaced {
            return Ok(());
        }
        let found = (self.cluster.store).get(&Key::new("namespaces", "", namespace));
        let found = found.ok_or_else(|| Failure::not_found("", "namespaces", namespace))?;
        if !deleting(&found) {
            return Ok(());
        }
        let why = format!("namespace {namespace} is being terminated");
        let cause = Cause::new("NamespaceTerminating", "metadata.namespace", why);
        let why = format!("namespace {namespace} because it is being terminated");
        let why = format!("unable to create new content in {why}");
        let mut failure = Failure::forbidden(&kind.group, &kind.plural, name_of(wanted), &why);
        failure.details["causes"] = json!([cause]);
        Err(failure)
    }

    /// What the API server adds of itself.
    fn fill_in(&self, mut object: Value) -> Value {
        let kind = &self.call.kind;
        if let Some(live) = self.live {
            object = rules::carry(self.call, live, &object);
        } else {
            if kind.status {
                rules::put(&mut object, "/status", None);
            }
            self.cluster.stamp(kind, &mut object);
        }
        rules::fill_in(kind, &mut object);
        Structural::of(kind).default(&mut object);
        if self.change != Change::Apply {
            let now = self.cluster.clock.now();
            apply::record(self.live, &mut object, self.call, now);
        }
        object
    }
}
