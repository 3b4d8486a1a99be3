//! What `kubectl get pods` says of a pod: a summary of its containers' states.

use jiff::Timestamp;
use serde_json::Value;

use super::{condition, duration, list, text};
use crate::object::deleting;

/// The columns that depend on its containers.
pub(super) struct Summary {
    /// `1/2`
    pub(super) ready: String,
    /// `Running`, `Init:0/1`, `CrashLoopBackOff`, …
    pub(super) status: String,
    /// Times containers were restarted.
    pub(super) restarts: i64,
    /// When the last of them ended before its restart.
    last: Option<Timestamp>,
}

impl Summary {
    pub(super) fn of(pod: &Value) -> Self {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let phase = text(&status["phase"]);
        let mut told = match text(&status["reason"]) {
            "" => phase.to_owned(),
            reason => reason.to_owned(),
        };
        let mut summary = Self {
            ready: String::new(),
            status: String::new(),
            restarts: 0,
            last: None,
        };
        let mut sidecars = (0, None);
        let mut ready = 0;
        let mut initializing = false;
        for (at, container) in list(&status["initContainerStatuses"]).enumerate() {
            summary.count(container);
            let sidecar = list(&spec["initContainers"])
                .any(|init| init["name"] == container["name"] && init["restartPolicy"] == "Always");
            if sidecar {
                sidecars = (
                    sidecars.0 + restarts(container),
                    sidecars.1.max(ended(container)),
                );
            }
            let state = &container["state"];
            if state["terminated"]["exitCode"] == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                ready += usize::from(container["ready"] == true);
                continue;
            }
            let waiting = text(&state["waiting"]["reason"]);
            told = if state["terminated"].is_object() {
                format!("Init:{}", end(&state["terminated"]))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{at}/{}", list(&spec["initContainers"]).count())
            };
            initializing = true;
            break;
        }
        if !initializing || condition(status, "Initialized") {
            (summary.restarts, summary.last) = sidecars;
            let mut running = false;
            for container in list(&status["containerStatuses"]).rev() {
                summary.count(container);
                let state = &container["state"];
                let waiting = text(&state["waiting"]["reason"]);
                if !waiting.is_empty() {
                    waiting.clone_into(&mut told);
                } else if state["terminated"].is_object() {
                    told = end(&state["terminated"]);
                } else if container["ready"] == true && state["running"].is_object() {
                    running = true;
                    ready += 1;
                }
            }
            if told == "Completed" && running {
                let whole = condition(status, "Ready");
                if whole { "Running" } else { "NotReady" }.clone_into(&mut told);
            }
        }
        if deleting(pod) && status["reason"] == "NodeLost" {
            "Unknown".clone_into(&mut told);
        } else if deleting(pod) && !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut told);
        }
        let all = list(&spec["containers"]).count()
            + list(&spec["initContainers"])
                .filter(|init| init["restartPolicy"] == "Always")
                .count();
        summary.ready = format!("{ready}/{all}");
        summary.status = told;
        summary
    }

    /// Restarts, and how long ago the last one was.
    pub(super) fn restarts(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.restarts > 0 => {
                format!("{} ({} ago)", self.restarts, duration(last, now))
            }
            _ => self.restarts.to_string(),
        }
    }

    fn count(&mut self, container: &Value) {
        self.restarts += restarts(container);
        self.last = self.last.max(ended(container));
    }
}

/// How a container ended.
fn end(terminated: &Value) -> String {
    let signal = terminated["signal"].as_i64().unwrap_or_default();
    match text(&terminated["reason"]) {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", terminated["exitCode"]),
        reason => reason.to_owned(),
    }
}

fn restarts(container: &Value) -> i64 {
    container["restartCount"].as_i64().unwrap_or_default()
}

fn ended(container: &Value) -> Option<Timestamp> {
    text(&container["lastState"]["terminated"]["finishedAt"])
        .parse()
        .ok()
}
