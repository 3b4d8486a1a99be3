//! A pod's status as the kubelet writes it, from what became of its containers. Pure.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::object;

/// Where a container of a pod is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Init,
    /// An init container that goes on (`restartPolicy: Always`).
    Sidecar,
    Main,
    Ephemeral,
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        id: String,
        since: Timestamp,
    },
    Ended(Ended),
}

/// A container that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) code: i32,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
}

/// One container, for its entry in the status.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) part: Part,
    pub(super) state: State,
    pub(super) last: Option<Ended>,
    pub(super) restarts: u64,
}

impl Shown {
    fn code(&self) -> Option<i32> {
        match &self.state {
            State::Ended(ended) => Some(ended.code),
            _ => None,
        }
    }

    fn running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Whether the pod may go on past this init container.
    pub(super) fn passed(&self) -> bool {
        match self.part {
            Part::Init => self.code() == Some(0),
            Part::Sidecar => self.running(),
            Part::Main | Part::Ephemeral => true,
        }
    }

    fn entry(&self) -> Value {
        let id = |id: &str| format!("sandbox://{id}");
        let ended = |ended: &Ended| {
            let mut value = json!({"terminated": {
                "containerID": id(&ended.id), "exitCode": ended.code, "finishedAt": time(ended.finished),
                "reason": ended.reason, "startedAt": time(ended.started),
            }});
            if !ended.message.is_empty() {
                value["terminated"]["message"] = ended.message.as_str().into();
            }
            value
        };
        let (state, current) = match &self.state {
            State::Waiting { reason, message } => {
                let mut waiting = json!({"reason": reason});
                if !message.is_empty() {
                    waiting["message"] = message.as_str().into();
                }
                (
                    json!({"waiting": waiting}),
                    self.last.as_ref().map(|last| id(&last.id)),
                )
            }
            State::Running { id: this, since } => (
                json!({"running": {"startedAt": time(*since)}}),
                Some(id(this)),
            ),
            State::Ended(this) => (ended(this), Some(id(&this.id))),
        };
        let ready = match self.part {
            Part::Init => self.code() == Some(0),
            Part::Sidecar | Part::Main => self.running(),
            Part::Ephemeral => false,
        };
        let mut entry = json!({
            "name": self.name, "image": self.image, "imageID": "", "ready": ready,
            "restartCount": self.restarts, "started": self.running(), "state": state,
            "lastState": self.last.as_ref().map_or_else(|| json!({}), ended),
        });
        if let Some(current) = current {
            // No image is pulled: the ID says so by being the reference itself.
            entry["imageID"] = self.image.as_str().into();
            entry["containerID"] = current.into();
        }
        entry
    }
}

fn time(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// `status.phase`
pub(super) fn phase(policy: &str, containers: &[Shown]) -> &'static str {
    let init = containers
        .iter()
        .filter(|one| matches!(one.part, Part::Init | Part::Sidecar));
    let main: Vec<&Shown> = containers
        .iter()
        .filter(|one| one.part == Part::Main)
        .collect();
    for one in init {
        let begun = main
            .iter()
            .any(|main| main.last.is_some() || !matches!(main.state, State::Waiting { .. }));
        if one.part == Part::Init && policy == "Never" && one.code().is_some_and(|code| code != 0) {
            return "Failed";
        }
        if !one.passed() && !begun {
            return "Pending";
        }
    }
    let count = |of: &dyn Fn(&Shown) -> bool| main.iter().filter(|one| of(one)).count();
    let running = count(&|one| {
        one.running() || (one.last.is_some() && matches!(one.state, State::Waiting { .. }))
    });
    let ended = count(&|one| one.code().is_some());
    let succeeded = count(&|one| one.code() == Some(0));
    if running + ended < main.len() {
        return "Pending";
    }
    if running > 0 || policy == "Always" {
        return "Running";
    }
    match (succeeded == ended, policy) {
        (true, _) => "Succeeded",
        (false, "Never") => "Failed",
        (false, _) => "Running",
    }
}

