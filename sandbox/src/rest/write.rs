//! The one way of every write: what is wanted, what is filled in, what webhooks make of it, what is checked, the store.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ATTEMPTS, Change, MODIFIED, Write, Written, meta, special};
use crate::apply::{self, Writer};
use crate::auth::rbac;
use crate::cluster::Cluster;
use crate::object::{deleting, meta as text, metadata_mut, name as name_of, uid};
use crate::request::Attributes;
use crate::schema::{self, Structural};
use crate::status::{Cause, Failure};
use crate::store::{Key, Raced};
use crate::{admission, patch};

impl Cluster {
    /// Creates or changes an object.
    ///
    /// # Errors
    /// Whatever makes it unacceptable.
    pub async fn write(&self, write: &Write<'_>) -> Result<Written, Failure> {
        for _ in 0..ATTEMPTS {
            if let Some(written) = self.attempt(write).await? {
                return Ok(written);
            }
        }
        Err(write.conflict(MODIFIED))
    }

    /// Writes unless somebody else was faster.
    async fn attempt(&self, write: &Write<'_>) -> Result<Option<Written>, Failure> {
        let (kind, options) = (write.kind, write.options);
        let creates = matches!(write.change, Change::Create(_));
        let found = (!creates).then(|| self.get(kind, write.namespace, write.name).ok());
        let found = found.flatten();
        let live = found.as_deref();
        let (wanted, mut warnings) = self.wanted(write, live)?;
        self.check_conditions(write, live, &wanted)?;
        let object = self.fill_in(write, live, wanted)?;
        let asked = name_of(&object).to_owned();
        let (operation, review) = match (live, &write.change) {
            (None, _) => ("CREATE", "CreateOptions"),
            (_, Change::Apply(_)) => ("UPDATE", "PatchOptions"),
            _ => ("UPDATE", "UpdateOptions"),
        };
        let review = json!({"kind": review, "apiVersion": "meta.k8s.io/v1", "fieldManager": options.manager});
        let seen = admission::Write {
            operation,
            kind,
            subresource: &options.subresource,
            namespace: write.namespace,
            name: &asked,
            before: live,
            dry_run: options.dry_run,
            options: &review,
            who: write.who,
        };
        let (mut object, more) = admission::mutate(self, seen, object).await?;
        if let Some(live) = live {
            object = meta::carry(kind, live, &object, &options.subresource);
        }
        meta::complete(kind, live, &mut object)?;
        let structural = Structural::of(kind);
        structural.prune(&mut object); // a webhook may have added what the kind does not have
        structural.default(&mut object);
        meta::fail(kind, &object, &structural.validate(&object, live))?;
        special::check(self, write, &object, live)?;
        let name = name_of(&object).to_owned();
        let seen = admission::Write {
            name: &name,
            ..seen
        };
        warnings.extend(more);
        warnings.extend(admission::validate(self, seen, &object).await?);
        let key = Self::place(kind, write.namespace, &name);
        let stored = match live {
            None if options.dry_run && self.store.get(&key).is_some() => Err(Raced),
            _ if options.dry_run => Ok(Arc::new(object)),
            // A finalizer that was waited for may have been the last.
            Some(_) if special::done(kind, &object) => {
                let removed = self.store.write(&key, live, None);
                removed.map(|_| Arc::new(object))
            }
            _ => self.store.write(&key, live, Some(object)),
        };
        match stored {
            Ok(object) => Ok(Some(Written {
                object,
                created: live.is_none(),
                warnings,
            })),
            Err(Raced) if creates && name == asked => {
                Err(Failure::already_exists(&kind.group, &kind.plural, &name))
            }
            Err(Raced) => Ok(None),
        }
    }

