//! The rules and defaults of built-in kinds.

mod pods;
mod rbac;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{cause, invalid, names, required, unsupported};
use crate::kinds::{Kind, Schema, parse};
use crate::status::{Cause, Failure};

/// Of the data of a Secret or `ConfigMap`.
const MAX_DATA: usize = 1 << 20;

/// Decodes an object of a built-in kind into its Rust type. Numbers that stand for quantities become texts.
///
/// # Errors
/// 400 if a value is of another type than its field.
pub fn decode(kind: &Kind, object: &mut Value) -> Result<(), Failure> {
    let Schema::Builtin(definition) = &kind.schema else {
        return Ok(());
    };
    pods::quantities(object);
    let why = match parse(definition, object) {
        Ok(()) => return Ok(()),
        Err(why) => match no_base64(object) {
            Some(at) => format!("illegal base64 data at input byte {at}"),
            None => format!("json: cannot unmarshal: {why}"),
        },
    };
    Err(Failure::bad_request(format!(
        "{0} in version {1:?} cannot be handled as a {0}: {why}",
        kind.kind, kind.version
    )))
}

/// Where the data of a Secret, or the binary data of a `ConfigMap`, is no base64.
fn no_base64(object: &Value) -> Option<usize> {
    let field = if object["kind"] == "ConfigMap" {
        "binaryData"
    } else {
        "data"
    };
    let texts = object[field]
        .as_object()?
        .values()
        .filter_map(Value::as_str);
    let outside = |byte: u8| !(byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte));
    texts
        .filter(|text| STANDARD.decode(text).is_err())
        .map(|text| text.bytes().position(outside).unwrap_or(text.len()))
        .next()
}

/// Checks an object of a built-in kind (which [`decode`] accepts) by Kubernetes' own rules for names, labels, immutable
/// fields and so on, as far as this product can meet them; fills in its defaults, even if something is wrong with it.
///
/// # Errors
/// What is wrong with it.
pub fn check_builtin(
    kind: &Kind,
    object: &mut Value,
    before: Option<&Value>,
) -> Result<(), Vec<Cause>> {
    let mut causes = names::metadata(object);
    causes.extend(names::name(kind, object));
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => {
            pods::default(object, "/spec");
            pods::admit(object);
            pods::check(&object["spec"], "spec", &mut causes);
        }
        ("", "Secret") => secret(object, before, &mut causes),
        ("", "ConfigMap") => {
            data(object, &["data", "binaryData"], &mut causes);
            frozen(object, before, &["data", "binaryData"], &mut causes);
        }
        ("", "Service") => service(object, &mut causes),
        ("", "Event") => event(object, &mut causes),
        ("events.k8s.io", "Event") if before.is_none() => new_event(object, &mut causes),
        ("apps", "Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet") => {
            workload(&kind.kind, object, &mut causes);
        }
        ("batch", "Job") => {
            fill(
                object,
                "/spec",
                &json!({"parallelism": 1, "completions": 1, "backoffLimit": 6}),
            );
            pods::default(object, "/spec/template/spec");
            let spec = &object["spec"]["template"]["spec"];
            pods::check(spec, "spec.template.spec", &mut causes);
        }
        ("coordination.k8s.io", "Lease") => lease(object, &mut causes),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => {
            rbac::role(object, kind.namespaced, &mut causes);
        }
        ("rbac.authorization.k8s.io", _) => {
            rbac::default_binding(object);
            rbac::binding(object, kind.namespaced, before, &mut causes);
        }
        ("admissionregistration.k8s.io", _) => webhooks(&kind.kind, object, &mut causes),
        ("apiextensions.k8s.io", _) => {
            let name = text(&object["spec"]["names"], "kind").to_owned();
            let names = json!({"singular": name.to_lowercase(), "listKind": format!("{name}List")});
            fill(object, "/spec/names", &names);
            let conversion = json!({"conversion": {"strategy": "None"}});
            fill(object, "/spec", &conversion);
        }
        _ => {}
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(causes)
    }
}

/// Adds the fields of `defaults` to the object that is there in `value`, if one is.
fn fill(value: &mut Value, pointer: &str, defaults: &Value) {
    let object = value.pointer_mut(pointer).and_then(Value::as_object_mut);
    let (Some(object), Some(defaults)) = (object, defaults.as_object()) else {
        return;
    };
    for (name, value) in defaults {
        let field = object.entry(name).or_insert(Value::Null);
        if field.is_null() || *field == "" {
            *field = value.clone();
        }
    }
}

/// The items of a list to be changed; none if it is no list.
fn items<'a>(
    object: &'a mut Value,
    pointer: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    let list = object.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// The items of a list with their paths.
