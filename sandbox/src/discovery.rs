//! `/version`, `/api`, `/apis` and what is below them: which kinds there are, plain and aggregated. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::env::consts::{ARCH, OS};
use std::sync::Arc;

use http::HeaderMap;
use kube_core::Version;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::release::Release;
use crate::server::choose;

const JSON: &str = "application/json";
const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The document at a path (`/version`, `/api`, `/apis`, `/api/v1`, `/apis/{group}`, `/apis/{group}/{version}`), and its
/// content type; `None` if there is none. `Accept` chooses the aggregated form of `/api` and `/apis`, which the sandbox
/// has from 1.30.
#[must_use]
pub fn document(
    cluster: &Cluster,
    path: &str,
    headers: &HeaderMap,
) -> Option<(&'static str, Value)> {
    let (kinds, release) = (&*cluster.kinds.all(), cluster.release);
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let core = parts[0] == "api";
    let groups = kinds.iter().map(|kind| kind.group.as_str());
    let groups: BTreeSet<&str> = groups.filter(|group| group.is_empty() == core).collect();
    let media = choose(headers, |form, group, version| {
        match (form, group, version) {
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => {
                (release.minor() >= 30).then_some(V2)
            }
            ("", ..) => Some(JSON),
            _ => None,
        }
    });
    let plain = match (&*parts, media.unwrap_or(JSON)) {
        (["api" | "apis"], V2) => {
            let items: Vec<Value> = groups
                .iter()
                .map(|group| aggregated(kinds, group))
                .collect();
            let (kind, version) = ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2");
            let list = json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": items});
            return Some((V2, list));
        }
        (["version"], _) => json!({
            "major": "1", "minor": release.minor().to_string(), "gitVersion": git_version(release), "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
            "platform": format!("{OS}/{ARCH}"),
        }),
        (["api"], _) => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": cluster.address.to_string()}],
        }),
        (["apis"], _) => {
            let groups: Vec<Value> = groups.iter().map(|name| group(kinds, name)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        (["apis", name], _) => groups.contains(*name).then(|| group(kinds, name))?,
        (["api", version], _) => resources(kinds, "", version)?,
        (["apis", group, version], _) if !group.is_empty() => resources(kinds, group, version)?,
        _ => return None,
    };
    Some((JSON, plain))
}

/// The release as its `gitVersion` tells it.
pub(crate) fn git_version(release: Release) -> &'static str {
    match release {
        Release::V1_20 => "v1.20.2",
        Release::V1_30 => "v1.30.0",
        Release::V1_36 => "v1.36.0",
    }
}

/// Of a group; the preferred one first.
fn versions<'a>(kinds: &'a [Arc<Kind>], group: &str) -> Vec<&'a str> {
    let kinds = kinds.iter().filter(|kind| kind.group == group);
    let mut versions: Vec<&str> = kinds.map(|kind| kind.version.as_str()).collect();
    versions.sort_by_key(|version| Reverse(Version::parse(version).priority()));
    versions.dedup();
    versions
}

fn group(kinds: &[Arc<Kind>], name: &str) -> Value {
    let versions = versions(kinds, name).into_iter();
    let versions = versions.map(|version| (version, format!("{name}/{version}")));
    let versions =
        versions.map(|(version, both)| json!({"groupVersion": both, "version": version}));
    let versions: Vec<Value> = versions.collect();
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": versions.first(),
    })
}

fn resources(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in served(kinds, group, version) {
        for (sub, of, verbs) in parts(kind) {
            let name = format!("{}/{sub}", kind.plural);
            let mut resource = json!({
                "name": name.trim_end_matches('/'), "singularName": "", "namespaced": kind.namespaced, "kind": of,
                "verbs": verbs,
            });
            if sub.is_empty() {
                resource["shortNames"] = json!(kind.short_names);
                resource["categories"] = json!(kind.categories);
                resource["singularName"] = kind.singular.as_str().into();
            } else if sub == "token" {
                resource["group"] = TOKEN.into();
                resource["version"] = "v1".into();
            }
            resources.push(resource);
        }
    }
    let version = format!("{group}/{version}");
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version.trim_start_matches('/'),
        "resources": resources,
    });
    (!resources.is_empty()).then_some(list)
}