    /// What the object is to be if nobody objects, and warnings. Its `resourceVersion` is what the client insists on.
    fn wanted(
        &self,
        write: &Write<'_>,
        live: Option<&Value>,
    ) -> Result<(Value, Vec<String>), Failure> {
        let (kind, options) = (write.kind, write.options);
        let next = match (&write.change, live) {
            (Change::Apply(config), None) if options.subresource.is_empty() => config.clone(),
            (Change::Create(object), _) => object.clone(),
            (_, None) => return Err(Failure::not_found(&kind.group, &kind.plural, write.name)),
            (Change::Update(object) | Change::Apply(object), _) => object.clone(),
            (Change::Json(patch), Some(live)) => patch::json(live, patch)?,
            (Change::Merge(patch), Some(live)) => patch::merge(live, patch),
            (Change::Strategic(patch), Some(live)) => patch::strategic(kind, live, patch)?,
        };
        let next = write.accept(next)?;
        let (next, warnings) = known_fields(write, next)?;
        if !matches!(write.change, Change::Apply(_)) {
            return Ok((next, warnings));
        }
        if !next["metadata"]["managedFields"].is_null() {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        if live.is_none() {
            let (group, plural) = (&kind.group, &kind.plural);
            let create = Attributes::about("create", group, write.namespace, plural, write.name);
            rbac::require(self, write.who, &create)?;
        }
        let next = apply::apply(live, &next, kind, self.writer(write), options.force)?;
        Ok((next, warnings))
    }

    /// What the client insists on: a UID, a revision, a namespace that is there and not about to go.
    fn check_conditions(
        &self,
        write: &Write<'_>,
        live: Option<&Value>,
        wanted: &Value,
    ) -> Result<(), Failure> {
        let (said, expected) = (uid(wanted), text(wanted, "resourceVersion"));
        let Some(live) = live else {
            if !expected.is_empty() {
                let why = "resourceVersion should not be set on objects to be created";
                return Err(Failure::new(500, "", why));
            }
            if !said.is_empty() && matches!(write.change, Change::Apply(_)) {
                return Err(write.conflict(&format!("there is no object with UID {said}")));
            }
            return self.check_namespace(write, name_of(wanted));
        };
        if expected.is_empty() && write.kind.custom() {
            let why = "Invalid value: 0x0: must be specified for an update";
            let cause = Cause::new("FieldValueInvalid", "metadata.resourceVersion", why);
            return meta::fail(write.kind, wanted, &[cause]);
        }
        if !said.is_empty() && said != uid(live) {
            let why = format!(
                "UID in precondition: {said}, UID in object meta: {}",
                uid(live)
            );
            return Err(write.conflict(&format!("Precondition failed: {why}")));
        }
        if !expected.is_empty() && expected != text(live, "resourceVersion") {
            return Err(write.conflict(MODIFIED));
        }
        Ok(())
    }

    fn check_namespace(&self, write: &Write<'_>, name: &str) -> Result<(), Failure> {
        let (kind, namespace) = (write.kind, write.namespace);
        let found = self.store.get(&Key::new("namespaces", "", namespace));
        match found {
            _ if !kind.namespaced => Ok(()),
            None => Err(Failure::not_found("", "namespaces", namespace)),
            Some(found) if deleting(&found) => {
                let why = format!("namespace {namespace} is being terminated");
                let text = format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                );
                let mut failure = Failure::forbidden(&kind.group, &kind.plural, name, &text);
                let cause = json!({"reason": "NamespaceTerminating", "message": why, "field": "metadata.namespace"});
                failure.details["causes"] = json!([cause]);
                Err(failure)
            }
            Some(_) => Ok(()),
        }
    }

    /// What the API server adds of itself.
    fn fill_in(
        &self,
        write: &Write<'_>,
        live: Option<&Value>,
        mut object: Value,
    ) -> Result<Value, Failure> {
        if let Some(live) = live {
            object = meta::carry(write.kind, live, &object, &write.options.subresource);
        } else {
            if write.kind.status {
                meta::put(&mut object, "/status", None);
            }
            self.stamp(write.kind, &mut object);
            special::begin(self, write, &mut object)?;
        }
        special::fill_in(write.kind, &mut object);
        Structural::of(write.kind).default(&mut object);
        if !matches!(write.change, Change::Apply(_)) {
            apply::record(live, &mut object, write.kind, self.writer(write));
        }
        Ok(object)
    }

    fn writer<'a>(&self, write: &Write<'a>) -> Writer<'a> {
        Writer {
            manager: &write.options.manager,
            subresource: &write.options.subresource,
            now: self.clock.now(),
        }
    }
}

impl Write<'_> {
    fn conflict(&self, why: &str) -> Failure {
        Failure::conflict(&self.kind.group, &self.kind.plural, self.name, why)
    }

    /// An object as it came, if it is what its path says it is.
    fn accept(&self, mut object: Value) -> Result<Value, Failure> {
        let kind = self.kind;
        let refuse = |field: &str, said: &str, wanted: &str| {
            let why = format!("{field} must be {wanted:?}, is {said:?}");
            let why = format!("it cannot be handled as a {}: {why}", kind.kind);
            Err(Failure::bad_request(why))
        };
        if !object.is_object() {
            return refuse("the body", "no object", "an object");
        }
        let must_say = kind.custom() || matches!(self.change, Change::Apply(_));
        for (field, wanted) in [("apiVersion", &kind.api_version()), ("kind", &kind.kind)] {
            let said = object[field].as_str().unwrap_or_default();
            if said != wanted && (must_say || !said.is_empty()) {
                return refuse(field, said, wanted);
            }
            object[field] = wanted.as_str().into();
        }
        if !kind.namespaced {
            meta::put(&mut object, "/metadata/namespace", None);
        }
        for (field, wanted) in [("namespace", self.namespace), ("name", self.name)] {
            let said = text(&object, field);
            if wanted.is_empty() {
                continue;
            }
            if !said.is_empty() && said != wanted {
                let why = format!(
                    "the {field} of the object ({said}) does not match the {field} on the URL ({wanted})"
                );
                return Err(Failure::bad_request(why));
            }
            metadata_mut(&mut object).insert(field.to_owned(), wanted.into());
        }
        Ok(object)
    }
}

/// The object without the fields its kind does not have, and warnings about them; refuses them if the write is strict,
/// and values of another type than a built-in kind's fields have.
fn known_fields(write: &Write<'_>, mut object: Value) -> Result<(Value, Vec<String>), Failure> {
    let unknown = schema::decode(write.kind, &mut object)?.into_iter();
    let warning = |field: String| format!("unknown field {field:?}");
    let warnings: Vec<String> = unknown.map(warning).collect();
    match write.options.field_validation.as_str() {
        "Ignore" => return Ok((object, Vec::new())),
        "Strict" if !warnings.is_empty() => {}
        _ => return Ok((object, warnings)),
    }
    let why = format!("strict decoding error: {}", warnings.join(", "));
    Err(match write.change {
        Change::Create(_) | Change::Update(_) | Change::Apply(_) => Failure::bad_request(why),
        _ => Failure::invalid("", "", "", &[Cause::new("FieldValueInvalid", "patch", why)]),
    })
}