/// The new status of a pod; what others wrote into it stays. `over`: it is being deleted and nothing of it will start
/// again.
pub(super) fn status(
    pod: &Value,
    started: Timestamp,
    containers: &[Shown],
    over: bool,
    now: Timestamp,
) -> Value {
    let before = &pod["status"];
    let mut status = before.as_object().cloned().unwrap_or_default();
    let policy = if over { "Never" } else { policy(pod) };
    let phase = phase(policy, containers);
    let names = |of: &dyn Fn(&Shown) -> bool| {
        let found: Vec<&str> = containers
            .iter()
            .filter(|one| of(one))
            .map(|one| one.name.as_str())
            .collect();
        found.join(" ")
    };
    let done = matches!(phase, "Succeeded" | "Failed");
    let waits = names(&|one| !one.passed());
    let unready = names(&|one| matches!(one.part, Part::Main | Part::Sidecar) && !one.running());
    let initialized = if waits.is_empty() || (done && phase == "Succeeded") {
        None
    } else {
        Some((
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{waits}]"),
        ))
    };
    let ready = match phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        "Failed" => Some(("PodFailed", String::new())),
        _ if unready.is_empty() => None,
        _ => Some((
            "ContainersNotReady",
            format!("containers with unready status: [{unready}]"),
        )),
    };
    let begun = (!containers
        .iter()
        .any(|one| !matches!(one.state, State::Waiting { .. }) || one.last.is_some()))
    .then(|| ("", String::new()));
    let conditions = [
        (
            "PodReadyToStartContainers",
            if done {
                Some(("", String::new()))
            } else {
                begun
            },
        ),
        ("Initialized", initialized),
        ("Ready", ready.clone()),
        ("ContainersReady", ready),
        ("PodScheduled", None),
    ]
    .map(|(kind, not)| condition(before, kind, not, now));
    let others = before["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|old| !conditions.iter().any(|new| new["type"] == old["type"]));
    status.insert(
        "conditions".into(),
        conditions.iter().chain(others).cloned().collect(),
    );
    status.insert("phase".into(), phase.into());
    for (field, value) in [
        ("hostIP", json!("127.0.0.1")),
        ("podIP", json!("127.0.0.1")),
        ("hostIPs", json!([{"ip": "127.0.0.1"}])),
        ("podIPs", json!([{"ip": "127.0.0.1"}])),
        ("startTime", json!(time(started))),
        ("qosClass", json!(qos(pod))),
    ] {
        status.entry(field).or_insert(value);
    }
    for (field, parts) in [
        ("initContainerStatuses", &[Part::Init, Part::Sidecar][..]),
        ("containerStatuses", &[Part::Main]),
        ("ephemeralContainerStatuses", &[Part::Ephemeral]),
    ] {
        let entries: Vec<Value> = containers
            .iter()
            .filter(|one| parts.contains(&one.part))
            .map(Shown::entry)
            .collect();
        if !entries.is_empty() {
            status.insert(field.into(), entries.into());
        }
    }
    status.into()
}

/// `spec.restartPolicy`
pub(super) fn policy(pod: &Value) -> &str {
    pod["spec"]["restartPolicy"].as_str().unwrap_or("Always")
}

