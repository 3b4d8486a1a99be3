//! Tables of tables.

use serde_json::json;

use super::pod::Summary;
use super::*;
use crate::kinds::Kinds;
use crate::release::Release;

const NOW: &str = "2026-01-02T00:00:00Z";
const CREATED: &str = "2026-01-01T23:57:30Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

fn kind(release: Release, group: &str, kind: &str) -> Arc<Kind> {
    let kinds = Kinds::builtin(release).all();
    let found = kinds.iter().find(|it| it.kind == kind && it.group == group);
    Arc::clone(found.expect("it is built in"))
}

/// The headings and the cells of one object as `kubectl get` prints them, `-o wide` after a bar.
fn printed(kind: &Kind, object: Value) -> String {
    let table = table(kind, &[Arc::new(object)], json!({}), Include::None, now());
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(columns.len(), cells.len());
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

fn latest(group: &str, name: &str, mut object: Value) -> String {
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = CREATED.into();
    printed(&kind(Release::V1_36, group, name), object)
}

#[test]
fn ages_are_told_in_the_unit_that_matters() {
    for (seconds, text) in [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (599, "9m59s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_000, "3h3m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (691_200, "8d"),
        (63_071_999, "729d"),
        (63_072_000, "2y"),
        (64_000_000, "2y10d"),
        (252_288_000, "8y"),
    ] {
        let then = Timestamp::from_second(now().as_second() - seconds).expect("a time");
        assert_eq!(duration(then, now()), text, "{seconds}");
    }
}

#[test]
fn a_pod_is_summed_up_by_the_states_of_its_containers() {
    let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let waiting = |reason: &str| {
        json!({"name": "b", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": reason}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:00Z"}}})
    };
    let ended = |reason: &str, code: i64, signal: i64| {
        let mut ended = json!({"reason": reason, "exitCode": code, "signal": signal});
        if reason.is_empty() {
            ended.as_object_mut().expect("an object").remove("reason");
        }
        json!({"name": "b", "ready": false, "restartCount": 0, "state": {"terminated": ended}})
    };
    let ready = json!([{"type": "Ready", "status": "True"}]);
    for (status, wanted) in [
        (json!({"phase": "Pending"}), "0/2 Pending 0"),
        (
            json!({"phase": "Running", "containerStatuses": [running, running]}),
            "2/2 Running 0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, waiting("CrashLoopBackOff")]}),
            "1/2 CrashLoopBackOff 3 (60s ago)",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [ended("Completed", 0, 0)]}),
            "0/2 Completed 0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, ended("Completed", 0, 0)]}),
            "1/2 NotReady 0",
        ),
        (
            json!({"phase": "Running", "conditions": ready, "containerStatuses": [running, ended("Completed", 0, 0)]}),
            "1/2 Running 0",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended("Error", 1, 0)]}),
            "0/2 Error 0",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended("", 7, 0)]}),
            "0/2 ExitCode:7 0",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended("", 137, 9)]}),
            "0/2 Signal:9 0",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted"}),
            "0/2 Evicted 0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [ended("Completed", 0, 0), {"name": "c", "state": {}}]}),
            "0/2 Init:1/1 0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [ended("Error", 1, 0)]}),
            "0/2 Init:Error 0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [waiting("ErrImagePull")]}),
            "0/2 Init:ErrImagePull 3 (60s ago)",
        ),
    ] {
        let pod = json!({
            "metadata": {},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}, "status": status,
        });
        let found = Summary::of(&pod);
        let found = format!("{} {} {}", found.ready, found.status, found.restarts(now()));
        assert_eq!(found, wanted, "{status}");
    }
}

#[test]
fn a_pod_that_is_being_deleted_says_so_until_it_has_ended() {
    for (phase, status) in [
        ("Running", "Terminating"),
        ("Succeeded", "Succeeded"),
        ("Failed", "Failed"),
    ] {
        let pod = json!({"metadata": {"deletionTimestamp": NOW}, "status": {"phase": phase}});
        assert_eq!(Summary::of(&pod).status, status);
    }
}

