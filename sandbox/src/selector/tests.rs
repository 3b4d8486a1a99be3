//! What selectors choose.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn labels_are_selected_by_every_operator() {
    let object = json!({"metadata": {"labels": {"app": "web", "tier": "3", "x.y/z": ""}}});
    for (selector, matches) in [
        ("", true),
        ("app=web", true),
        ("app==web,tier=3", true),
        ("app!=web", false),
        ("gone!=web", true),
        ("app in (a, web)", true),
        ("app notin (a,web)", false),
        ("gone notin (a)", true),
        ("app", true),
        ("!app", false),
        ("!gone", true),
        ("x.y/z=", true),
        ("app in (web),!gone,tier in (3,4)", true),
    ] {
        let labels = requirements(selector).unwrap().into_iter().collect();
        let fields = Vec::new();
        let selected = Selector { labels, fields }.matches(&object);
        assert_eq!(selected, matches, "{selector:?}");
    }
    for wrong in [
        "app in web",
        "a b",
        "=x",
        "app in (a",
        "a=b c",
        "a,",
        "-a",
        "a>b",
    ] {
        assert!(requirements(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn fields_are_selected_by_equality() {
    let kinds = crate::kinds::Kinds::builtin(crate::Release::V1_36);
    let pods = kinds.find("", "v1", "pods").unwrap();
    let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "system:node"}});
    for (selector, matches) in [
        ("", true),
        ("metadata.name=a,status.phase!=Running", true),
        ("metadata.name==a,spec.nodeName=system:node", true),
        ("metadata.name=a,status.phase=Running", false),
        ("status.phase=", true),
    ] {
        let selected = Selector::parse(&pods, "", selector).unwrap().matches(&pod);
        assert_eq!(selected, matches, "{selector:?}");
    }
    for wrong in [
        "metadata.name",
        "!metadata.name",
        "metadata.name in (a)",
        "metadata.name=b=c",
        r"metadata.name=\,",
        "spec.image=a",
    ] {
        assert!(Selector::parse(&pods, "", wrong).is_err(), "{wrong}");
    }
    let name = |fields| exact_name(fields);
    assert_eq!(name("status.phase=x,metadata.name=a").as_deref(), Some("a"));
    assert_eq!(name("metadata.name!=a"), None);
}

#[test]
fn an_event_is_selected_by_its_fields_in_whichever_form_it_is_stored() {
    let core = json!({
        "apiVersion": "v1", "involvedObject": {"name": "a"}, "source": {"component": "kubelet"},
    });
    let newer = json!({
        "apiVersion": "events.k8s.io/v1", "regarding": {"name": "a"}, "reportingController": "kubelet",
    });
    let kinds = crate::kinds::Kinds::builtin(crate::Release::V1_36);
    for (group, fields) in [
        ("", ["involvedObject.name=a", "reason!=Started"]),
        (
            "events.k8s.io",
            ["regarding.name=a", "reportingController!=b"],
        ),
    ] {
        let kind = kinds.find(group, "v1", "events").unwrap();
        for field in fields {
            let selector = Selector::parse(&kind, "", field).unwrap();
            for stored in [&core, &newer] {
                let shown = kind.convert(stored.clone().into());
                assert!(selector.matches(&shown), "{field}");
            }
        }
        assert!(Selector::parse(&kind, "", "note=a").is_err());
    }
}

proptest! {
    #[test]
    fn any_selector_parses_or_is_refused(text in "[a-z(),=!<> \\\\./]{0,30}") {
        let _ = requirements(&text);
    }
}
