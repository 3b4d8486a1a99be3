//! The kinds built in, one row each.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, batch::v1 as batch, coordination::v1 as coordination,
    core::v1 as core, events::v1 as events, rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource};
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Kind, Schema};
use crate::release::Release;

/// All of them, in the order of `kubectl api-resources`.
pub(super) fn rows() -> Vec<Row> {
    const STATUS: &[&str] = &["status"];
    vec![
        row::<core::ConfigMap>().short(&["cm"]),
        row::<core::Event>().short(&["ev"]),
        row::<core::Namespace>().short(&["ns"]).sub(STATUS),
        row::<core::Node>().short(&["no"]).sub(STATUS),
        row::<core::Pod>()
            .short(&["po"])
            .all()
            .generation(33)
            .sub(&[
                "attach",
                "ephemeralcontainers",
                "exec",
                "log",
                "portforward",
                "status",
            ]),
        row::<core::Secret>(),
        row::<core::ServiceAccount>().short(&["sa"]).sub(&["token"]),
        row::<core::Service>().short(&["svc"]).all().sub(STATUS),
        row::<admission::MutatingWebhookConfiguration>()
            .generation(0)
            .extends(),
        row::<admission::ValidatingWebhookConfiguration>()
            .generation(0)
            .extends(),
        row::<apiextensions::CustomResourceDefinition>()
            .short(&["crd", "crds"])
            .generation(0)
            .extends()
            .sub(STATUS),
        row::<apps::DaemonSet>()
            .short(&["ds"])
            .all()
            .generation(0)
            .sub(STATUS),
        row::<apps::Deployment>()
            .short(&["deploy"])
            .all()
            .generation(0)
            .sub(STATUS),
        row::<apps::ReplicaSet>()
            .short(&["rs"])
            .all()
            .generation(0)
            .sub(STATUS),
        row::<apps::StatefulSet>()
            .short(&["sts"])
            .all()
            .generation(0)
            .sub(STATUS),
        row::<authentication::SelfSubjectReview>().since(28).asked(),
        row::<authentication::TokenReview>().asked(),
        row::<authorization::LocalSubjectAccessReview>().asked(),
        row::<authorization::SelfSubjectAccessReview>().asked(),
        row::<authorization::SelfSubjectRulesReview>().asked(),
        row::<authorization::SubjectAccessReview>().asked(),
        row::<batch::Job>().all().generation(0).sub(STATUS),
        row::<coordination::Lease>(),
        row::<events::Event>().short(&["ev"]),
        row::<rbac::ClusterRoleBinding>(),
        row::<rbac::ClusterRole>(),
        row::<rbac::RoleBinding>(),
        row::<rbac::Role>(),
    ]
}

/// A built-in kind: what its Rust type says of it, and what that does not.
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    /// Its name among the definitions.
    pub(super) definition: Cow<'static, str>,
    /// Adds the definitions of the kind and of all it consists of.
    pub(super) define: fn(&mut SchemaGenerator),
    /// Whether an object can be decoded into the kind's Rust type.
    parse: fn(Value) -> Result<(), serde_json::Error>,
    plural: &'static str,
    namespaced: bool,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    subresources: &'static [&'static str],
    /// Minor version that had the kind first.
    since: u32,
    /// Minor version that counted its generations first.
    generation: u32,
    virtual_only: bool,
}

/// Decodes an object into the Rust type of this name among the definitions.
///
/// # Errors
/// A value that is of another type than its field.
pub fn parse(definition: &str, object: &Value) -> Result<(), serde_json::Error> {
    type Parse = fn(Value) -> Result<(), serde_json::Error>;
    static PARSERS: LazyLock<HashMap<Cow<'static, str>, Parse>> = LazyLock::new(|| {
        let rows = rows().into_iter();
        rows.map(|row| (row.definition, row.parse)).collect()
    });
    PARSERS
        .get(definition)
        .map_or(Ok(()), |parse| parse(object.clone()))
}

fn row<T: Resource<Scope: Scope> + JsonSchema + DeserializeOwned>() -> Row {
    Row {
        group: T::GROUP,
        version: T::VERSION,
        kind: T::KIND,
        definition: T::schema_name(),
        define: |generator| drop(generator.subschema_for::<T>()),
        parse: |object| serde_json::from_value::<T>(object).map(drop),
        plural: T::URL_PATH_SEGMENT,
        namespaced: <T::Scope as Scope>::NAMESPACED,
        short_names: &[],
        categories: &[],
        subresources: &[],
        since: 0,
        generation: u32::MAX,
        virtual_only: false,
    }
}

trait Scope {
    const NAMESPACED: bool;
}

impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl Row {
    fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    /// Shown by `kubectl get all`.
    fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    /// Shown by `kubectl get api-extensions`.
    fn extends(mut self) -> Self {
        self.categories = &["api-extensions"];
        self
    }

    fn sub(mut self, resources: &'static [&'static str]) -> Self {
        self.subresources = resources;
        self
    }

    fn since(mut self, minor: u32) -> Self {
        self.since = minor;
        self
    }

    fn generation(mut self, minor: u32) -> Self {
        self.generation = minor;
        self
    }

    /// Created to be answered, not to be stored.
    fn asked(mut self) -> Self {
        self.virtual_only = true;
        self
    }

    /// The kind as a release has it; `None` if it does not.
    pub(super) fn kind(self, release: Release) -> Option<Kind> {
        let minor = release.minor();
        let strings = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        (self.since <= minor).then(|| Kind {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            list_kind: format!("{}List", self.kind),
            short_names: strings(self.short_names),
            categories: strings(self.categories),
            namespaced: self.namespaced,
            status: self.subresources.contains(&"status"),
            generation: self.generation <= minor,
            subresources: self
                .subresources
                .iter()
                .copied()
                .filter(|name| *name != "status" && (*name != "ephemeralcontainers" || minor >= 23))
                .collect(),
            virtual_only: self.virtual_only,
            columns: crate::table::columns(self.kind, minor),
            schema: Schema::Builtin(self.definition),
        })
    }
}
