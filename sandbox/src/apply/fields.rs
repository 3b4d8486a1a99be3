//! Fields of objects as sets of paths, and their form in `managedFields` (`FieldsV1`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::schema::{field, lists};

/// Steps from the root as `FieldsV1` calls them: `f:` and the name of a field, `k:` and the keys of a list's item, `v:` and an
/// item of a set.
pub(super) type Path = Vec<String>;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub(super) struct Fields(pub(super) BTreeSet<Path>);

impl Fields {
    /// Whether a path or something below it is in the set.
    fn has(&self, path: &[String]) -> bool {
        let from = (Bound::Included(path), Bound::Unbounded);
        let next = self.0.range::<[String], _>(from).next();
        next.is_some_and(|next| next.starts_with(path))
    }

    fn read(&mut self, value: &Value, path: &mut Path) -> Result<(), &'static str> {
        let map = value.as_object().ok_or("fields are objects")?;
        if !path.is_empty() && (map.is_empty() || map.contains_key(".")) {
            self.0.insert(path.clone());
        }
        for (step, value) in map.iter().filter(|(step, _)| *step != ".") {
            if !["f:", "k:", "v:"].iter().any(|kind| step.starts_with(kind)) {
                return Err("a step begins with f:, k: or v:");
            }
            path.push(step.clone());
            self.read(value, path)?;
            path.pop();
        }
        Ok(())
    }
}

impl TryFrom<Value> for Fields {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let mut fields = Self::default();
        fields.read(&value, &mut Vec::new())?;
        Ok(fields)
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        let mut root = json!({});
        for path in &fields.0 {
            let at = path.iter().fold(&mut root, |at, step| &mut at[step]);
            let after = (Bound::Excluded(path.as_slice()), Bound::Unbounded);
            let next = fields.0.range::<[String], _>(after).next();
            *at = if next.is_some_and(|next| next.starts_with(path)) {
                json!({".": {}})
            } else {
                json!({})
            };
        }
        root
    }
}

/// A path as people read it: `.spec.containers[name="a"].image`.
pub(super) fn readable(path: &[String]) -> String {
    path.iter()
        .map(|step| match step.split_at(2) {
            ("f:", name) => format!(".{name}"),
            ("v:", item) => format!("[={item}]"),
            (_, keys) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                format!("[{}]", keys.join(","))
            }
        })
        .collect()
}

/// Whether who writes to this endpoint can own a field: not what tells objects apart, nor what the API server alone writes.
pub(super) fn ownable(path: &[String], kind: &Kind, subresource: &str) -> bool {
    const SERVERS: [&str; 8] = [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
    ];
    let status = subresource == "status";
    match path[0].as_str() {
        "f:apiVersion" | "f:kind" => false,
        "f:metadata" => {
            !status
                && path
                    .get(1)
                    .is_some_and(|field| !SERVERS.contains(&field.as_str()))
        }
        "f:status" => status || !kind.status,
        _ => !status,
    }
}

/// All there is in an object: of each path the value, unless it is made of parts with owners of their own, and whether who
/// applies it owns the path itself, not only what is below.
#[derive(Debug, Default)]
pub(super) struct Nodes<'a>(pub(super) BTreeMap<Path, (Option<&'a Value>, bool)>);

impl<'a> Nodes<'a> {
    pub(super) fn of(object: &'a Value, schema: &'a Value) -> Self {
        let mut nodes = Self::default();
        for (step, value, schema) in parts(object, schema).unwrap_or_default() {
            nodes.add(value, schema, &mut vec![step], false);
        }
        nodes
    }

    fn add(&mut self, value: &'a Value, schema: &'a Value, path: &mut Path, entry: bool) {
        let parts = parts(value, schema);
        let leaf = parts.as_ref().is_none_or(Vec::is_empty);
        let whole = parts.is_none().then_some(value);
        self.0.insert(path.clone(), (whole, leaf || entry));
        for (step, value, inner) in parts.into_iter().flatten() {
            // To have an item, or an entry of a map, is a fact of its own.
            let entry = !step.starts_with("f:")
                || schema["additionalProperties"].is_object()
                    && schema["properties"].get(&step[2..]).is_none();
            path.push(step);
            self.add(value, inner, path, entry);
            path.pop();
        }
    }

    /// What is new or has another value.
    pub(super) fn changed_since(&self, before: &Self) -> Fields {
        let changed = self.0.iter().filter(|(path, (value, _))| {
            before
                .0
                .get(*path)
                .is_none_or(|(before, _)| before != value)
        });
        Fields(changed.map(|(path, _)| path.clone()).collect())
    }

    /// What who applies this owns.
    pub(super) fn owned(&self, kind: &Kind, subresource: &str) -> Fields {
        let owned = self
            .0
            .iter()
            .filter(|(path, (_, owned))| *owned && ownable(path, kind, subresource));
        Fields(owned.map(|(path, _)| path.clone()).collect())
    }
}

/// What is in a value that can have more than one owner; `None` for what has but one.
fn parts<'a>(value: &'a Value, schema: &'a Value) -> Option<Vec<(String, &'a Value, &'a Value)>> {
    match value {
        Value::Object(map) if schema["x-kubernetes-map-type"] != "atomic" => {
            let part = |(name, value): (&'a String, &'a Value)| {
                (
                    format!("f:{name}"),
                    value,
                    field(schema, name).unwrap_or(&Value::Null),
                )
            };
            Some(map.iter().map(part).collect())
        }
        // A list that is not what it should be is taken as a whole.
        Value::Array(list) => {
            let steps = lists::steps(schema, list).ok()??.into_iter().zip(list);
            Some(
                steps
                    .map(|(step, item)| (step, item, &schema["items"]))
                    .collect(),
            )
        }
        _ => None,
    }
}

/// Takes out what is in `last` but not in `keep`. What tells a list's items apart stays in them.
pub(super) fn prune(
    value: &mut Value,
    schema: &Value,
    path: &mut Path,
    last: &Fields,
    keep: &Fields,
) {
    let key = |path: &Path, name: &str| {
        path.last()
            .is_some_and(|step| step.starts_with("k:") && step.contains(&format!("{name:?}:")))
    };
    let stays = |path: &mut Path, step: String, value: &mut Value, schema: &Value| {
        path.push(step);
        let mine = last.has(path);
        let stays = !mine || keep.has(path) || *path == ["f:metadata"];
        if mine && stays {
            prune(value, schema, path, last, keep);
        }
        path.pop();
        stays
    };
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let inner = field(schema, name).unwrap_or(&Value::Null);
            stays(path, format!("f:{name}"), value, inner) || key(path, name)
        }),
        Value::Array(items) => {
            let Ok(Some(steps)) = lists::steps(schema, items) else {
                return;
            };
            let mut steps = steps.into_iter();
            items.retain_mut(|item| {
                stays(
                    path,
                    steps.next().unwrap_or_default(),
                    item,
                    &schema["items"],
                )
            });
        }
        _ => {}
    }
}