#[test]
fn a_sidecar_counts_as_a_container() {
    let pod = json!({
        "metadata": {},
        "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
        "status": {
            "phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 2, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "restartCount": 1, "state": {"running": {}}}],
        },
    });
    let found = Summary::of(&pod);
    assert_eq!(
        (&*found.ready, &*found.status, found.restarts),
        ("2/2", "Running", 3)
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn kinds_are_printed_as_kubectl_users_know_them() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}});
    let rbac = "rbac.authorization.k8s.io";
    for (group, kind, object, wanted) in [
        (
            "",
            "Pod",
            json!({"spec": {"containers": [{}], "nodeName": "n"}, "status": {"phase": "Pending", "podIP": "127.0.0.1"}}),
            "Name=x; Ready=0/1; Status=Pending; Restarts=0; Age=2m30s | IP=127.0.0.1; Node=n; Nominated Node=<none>; Readiness Gates=<none>",
        ),
        (
            "",
            "Namespace",
            json!({"status": {"phase": "Active"}}),
            "Name=x; Status=Active; Age=2m30s",
        ),
        (
            "",
            "Secret",
            json!({"type": "Opaque", "data": {"a": "", "b": ""}}),
            "Name=x; Type=Opaque; Data=2; Age=2m30s",
        ),
        (
            "",
            "ConfigMap",
            json!({"data": {"a": ""}, "binaryData": {"b": ""}}),
            "Name=x; Data=2; Age=2m30s",
        ),
        ("", "ServiceAccount", json!({}), "Name=x; Age=2m30s"),
        (
            "",
            "Service",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [
            {"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"a": "b"}}}),
            "Name=x; Type=ClusterIP; Cluster-IP=10.0.0.1; External-IP=<none>; Port(s)=80:30080/TCP,53/UDP; Age=2m30s | Selector=a=b",
        ),
        (
            "",
            "Service",
            json!({"spec": {"type": "LoadBalancer"}}),
            "Name=x; Type=LoadBalancer; Cluster-IP=<none>; External-IP=<pending>; Port(s)=<none>; Age=2m30s | Selector=<none>",
        ),
        (
            "",
            "Node",
            json!({
            "metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "other": "x"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "os"}}}),
            "Name=x; Status=Ready,SchedulingDisabled; Roles=control-plane; Age=2m30s; Version=v1.36.0 \
             | Internal-IP=127.0.0.1; External-IP=<none>; OS-Image=os; Kernel-Version=<unknown>; Container-Runtime=<unknown>",
        ),
        (
            "apps",
            "Deployment",
            json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template},
            "status": {"readyReplicas": 1}}),
            "Name=x; Ready=1/2; Up-to-date=0; Available=0; Age=2m30s | Containers=a,b; Images=i:1,j; Selector=a=b",
        ),
        (
            "apps",
            "StatefulSet",
            json!({"spec": {"replicas": 2, "template": template}}),
            "Name=x; Ready=0/2; Age=2m30s | Containers=a,b; Images=i:1,j",
        ),
        (
            "apps",
            "DaemonSet",
            json!({"status": {"numberReady": 1}}),
            "Name=x; Desired=0; Current=0; Ready=1; Up-to-date=0; Available=0; Node Selector=<none>; Age=2m30s \
             | Containers=; Images=; Selector=<none>",
        ),
        (
            "batch",
            "Job",
            json!({"spec": {"completions": 2}, "status": {"startTime": "2026-01-01T23:58:00Z", "succeeded": 1}}),
            "Name=x; Status=Running; Completions=1/2; Duration=2m; Age=2m30s | Containers=; Images=; Selector=<none>",
        ),
        (
            "coordination.k8s.io",
            "Lease",
            json!({"spec": {"holderIdentity": "me"}}),
            "Name=x; Holder=me; Age=2m30s",
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
            {"kind": "User", "name": "alice@example.com"}, {"kind": "Group", "name": "g"}, {"kind": "Group", "name": "h"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
            "Name=x; Role=Role/r; Age=2m30s | Users=alice@example.com; Groups=g, h; ServiceAccounts=n/s",
        ),
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration",
            json!({"webhooks": [{}]}),
            "Name=x; Webhooks=1; Age=2m30s",
        ),
        (
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            json!({}),
            "Name=x; Created At=2026-01-01T23:57:30Z",
        ),
    ] {
        assert_eq!(latest(group, kind, object), wanted);
    }
}