fn listed<'a>(
    object: &'a Value,
    at: &str,
    field: &str,
) -> impl Iterator<Item = (String, &'a Value)> {
    let at = if at.is_empty() {
        field.to_owned()
    } else {
        format!("{at}.{field}")
    };
    let list = object[field].as_array().into_iter().flatten();
    list.enumerate()
        .map(move |(index, item)| (format!("{at}[{index}]"), item))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn need(object: &Value, at: &str, fields: &[&str], causes: &mut Vec<Cause>) {
    for field in fields {
        let value = &object[field];
        if value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty) {
            causes.push(required(format!("{at}.{field}"), ""));
        }
    }
}

fn one_of(object: &Value, at: &str, field: &str, of: &[&str], causes: &mut Vec<Cause>) {
    let value = &object[field];
    if value
        .as_str()
        .is_some_and(|value| !value.is_empty() && !of.contains(&value))
    {
        let at = format!("{at}.{field}");
        let at = at.trim_start_matches('.');
        causes.push(unsupported(at, value, of.iter().copied()));
    }
}

fn secret(secret: &mut Value, before: Option<&Value>, causes: &mut Vec<Cause>) {
    fill(secret, "", &json!({"type": "Opaque"}));
    data(secret, &["data"], causes);
    let keys: &[&str] = match text(secret, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/service-account-token" => {
            let account = "kubernetes.io/service-account.name";
            if text(&secret["metadata"]["annotations"], account).is_empty() {
                causes.push(required(format!("metadata.annotations[{account}]"), ""));
            }
            &[]
        }
        _ => &[],
    };
    for key in keys {
        if secret["data"].get(*key).is_none() {
            causes.push(required(format!("data[{key}]"), ""));
        }
    }
    if before.is_some_and(|before| before["type"] != secret["type"]) {
        causes.push(invalid("type", &secret["type"], "field is immutable"));
    }
    frozen(secret, before, &["data"], causes);
}

/// Keys and size of what a Secret or `ConfigMap` has.
fn data(object: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
         'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let mut size = 0;
    for field in fields {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let encoded = value.as_str().map_or(0, str::len);
            // Base64 but for the texts of ConfigMaps.
            let is_text = fields.len() > 1 && *field == "data";
            size += if is_text { encoded } else { encoded / 4 * 3 };
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let why = match key.as_str() {
                "." => "must not be '.'",
                ".." => "must not be '..'",
                long if long.len() > 253 => "must be no more than 253 characters",
                key if !key.is_empty() && key.chars().all(good) => continue,
                _ => KEY,
            };
            causes.push(invalid(format!("{field}[{key}]"), &json!(key), why));
        }
    }
    if size > MAX_DATA {
        causes.push(cause(
            "FieldValueTooLong",
            if fields.len() > 1 { "" } else { "data" },
            format!("Too long: may not be more than {MAX_DATA} bytes"),
        ));
    }
}

/// What may not change once `immutable` is set.
fn frozen(object: &Value, before: Option<&Value>, fields: &[&str], causes: &mut Vec<Cause>) {
    let Some(before) = before.filter(|before| before["immutable"] == true) else {
        return;
    };
    let empty = json!({});
    let content = |object: &Value, field: &str| match &object[field] {
        Value::Null => empty.clone(),
        value => value.clone(),
    };
    let fields = fields
        .iter()
        .filter(|field| content(before, field) != content(object, field));
    let immutable = (object["immutable"] != true).then_some(&"immutable");
    causes.extend(immutable.into_iter().chain(fields).map(|field| {
        let why = "Forbidden: field is immutable when `immutable` is set";
        cause("FieldValueForbidden", *field, why.to_owned())
    }));
}

fn service(service: &mut Value, causes: &mut Vec<Cause>) {
    let defaults = json!({"type": "ClusterIP", "sessionAffinity": "None"});
    fill(service, "/spec", &defaults);
    for port in items(service, "/spec/ports") {
        let target = port["port"].clone();
        fill(port, "", &json!({"protocol": "TCP", "targetPort": target}));
    }
    let spec = &service["spec"];
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(spec, "spec", "type", &types, causes);
    let without = text(spec, "type") == "ExternalName" || text(spec, "clusterIP") == "None";
    if !without {
        need(spec, "spec", &["ports"], causes);
    }
    let several = spec["ports"]
        .as_array()
        .is_some_and(|ports| ports.len() > 1);
    for (at, port) in listed(spec, "spec", "ports") {
        if several {
            need(port, &at, &["name"], causes);
        }
        pods::port(&port["port"], &format!("{at}.port"), causes);
    }
}

