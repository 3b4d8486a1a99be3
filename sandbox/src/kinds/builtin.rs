//! The kinds built in: a row for each Rust type, with what `builtin.yaml` says of it.

use std::{any::TypeId, collections::HashMap, sync::LazyLock};

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, coordination::v1 as coordination, core::v1 as core,
    events::v1 as events, rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::{NamespaceResourceScope, Resource};
use schemars::{JsonSchema, SchemaGenerator};

use super::Kind;
use crate::{release::Release, status::qualified};

/// All of them, in the order of `kubectl api-resources`.
pub(super) const ROWS: [Row; 22] = [
    Row::of::<core::ConfigMap>(),
    Row::of::<core::Event>(),
    Row::of::<core::Namespace>(),
    Row::of::<core::Node>(),
    Row::of::<core::Pod>(),
    Row::of::<core::Secret>(),
    Row::of::<core::ServiceAccount>(),
    Row::of::<core::Service>(),
    Row::of::<admission::MutatingWebhookConfiguration>(),
    Row::of::<admission::ValidatingWebhookConfiguration>(),
    Row::of::<apiextensions::CustomResourceDefinition>(),
    Row::of::<apps::Deployment>(),
    Row::of::<authentication::SelfSubjectReview>(),
    Row::of::<authentication::TokenReview>(),
    Row::of::<authorization::SelfSubjectAccessReview>(),
    Row::of::<authorization::SubjectAccessReview>(),
    Row::of::<coordination::Lease>(),
    Row::of::<events::Event>(),
    Row::of::<rbac::ClusterRoleBinding>(),
    Row::of::<rbac::ClusterRole>(),
    Row::of::<rbac::RoleBinding>(),
    Row::of::<rbac::Role>(),
];

/// What a built-in kind's Rust type says of it.
pub(super) struct Row {
    /// The kind as a release has it.
    kind: fn(Release) -> Kind,
    /// Adds the definitions of the kind and of all it consists of.
    pub(super) define: fn(&mut SchemaGenerator),
}

impl Row {
    const fn of<T: Resource<Scope: 'static> + JsonSchema>() -> Self {
        Self {
            kind: kind::<T>,
            define: |generator| drop(generator.subschema_for::<T>()),
        }
    }
}

/// What `builtin.yaml` says of them.
static FACTS: LazyLock<HashMap<String, Kind>> = LazyLock::new(|| {
    serde_saphyr::from_str(include_str!("builtin.yaml")).expect("it is part of the program")
});

/// The kinds a release has.
pub(super) fn kinds(release: Release) -> impl Iterator<Item = Kind> {
    ROWS.iter().map(move |row| (row.kind)(release))
}

fn kind<T: Resource<Scope: 'static> + JsonSchema>(release: Release) -> Kind {
    let mut facts = FACTS[&qualified(T::GROUP, T::URL_PATH_SEGMENT)].clone();
    let known = |name: &String| release > Release::V1_20 || name != "ephemeralcontainers";
    facts.subresources.retain(known);
    Kind {
        group: T::GROUP.to_owned(),
        version: T::VERSION.to_owned(),
        kind: T::KIND.to_owned(),
        plural: T::URL_PATH_SEGMENT.to_owned(),
        singular: T::KIND.to_lowercase(),
        list_kind: format!("{}List", T::KIND),
        namespaced: TypeId::of::<T::Scope>() == TypeId::of::<NamespaceResourceScope>(),
        definition: T::schema_name(),
        ..facts
    }
}