#[test]
fn an_event_reads_the_same_in_both_its_forms() {
    let core = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "x"},
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "type": "Normal", "reason": "Killing",
        "message": "Stopping \n", "source": {"component": "kubelet", "host": "n"}, "count": 2,
        "firstTimestamp": CREATED, "lastTimestamp": "2026-01-01T23:59:55Z",
    });
    let series = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x"},
        "regarding": {"kind": "ConsoleSession", "name": "s"}, "type": "Warning", "reason": "Refused", "note": "No",
        "reportingController": "drawbridge.dev/operator", "reportingInstance": "o-1", "eventTime": "2026-01-01T23:57:30.000001Z",
        "series": {"count": 4, "lastObservedTime": "2026-01-01T23:59:30.000000Z"},
    });
    let [old, new] = ["", "events.k8s.io"].map(|group| kind(Release::V1_36, group, "Event"));
    for (event, wanted) in [
        (
            core,
            "Last Seen=5s; Type=Normal; Reason=Killing; Object=pod/p; Message=Stopping \
            | Subobject=spec.containers{a}; Source=kubelet, n; First Seen=2m30s; Count=2; Name=x",
        ),
        (
            series,
            "Last Seen=30s; Type=Warning; Reason=Refused; Object=consolesession/s; Message=No \
            | Subobject=; Source=drawbridge.dev/operator, o-1; First Seen=2m29s; Count=4; Name=x",
        ),
    ] {
        for kind in [&old, &new] {
            let shown = kind.convert(Arc::new(event.clone()));
            assert_eq!(printed(kind, (*shown).clone()), wanted);
        }
    }
}

#[test]
fn releases_print_what_they_did() {
    let pod = json!({"metadata": {"name": "x"}, "status": {"containerStatuses": [
        {"restartCount": 1, "lastState": {"terminated": {"finishedAt": CREATED}}}]}});
    let old = printed(&kind(Release::V1_20, "", "Pod"), pod.clone());
    assert!(old.contains("Restarts=1; "), "{old}");
    let new = printed(&kind(Release::V1_30, "", "Pod"), pod);
    assert!(new.contains("Restarts=1 (2m30s ago); "), "{new}");
    let account = json!({"metadata": {"name": "x"}, "secrets": [{}]});
    let old = printed(&kind(Release::V1_30, "", "ServiceAccount"), account);
    assert_eq!(old, "Name=x; Secrets=1; Age=<unknown>");
}

#[test]
fn values_are_shown_by_the_type_of_the_column() {
    for (value, kind, wanted) in [
        (json!("a"), "string", json!("a")),
        (json!(3), "string", json!("3")),
        (json!([1, {"a": 2}]), "string", json!(r#"[1,{"a":2}]"#)),
        (json!(3), "integer", json!(3)),
        (json!(3.7), "integer", json!(3)),
        (json!("3"), "integer", json!(null)),
        (json!(3.5), "number", json!(3.5)),
        (json!(true), "boolean", json!(true)),
        (json!("true"), "boolean", json!(null)),
        (json!(CREATED), "date", json!("2m30s")),
        (json!("yesterday"), "date", json!("<invalid>")),
        (json!(null), "date", json!(null)),
    ] {
        let found = shown(&value, kind, now()).unwrap_or_default();
        assert_eq!(found, wanted, "{value} as {kind}");
    }
}

#[test]
fn a_row_carries_as_much_of_the_object_as_was_asked_for() {
    let kind = kind(Release::V1_36, "", "Secret");
    let object = Arc::new(json!({"kind": "Secret", "metadata": {"name": "x"}, "data": {"a": "b"}}));
    let row = |include| {
        let metadata = json!({"resourceVersion": "7"});
        let mut table = table(&kind, &[Arc::clone(&object)], metadata, include, now());
        assert_eq!(table["metadata"]["resourceVersion"], "7");
        table["rows"][0].take()
    };
    assert!(row(Include::None).get("object").is_none());
    assert_eq!(row(Include::Object)["object"], *object);
    let partial = &row(Include::Metadata)["object"];
    assert_eq!(partial["kind"], "PartialObjectMetadata");
    assert_eq!(partial["metadata"], object["metadata"]);
    assert!(partial.get("data").is_none());
}
