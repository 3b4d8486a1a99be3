//! Pods, alone and in templates.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{cause, fill, invalid, items, listed, need, one_of, required, text};
use crate::schema::names;
use crate::status::Cause;

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Makes texts of the numbers that stand for quantities, as Kubernetes takes both and stores texts.
pub(super) fn quantities(object: &mut Value) {
    for pod in ["/spec", "/spec/template/spec"] {
        for list in CONTAINERS {
            for container in items(object, &format!("{pod}/{list}")) {
                for field in ["/resources/limits", "/resources/requests"] {
                    let quantities = container.pointer_mut(field).and_then(Value::as_object_mut);
                    let quantities = quantities.into_iter().flat_map(Map::values_mut);
                    quantities.for_each(quantity);
                }
            }
        }
        for volume in items(object, &format!("{pod}/volumes")) {
            volume.pointer_mut("/emptyDir/sizeLimit").map(quantity);
        }
    }
}

fn quantity(value: &mut Value) {
    if value.is_number() {
        *value = value.to_string().into();
    }
}

/// Fills in the defaults of a pod's spec that is there in `object`.
pub(super) fn default(object: &mut Value, spec: &str) {
    let defaults = json!({
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true,
    });
    fill(object, spec, &defaults);
    for list in CONTAINERS {
        items(object, &format!("{spec}/{list}")).for_each(default_container);
    }
    for volume in items(object, &format!("{spec}/volumes")) {
        if volume.as_object().is_some_and(|volume| volume.len() == 1) {
            fill(volume, "", &json!({"emptyDir": {}}));
        }
        for source in ["/secret", "/configMap", "/projected", "/downwardAPI"] {
            fill(volume, source, &json!({"defaultMode": 0o644}));
        }
        for source in items(volume, "/projected/sources") {
            let defaults = json!({"expirationSeconds": 3600});
            fill(source, "/serviceAccountToken", &defaults);
        }
    }
}

/// Fills in what Kubernetes' own admission gives to pods, but not to templates of them.
pub(super) fn admit(pod: &mut Value) {
    let defaults =
        json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority", "tolerations": []});
    fill(pod, "/spec", &defaults);
    let tolerations = pod.pointer_mut("/spec/tolerations");
    let Some(tolerations) = tolerations.and_then(Value::as_array_mut) else {
        return;
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = tolerations.iter().any(|known| {
            ["", key].contains(&text(known, "key"))
                && ["", "NoExecute"].contains(&text(known, "effect"))
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            }));
        }
    }
}

fn default_container(container: &mut Value) {
    let image = text(container, "image");
    let name = image.rsplit('/').next().unwrap_or_default();
    let moving = !image.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    let defaults = json!({
        "imagePullPolicy": if moving { "Always" } else { "IfNotPresent" }, "resources": {},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    });
    fill(container, "", &defaults);
    for port in items(container, "/ports") {
        fill(port, "", &json!({"protocol": "TCP"}));
    }
    for variable in items(container, "/env") {
        let defaults = json!({"apiVersion": "v1"});
        fill(variable, "/valueFrom/fieldRef", &defaults);
    }
    let defaults = json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    for probe in ["/livenessProbe", "/readinessProbe", "/startupProbe"] {
        fill(container, probe, &defaults);
        let defaults = json!({"path": "/", "scheme": "HTTP"});
        fill(container, &format!("{probe}/httpGet"), &defaults);
    }
}

/// What is wrong with a pod's spec.
pub(super) fn check(spec: &Value, at: &str, causes: &mut Vec<Cause>) {
    need(spec, at, &["containers"], causes);
    let policies = ["Always", "OnFailure", "Never"];
    one_of(spec, at, "restartPolicy", &policies, causes);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec, at, "dnsPolicy", &dns, causes);
    let mut volumes = HashSet::new();
    for (at, volume) in listed(spec, at, "volumes") {
        check_name(volume, &at, &mut volumes, causes);
    }
    let mut known = HashSet::new();
    for list in CONTAINERS {
        for (at, container) in listed(spec, at, list) {
            check_name(container, &at, &mut known, causes);
            need(container, &at, &["image"], causes);
            check_container(container, &at, &volumes, causes);
            let target = text(container, "targetContainerName");
            let targets = spec["containers"].as_array().into_iter().flatten();
            if !target.is_empty() && !targets.into_iter().any(|one| one["name"] == target) {
                causes.push(missing(format!("{at}.targetContainerName"), target));
            }
            if list == "ephemeralContainers" {
                for field in [
                    "ports",
                    "livenessProbe",
                    "readinessProbe",
                    "startupProbe",
                    "lifecycle",
                ] {
                    if !container[field].is_null() {
                        let why = "Forbidden: cannot be set for an Ephemeral Container";
                        causes.push(cause(
                            "FieldValueForbidden",
                            format!("{at}.{field}"),
                            why.to_owned(),
                        ));
                    }
                }
            }
        }
    }
}

fn check_container(container: &Value, at: &str, volumes: &HashSet<&str>, causes: &mut Vec<Cause>) {
    let pulls = ["Always", "IfNotPresent", "Never"];
    one_of(container, at, "imagePullPolicy", &pulls, causes);
    for (at, variable) in listed(container, at, "env") {
        need(variable, &at, &["name"], causes);
    }
    for (at, mount) in listed(container, at, "volumeMounts") {
        need(mount, &at, &["name", "mountPath"], causes);
        let name = text(mount, "name");
        if !name.is_empty() && !volumes.contains(name) {
            causes.push(missing(format!("{at}.name"), name));
        }
    }
    for (at, item) in listed(container, at, "ports") {
        port(
            &item["containerPort"],
            &format!("{at}.containerPort"),
            causes,
        );
    }
}

fn check_name<'a>(
    item: &'a Value,
    at: &str,
    known: &mut HashSet<&'a str>,
    causes: &mut Vec<Cause>,
) {
    let name = text(item, "name");
    let at = format!("{at}.name");
    if name.is_empty() {
        causes.push(required(at, ""));
    } else if let Some(why) = names::label(name) {
        causes.push(invalid(at, &json!(name), why));
    } else if !known.insert(name) {
        causes.push(cause(
            "FieldValueDuplicate",
            at,
            format!("Duplicate value: {name:?}"),
        ));
    }
}

fn missing(at: String, name: &str) -> Cause {
    cause("FieldValueNotFound", at, format!("Not found: {name:?}"))
}

/// A port's number.
pub(super) fn port(number: &Value, at: &str, causes: &mut Vec<Cause>) {
    match number.as_i64() {
        None => causes.push(required(at, "")),
        Some(1..=65535) => {}
        Some(_) => causes.push(invalid(
            at,
            number,
            "must be between 1 and 65535, inclusive",
        )),
    }
}
