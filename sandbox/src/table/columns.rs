//! Which columns each built-in kind has, and what is in them.

use jiff::Timestamp;
use serde_json::Value;

use super::pod::Summary;
use super::{age, condition, duration, list, or_none, text};
use crate::kinds::{Column, Source, event_field};
use crate::object::{deleting, meta};

type Code = fn(&Value, Timestamp) -> Value;

/// The columns of a built-in kind, as a minor version prints them.
pub(crate) fn columns(kind: &str, minor: u32) -> Vec<Column> {
    let mut columns = match kind {
        "Event" => return events(),
        "Role" | "ClusterRole" | "CustomResourceDefinition" => {
            let created = |it: &Value, _| meta(it, "creationTimestamp").into();
            return vec![name(), column("Created At", "date", Source::Code(created))];
        }
        "Pod" => pods(minor),
        "Namespace" => vec![path("Status", ".status.phase")],
        "Secret" => vec![
            path("Type", ".type"),
            code("Data", |it, _| entries(&it["data"]).into()),
        ],
        "ConfigMap" => vec![code("Data", |it, _| {
            (entries(&it["data"]) + entries(&it["binaryData"])).into()
        })],
        // Nothing has filled the list since 1.24, and it is not shown since 1.35.
        "ServiceAccount" if minor < 35 => {
            vec![code("Secrets", |it, _| list(&it["secrets"]).count().into())]
        }
        "Service" => services(),
        "Node" => nodes(),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workloads(kind),
        "Job" => jobs(minor),
        "Lease" => vec![path("Holder", ".spec.holderIdentity")],
        "RoleBinding" | "ClusterRoleBinding" => bindings(),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            let webhooks = |it: &Value, _| list(&it["webhooks"]).count().into();
            vec![column("Webhooks", "integer", Source::Code(webhooks))]
        }
        _ => vec![],
    };
    // Age is the last of the columns always shown, but for a node's version.
    let before = columns
        .iter()
        .position(|it| it.priority > 0 || it.name == "Version");
    columns.insert(
        before.unwrap_or(columns.len()),
        code("Age", |it, now| {
            age(&it["metadata"]["creationTimestamp"], now).into()
        }),
    );
    columns.insert(0, name());
    if matches!(
        kind,
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job"
    ) {
        columns.extend(template(kind));
    }
    columns
}

/// The columns of a custom kind: its name, and those it declares, or its age.
pub(super) fn custom(declared: &[Column]) -> Vec<Column> {
    let mut columns = vec![name()];
    columns.extend_from_slice(declared);
    if declared.is_empty() {
        columns.push(column(
            "Age",
            "date",
            Source::Path(".metadata.creationTimestamp".to_owned()),
        ));
    }
    columns
}

fn column(name: &str, kind: &str, value: Source) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: String::new(),
        priority: 0,
        description: String::new(),
        value,
    }
}

/// A text somewhere in the object.
fn path(name: &str, path: &str) -> Column {
    column(name, "string", Source::Path(path.to_owned()))
}

/// A number somewhere in the object.
fn integer(name: &str, path: &str) -> Column {
    column(name, "integer", Source::Path(path.to_owned()))
}

fn code(name: &str, code: Code) -> Column {
    column(name, "string", Source::Code(code))
}

/// Shown with `-o wide` only.
fn wide(name: &str, code: Code) -> Column {
    Column {
        priority: 1,
        ..column(name, "string", Source::Code(code))
    }
}

fn name() -> Column {
    Column {
        format: "name".to_owned(),
        description: "Unique among the objects of its kind and namespace".to_owned(),
        ..path("Name", ".metadata.name")
    }
}

fn pods(minor: u32) -> Vec<Column> {
    let restarts = |pod: &Value, _| Summary::of(pod).restarts.into();
    vec![
        code("Ready", |pod, _| Summary::of(pod).ready.into()),
        code("Status", |pod, _| Summary::of(pod).status.into()),
        if minor < 22 {
            column("Restarts", "integer", Source::Code(restarts))
        } else {
            code("Restarts", |pod, now| Summary::of(pod).restarts(now).into())
        },
        wide("IP", |pod, _| or_none(&pod["status"]["podIP"]).into()),
        wide("Node", |pod, _| or_none(&pod["spec"]["nodeName"]).into()),
        wide("Nominated Node", |pod, _| {
            or_none(&pod["status"]["nominatedNodeName"]).into()
        }),
        wide("Readiness Gates", |pod, _| {
            let gates = || list(&pod["spec"]["readinessGates"]);
            let passed = gates().filter(|it| condition(&pod["status"], text(&it["conditionType"])));
            match gates().count() {
                0 => "<none>".into(),
                all => format!("{}/{all}", passed.count()).into(),
            }
        }),
    ]
}

