//! One rule of a role: what it allows, and whether it covers another. Pure.

use serde::{Deserialize, Serialize};

use crate::request::Attributes;

/// `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// `*` for all.
    pub verbs: Vec<String>,
    /// Empty text for the core group, `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// `pods`, `pods/exec`, `*/exec`, `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Empty for every name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// `/healthz`, `/api/*`, `*`.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

/// Whether a list of resources holds `wanted`, which may be `pods/exec`.
fn has_resource(list: &[String], wanted: &str) -> bool {
    let subresource = wanted.split_once('/').map(|(_, subresource)| subresource);
    let any = |one: &String| {
        one.strip_prefix("*/")
            .is_some_and(|of| Some(of) == subresource)
    };
    has(list, wanted) || list.iter().any(any)
}

fn has_url(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| {
        one == wanted || (one.strip_suffix('*')).is_some_and(|prefix| wanted.starts_with(prefix))
    })
}

/// The resource with its subresource: `pods/exec`.
pub(super) fn resource(what: &Attributes) -> String {
    match what.subresource.as_str() {
        "" => what.resource.clone(),
        subresource => format!("{}/{subresource}", what.resource),
    }
}

impl Rule {
    /// Whether it allows what is asked for.
    #[must_use]
    pub fn allows(&self, what: &Attributes) -> bool {
        has(&self.verbs, &what.verb)
            && if what.resource_request {
                has(&self.api_groups, &what.group)
                    && has_resource(&self.resources, &resource(what))
                    && (self.resource_names.is_empty() || self.resource_names.contains(&what.name))
            } else {
                has_url(&self.non_resource_urls, &what.path)
            }
    }

    /// The same as rules of one verb, one resource and at most one name each.
    #[must_use]
    pub fn atoms(&self) -> Vec<Self> {
        let mut atoms = Vec::new();
        for verbs in self.verbs.chunks(1) {
            let atom = Self {
                verbs: verbs.to_vec(),
                ..Self::default()
            };
            atoms.extend(self.non_resource_urls.chunks(1).map(|urls| Self {
                non_resource_urls: urls.to_vec(),
                ..atom.clone()
            }));
            for api_groups in self.api_groups.chunks(1) {
                for resources in self.resources.chunks(1) {
                    let names = self.resource_names.chunks(1).map(<[_]>::to_vec);
                    let all = self.resource_names.is_empty().then(Vec::new);
                    atoms.extend(names.chain(all).map(|resource_names| Self {
                        api_groups: api_groups.to_vec(),
                        resources: resources.to_vec(),
                        resource_names,
                        ..atom.clone()
                    }));
                }
            }
        }
        atoms
    }

    /// Whether it allows all that `atom`, one of [`Rule::atoms`], allows.
    #[must_use]
    pub fn covers(&self, atom: &Self) -> bool {
        let within = |mine: &[String], wanted: &[String], has: fn(&[String], &str) -> bool| {
            wanted.iter().all(|one| has(mine, one))
        };
        let names = |mine: &[String], wanted: &str| mine.iter().any(|one| one == wanted);
        within(&self.verbs, &atom.verbs, has)
            && within(&self.api_groups, &atom.api_groups, has)
            && within(&self.resources, &atom.resources, has_resource)
            && within(&self.non_resource_urls, &atom.non_resource_urls, has_url)
            // Without names it is about every object, which a rule with names does not cover.
            && (self.resource_names.is_empty()
                || !atom.resource_names.is_empty()
                    && within(&self.resource_names, &atom.resource_names, names))
    }
}
