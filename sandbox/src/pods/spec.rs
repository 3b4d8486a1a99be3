//! What a pod says of its containers: which there are, their commands and their environment.

use std::path::Path;

use serde_json::Value;

use super::report::Part;
use crate::cluster::{Cluster, NODE};
use crate::object;
use crate::store::Key;

/// All containers of a pod, in the order they are started.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = (Part, &Value)> {
    [
        ("initContainers", Part::Init),
        ("containers", Part::Main),
        ("ephemeralContainers", Part::Ephemeral),
    ]
    .into_iter()
    .flat_map(|(field, part)| {
        let listed = pod["spec"][field].as_array().into_iter().flatten();
        listed.map(move |one| {
            let sidecar = part == Part::Init && one["restartPolicy"] == "Always";
            (if sidecar { Part::Sidecar } else { part }, one)
        })
    })
}

/// The command line. An image's own command is not known: a shell stands for it if there is an input, and otherwise
/// something that only waits; arguments alone are taken for a command line, as with an image that has no entry point.
pub(super) fn argv(container: &Value, env: &[(String, String)]) -> Vec<String> {
    let listed = |field: &str| container[field].as_array().into_iter().flatten();
    let argv: Vec<String> = listed("command")
        .chain(listed("args"))
        .filter_map(|word| Some(expand(word.as_str()?, env)))
        .collect();
    if !argv.is_empty() {
        argv
    } else if container["stdin"] == true {
        vec!["sh".to_owned()]
    } else {
        // About 68 years.
        ["sleep", "2147483647"].map(str::to_owned).to_vec()
    }
}

/// The environment. `securityContext`, `envFrom`, volumes, ports, probes, resources and `workingDir` mean nothing here.
///
/// # Errors
/// As the kubelet says it, when the `ConfigMap` or Secret is missing, or for a source that is not known here.
pub(super) fn environment(
    cluster: &Cluster,
    pod: &Value,
    container: &Value,
    home: &Path,
) -> Result<Vec<(String, String)>, String> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let mut env = vec![
        ("PATH".to_owned(), path),
        ("HOSTNAME".to_owned(), object::name(pod).to_owned()),
        ("HOME".to_owned(), home.display().to_string()),
    ];
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap_or_default().to_owned();
        let value = match &variable["valueFrom"] {
            Value::Null => Some(expand(variable["value"].as_str().unwrap_or_default(), &env)),
            from => source(cluster, pod, from)?,
        };
        if let Some(value) = value {
            env.retain(|(known, _)| *known != name);
            env.push((name, value));
        }
    }
    Ok(env)
}

/// The value a variable gets from elsewhere; `None` for one that is optional and not there.
fn source(cluster: &Cluster, pod: &Value, from: &Value) -> Result<Option<String>, String> {
    if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
        let value = match path {
            "status.podIP" | "status.hostIP" => "127.0.0.1",
            "spec.nodeName" => NODE,
            _ => path
                .split('.')
                .fold(pod, |value, field| &value[field])
                .as_str()
                .ok_or_else(|| format!("unsupported fieldPath: {path}"))?,
        };
        return Ok(Some(value.to_owned()));
    }
    let (field, resource) = if from["secretKeyRef"].is_object() {
        ("secretKeyRef", "secrets")
    } else if from["configMapKeyRef"].is_object() {
        ("configMapKeyRef", "configmaps")
    } else {
        return Err("a source of environment variables that the sandbox does not know".to_owned());
    };
    let text = |name: &str| from[field][name].as_str().unwrap_or_default();
    let found = cluster.store.get(&Key {
        resource: resource.into(),
        namespace: object::namespace(pod).to_owned(),
        name: text("name").to_owned(),
    });
    let value = found.as_ref().and_then(|found| {
        let value = found["data"][text("key")].as_str()?;
        if field == "configMapKeyRef" {
            return Some(value.to_owned());
        }
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, value).ok()?;
        String::from_utf8(bytes).ok()
    });
    match value {
        Some(value) => Ok(Some(value)),
        None if from[field]["optional"] == true => Ok(None),
        None if found.is_none() => Err(format!(
            "{} {:?} not found",
            resource.trim_end_matches('s'),
            text("name")
        )),
        None => Err(format!(
            "couldn't find key {} in {} {}/{}",
            text("key"),
            if resource == "secrets" {
                "Secret"
            } else {
                "ConfigMap"
            },
            object::namespace(pod),
            text("name")
        )),
    }
}

/// Replaces `$(NAME)` by what is known under that name; `$$` is a dollar sign.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let named = after
            .strip_prefix('(')
            .and_then(|name| name.split_once(')'));
        let known = named.and_then(|(name, tail)| {
            let (_, value) = env.iter().find(|(known, _)| known == name)?;
            Some((value, tail))
        });
        if let Some((value, tail)) = known {
            out.push_str(value);
            rest = tail;
        } else {
            out.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_replaced_as_the_kubelet_does() {
        let env = [("A".to_owned(), "1".to_owned())];
        for (text, expected) in [
            ("$(A)-$(A)", "1-1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn a_container_without_a_command_gets_one() {
        assert_eq!(
            argv(&json!({"args": ["a"], "command": ["b"]}), &[]),
            ["b", "a"]
        );
        assert_eq!(argv(&json!({"stdin": true}), &[]), ["sh"]);
        assert_eq!(argv(&json!({}), &[])[0], "sleep");
    }
}