fn services() -> Vec<Column> {
    vec![
        path("Type", ".spec.type"),
        code("Cluster-IP", |it, _| {
            or_none(&it["spec"]["clusterIP"]).into()
        }),
        code("External-IP", |it, _| {
            let own = list(&it["spec"]["externalIPs"]).map(text);
            let given = list(&it["status"]["loadBalancer"]["ingress"]).map(|at| {
                if at["ip"].is_string() {
                    text(&at["ip"])
                } else {
                    text(&at["hostname"])
                }
            });
            match text(&it["spec"]["type"]) {
                "ExternalName" => text(&it["spec"]["externalName"]).into(),
                "LoadBalancer" => joined(given.chain(own), ",", "<pending>").into(),
                _ => joined(own, ",", "<none>").into(),
            }
        }),
        code("Port(s)", |it, _| {
            let ports = list(&it["spec"]["ports"]).map(|port| {
                let node = port["nodePort"].as_u64().filter(|node| *node > 0);
                let node = node.map_or_else(String::new, |node| format!(":{node}"));
                format!("{}{node}/{}", port["port"], text(&port["protocol"]))
            });
            joined(ports, ",", "<none>").into()
        }),
        wide("Selector", |it, _| labels(&it["spec"]["selector"]).into()),
    ]
}

fn nodes() -> Vec<Column> {
    fn address(node: &Value, kind: &str) -> Value {
        let mut all = list(&node["status"]["addresses"]);
        let found = all.find(|it| it["type"] == kind);
        found.map_or_else(|| "<none>".into(), |it| it["address"].clone())
    }
    fn unknown(info: &Value) -> Value {
        if text(info).is_empty() {
            "<unknown>".into()
        } else {
            info.clone()
        }
    }
    vec![
        code("Status", |node, _| {
            let mut ready = list(&node["status"]["conditions"]);
            let ready = match ready.find(|it| it["type"] == "Ready") {
                Some(ready) if ready["status"] == "True" => "Ready",
                Some(_) => "NotReady",
                None => "Unknown",
            };
            let closed = node["spec"]["unschedulable"] == true;
            format!("{ready}{}", if closed { ",SchedulingDisabled" } else { "" }).into()
        }),
        code("Roles", |node, _| {
            let labels = node["metadata"]["labels"].as_object();
            let roles = labels.into_iter().flatten().filter_map(|(label, value)| {
                match label.strip_prefix("node-role.kubernetes.io/") {
                    Some("") | None if label != "kubernetes.io/role" => None,
                    Some(role) => Some(role),
                    None => value.as_str().filter(|role| !role.is_empty()),
                }
            });
            joined(roles, ",", "<none>").into()
        }),
        path("Version", ".status.nodeInfo.kubeletVersion"),
        wide("Internal-IP", |node, _| address(node, "InternalIP")),
        wide("External-IP", |node, _| address(node, "ExternalIP")),
        wide("OS-Image", |node, _| {
            unknown(&node["status"]["nodeInfo"]["osImage"])
        }),
        wide("Kernel-Version", |node, _| {
            unknown(&node["status"]["nodeInfo"]["kernelVersion"])
        }),
        wide("Container-Runtime", |node, _| {
            unknown(&node["status"]["nodeInfo"]["containerRuntimeVersion"])
        }),
    ]
}

fn bindings() -> Vec<Column> {
    fn subjects(binding: &Value, kind: &str) -> Value {
        let of_kind = list(&binding["subjects"]).filter(|it| it["kind"] == kind);
        let names = of_kind.map(|it| match text(&it["namespace"]) {
            namespace if kind == "ServiceAccount" => format!("{namespace}/{}", text(&it["name"])),
            _ => text(&it["name"]).to_owned(),
        });
        joined(names, ", ", "").into()
    }
    vec![
        code("Role", |it, _| {
            format!(
                "{}/{}",
                text(&it["roleRef"]["kind"]),
                text(&it["roleRef"]["name"])
            )
            .into()
        }),
        wide("Users", |it, _| subjects(it, "User")),
        wide("Groups", |it, _| subjects(it, "Group")),
        wide("ServiceAccounts", |it, _| subjects(it, "ServiceAccount")),
    ]
}

fn workloads(kind: &str) -> Vec<Column> {
    match kind {
        "Deployment" => vec![
            code("Ready", |it, _| {
                ready(&it["status"]["readyReplicas"], &it["spec"]["replicas"])
            }),
            code("Up-to-date", |it, _| {
                number(&it["status"]["updatedReplicas"]).into()
            }),
            code("Available", |it, _| {
                number(&it["status"]["availableReplicas"]).into()
            }),
        ],
        "ReplicaSet" => vec![
            integer("Desired", ".spec.replicas"),
            integer("Current", ".status.replicas"),
            integer("Ready", ".status.readyReplicas"),
        ],
        "StatefulSet" => vec![code("Ready", |it, _| {
            ready(&it["status"]["readyReplicas"], &it["spec"]["replicas"])
        })],
        "DaemonSet" => vec![
            integer("Desired", ".status.desiredNumberScheduled"),
            integer("Current", ".status.currentNumberScheduled"),
            integer("Ready", ".status.numberReady"),
            integer("Up-to-date", ".status.updatedNumberScheduled"),
            integer("Available", ".status.numberAvailable"),
            code("Node Selector", |it, _| {
                labels(&it["spec"]["template"]["spec"]["nodeSelector"]).into()
            }),
        ],
        _ => vec![],
    }
}

