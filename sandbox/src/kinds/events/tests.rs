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
