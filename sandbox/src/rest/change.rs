//! Updates and patches: from what there is and what is wanted to what is stored.

use std::sync::Arc;

use serde_json::Value;

use super::{ATTEMPTS, MODIFIED, Options, Patch, Written, conform, meta, special};
use crate::admission;
use crate::apply::{self, Writer};
use crate::auth::Identity;
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::{meta as meta_text, metadata_mut, name as object_name, revision, uid};
use crate::patch;
use crate::status::{Cause, Failure};
use crate::store::Rejected;

/// What an object is to become.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    This(&'a Value),
    Patched(&'a Patch),
}

impl Cluster {
    /// Replaces an object (`PUT`); without a `resourceVersion` whatever it is now.
    ///
    /// # Errors
    /// As [`Cluster::create`], 404, 409.
    pub async fn update(
        &self,
        who: &Identity,
        kind: &Kind,
        namespace: &str,
        name: &str,
        object: Value,
        options: &Options,
    ) -> Result<Written, Failure> {
        let mut object = Self::accept(kind, namespace, object)?;
        let said = object_name(&object);
        if said.is_empty() {
            metadata_mut(&mut object).insert("name".into(), name.into());
        } else if said != name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({said}) does not match the name on the URL ({name})"
            )));
        }
        self.change(who, kind, namespace, name, Wanted::This(&object), options)
            .await
    }

    /// Changes an object; an apply patch creates it if it is not there.
    ///
    /// # Errors
    /// As [`Cluster::update`].
    pub async fn patch(
        &self,
        who: &Identity,
        kind: &Kind,
        namespace: &str,
        name: &str,
        patch: &Patch,
        options: &Options,
    ) -> Result<Written, Failure> {
        self.change(who, kind, namespace, name, Wanted::Patched(patch), options)
            .await
    }

    async fn change(
        &self,
        who: &Identity,
        kind: &Kind,
        namespace: &str,
        name: &str,
        wanted: Wanted<'_>,
        options: &Options,
    ) -> Result<Written, Failure> {
        let key = Self::place(kind, namespace, name);
        let late = || Failure::conflict(&kind.group, &kind.plural, name, MODIFIED);
        for _ in 0..ATTEMPTS {
            let Some(live) = self.store.get(&key).map(|live| kind.convert(live)) else {
                return self
                    .change_nothing(who, kind, namespace, name, wanted, options)
                    .await;
            };
            let (next, warnings) = self.next(kind, namespace, &live, wanted, options)?;
            let expected = meta_text(&next, "resourceVersion").to_owned();
            if expected.is_empty() && special::insists_on_revision(kind) {
                let cause = Cause {
                    reason: "FieldValueInvalid",
                    field: "metadata.resourceVersion".to_owned(),
                    message: "Invalid value: 0x0: must be specified for an update".to_owned(),
                };
                return Err(Failure::invalid(&kind.group, &kind.kind, name, &[cause]));
            }
            let (said, there) = (uid(&next), uid(&live));
            if !said.is_empty() && said != there {
                let why = format!(
                    "Precondition failed: UID in precondition: {said}, UID in object meta: {there}"
                );
                return Err(Failure::conflict(&kind.group, &kind.plural, name, &why));
            }
            if !expected.is_empty() && expected != meta_text(&live, "resourceVersion") {
                return Err(late());
            }
            let applied = matches!(wanted, Wanted::Patched(Patch::Apply(_)));
            let (next, more) = self
                .prepare(who, kind, namespace, &live, next, options, applied)
                .await?;
            let written = |object| Written {
                object,
                created: false,
                warnings: [warnings, more].concat(),
            };
            if options.dry_run {
                return Ok(written(Arc::new(next)));
            }
            // A finalizer that was waited for may have been the last.
            let stored = if special::done(kind, &next) {
                let removed = self.store.remove(&key, revision(&live));
                removed.map(|_| Arc::new(next))
            } else {
                self.store.replace(&key, revision(&live), next)
            };
            match stored {
                Ok(object) => return Ok(written(object)),
                Err(_) if matches!(wanted, Wanted::This(_)) && !expected.is_empty() => {
                    return Err(late());
                }
                Err(Rejected::Exists | Rejected::Missing | Rejected::Changed) => {}
            }
        }
        Err(late())
    }

    /// What a write does to an object that is not there.
    async fn change_nothing(
        &self,
        who: &Identity,
        kind: &Kind,
        namespace: &str,
        name: &str,
        wanted: Wanted<'_>,
        options: &Options,
    ) -> Result<Written, Failure> {
        let missing = || Failure::not_found(&kind.group, &kind.plural, name);
        if !options.subresource.is_empty() {
            return Err(missing());
        }
        let (object, warnings) = match wanted {
            Wanted::Patched(Patch::Apply(config)) => {
                let config = Self::accept_config(kind, namespace, name, config)?;
                if !uid(&config).is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {}, and no existing object was found",
                        uid(&config)
                    );
                    return Err(Failure::conflict(&kind.group, &kind.plural, name, &why));
                }
                let (config, warnings) = conform::known_fields(kind, config, options, None)?;
                let writer = self.writer(options);
                (
                    apply::apply(None, &config, kind, writer, options.force)?,
                    warnings,
                )
            }
            Wanted::This(object) if special::created_by_update(kind) => {
                conform::known_fields(kind, object.clone(), options, None)?
            }
            _ => return Err(missing()),
        };
        self.require_also(who, kind, "create", namespace, name)?;
        self.store_new(who, kind, namespace, object, options, warnings)
            .await
    }

    /// What the object is to be if nobody objects, and warnings. Its `resourceVersion` is what the client insists on.
    fn next(
        &self,
        kind: &Kind,
        namespace: &str,
        live: &Value,
        wanted: Wanted<'_>,
        options: &Options,
    ) -> Result<(Value, Vec<String>), Failure> {
        let patched = match wanted {
            Wanted::This(object) => {
                return conform::known_fields(kind, object.clone(), options, None);
            }
            Wanted::Patched(patch) => patch,
        };
        let next = match patched {
            Patch::Json(patch) => patch::json(live, patch)?,
            Patch::Merge(patch) => patch::merge(live, patch),
            Patch::Strategic(patch) => patch::strategic(kind, live, patch)?,
            Patch::Apply(config) => {
                let config = Self::accept_config(kind, namespace, object_name(live), config)?;
                let (config, warnings) = conform::known_fields(kind, config, options, None)?;
                let writer = self.writer(options);
                let next = apply::apply(Some(live), &config, kind, writer, options.force)?;
                return Ok((next, warnings));
            }
        };
        let next = Self::accept(kind, namespace, next)?;
        conform::known_fields(kind, next, options, Some(patched))
    }

    /// What is applied must say what it is.
    fn accept_config(
        kind: &Kind,
        namespace: &str,
        name: &str,
        config: &Value,
    ) -> Result<Value, Failure> {
        if config["apiVersion"].as_str().is_none() || config["kind"].as_str().is_none() {
            return Err(Failure::bad_request(
                "Object 'Kind' or 'apiVersion' is missing",
            ));
        }
        if !config["metadata"]["managedFields"].is_null() {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        let mut config = Self::accept(kind, namespace, config.clone())?;
        match object_name(&config) {
            "" => {
                metadata_mut(&mut config).insert("name".into(), name.into());
            }
            said if said != name => {
                return Err(Failure::bad_request(format!(
                    "the name of the object ({said}) does not match the name on the URL ({name})"
                )));
            }
            _ => {}
        }
        Ok(config)
    }

    fn writer<'a>(&self, options: &'a Options) -> Writer<'a> {
        Writer {
            manager: &options.manager,
            subresource: &options.subresource,
            now: self.clock.now(),
        }
    }

    /// Takes what is wanted through everything that must happen before it is stored.
    #[expect(clippy::too_many_arguments, reason = "one caller")]
    async fn prepare(
        &self,
        who: &Identity,
        kind: &Kind,
        namespace: &str,
        live: &Value,
        next: Value,
        options: &Options,
        applied: bool,
    ) -> Result<(Value, Vec<String>), Failure> {
        let subresource = options.subresource.as_str();
        let carry = |next| {
            let next = special::carry(kind, live, next, subresource);
            meta::carry(kind, live, next, subresource)
        };
        let mut next = carry(next);
        special::fill_in(self.release, kind, &mut next);
        conform::defaults(kind, &mut next);
        if !applied {
            apply::record(Some(live), &mut next, kind, self.writer(options));
        }
        let name = object_name(live);
        let write = admission::Write {
            operation: "UPDATE",
            kind,
            subresource,
            namespace,
            name,
            before: Some(live),
            dry_run: options.dry_run,
            options: &options.review(if applied {
                "PatchOptions"
            } else {
                "UpdateOptions"
            }),
            who,
        };
        let (next, mut warnings) = admission::mutate(self, write, next).await?;
        let mut next = carry(next);
        meta::check_change(kind, live, &next)?;
        conform::check(kind, &mut next, Some(live))?;
        meta::count(kind, live, &mut next);
        special::check(self, who, kind, &next, Some((live, subresource)))?;
        warnings.extend(admission::validate(self, write, &next).await?);
        Ok((next, warnings))
    }
}
