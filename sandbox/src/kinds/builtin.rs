//! The kinds built in: a row for each Rust type, with what `builtin.yaml` says of it.

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, batch::v1 as batch, coordination::v1 as coordination,
    core::v1 as core, events::v1 as events, rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::{NamespaceResourceScope, Resource};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;

use super::{Column, Kind, Schema};
use crate::release::Release;
use crate::status::qualified;

/// All of them, in the order of `kubectl api-resources`.
pub(super) static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    vec![
        row::<core::ConfigMap>(),
        row::<core::Event>(),
        row::<core::Namespace>(),
        row::<core::Node>(),
        row::<core::Pod>(),
        row::<core::Secret>(),
        row::<core::ServiceAccount>(),
        row::<core::Service>(),
        row::<admission::MutatingWebhookConfiguration>(),
        row::<admission::ValidatingWebhookConfiguration>(),
        row::<apiextensions::CustomResourceDefinition>(),
        row::<apps::DaemonSet>(),
        row::<apps::Deployment>(),
        row::<apps::ReplicaSet>(),
        row::<apps::StatefulSet>(),
        row::<authentication::SelfSubjectReview>(),
        row::<authentication::TokenReview>(),
        row::<authorization::SelfSubjectAccessReview>(),
        row::<authorization::SubjectAccessReview>(),
        row::<batch::Job>(),
        row::<coordination::Lease>(),
        row::<events::Event>(),
        row::<rbac::ClusterRoleBinding>(),
        row::<rbac::ClusterRole>(),
        row::<rbac::RoleBinding>(),
        row::<rbac::Role>(),
    ]
});

/// What a built-in kind's Rust type says of it.
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    /// Its name among the definitions.
    pub(super) definition: Cow<'static, str>,
    /// Adds the definitions of the kind and of all it consists of.
    pub(super) define: fn(&mut SchemaGenerator),
}

fn row<T: Resource + JsonSchema>() -> Row
where
    T::Scope: 'static,
{
    Row {
        group: T::GROUP,
        version: T::VERSION,
        kind: T::KIND,
        plural: T::URL_PATH_SEGMENT,
        namespaced: TypeId::of::<T::Scope>() == TypeId::of::<NamespaceResourceScope>(),
        definition: T::schema_name(),
        define: |generator| drop(generator.subschema_for::<T>()),
    }
}

/// What `builtin.yaml` says of a kind.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Facts {
    short_names: Vec<String>,
    categories: Vec<String>,
    subresources: Vec<String>,
    since: u32,
    generation: Option<u32>,
    asked: bool,
    columns: Vec<Column>,
}

/// The kinds a release has.
pub(super) fn kinds(release: Release) -> Vec<Kind> {
    static FACTS: LazyLock<HashMap<String, Facts>> = LazyLock::new(|| {
        serde_saphyr::from_str(include_str!("builtin.yaml")).expect("it is part of the program")
    });
    let minor = release.minor();
    let kind = |row: &Row| {
        let facts = &FACTS[&qualified(row.group, row.plural)];
        let subresources = facts.subresources.iter().map(String::as_str);
        let has = |name: &&str| *name != "status" && (*name != "ephemeralcontainers" || minor > 22);
        (facts.since <= minor).then(|| Kind {
            group: row.group.to_owned(),
            version: row.version.to_owned(),
            kind: row.kind.to_owned(),
            plural: row.plural.to_owned(),
            singular: row.kind.to_lowercase(),
            list_kind: format!("{}List", row.kind),
            short_names: facts.short_names.clone(),
            categories: facts.categories.clone(),
            namespaced: row.namespaced,
            status: subresources.clone().any(|name| name == "status"),
            generation: facts.generation.is_some_and(|since| since <= minor),
            subresources: subresources.filter(has).collect(),
            virtual_only: facts.asked,
            columns: facts.columns.clone(),
            schema: Schema::Builtin(row.definition.clone()),
        })
    };
    ROWS.iter().filter_map(kind).collect()
}
