//! The two forms of an event: the core group's, which `kubectl get events` reads, and that of `events.k8s.io`, which
//! recorders write.

use serde_json::{Map, Value, json};

/// Group of the newer form.
pub(super) const GROUP: &str = "events.k8s.io";

/// Where a field is in the core group's form, and where in the newer one.
const FIELDS: [(&str, &str); 8] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// Core to `events.k8s.io`.
pub(super) fn from_core(event: &mut Value) {
    rename(event, FIELDS);
}

/// `events.k8s.io` to core. Fields that the core group always shows are there, if empty.
pub(super) fn to_core(event: &mut Value) {
    rename(event, FIELDS.map(|(core, newer)| (newer, core)));
    let Some(fields) = event.as_object_mut() else {
        return;
    };
    for (field, empty) in [
        ("source", json!({})),
        ("firstTimestamp", Value::Null),
        ("lastTimestamp", Value::Null),
        ("reportingComponent", "".into()),
        ("reportingInstance", "".into()),
    ] {
        fields.entry(field).or_insert(empty);
    }
}

fn rename(event: &mut Value, fields: [(&str, &str); 8]) {
    let Some(object) = event.as_object_mut() else {
        return;
    };
    let moved: Map<String, Value> = fields
        .iter()
        .filter_map(|(from, to)| Some(((*to).to_owned(), object.remove(*from)?)))
        .collect();
    object.extend(moved);
}
