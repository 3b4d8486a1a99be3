//! The two forms of an event: the core group's, which `kubectl get events` reads, and that of `events.k8s.io`, which
//! recorders write.

use serde_json::Value;

/// Group of the newer form.
pub(super) const GROUP: &str = "events.k8s.io";

/// Where a field is in the core group's form, and where in the newer one.
const FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Makes an event one of the group.
pub(super) fn convert(event: &mut Value, group: &str) {
    for (core, newer) in FIELDS {
        let other = group == GROUP;
        let [from, to] = if other { [core, newer] } else { [newer, core] };
        if let Some(value) = event.as_object_mut().and_then(|event| event.remove(from)) {
            event[to] = value;
        }
    }
}

#[cfg(test)]
mod tests;