fn jobs(minor: u32) -> Vec<Column> {
    let mut columns = vec![
        code("Completions", |it, _| {
            let done = number(&it["status"]["succeeded"]);
            let at_once = number(&it["spec"]["parallelism"]);
            match it["spec"]["completions"].as_i64() {
                Some(all) => format!("{done}/{all}").into(),
                None if at_once > 1 => format!("{done}/1 of {at_once}").into(),
                None => format!("{done}/1").into(),
            }
        }),
        code("Duration", |it, now| {
            let started = text(&it["status"]["startTime"]).parse();
            let ended = text(&it["status"]["completionTime"]).parse().unwrap_or(now);
            started.map_or_else(|_| "".into(), |started| duration(started, ended).into())
        }),
    ];
    if minor >= 31 {
        columns.insert(
            0,
            code("Status", |it, _| {
                let is = |kind| condition(&it["status"], kind);
                let told = [
                    (is("Complete"), "Complete"),
                    (is("Failed"), "Failed"),
                    (deleting(it), "Terminating"),
                    (is("Suspended"), "Suspended"),
                    (is("FailureTarget"), "FailureTarget"),
                    (is("SuccessCriteriaMet"), "SuccessCriteriaMet"),
                ];
                let told = told.iter().find(|(so, _)| *so);
                told.map_or("Running", |(_, told)| told).into()
            }),
        );
    }
    columns
}

/// What workloads show of their pods' template.
fn template(kind: &str) -> Vec<Column> {
    fn containers(it: &Value, field: &str) -> Value {
        let all = list(&it["spec"]["template"]["spec"]["containers"]);
        joined(all.map(|container| text(&container[field])), ",", "").into()
    }
    let mut columns = vec![
        wide("Containers", |it, _| containers(it, "name")),
        wide("Images", |it, _| containers(it, "image")),
    ];
    if kind != "StatefulSet" {
        columns.push(wide("Selector", |it, _| {
            selector(&it["spec"]["selector"]).into()
        }));
    }
    columns
}

fn events() -> Vec<Column> {
    fn first<'a>(event: &'a Value, field: &str) -> &'a Value {
        match event_field(event, field) {
            Value::Null => &event["eventTime"],
            time => time,
        }
    }
    fn source(event: &Value) -> Value {
        let source = event_field(event, "source");
        let reporter = event_field(event, "reportingComponent");
        let parts = [
            (&source["component"], reporter),
            (&source["host"], &event["reportingInstance"]),
        ]
        .map(|(old, new)| {
            if text(old).is_empty() {
                text(new)
            } else {
                text(old)
            }
        });
        joined(parts.into_iter().filter(|part| !part.is_empty()), ", ", "").into()
    }
    let mut last = name();
    last.priority = 1;
    vec![
        code("Last Seen", |it, now| {
            let last = match &it["series"]["lastObservedTime"] {
                Value::Null => match event_field(it, "lastTimestamp") {
                    Value::Null => first(it, "firstTimestamp"),
                    last => last,
                },
                series => series,
            };
            age(last, now).into()
        }),
        path("Type", ".type"),
        path("Reason", ".reason"),
        code("Object", |it, _| {
            let about = event_field(it, "involvedObject");
            let kind = text(&about["kind"]).to_lowercase();
            match text(&about["name"]) {
                "" => kind.into(),
                name => format!("{kind}/{name}").into(),
            }
        }),
        wide("Subobject", |it, _| {
            text(&event_field(it, "involvedObject")["fieldPath"]).into()
        }),
        wide("Source", |it, _| source(it)),
        code("Message", |it, _| {
            text(event_field(it, "message")).trim().into()
        }),
        wide("First Seen", |it, now| {
            age(first(it, "firstTimestamp"), now).into()
        }),
        wide("Count", |it, _| {
            let series = it["series"]["count"].as_i64();
            let count = series.or_else(|| event_field(it, "count").as_i64());
            count.filter(|count| *count > 0).unwrap_or(1).into()
        }),
        last,
    ]
}

fn entries(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

/// 0 if there is none.
fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn ready(some: &Value, all: &Value) -> Value {
    format!("{}/{}", number(some), number(all)).into()
}

fn joined(parts: impl Iterator<Item = impl ToString>, between: &str, none: &str) -> String {
    let parts: Vec<String> = parts.map(|part| part.to_string()).collect();
    if parts.is_empty() {
        none.to_owned()
    } else {
        parts.join(between)
    }
}

/// `a=1,b=2`
fn labels(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    joined(
        pairs.map(|(label, value)| format!("{label}={}", text(value))),
        ",",
        "<none>",
    )
}

/// A label selector as `kubectl` takes one.
fn selector(selector: &Value) -> String {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let equal = equal.map(|(label, value)| format!("{label}={}", text(value)));
    let others = list(&selector["matchExpressions"]).map(|it| {
        let key = text(&it["key"]);
        let values = joined(list(&it["values"]).map(text), ",", "");
        match text(&it["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        }
    });
    joined(equal.chain(others), ",", "<none>")
}
