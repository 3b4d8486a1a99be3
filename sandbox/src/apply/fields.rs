//! A set of fields of an object, and its form in `managedFields` (`FieldsV1`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Fields as a tree. A step is what `FieldsV1` calls it: `f:` and the name of a field, `k:` and the keys of a list's item,
/// `v:` and an item of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// Whether this one belongs to the set, not only some of what is in it.
    pub(super) here: bool,
    /// What is in it.
    pub(super) steps: BTreeMap<String, Fields>,
}

impl Fields {
    /// Whether nothing belongs to it.
    pub(super) fn is_empty(&self) -> bool {
        !self.here && self.steps.is_empty()
    }

    /// Adds all of `other`.
    pub(super) fn add(&mut self, other: &Self) {
        self.here |= other.here;
        for (step, fields) in &other.steps {
            self.steps.entry(step.clone()).or_default().add(fields);
        }
    }

    /// Takes all of `other` out.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.here &= !other.here;
        for (step, fields) in &other.steps {
            if let Some(mine) = self.steps.get_mut(step) {
                mine.subtract(fields);
                if mine.is_empty() {
                    self.steps.remove(step);
                }
            }
        }
    }

    /// Keeps `step` of the root only.
    pub(super) fn keep(&mut self, step: &str) {
        self.steps.retain(|known, _| known == step);
    }

    /// Takes out what nobody can own: what tells objects apart, and what the API server alone writes.
    pub(super) fn strip(&mut self) {
        const METADATA: [&str; 8] = [
            "f:name",
            "f:namespace",
            "f:creationTimestamp",
            "f:selfLink",
            "f:uid",
            "f:generation",
            "f:managedFields",
            "f:resourceVersion",
        ];
        self.here = false;
        self.steps.remove("f:apiVersion");
        self.steps.remove("f:kind");
        if let Some(metadata) = self.steps.get_mut("f:metadata") {
            metadata.here = false;
            metadata
                .steps
                .retain(|step, _| !METADATA.contains(&step.as_str()));
            if metadata.is_empty() {
                self.steps.remove("f:metadata");
            }
        }
    }

    /// The paths in both, as people read them: `.spec.containers[name="a"].image`.
    pub(super) fn common(&self, other: &Self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_common(other, "", &mut paths);
        paths
    }

    fn collect_common(&self, other: &Self, at: &str, paths: &mut Vec<String>) {
        if self.here && other.here {
            paths.push(at.to_owned());
        }
        for (step, fields) in &self.steps {
            if let Some(theirs) = other.steps.get(step) {
                fields.collect_common(theirs, &format!("{at}{}", readable(step)), paths);
            }
        }
    }

    /// As `fieldsV1`.
    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.steps.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (step, fields) in &self.steps {
            map.insert(step.clone(), fields.to_json());
        }
        Value::Object(map)
    }

    /// From `fieldsV1`; `None` if it is not that.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let mut fields = Self::default();
        for (step, value) in value.as_object()? {
            if step == "." {
                fields.here = true;
            } else if ["f:", "k:", "v:"].iter().any(|kind| step.starts_with(kind)) {
                let mut inner = Self::from_json(value)?;
                inner.here |= inner.steps.is_empty();
                fields.steps.insert(step.clone(), inner);
            } else {
                return None;
            }
        }
        Some(fields)
    }
}

fn readable(step: &str) -> String {
    let (kind, rest) = step.split_at(2);
    match kind {
        "f:" => format!(".{rest}"),
        "v:" => format!("[={rest}]"),
        _ => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("[{}]", keys.join(","))
        }
    }
}
