//! `metadata`: what the API server fills in, and what nobody may change. Pure.

use jiff::Timestamp;
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::object::{deleting, meta, metadata_mut};
use crate::status::{Cause, Failure};

/// What random names are made of: no vowels, so that no words come out.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest part of a `generateName` that is used.
const LONGEST_BASE: usize = 58;

/// A time as objects have it: whole seconds.
pub(super) fn time(now: Timestamp) -> Value {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// A name for `generateName`.
pub(super) fn generated(base: &str) -> String {
    let mut base = base.to_owned();
    while base.len() > LONGEST_BASE {
        base.pop();
    }
    let mut random = rand::rng();
    base.extend((0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])));
    base
}

/// Fills in what a new object gets.
pub(super) fn begin(kind: &Kind, object: &mut Value, now: Timestamp) {
    let metadata = metadata_mut(object);
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), time(now));
    if kind.generation {
        metadata.insert("generation".into(), 1.into());
    }
    if kind.status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
}

/// Every new object must have a name.
pub(super) fn check_new(kind: &Kind, object: &Value) -> Result<(), Failure> {
    let nameless = meta(object, "name").is_empty().then(|| Cause {
        reason: "FieldValueRequired",
        field: "metadata.name".to_owned(),
        message: "Required value: name or generateName is required".to_owned(),
    });
    fail(kind, object, nameless.as_slice())
}

/// `wanted` with the metadata that stays as it is in `live`, and with only what this subresource may change.
pub(super) fn carry(kind: &Kind, live: &Value, wanted: Value, subresource: &str) -> Value {
    let mut next = match subresource {
        "" => {
            let mut next = wanted;
            if kind.status {
                put(&mut next, "status", &live["status"]);
            }
            next
        }
        "status" if kind.custom() => {
            let mut next = live.clone();
            put(&mut next, "status", &wanted["status"]);
            put(
                &mut next["metadata"],
                "managedFields",
                &wanted["metadata"]["managedFields"],
            );
            next
        }
        // Kubernetes' own kinds let labels and annotations through, but owners and the rest not.
        "status" => {
            let mut next = wanted;
            if let (Some(fields), Some(old)) = (next.as_object_mut(), live.as_object()) {
                fields.retain(|key, _| matches!(key.as_str(), "metadata" | "status"));
                for (key, value) in old {
                    if !matches!(key.as_str(), "metadata" | "status") {
                        fields.insert(key.clone(), value.clone());
                    }
                }
            }
            put(
                &mut next["metadata"],
                "ownerReferences",
                &live["metadata"]["ownerReferences"],
            );
            next
        }
        _ => wanted,
    };
    let old = &live["metadata"];
    let metadata = metadata_mut(&mut next);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if metadata
            .get(field)
            .is_none_or(|value| value.is_null() || *value == "")
        {
            match &old[field] {
                Value::Null => metadata.remove(field),
                value => metadata.insert(field.to_owned(), value.clone()),
            };
        }
    }
    match &old["generation"] {
        Value::Null => metadata.remove("generation"),
        value => metadata.insert("generation".into(), value.clone()),
    };
    metadata.insert("resourceVersion".into(), old["resourceVersion"].clone());
    next
}

/// Sets a field, or takes it out if there is nothing to set.
pub(super) fn put(object: &mut Value, field: &str, value: &Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    if value.is_null() {
        fields.remove(field);
    } else {
        fields.insert(field.to_owned(), value.clone());
    }
}

/// What no write may do to metadata.
pub(super) fn check_change(kind: &Kind, live: &Value, next: &Value) -> Result<(), Failure> {
    let mut causes: Vec<Cause> = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ]
    .into_iter()
    .filter(|field| live["metadata"][field] != next["metadata"][field])
    .map(|field| {
        let value = &next["metadata"][field];
        Cause {
            reason: "FieldValueInvalid",
            field: format!("metadata.{field}"),
            message: format!("Invalid value: {value}: field is immutable"),
        }
    })
    .collect();
    if deleting(live) {
        let old = finalizers(live);
        let new: Vec<&str> = finalizers(next)
            .into_iter()
            .filter(|one| !old.contains(one))
            .collect();
        if !new.is_empty() {
            let list: Vec<String> = new.iter().map(|one| format!("{one:?}")).collect();
            causes.push(Cause {
                reason: "FieldValueForbidden",
                field: "metadata.finalizers".to_owned(),
                message: format!(
                    "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            });
        }
    }
    fail(kind, next, &causes)
}

/// Counts a change of what the object is to be.
pub(super) fn count(kind: &Kind, live: &Value, next: &mut Value) {
    let meant = |key: &str| {
        !matches!(key, "metadata" | "apiVersion" | "kind") && (key != "status" || !kind.status)
    };
    let differs = |one: &Value, other: &Value| {
        one.as_object()
            .into_iter()
            .flatten()
            .any(|(key, value)| meant(key) && other[key] != *value)
    };
    if kind.generation && (differs(live, next) || differs(next, live)) {
        bump(next);
    }
}

/// Raises `metadata.generation` by one.
pub(super) fn bump(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    metadata_mut(object).insert("generation".into(), json!(generation + 1));
}

/// `metadata.finalizers`
pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// 422 if there is any cause for it.
pub(super) fn fail(kind: &Kind, object: &Value, causes: &[Cause]) -> Result<(), Failure> {
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Failure::invalid(
            &kind.group,
            &kind.kind,
            meta(object, "name"),
            causes,
        ))
    }
}
