//! `metadata`: what the API server fills in, and what nobody may change. Pure.

use jiff::Timestamp;
use rand::RngExt as _;
use serde_json::{Value, json};

use super::Call;
use crate::kinds::Kind;
use crate::object::{deleting, meta, metadata_mut};
use crate::status::{Cause, Failure};

/// What random names are made of: no vowels, so that no words come out.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest part of a `generateName` that is used, in bytes.
const LONGEST_BASE: usize = 58;
/// What only the API server writes in `metadata`.
const OURS: &str =
    "uid creationTimestamp deletionTimestamp deletionGracePeriodSeconds generation resourceVersion";

/// A time as objects have it: whole seconds.
pub(super) fn time(now: Timestamp) -> Value {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// Fills in what a new object gets.
pub(super) fn begin(kind: &Kind, object: &mut Value, now: Timestamp) {
    let generation = kind.generation.then_some(1);
    let uid = uuid::Uuid::new_v4().to_string();
    let ours = json!({"uid": uid, "creationTimestamp": time(now), "generation": generation});
    metadata_mut(object);
    for field in OURS.split(' ') {
        put(object, &format!("/metadata/{field}"), ours.get(field));
    }
}

/// `wanted` with all that stays as it is in `live`: what only the API server writes, and what another path is for.
pub(super) fn carry(call: &Call, live: &Value, wanted: &Value) -> Value {
    let (base, other, paths): (_, _, &[&str]) = match (&*call.subresource, call.kind.status) {
        ("status", _) => (live, wanted, &["/status"]),
        ("ephemeralcontainers", _) => (live, wanted, &["/spec/ephemeralContainers"]),
        ("finalize", _) => (live, wanted, &["/spec/finalizers"]),
        _ if call.kind.resource() == "namespaces" => (wanted, live, &["/spec", "/status"]),
        (_, true) => (wanted, live, &["/status"]),
        (_, false) => (wanted, live, &[]),
    };
    let mut next = base.clone();
    for path in paths {
        put(&mut next, path, other.pointer(path));
    }
    let managed = "/metadata/managedFields";
    put(&mut next, managed, wanted.pointer(managed));
    for field in OURS.split(' ') {
        let path = format!("/metadata/{field}");
        put(&mut next, &path, live.pointer(&path));
    }
    next
}

/// Sets what is at a JSON pointer, or takes it out if there is nothing to set.
pub(super) fn put(object: &mut Value, path: &str, value: Option<&Value>) {
    let (parent, field) = path.rsplit_once('/').unwrap_or_default();
    let Some(Value::Object(fields)) = object.pointer_mut(parent) else {
        return;
    };
    match value {
        None | Some(Value::Null) => fields.remove(field),
        Some(value) => fields.insert(field.to_owned(), value.clone()),
    };
}

/// Gives the object a name and counts its generation; refuses what may not be done to metadata.
pub(super) fn complete(
    kind: &Kind,
    live: Option<&Value>,
    object: &mut Value,
) -> Result<(), Failure> {
    let base = meta(object, "generateName");
    if meta(object, "name").is_empty() {
        if base.is_empty() {
            let why = "Required value: name or generateName is required";
            let cause = Cause::new("FieldValueRequired", "metadata.name", why);
            return fail(kind, object, &[cause]);
        }
        let mut name: String = base.chars().take(LONGEST_BASE).collect();
        let mut random = rand::rng();
        name.extend((0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])));
        object["metadata"]["name"] = name.into();
    }
    let Some(live) = live else {
        return Ok(());
    };
    let (old, mut new) = (finalizers(live), finalizers(object));
    new.retain(|one| !old.contains(one));
    if deleting(live) && !new.is_empty() {
        let why = "Forbidden: no new finalizers can be added if the object is being deleted";
        let why = format!("{why}, found new finalizers {new:?}");
        let cause = Cause::new("FieldValueForbidden", "metadata.finalizers", why);
        return fail(kind, object, &[cause]);
    }
    let meant = |object: &Value| {
        let mut object = object.clone();
        object["metadata"].take();
        if kind.status {
            object["status"].take();
        }
        object
    };
    if kind.generation && meant(live) != meant(object) {
        bump(object);
    }
    Ok(())
}

/// Raises `metadata.generation` by one.
pub(super) fn bump(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    object["metadata"]["generation"] = (generation + 1).into();
}

/// `metadata.finalizers`
pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"].as_array();
    let list = list.into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// 422 if there is any cause for it.
pub(super) fn fail(kind: &Kind, object: &Value, causes: &[Cause]) -> Result<(), Failure> {
    if causes.is_empty() {
        return Ok(());
    }
    let name = meta(object, "name");
    Err(Failure::invalid(&kind.group, &kind.kind, name, causes))
}
