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
    has(list, wanted)
        || wanted.split_once('/').is_some_and(|(_, subresource)| {
            list.iter()
                .any(|one| one.strip_prefix("*/") == Some(subresource))
        })
}

fn has_url(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| {
        let prefix = one.trim_end_matches('*');
        one == wanted || (prefix.len() < one.len() && wanted.starts_with(prefix))
    })
}

impl Rule {
    /// Whether it allows what is asked for.
    #[must_use]
    pub fn allows(&self, what: &Attributes) -> bool {
        if !has(&self.verbs, &what.verb) {
            return false;
        }
        if !what.resource_request {
            return has_url(&self.non_resource_urls, &what.path);
        }
        let resource = if what.subresource.is_empty() {
            &what.resource
        } else {
            &format!("{}/{}", what.resource, what.subresource)
        };
        has(&self.api_groups, &what.group)
            && has_resource(&self.resources, resource)
            && (self.resource_names.is_empty() || self.resource_names.contains(&what.name))
    }

    /// The same as rules of one verb, one resource and at most one name each.
    #[must_use]
    pub fn atoms(&self) -> Vec<Self> {
        let mut atoms = Vec::new();
        let names: Vec<&[String]> = if self.resource_names.is_empty() {
            vec![&[]]
        } else {
            self.resource_names.chunks(1).collect()
        };
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    atoms.extend(names.iter().map(|name| Self {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        resource_names: name.to_vec(),
                        ..Self::default()
                    }));
                }
            }
        }
        for url in &self.non_resource_urls {
            atoms.extend(self.verbs.iter().map(|verb| Self {
                verbs: vec![verb.clone()],
                non_resource_urls: vec![url.clone()],
                ..Self::default()
            }));
        }
        atoms
    }

    /// Whether it allows all that `atom`, one of [`Rule::atoms`], allows.
    #[must_use]
    pub fn covers(&self, atom: &Self) -> bool {
        let within = |mine: &[String], wanted: &[String]| wanted.iter().all(|one| has(mine, one));
        within(&self.verbs, &atom.verbs)
            && within(&self.api_groups, &atom.api_groups)
            && atom
                .resources
                .iter()
                .all(|one| has_resource(&self.resources, one))
            && atom
                .non_resource_urls
                .iter()
                .all(|one| has_url(&self.non_resource_urls, one))
            // Without names it is about every object, which a rule with names does not cover.
            && (self.resource_names.is_empty()
                || !atom.resource_names.is_empty()
                    && atom
                        .resource_names
                        .iter()
                        .all(|one| self.resource_names.contains(one)))
    }
}

/// As the API server writes a rule into an escalation's refusal.
impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// `["a" "b"]`, as Go quotes a list.
#[must_use]
pub fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