fn event(event: &Value, causes: &mut Vec<Cause>) {
    let about = &event["involvedObject"]["namespace"];
    let mine = &event["metadata"]["namespace"];
    let cluster_wide = about.as_str().is_none_or(str::is_empty);
    let elsewhere = if cluster_wide {
        *mine != "default" && *mine != "kube-system"
    } else {
        about != mine
    };
    if elsewhere && mine.is_string() {
        let about = json!(about.as_str().unwrap_or_default());
        causes.push(invalid(
            "involvedObject.namespace",
            &about,
            "does not match event.namespace",
        ));
    }
}

fn new_event(event: &Value, causes: &mut Vec<Cause>) {
    let fields = [
        "eventTime",
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ];
    for field in fields {
        if event[field].as_str().is_none_or(str::is_empty) {
            causes.push(required(field, ""));
        }
    }
    for (field, limit) in [("action", 128), ("reason", 128), ("note", 1024)] {
        if text(event, field).len() > limit {
            let why = format!("can have at most {limit} characters");
            causes.push(invalid(field, &event[field], &why));
        }
    }
    if !["Normal", "Warning"].contains(&text(event, "type")) {
        causes.push(invalid(
            "type",
            &json!(text(event, "type")),
            "has invalid value",
        ));
    }
}

fn lease(lease: &Value, causes: &mut Vec<Cause>) {
    let spec = &lease["spec"];
    if spec["leaseDurationSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds <= 0)
    {
        causes.push(invalid(
            "spec.leaseDurationSeconds",
            &spec["leaseDurationSeconds"],
            "must be greater than 0",
        ));
    }
    if spec["leaseTransitions"]
        .as_i64()
        .is_some_and(|transitions| transitions < 0)
    {
        causes.push(invalid(
            "spec.leaseTransitions",
            &spec["leaseTransitions"],
            "must be greater than or equal to 0",
        ));
    }
}

fn workload(kind: &str, object: &mut Value, causes: &mut Vec<Cause>) {
    fill(
        object,
        "/spec",
        &match kind {
            "Deployment" => json!({
                "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {
                    "type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
                },
            }),
            "DaemonSet" => json!({"revisionHistoryLimit": 10}),
            _ => json!({"replicas": 1}),
        },
    );
    pods::default(object, "/spec/template/spec");
    let spec = &object["spec"];
    pods::check(&spec["template"]["spec"], "spec.template.spec", causes);
    let (selector, labels) = (&spec["selector"], &spec["template"]["metadata"]["labels"]);
    causes.extend(names::labels(labels, "spec.template.metadata.labels"));
    if selector.is_null() {
        causes.push(required("spec.selector", ""));
    } else if selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .any(|(key, value)| labels[key] != *value)
    {
        causes.push(invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        ));
    }
}

fn webhooks(kind: &str, object: &mut Value, causes: &mut Vec<Cause>) {
    for webhook in items(object, "/webhooks") {
        fill(
            webhook,
            "",
            &json!({
                "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "timeoutSeconds": 10,
            }),
        );
        if kind.starts_with("Mutating") {
            fill(webhook, "", &json!({"reinvocationPolicy": "Never"}));
        }
        for rule in items(webhook, "/rules") {
            fill(rule, "", &json!({"scope": "*"}));
        }
        fill(webhook, "/clientConfig/service", &json!({"port": 443}));
    }
    for (at, webhook) in listed(object, "", "webhooks") {
        need(webhook, &at, &["name"], causes);
        if webhook["sideEffects"].is_null() {
            let why = "must specify one of None, NoneOnDryRun";
            causes.push(required(format!("{at}.sideEffects"), why));
        }
        one_of(
            webhook,
            &at,
            "sideEffects",
            &["None", "NoneOnDryRun"],
            causes,
        );
        one_of(webhook, &at, "failurePolicy", &["Fail", "Ignore"], causes);
        let reviews = webhook["admissionReviewVersions"].as_array();
        if reviews.is_none_or(Vec::is_empty) {
            let why = "must specify one of v1, v1beta1";
            causes.push(required(format!("{at}.admissionReviewVersions"), why));
        }
        let seconds = &webhook["timeoutSeconds"];
        if seconds
            .as_i64()
            .is_some_and(|seconds| !(1..=30).contains(&seconds))
        {
            let why = "the timeout value must be between 1 and 30 seconds";
            causes.push(invalid(format!("{at}.timeoutSeconds"), seconds, why));
        }
    }
}

#[cfg(test)]
mod tests;
