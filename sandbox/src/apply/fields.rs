//! Fields of objects as sets of paths, and their form in `managedFields` (`FieldsV1`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
use serde_json::{Value, json};

use crate::rest::Call;
use crate::schema::{field, lists};

/// Steps from the root as `FieldsV1` calls them: `f:` and the name of a field, `k:` and the keys of a list's item, `v:` and an
/// item of a set.
pub(super) type Path = Vec<String>;
pub(super) type Paths = BTreeSet<Path>;

/// Of each path in an object the value, unless it is made of parts with owners of their own, and whether who applies it owns
/// the path itself, not only what is below.
pub(super) type Nodes = BTreeMap<Path, (Option<Value>, bool)>;

pub(super) fn serialize<S: Serializer>(paths: &Paths, to: S) -> Result<S::Ok, S::Error> {
    let mut root = json!({});
    // What is below a path comes before it.
    for path in paths.iter().rev() {
        let at = path.iter().fold(&mut root, |at, step| &mut at[step]);
        if at.is_object() {
            at["."] = json!({});
        } else {
            *at = json!({});
        }
    }
    root.serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Paths, D::Error> {
    // It is an object itself, whose leaves end the paths.
    let found = nodes(&Value::deserialize(from)?, &Value::Null).into_iter();
    let leaves = found.filter(|(_, (_, leaf))| *leaf);
    let steps = |path: Path| {
        let steps = path.iter().filter_map(|step| step.strip_prefix("f:"));
        let steps = steps.filter(|step| *step != ".");
        steps.map(str::to_owned).collect()
    };
    Ok(leaves.map(|(path, _)| steps(path)).collect())
}

/// Whether a path or something below it is in a set.
pub(super) fn has(paths: &Paths, path: &[String]) -> bool {
    let mut from = paths.range::<[String], _>((Bound::Included(path), Bound::Unbounded));
    from.next().is_some_and(|next| next.starts_with(path))
}

/// A path as people read it: `.spec.containers[{"name":"a"}].image`.
pub(super) fn readable(path: &[String]) -> String {
    let step = |step: &String| match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some((_, item)) => format!("[{item}]"),
        None => String::new(),
    };
    path.iter().map(step).collect()
}

/// Whether who writes to this endpoint can own a field: not what tells objects apart, nor what the API server alone writes.
pub(super) fn ownable(path: &[String], call: &Call) -> bool {
    const NOBODYS: &str = ".apiVersion .kind .metadata .metadata.name .metadata.namespace .metadata.uid \
        .metadata.creationTimestamp .metadata.generation .metadata.managedFields .metadata.resourceVersion";
    let (field, own) = (readable(path), path[0] == "f:status" && call.kind.status);
    own == (call.subresource == "status") && NOBODYS.split(' ').all(|nobodys| nobodys != field)
}

/// Whether something stays: its path, the value there, the number of parts with owners of their own it is made of (`None`
/// if it has but one owner), and whether to have it is a fact of its own, as it is an item or an entry of a map.
type Stays<'a> = &'a mut dyn FnMut(&Path, &Value, Option<usize>, bool) -> bool;

/// All there is in an object.
pub(super) fn nodes(object: &Value, schema: &Value) -> Nodes {
    let mut found = Nodes::new();
    let (mut object, mut root) = (object.clone(), Path::new());
    retain(
        &mut object,
        schema,
        &mut root,
        &mut |path, value, parts, entry| {
            let whole = parts.is_none().then(|| value.clone());
            let own = entry || parts.unwrap_or_default() == 0;
            found.insert(path.clone(), (whole, own));
            true
        },
    );
    found
}

/// What is new in `after` or has another value.
pub(super) fn changed(before: &Nodes, after: &Nodes) -> Paths {
    let same = |path, value| before.get(path).is_some_and(|(before, _)| before == value);
    let all = after.iter();
    let changed = all.filter(|(path, (value, _))| !same(*path, value));
    changed.map(|(path, _)| path.clone()).collect()
}

/// Takes out what does not stay, from the outside in.
pub(super) fn retain(value: &mut Value, schema: &Value, path: &mut Path, stays: Stays<'_>) {
    let mut part = |step: String, value: &mut Value, inner: &Value| {
        let entry = !step.starts_with("f:") || schema.get("additionalProperties") == Some(inner);
        path.push(step);
        let kept = stays(path, value, parts(value, inner), entry);
        if kept {
            retain(value, inner, path, stays);
        }
        path.pop();
        kept
    };
    match value {
        _ if parts(value, schema).is_none() => {}
        Value::Object(map) => {
            map.retain(|name, value| part(format!("f:{name}"), value, field(schema, name)));
        }
        Value::Array(list) => {
            let mut steps = lists::steps(schema, list).into_iter().flatten();
            list.retain_mut(|item| part(steps.next().unwrap_or_default(), item, &schema["items"]));
        }
        _ => {}
    }
}

fn parts(value: &Value, schema: &Value) -> Option<usize> {
    match value {
        Value::Object(map) => (schema["x-kubernetes-map-type"] != "atomic").then(|| map.len()),
        Value::Array(list) => lists::steps(schema, list).map(|steps| steps.len()),
        _ => None,
    }
}
