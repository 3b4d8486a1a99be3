//! Objects as trees of fields with one owner each: what they have, how two of them differ, how one is merged into another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::kinds::{Kind, Schema};
use crate::patch::keys::{self, List};

/// A place in an object: what its lists and maps are.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    types: Types<'a>,
    root: bool,
}

#[derive(Clone, Copy, Debug)]
enum Types<'a> {
    /// Of a CustomResourceDefinition's schema; `None` where it says nothing.
    Custom(Option<&'a Value>),
    /// By name.
    Builtin { parent: &'a str, field: &'a str },
}

/// What a list is.
enum Items<'a> {
    Atomic,
    Set,
    Map(Vec<&'a str>),
}

impl<'a> At<'a> {
    /// The whole object.
    pub(super) fn root(kind: &'a Kind) -> Self {
        let types = match &kind.schema {
            Schema::Custom(structural) => Types::Custom(Some(&structural.schema)),
            Schema::Builtin(_) => Types::Builtin {
                parent: "",
                field: "",
            },
        };
        Self { types, root: true }
    }

    fn child(self, name: &'a str) -> Self {
        let types = match self.types {
            Types::Custom(_) if self.root && name == "metadata" => Types::Builtin {
                parent: "",
                field: name,
            },
            Types::Custom(schema) => Types::Custom(schema.and_then(|schema| {
                schema["properties"]
                    .get(name)
                    .or_else(|| schema.get("additionalProperties"))
            })),
            Types::Builtin { field, .. } => Types::Builtin {
                parent: field,
                field: name,
            },
        };
        Self { types, root: false }
    }

    fn item(self) -> Self {
        let types = match self.types {
            Types::Custom(schema) => Types::Custom(schema.and_then(|schema| schema.get("items"))),
            builtin @ Types::Builtin { .. } => builtin,
        };
        Self { types, root: false }
    }

    /// Whether `name` is a key of a map rather than a declared field, so that having it is a fact of its own.
    fn entry(self, name: &str) -> bool {
        matches!(self.types, Types::Custom(Some(schema))
            if schema["properties"].get(name).is_none() && schema.get("additionalProperties").is_some())
    }

    fn atomic_map(self) -> bool {
        match self.types {
            Types::Custom(schema) => {
                schema.is_some_and(|schema| schema["x-kubernetes-map-type"] == "atomic")
            }
            Types::Builtin { field, .. } => keys::atomic_map(field),
        }
    }

    fn items(self) -> Items<'a> {
        match self.types {
            Types::Custom(None) => Items::Atomic,
            Types::Custom(Some(schema)) => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Items::Set,
                Some("map") => Items::Map(
                    schema["x-kubernetes-list-map-keys"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect(),
                ),
                _ => Items::Atomic,
            },
            Types::Builtin { parent, field } => match keys::list(parent, field) {
                List::Atomic => Items::Atomic,
                List::Set => Items::Set,
                List::Map(fields) => Items::Map(fields.to_vec()),
            },
        }
    }

    /// What a missing key of an item of this list stands for.
    fn default_key(self, key: &str) -> Option<Value> {
        match self.types {
            Types::Custom(schema) => schema?["items"]["properties"][key].get("default").cloned(),
            Types::Builtin { .. } => keys::default_of(key).map(Value::from),
        }
    }

    /// The steps to the items of a list with more than one owner; `None` if it has but one. Fails with an item that has not
    /// its keys, or is there twice.
    fn steps(self, list: &[Value]) -> Result<Option<Vec<String>>, String> {
        let mut seen = BTreeSet::new();
        let mut steps = Vec::with_capacity(list.len());
        let items = self.items();
        for (index, item) in list.iter().enumerate() {
            let step = match &items {
                Items::Atomic => return Ok(None),
                Items::Set => format!("v:{item}"),
                Items::Map(keys) => {
                    let mut values = BTreeMap::new();
                    for key in keys {
                        let value = item.get(key).cloned().or_else(|| self.default_key(key));
                        let value = value.ok_or_else(|| {
                            format!("element {index}: associative list with keys has an element that omits key field {key:?} (and doesn't have default value)")
                        })?;
                        values.insert(*key, value);
                    }
                    format!("k:{}", serde_json::to_string(&values).unwrap_or_default())
                }
            };
            if !seen.insert(step.clone()) {
                return Err(format!("duplicate entries for key {}", &step[2..]));
            }
            steps.push(step);
        }
        Ok(match items {
            Items::Atomic => None,
            Items::Set | Items::Map(_) => Some(steps),
        })
    }

    /// What is in a value with more than one owner; `None` for what has but one.
    fn parts(self, value: &'a Value) -> Option<Vec<(String, &'a Value, Self)>> {
        match value {
            Value::Object(map) if !self.atomic_map() => Some(
                map.iter()
                    .map(|(name, value)| (format!("f:{name}"), value, self.child(name)))
                    .collect(),
            ),
            // A list that is not what it should be is taken as a whole.
            Value::Array(list) => Some(
                self.steps(list)
                    .ok()??
                    .into_iter()
                    .zip(list)
                    .map(|(step, item)| (step, item, self.item()))
                    .collect(),
            ),
            _ => None,
        }
    }
}

