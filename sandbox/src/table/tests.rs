//! Tables of tables.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kinds::Kinds;
use crate::release::Release;

const NOW: &str = "2026-01-02T00:00:00Z";
const CREATED: &str = "2026-01-01T23:57:30Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

fn kind(group: &str, kind: &str) -> Arc<Kind> {
    let kinds = Kinds::builtin(Release::V1_36).all();
    let found = kinds.iter().find(|it| it.kind == kind && it.group == group);
    Arc::clone(found.expect("it is built in"))
}

/// The headings and the cells of one object as `kubectl get` prints them, `-o wide` after a bar.
fn printed(group: &str, name: &str, mut object: Value) -> String {
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = CREATED.into();
    let kind = kind(group, name);
    let table = table(
        &kind,
        &[kind.convert(Arc::new(object))],
        &json!({}),
        "",
        now(),
    );
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    let mut parts = [vec![], vec![]];
    for (column, cell) in columns.iter().zip(cells) {
        let text = cell
            .as_str()
            .map_or_else(|| cell.to_string(), str::to_owned);
        let text = format!("{}={text}", column["name"].as_str().expect("a name"));
        parts[usize::from(column["priority"] != 0)].push(text);
    }
    let [normal, wide] = parts.map(|part| part.join("; "));
    if wide.is_empty() {
        normal
    } else {
        format!("{normal} | {wide}")
    }
}

/// A value in a definition's column.
fn cell(object: &Value, path: &str, kind: &str) -> Value {
    let column = Column {
        kind: kind.to_owned(),
        value: path.to_owned(),
        ..Column::default()
    };
    Cell::of(&column).value(object, now())
}

#[test]
fn ages_are_told_in_the_unit_that_matters() {
    for (seconds, text) in [
        (-1, "0s"),
        (119, "119s"),
        (120, "2m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (172_799, "47h"),
        (172_800, "2d"),
    ] {
        let then = Timestamp::from_second(now().as_second() - seconds).expect("a time");
        let object = json!({"at": then.to_string()});
        assert_eq!(cell(&object, ".at", "date"), text, "{seconds}");
    }
}

#[test]
fn a_pod_is_summed_up_by_the_states_of_its_containers() {
    let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let waiting = |reason: &str| json!({"name": "b", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": reason}}});
    let ended = |reason: &str, code: i64| {
        let ended = json!({"reason": reason, "exitCode": code});
        json!({"name": "b", "ready": false, "restartCount": 0, "state": {"terminated": ended}})
    };
    for (status, wanted) in [
        (
            json!({"phase": "Pending"}),
            "0/2; Status=Pending; Restarts=0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, running]}),
            "2/2; Status=Running; Restarts=0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, waiting("CrashLoopBackOff")]}),
            "1/2; Status=CrashLoopBackOff; Restarts=3",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [ended("Completed", 0)]}),
            "0/2; Status=Completed; Restarts=0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, ended("Completed", 0)]}),
            "1/2; Status=Completed; Restarts=0",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted"}),
            "0/2; Status=Evicted; Restarts=0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [ended("Completed", 0), {"name": "c", "state": {}}]}),
            "0/2; Status=Pending; Restarts=0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [ended("Error", 1)]}),
            "0/2; Status=Error; Restarts=0",
        ),
    ] {
        let pod = json!({
            "metadata": {},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}, "status": status,
        });
        let found = printed("", "Pod", pod);
        assert!(
            found.starts_with(&format!("Name=x; Ready={wanted}; ")),
            "{found}"
        );
    }
    let going = json!({"metadata": {"deletionTimestamp": NOW}, "status": {"phase": "Running"}});
    let found = printed("", "Pod", going);
    assert!(found.contains("Status=Terminating; "), "{found}");
}