fn served<'a>(
    kinds: &'a [Arc<Kind>],
    group: &str,
    version: &str,
) -> impl Iterator<Item = &'a Arc<Kind>> {
    kinds
        .iter()
        .filter(move |kind| kind.group == group && kind.version == version)
}

/// Group of the kind that is created through `serviceaccounts/token`.
const TOKEN: &str = "authentication.k8s.io";

/// A kind and its subresources: name (empty for the kind itself), kind of the objects, verbs.
fn parts(kind: &Kind) -> Vec<(&str, &str, &'static [&'static str])> {
    let mut parts = vec![("", kind.kind.as_str(), kind.verbs())];
    let status = kind.status.then_some("status");
    for name in kind.subresources.iter().copied().chain(status) {
        let (of, verbs): (_, &[&str]) = match name {
            "attach" => ("PodAttachOptions", &["create", "get"]),
            "exec" => ("PodExecOptions", &["create", "get"]),
            "portforward" => ("PodPortForwardOptions", &["create", "get"]),
            "log" => ("Pod", &["get"]),
            "token" => ("TokenRequest", &["create"]),
            _ => (kind.kind.as_str(), &["get", "patch", "update"]),
        };
        parts.push((name, of, verbs));
    }
    parts
}

/// A group with all its resources, as an `APIGroupDiscoveryList` has it.
fn aggregated(kinds: &[Arc<Kind>], group: &str) -> Value {
    let resource = |kind: &Arc<Kind>| {
        let parts = parts(kind).into_iter().map(|(sub, of, verbs)| {
            let group = if sub == "token" { TOKEN } else { &kind.group };
            let of = json!({"group": group, "version": kind.version, "kind": of});
            json!({"subresource": sub, "verbs": verbs, "responseKind": of})
        });
        let mut parts: Vec<Value> = parts.collect();
        let mut resource = parts.remove(0);
        json_patch::merge(
            &mut resource,
            &json!({
                "subresource": null, "resource": kind.plural, "singularResource": kind.singular,
                "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
                "shortNames": kind.short_names, "categories": kind.categories, "subresources": parts,
            }),
        );
        resource
    };
    let versions = versions(kinds, group).into_iter().map(|version| {
        let resources: Vec<Value> = served(kinds, group, version).map(resource).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    });
    let versions: Vec<Value> = versions.collect();
    json!({"metadata": {"name": group}, "versions": versions})
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;
    use crate::kinds::Schema;

    const KUBECTL: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
        application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

    fn cluster(release: Release) -> Arc<Cluster> {
        let cluster = Cluster::for_tests(release);
        let custom = ["v1alpha1", "v1", "v1beta2", "v2alpha1", "odd"].map(|version| Kind {
            group: "drawbridge.dev".into(),
            version: version.into(),
            kind: "ConsoleSession".into(),
            plural: "consolesessions".into(),
            singular: "consolesession".into(),
            list_kind: "ConsoleSessionList".into(),
            short_names: vec!["cons".into()],
            categories: vec![],
            namespaced: true,
            status: true,
            generation: true,
            subresources: vec![],
            virtual_only: false,
            columns: vec![],
            schema: Schema::Builtin("of no matter here".into()),
        });
        cluster
            .kinds
            .define("drawbridge.dev", "consolesessions", custom.into());
        cluster
    }

    fn get(release: Release, path: &str, accept: &str) -> Option<(&'static str, Value)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        document(&cluster(release), path, &headers)
    }

    fn plain(release: Release, path: &str) -> Value {
        get(release, path, "application/json")
            .expect("it is there")
            .1
    }

    #[test]
    fn a_client_gets_the_form_it_prefers_of_those_the_release_has() {
        for (release, accept, form) in [
            (Release::V1_20, KUBECTL, JSON),
            (Release::V1_30, KUBECTL, V2),
            (Release::V1_36, KUBECTL, V2),
            (Release::V1_36, &format!("application/json,{V2}"), JSON),
            (
                Release::V1_36,
                "application/json; g=apidiscovery.k8s.io; v=v2; as=APIGroupDiscoveryList; q=0.9",
                V2,
            ),
            (
                Release::V1_36,
                "application/json;as=Table;v=v1;g=meta.k8s.io,*/*",
                JSON,
            ),
            (Release::V1_36, "", JSON),
        ] {
            for path in ["/api", "/apis"] {
                assert_eq!(
                    get(release, path, accept).expect("it is there").0,
                    form,
                    "{accept}"
                );
            }
            assert_eq!(
                get(release, "/api/v1", accept).expect("it is there").0,
                JSON
            );
        }
    }

    #[test]
    fn a_custom_kind_appears_wherever_its_group_is_listed() {
        let release = Release::V1_36;
        let group = plain(release, "/apis/drawbridge.dev");
        assert_eq!(group["kind"], "APIGroup");
        assert_eq!(group["preferredVersion"]["version"], "v1");
        let order: Vec<&str> = group["versions"]
            .as_array()
            .expect("it is there")
            .iter()
            .map(|version| version["version"].as_str().expect("it is there"))
            .collect();
        assert_eq!(order, ["v1", "v1beta2", "v2alpha1", "v1alpha1", "odd"]);
        let list = plain(release, "/apis/drawbridge.dev/v1alpha1");
        assert_eq!(list["groupVersion"], "drawbridge.dev/v1alpha1");
        assert_eq!(list["resources"][0]["shortNames"], json!(["cons"]));
        assert_eq!(list["resources"][1]["name"], "consolesessions/status");
        assert_eq!(
            list["resources"][1]["verbs"],
            json!(["get", "patch", "update"])
        );
        let (_, all) = get(release, "/apis", KUBECTL).expect("it is there");
        let item = all["items"]
            .as_array()
            .expect("it is there")
            .iter()
            .find(|item| item["metadata"]["name"] == "drawbridge.dev")
            .expect("it is there");
        let resource = &item["versions"][0]["resources"][0];
        assert_eq!(resource["responseKind"]["kind"], "ConsoleSession");
        assert_eq!(resource["scope"], "Namespaced");
        assert_eq!(resource["subresources"][0]["subresource"], "status");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in [
            "/apis/none.dev",
            "/apis/apps/v2",
            "/api/v2",
            "/apis//v1",
            "/apis/apps/v1/deployments",
            "/",
        ] {
            assert_eq!(get(Release::V1_36, path, ""), None, "{path}");
        }
    }

    #[test]
    fn releases_differ_in_what_they_have() {
        let reviews = |release| plain(release, "/apis/authentication.k8s.io/v1").to_string();
        assert!(!reviews(Release::V1_20).contains("selfsubjectreviews"));
        assert!(reviews(Release::V1_30).contains("selfsubjectreviews"));
        let pods = |release| plain(release, "/api/v1").to_string();
        assert!(!pods(Release::V1_20).contains("pods/ephemeralcontainers"));
        assert!(pods(Release::V1_30).contains("pods/ephemeralcontainers"));
        assert_eq!(plain(Release::V1_20, "/version")["gitVersion"], "v1.20.2");
    }

    #[test]
    fn documents_are_what_client_libraries_read() {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
        let release = Release::V1_36;
        for path in [
            "/api/v1",
            "/apis/apps/v1",
            "/apis/rbac.authorization.k8s.io/v1",
        ] {
            serde_json::from_value::<meta::APIResourceList>(plain(release, path))
                .expect("it is there");
        }
        serde_json::from_value::<meta::APIVersions>(plain(release, "/api")).expect("it is there");
        serde_json::from_value::<meta::APIGroupList>(plain(release, "/apis")).expect("it is there");
        serde_json::from_value::<k8s_openapi::apimachinery::pkg::version::Info>(plain(
            release, "/version",
        ))
        .expect("it is there");
    }
}