/// Fails with why an applied object cannot be taken apart: a list's items without their keys, or there twice.
pub(super) fn check(value: &Value, at: At<'_>, path: &str) -> Result<(), String> {
    match value {
        Value::Object(map) => map
            .iter()
            .try_for_each(|(name, value)| check(value, at.child(name), &format!("{path}.{name}"))),
        Value::Array(list) => {
            at.steps(list).map_err(|why| format!("{path}: {why}"))?;
            list.iter()
                .try_for_each(|item| check(item, at.item(), path))
        }
        _ => Ok(()),
    }
}

/// The fields an object has.
pub(super) fn fields_of(value: &Value, at: At<'_>) -> Fields {
    let Some(parts) = at.parts(value).filter(|parts| !parts.is_empty()) else {
        return Fields {
            here: true,
            ..Fields::default()
        };
    };
    let mut fields = Fields::default();
    for (step, value, place) in parts {
        let mut inner = fields_of(value, place);
        inner.here |= !step.starts_with("f:") || at.entry(&step[2..]);
        fields.steps.insert(step, inner);
    }
    fields
}

/// How two objects differ.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// What is new or has another value.
    pub(super) changed: Fields,
    /// What is gone.
    pub(super) removed: Fields,
}

/// How `after` differs from `before`.
pub(super) fn compare(before: Option<&Value>, after: Option<&Value>, at: At<'_>) -> Difference {
    let mut difference = Difference::default();
    let (old, new) = (
        before.and_then(|value| at.parts(value)),
        after.and_then(|value| at.parts(value)),
    );
    match (before, after) {
        (Some(_), None) => difference.removed.here = true,
        (None, Some(_)) => difference.changed.here = true,
        (Some(before), Some(after)) if old.is_none() || new.is_none() => {
            difference.changed.here = before != after;
        }
        _ => {}
    }
    let mut pairs: BTreeMap<String, (Option<&Value>, Option<&Value>, At<'_>)> = BTreeMap::new();
    for (step, value, place) in old.into_iter().flatten() {
        pairs.insert(step, (Some(value), None, place));
    }
    for (step, value, place) in new.into_iter().flatten() {
        pairs.entry(step).or_insert((None, None, place)).1 = Some(value);
    }
    for (step, (before, after, place)) in pairs {
        let inner = compare(before, after, place);
        for (side, fields) in [
            (&mut difference.changed, inner.changed),
            (&mut difference.removed, inner.removed),
        ] {
            if !fields.is_empty() {
                side.steps.insert(step.clone(), fields);
            }
        }
    }
    difference
}

/// `live` with what `config` says.
pub(super) fn merge(live: &Value, config: &Value, at: At<'_>) -> Value {
    match (live, config) {
        (Value::Object(before), Value::Object(after)) if !at.atomic_map() => {
            let mut merged: Map<String, Value> = before.clone();
            for (name, value) in after {
                let value = match before.get(name) {
                    Some(known) => merge(known, value, at.child(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(before), Value::Array(after)) => {
            let (Ok(Some(known)), Ok(Some(steps))) = (at.steps(before), at.steps(after)) else {
                return config.clone();
            };
            Value::Array(merge_lists([before, after], [&known, &steps], at.item()))
        }
        _ => config.clone(),
    }
}

/// The applied items in their order; the others stay where they are between those in both lists.
fn merge_lists(lists: [&[Value]; 2], steps: [&[String]; 2], at: At<'_>) -> Vec<Value> {
    let applied: BTreeSet<&String> = steps[1].iter().collect();
    let live: BTreeMap<&String, &Value> = steps[0].iter().zip(lists[0]).collect();
    let mut before = steps[0].iter().zip(lists[0]).peekable();
    let mut merged = Vec::with_capacity(lists[0].len() + lists[1].len());
    for (index, (step, item)) in steps[1].iter().zip(lists[1]).enumerate() {
        let next_shared = steps[1][index..]
            .iter()
            .find(|step| live.contains_key(step));
        while let Some((known, other)) = before.next_if(|(known, _)| Some(*known) != next_shared) {
            if !applied.contains(known) {
                merged.push(other.clone());
            }
        }
        before.next_if(|(known, _)| *known == step);
        merged.push(match live.get(step) {
            Some(known) => merge(known, item, at),
            None => item.clone(),
        });
    }
    merged.extend(
        before
            .filter(|(known, _)| !applied.contains(known))
            .map(|(_, other)| other.clone()),
    );
    merged
}

/// Takes out what is in `last` but neither in `next` nor in `others`. What tells a list's items apart stays in them.
pub(super) fn prune(value: &mut Value, [last, next, others]: [&Fields; 3], at: At<'_>) {
    prune_but(value, [last, next, others], at, &[]);
}

fn prune_but(value: &mut Value, sets: [&Fields; 3], at: At<'_>, keep: &[&str]) {
    let nothing = Fields::default();
    let [last, next, others] = sets;
    // Whether it goes; if not, what to look at inside.
    let verdict = |step: &str| {
        let mine = last.steps.get(step)?;
        match (next.steps.get(step), others.steps.get(step)) {
            (None, None) if !(at.root && step == "f:metadata") => Some(Err(())),
            _ if mine.steps.is_empty() => None,
            (next, others) => Some(Ok([
                mine.clone(),
                next.unwrap_or(&nothing).clone(),
                others.unwrap_or(&nothing).clone(),
            ])),
        }
    };
    match value {
        Value::Object(map) => map.retain(|name, value| {
            match verdict(&format!("f:{name}")) {
                Some(Err(())) => return keep.contains(&name.as_str()),
                Some(Ok([mine, next, others])) => {
                    prune_but(value, [&mine, &next, &others], at.child(name), &[]);
                }
                None => {}
            }
            true
        }),
        Value::Array(items) => {
            let Ok(Some(steps)) = at.steps(items) else {
                return;
            };
            let keys = match at.items() {
                Items::Map(keys) => keys,
                Items::Atomic | Items::Set => Vec::new(),
            };
            let mut steps = steps.into_iter();
            items.retain_mut(|item| {
                let step = steps.next().unwrap_or_default();
                match verdict(&step) {
                    Some(Err(())) => return false,
                    Some(Ok([mine, next, others])) => {
                        prune_but(item, [&mine, &next, &others], at.item(), &keys);
                    }
                    None => {}
                }
                true
            });
        }
        _ => {}
    }
}