#[test]
fn kinds_are_printed_as_kubectl_users_know_them() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}});
    let rbac = "rbac.authorization.k8s.io";
    for (group, kind, object, wanted) in [
        (
            "",
            "Pod",
            json!({"spec": {"containers": [{}], "nodeName": "n"}, "status": {"phase": "Pending", "podIP": "127.0.0.1"}}),
            "Name=x; Ready=0/1; Status=Pending; Restarts=0; Age=2m | IP=127.0.0.1; Node=n; Nominated Node=<none>; Readiness Gates=<none>",
        ),
        (
            "",
            "ConfigMap",
            json!({"data": {"a": ""}, "binaryData": {"b": ""}}),
            "Name=x; Data=2; Age=2m",
        ),
        (
            "",
            "Service",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{"port": 80}, {"port": 53}], "selector": {"a": "b"}}}),
            "Name=x; Type=ClusterIP; Cluster-IP=10.0.0.1; External-IP=<none>; Port(s)=80,53; Age=2m",
        ),
        (
            "",
            "Node",
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "os"}}}),
            "Name=x; Status=Ready; Roles=<none>; Age=2m; Version=v1.36.0 \
             | Internal-IP=127.0.0.1; OS-Image=os; Container-Runtime=<unknown>",
        ),
        (
            "apps",
            "Deployment",
            json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template},
            "status": {"readyReplicas": 1}}),
            "Name=x; Ready=1/2; Up-to-date=0; Available=0; Age=2m | Containers=a,b; Images=i:1,j",
        ),
        (
            rbac,
            "Role",
            json!({}),
            "Name=x; Created At=2026-01-01T23:57:30Z",
        ),
        (
            rbac,
            "RoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "alice@example.com"}, {"kind": "Group", "name": "g"}, {"kind": "Group", "name": "h"}]}),
            "Name=x; Role=Role/r; Age=2m | Users=alice@example.com; Groups=g,h; ServiceAccounts=null",
        ),
        (
            "",
            "Event",
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"kind": "Pod", "name": "p"}, "type": "Warning",
                "reason": "Refused", "note": "No", "reportingController": "drawbridge.dev/operator",
                "eventTime": "2026-01-01T23:57:30.000001Z", "series": {"count": 4, "lastObservedTime": "2026-01-01T23:59:30.000000Z"}}),
            "Last Seen=30s; Type=Warning; Reason=Refused; Object=Pod/p; Message=No \
             | Source=drawbridge.dev/operator; Count=4; Name=x",
        ),
    ] {
        assert_eq!(printed(group, kind, object), wanted);
    }
}

#[test]
fn values_of_a_definitions_columns_are_shown_as_they_are_and_dates_as_ages() {
    for (value, kind, wanted) in [
        (json!("a"), "string", json!("a")),
        (json!(3), "integer", json!(3)),
        (json!(true), "boolean", json!(true)),
        (json!([1, {"a": 2}]), "string", json!(r#"[1,{"a":2}]"#)),
        (json!(CREATED), "date", json!("2m")),
        (json!("yesterday"), "date", json!("<invalid>")),
        (json!(null), "date", json!(null)),
    ] {
        let found = cell(&json!({"at": value}), ".at", kind);
        assert_eq!(found, wanted, "{value} as {kind}");
    }
}

#[test]
fn a_path_leads_where_kubernetes_says() {
    let object = json!({
        "spec": {"replicas": 3, "a.b": "dotted", "list": [1, [3]]},
        "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
    });
    for (path, wanted) in [
        (".spec.replicas", json!(3)),
        (".spec['a.b']", json!("dotted")),
        (".spec.list[1][0]", json!(3)),
        (".spec.list[-2]", json!(1)),
        (
            r#".status.conditions[?(@.type=="Ready")].status"#,
            json!("True"),
        ),
        (
            r".status.conditions[?(@.type == 'Ready')].status",
            json!("True"),
        ),
        (".none", Value::Null),
        (".spec.replicas.none", Value::Null),
        (".spec.list[3]", Value::Null),
        (".a[", Value::Null),
    ] {
        assert_eq!(cell(&object, path, "string"), wanted, "{path}");
    }
}

proptest! {
    #[test]
    fn whatever_is_written_as_a_path_ends(text in r#"[.\[\]?@()'"=!*a-c0-2\\ -]{0,24}"#) {
        cell(&json!({"a": [{"b": 1}, [2]]}), &text, "string");
    }
}

#[test]
fn a_row_carries_as_much_of_the_object_as_was_asked_for() {
    let kind = kind("", "Secret");
    let object = Arc::new(json!({"kind": "Secret", "metadata": {"name": "x"}, "data": {"a": "b"}}));
    let row = |include| {
        let metadata = json!({"resourceVersion": "7"});
        let mut table = table(&kind, &[Arc::clone(&object)], &metadata, include, now());
        assert_eq!(table["metadata"]["resourceVersion"], "7");
        table["rows"][0].take()
    };
    assert_eq!(row("Object")["object"], *object);
    let partial = &row("")["object"];
    assert_eq!(partial["kind"], "PartialObjectMetadata");
    assert_eq!(partial["metadata"], object["metadata"]);
    assert!(partial.get("data").is_none());
}
