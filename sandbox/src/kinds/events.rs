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

/// A field of an event by its name in either form, whichever form the event has. Other objects have none of the fields
/// that are named differently.
#[must_use]
pub fn event_field<'a>(event: &'a Value, name: &str) -> &'a Value {
    let other = || {
        FIELDS.iter().find_map(|(core, newer)| match name {
            _ if name == *core => event.get(newer),
            _ if name == *newer => event.get(core),
            _ => None,
        })
    };
    event.get(name).or_else(other).unwrap_or(&Value::Null)
}

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Release;
    use crate::kinds::Kinds;

    #[test]
    fn an_event_keeps_all_it_says_in_its_other_form() {
        let kinds = Kinds::builtin(Release::V1_36);
        let [core, newer] = ["", GROUP].map(|group| {
            let found = kinds.find(group, "v1", "events");
            found.expect("it is built in")
        });
        let event = Arc::new(json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x"}, "action": "Open", "reason": "Opened",
            "regarding": {"kind": "Pod"}, "related": {"kind": "Node"}, "note": "n", "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i",
            "deprecatedCount": 2, "deprecatedSource": {"component": "k"}, "series": {"count": 2},
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:00:01Z",
        }));
        let as_core = core.convert(Arc::clone(&event));
        assert_eq!(as_core["apiVersion"], "v1");
        assert_eq!(as_core["message"], "n");
        assert_eq!(as_core["source"]["component"], "k");
        assert_eq!(as_core["count"], 2);
        serde_json::from_value::<k8s_openapi::api::core::v1::Event>((*as_core).clone())
            .expect("it is a core event");
        assert_eq!(newer.convert(as_core), event);
        assert_eq!(core.resource(), newer.resource());
    }

    #[test]
    fn a_new_event_has_what_readers_of_old_ones_expect() {
        let mut event = json!({"metadata": {}, "regarding": {}, "note": "n"});
        to_core(&mut event);
        assert_eq!(event["reportingComponent"], "");
        assert!(event.get("firstTimestamp").is_some_and(Value::is_null));
        assert_eq!(event["source"], json!({}));
    }
}
