//! Fields of objects as sets of paths, and their form in `managedFields` (`FieldsV1`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::schema::{field, lists};

/// Steps from the root as `FieldsV1` calls them: `f:` and the name of a field, `k:` and the keys of a list's item, `v:` and an
/// item of a set.
pub(super) type Path = Vec<String>;
pub(super) type Paths = BTreeSet<Path>;

/// Of each path in an object the value, unless it is made of parts with owners of their own, and whether who applies it owns
/// the path itself, not only what is below.
pub(super) type Nodes<'a> = BTreeMap<Path, (Option<&'a Value>, bool)>;

pub(super) fn serialize<S: Serializer>(paths: &Paths, to: S) -> Result<S::Ok, S::Error> {
    let mut root = json!({});
    for path in paths {
        let at = path.iter().fold(&mut root, |at, step| &mut at[step]);
        let after = (Bound::Excluded(path.as_slice()), Bound::Unbounded);
        let inner = begins(paths, after, path);
        *at = if inner { json!({".": {}}) } else { json!({}) };
    }
    root.serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Paths, D::Error> {
    fn read(map: &Map<String, Value>, path: &mut Path, paths: &mut Paths) {
        if map.is_empty() || map.contains_key(".") {
            paths.insert(path.clone());
        }
        for (step, value) in map.iter().filter(|(step, _)| *step != ".") {
            path.push(step.clone());
            value.as_object().inspect(|map| read(map, path, paths));
            path.pop();
        }
    }
    let mut paths = Paths::new();
    read(&Map::deserialize(from)?, &mut Path::new(), &mut paths);
    paths.remove(&Path::new());
    Ok(paths)
}

/// Whether a path or something below it is in a set.
pub(super) fn has(paths: &Paths, path: &[String]) -> bool {
    begins(paths, (Bound::Included(path), Bound::Unbounded), path)
}

fn begins(paths: &Paths, range: (Bound<&[String]>, Bound<&[String]>), path: &[String]) -> bool {
    let next = paths.range::<[String], _>(range).next();
    next.is_some_and(|next| next.starts_with(path))
}

/// A path as people read it: `.spec.containers[name="a"].image`.
pub(super) fn readable(path: &[String]) -> String {
    let step = |step: &String| match step.split_once(':') {
        Some(("k", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys = keys.iter().map(|(key, value)| format!("{key}={value}"));
            format!("[{}]", keys.collect::<Vec<_>>().join(","))
        }
        Some(("v", item)) => format!("[={item}]"),
        _ => step.replacen("f:", ".", 1),
    };
    path.iter().map(step).collect()
}

/// Whether who writes to this endpoint can own a field: not what tells objects apart, nor what the API server alone writes.
pub(super) fn ownable(path: &[String], kind: &Kind, subresource: &str) -> bool {
    const SERVERS: &str = "f:name f:namespace f:creationTimestamp f:selfLink f:uid f:generation f:managedFields f:resourceVersion";
    let status = subresource == "status";
    match path[0].as_str() {
        "f:apiVersion" | "f:kind" => false,
        "f:metadata" if path.len() == 1 => false,
        "f:metadata" => !status && SERVERS.split(' ').all(|field| field != path[1]),
        "f:status" => status || !kind.status,
        _ => !status,
    }
}

/// All there is in an object.
pub(super) fn nodes<'a>(object: &'a Value, schema: &'a Value) -> Nodes<'a> {
    let mut found = Nodes::new();
    add(object, schema, &mut Path::new(), false, &mut found);
    found.remove(&Path::new());
    found
}

fn add<'a>(
    value: &'a Value,
    schema: &'a Value,
    path: &mut Path,
    entry: bool,
    found: &mut Nodes<'a>,
) {
    let parts = parts(value, schema);
    let leaf = parts.as_ref().is_none_or(Vec::is_empty);
    let whole = parts.is_none().then_some(value);
    found.insert(path.clone(), (whole, leaf || entry));
    for (step, value, inner) in parts.into_iter().flatten() {
        // To have an item, or an entry of a map, is a fact of its own.
        let entry = !step.starts_with("f:") || schema.get("additionalProperties") == Some(inner);
        path.push(step);
        add(value, inner, path, entry, found);
        path.pop();
    }
}

/// What is in a value that can have more than one owner; `None` for what has but one.
fn parts<'a>(value: &'a Value, schema: &'a Value) -> Option<Vec<(String, &'a Value, &'a Value)>> {
    match value {
        Value::Object(map) if schema["x-kubernetes-map-type"] != "atomic" => {
            let parts = map.iter();
            let parts =
                parts.map(|(name, value)| (format!("f:{name}"), value, field(schema, name)));
            Some(parts.collect())
        }
        Value::Array(list) => {
            let items = lists::steps(schema, list)?.into_iter().zip(list);
            let parts = items.map(|(step, item)| (step, item, &schema["items"]));
            Some(parts.collect())
        }
        _ => None,
    }
}

/// What is new in `after` or has another value.
pub(super) fn changed(before: &Nodes<'_>, after: &Nodes<'_>) -> Paths {
    let same = |path, value| before.get(path).is_some_and(|(before, _)| before == value);
    let all = after.iter();
    let changed = all.filter(|(path, (value, _))| !same(*path, value));
    changed.map(|(path, _)| path.clone()).collect()
}

/// Takes out what `stays` is false of, from the outside in. What tells a list's items apart stays in them.
pub(super) fn retain(
    value: &mut Value,
    schema: &Value,
    path: &mut Path,
    stays: &impl Fn(&Path) -> bool,
) {
    let of = path.last().filter(|step| step.starts_with("k:")).cloned();
    let mut part = |step: String, value: &mut Value, schema: &Value| {
        let key = step.strip_prefix("f:").map(|name| format!("{name:?}:"));
        let key = key
            .zip(of.as_ref())
            .is_some_and(|(key, keys)| keys.contains(&key));
        path.push(step);
        let stays_here = key || stays(path);
        if stays_here {
            retain(value, schema, path, stays);
        }
        path.pop();
        stays_here
    };
    match value {
        Value::Object(map) => {
            map.retain(|name, value| part(format!("f:{name}"), value, field(schema, name)));
        }
        Value::Array(list) => {
            let mut steps = lists::steps(schema, list).unwrap_or_default().into_iter();
            list.retain_mut(|item| {
                let step = steps.next();
                step.is_none_or(|step| part(step, item, &schema["items"]))
            });
        }
        _ => {}
    }
}