fn condition(before: &Value, kind: &str, not: Option<(&str, String)>, now: Timestamp) -> Value {
    let status = if not.is_none() { "True" } else { "False" };
    let since = before["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|old| old["type"] == kind && old["status"] == status)
        .map(|old| old["lastTransitionTime"].clone())
        .filter(Value::is_string)
        .unwrap_or_else(|| time(now).into());
    let mut condition = Map::from_iter([
        ("type".to_owned(), kind.into()),
        ("status".to_owned(), status.into()),
        ("lastProbeTime".to_owned(), Value::Null),
        ("lastTransitionTime".to_owned(), since),
    ]);
    let (reason, message) = not.unwrap_or_default();
    for (field, value) in [("reason", reason), ("message", &message)] {
        if !value.is_empty() {
            condition.insert(field.to_owned(), value.into());
        }
    }
    condition.into()
}

fn qos(pod: &Value) -> &'static str {
    let containers = || pod["spec"]["containers"].as_array().into_iter().flatten();
    let asks = |one: &Value, kind: &str| {
        one["resources"][kind]
            .as_object()
            .is_some_and(|all| !all.is_empty())
    };
    let exact = |one: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let (limit, request) = (
                &one["resources"]["limits"][name],
                &one["resources"]["requests"][name],
            );
            !limit.is_null() && (request.is_null() || request == limit)
        })
    };
    if !containers().any(|one| asks(one, "limits") || asks(one, "requests")) {
        "BestEffort"
    } else if containers().all(exact) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// `pod_namespace(uid)`, as the kubelet names pods in messages.
pub(super) fn full_name(pod: &Value) -> String {
    format!(
        "{}_{}({})",
        object::name(pod),
        object::namespace(pod),
        object::uid(pod)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> State {
        State::Ended(Ended {
            id: "x".to_owned(),
            code,
            reason: "Completed",
            message: String::new(),
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
        })
    }

    fn running() -> State {
        State::Running {
            id: "x".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn waiting() -> State {
        State::Waiting {
            reason: "ContainerCreating",
            message: String::new(),
        }
    }

    fn shown(part: Part, state: State) -> Shown {
        Shown {
            name: "app".to_owned(),
            image: "busybox".to_owned(),
            part,
            state,
            last: None,
            restarts: 0,
        }
    }

    #[test]
    fn the_phase_is_what_the_kubelet_would_say() {
        let main = |state| shown(Part::Main, state);
        for (policy, containers, expected) in [
            ("Always", vec![main(waiting())], "Pending"),
            ("Always", vec![main(running())], "Running"),
            ("Always", vec![main(running()), main(waiting())], "Pending"),
            ("Always", vec![main(ended(0))], "Running"),
            ("OnFailure", vec![main(ended(1))], "Running"),
            ("Never", vec![main(ended(0)), main(ended(1))], "Failed"),
            ("Never", vec![main(ended(0)), main(running())], "Running"),
            ("Never", vec![main(ended(0)), main(ended(0))], "Succeeded"),
            (
                "Never",
                vec![shown(Part::Init, ended(1)), main(waiting())],
                "Failed",
            ),
            (
                "Always",
                vec![shown(Part::Init, running()), main(waiting())],
                "Pending",
            ),
            (
                "Always",
                vec![shown(Part::Init, ended(0)), main(running())],
                "Running",
            ),
            (
                "Always",
                vec![main(running()), shown(Part::Ephemeral, ended(1))],
                "Running",
            ),
        ] {
            assert_eq!(
                phase(policy, &containers),
                expected,
                "{policy} {containers:?}"
            );
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
        let at = |second| Timestamp::from_second(second).unwrap();
        let ready = |status: &Value| {
            let conditions = status["conditions"].as_array().unwrap();
            conditions
                .iter()
                .find(|one| one["type"] == "Ready")
                .unwrap()
                .clone()
        };
        let mut pod_now = pod.clone();
        pod_now["status"] = status(&pod, at(0), &[shown(Part::Main, waiting())], false, at(1));
        assert_eq!(
            ready(&pod_now["status"])["message"],
            "containers with unready status: [app]"
        );
        let later = status(
            &pod_now,
            at(0),
            &[shown(Part::Main, waiting())],
            false,
            at(2),
        );
        assert_eq!(later, pod_now["status"]);
        let running = status(
            &pod_now,
            at(0),
            &[shown(Part::Main, running())],
            false,
            at(3),
        );
        assert_eq!(ready(&running)["status"], "True");
        assert_eq!(
            ready(&running)["lastTransitionTime"],
            "1970-01-01T00:00:03Z"
        );
    }
}
