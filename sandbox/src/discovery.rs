//! `/version`, `/api`, `/apis` and what is below them: which kinds there are, plain and aggregated. Pure.

use std::env::consts::{ARCH, OS};
use std::{cmp::Reverse, collections::BTreeSet, iter::once, sync::Arc};

use http::HeaderMap;
use kube_core::Version;
use serde_json::{Value, json};

use crate::{
    cluster::Cluster, kinds::Kind, object::text, release::Release, server::JSON, server::choose,
};

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The document at a path (`/version`, `/api`, `/apis`, `/api/v1`, `/apis/{group}`, `/apis/{group}/{version}`), and its
/// content type; `None` if there is none. `Accept` chooses the aggregated form of `/api` and `/apis`, which the sandbox
/// has from 1.30.
pub(crate) fn document(
    cluster: &Cluster,
    path: &str,
    headers: &HeaderMap,
) -> Option<(&'static str, Value)> {
    let (kinds, release) = (&*cluster.kinds.all(), cluster.release);
    let media = choose(headers, |form, version| match form {
        Some("APIGroupDiscoveryList") if release >= Release::V1_30 && version == "v2" => Some(V2),
        form => form.is_none().then_some(JSON),
    });
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (core, only) = (parts[0] == "api", parts.get(1));
    let names: BTreeSet<&str> = kinds.iter().map(|kind| kind.group.as_str()).collect();
    let names = names.into_iter().filter(|name| name.is_empty() == core);
    let names = names.filter(|name| core || only.is_none_or(|only| only == name));
    let mut groups = names.map(|name| group(kinds, name));
    let plain = match *parts {
        ["api" | "apis"] if media == Some(V2) => {
            let (kind, items) = ("APIGroupDiscoveryList", groups.collect::<Vec<_>>());
            let list = json!({"kind": kind, "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
            return Some((V2, list));
        }
        ["version"] => json!({
            "major": "1", "minor": (release as u32).to_string(), "gitVersion": git_version(release), "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
            "platform": format!("{OS}/{ARCH}"),
        }),
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": cluster.address.to_string()}],
        }),
        ["apis"] => {
            let groups: Vec<Value> = groups.map(|group| plain_group(&group)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", _] => plain_group(&groups.next()?),
        ["api", version] | ["apis", _, version] => resources(&groups.next()?, version)?,
        _ => return None,
    };
    Some((JSON, plain))
}

/// The release as its `gitVersion` tells it.
pub(crate) fn git_version(release: Release) -> String {
    format!("v1.{}.0", release as u32)
}

/// A group with all its resources, as an `APIGroupDiscoveryList` has it; the preferred version first.
fn group(kinds: &[Arc<Kind>], name: &str) -> Value {
    let kinds = kinds.iter().filter(|kind| kind.group == name);
    let mut versions: Vec<&str> = kinds.clone().map(|kind| kind.version.as_str()).collect();
    versions.sort_by_key(|version| Reverse(Version::parse(version).priority()));
    versions.dedup();
    let versions = versions.into_iter().map(|version| {
        let kinds = kinds.clone().filter(|kind| kind.version == version);
        let resources: Vec<Value> = kinds.map(|kind| resource(kind)).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    });
    let versions: Vec<Value> = versions.collect();
    json!({"metadata": {"name": name}, "versions": versions})
}

fn resource(kind: &Kind) -> Value {
    let status = kind.status.then_some("status");
    let parts = kind.subresources.iter().map(String::as_str).chain(status);
    let parts = parts.map(|part| {
        let (group, name, verbs): (_, _, &[&str]) = match part {
            "attach" => ("", "PodAttachOptions", &["create", "get"]),
            "exec" => ("", "PodExecOptions", &["create", "get"]),
            "log" => ("", "Pod", &["get"]),
            "token" => ("authentication.k8s.io", "TokenRequest", &["create"]),
            _ => (&*kind.group, &*kind.kind, &["get", "patch", "update"]),
        };
        let of = json!({"group": group, "version": kind.version, "kind": name});
        json!({"subresource": part, "verbs": verbs, "responseKind": of})
    });
    let of = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    json!({
        "resource": kind.plural, "singularResource": kind.singular, "responseKind": of,
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }, "verbs": kind.verbs(),
        "shortNames": kind.short_names, "categories": kind.categories, "subresources": parts.collect::<Vec<_>>(),
    })
}

/// The same group as an `APIGroup`.
fn plain_group(group: &Value) -> Value {
    let name = text(&group["metadata"]["name"]);
    let versions = group["versions"].as_array().into_iter().flatten();
    let versions = versions.map(|version| {
        let version = text(&version["version"]);
        json!({"groupVersion": format!("{name}/{version}"), "version": version})
    });
    let versions: Vec<Value> = versions.collect();
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": versions.first(),
    })
}

/// A version of a group as an `APIResourceList`.
fn resources(group: &Value, version: &str) -> Option<Value> {
    let mut versions = group["versions"].as_array()?.iter();
    let found = versions.find(|found| found["version"] == version)?;
    let mut list = Vec::new();
    for of in found["resources"].as_array()? {
        for part in once(of).chain(of["subresources"].as_array()?) {
            let name = format!("{}/{}", text(&of["resource"]), text(&part["subresource"]));
            let kind = &part["responseKind"];
            let mut resource = json!({
                "name": name.trim_end_matches('/'), "singularName": text(&part["singularResource"]),
                "namespaced": of["scope"] == "Namespaced", "kind": kind["kind"], "verbs": part["verbs"],
                "shortNames": part["shortNames"], "categories": part["categories"],
            });
            if kind["group"] != of["responseKind"]["group"] {
                json_patch::merge(&mut resource, kind);
            }
            list.push(resource);
        }
    }
    let version = format!("{}/{version}", text(&group["metadata"]["name"]));
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "resources": list, "groupVersion": version.trim_start_matches('/'),
    }))
}

#[cfg(test)]
mod tests;
