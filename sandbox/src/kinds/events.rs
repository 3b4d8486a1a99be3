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
mod tests {
    use std::sync::Arc;

    use serde_json::json;

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
        serde_json::from_value::<k8s_openapi::api::core::v1::Event>((*as_core).clone())
            .expect("it is a core event");
        assert_eq!(newer.convert(as_core), event);
        assert_eq!(core.resource(), newer.resource());
    }
}
