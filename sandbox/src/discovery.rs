//! `/version`, `/api`, `/apis` and what is below them: which kinds there are, plain and aggregated. Pure.

use std::cmp::Reverse;
use std::env::consts::{ARCH, OS};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::release::Release;

const JSON: &str = "application/json";
const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// The document at a path (`/version`, `/api`, `/apis`, `/api/v1`, `/apis/{group}`, `/apis/{group}/{version}`), and its
/// content type; `None` if there is none. `accept` chooses the aggregated form (`g=apidiscovery.k8s.io;v=v2` or
/// `v2beta1`) of `/api` and `/apis`, which releases before 1.26 do not have. `address` is the API server's.
#[must_use]
pub fn document(
    kinds: &[Arc<Kind>],
    release: Release,
    path: &str,
    accept: &str,
    address: &str,
) -> Option<(&'static str, Value)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let plain = match *parts {
        ["version"] => version(release),
        ["api" | "apis"] if form(accept, release) != JSON => {
            let form = form(accept, release);
            return Some((form, aggregated(kinds, parts == ["api"], form == V2)));
        }
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        }),
        ["apis"] => {
            let groups = groups(kinds).into_iter().filter(|group| !group.is_empty());
            let groups: Vec<Value> = groups.map(|name| group(kinds, name)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", version] => resources(kinds, release, "", version)?,
        ["apis", name] => {
            let mut group = groups(kinds).contains(&name).then(|| group(kinds, name))?;
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["apis", group, version] if !group.is_empty() => resources(kinds, release, group, version)?,
        _ => return None,
    };
    Some((JSON, plain))
}

/// The first form of those accepted that the release has.
fn form(accept: &str, release: Release) -> &'static str {
    accept
        .split(',')
        .find_map(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            let media = parts.next()?;
            if !matches!(media, JSON | "application/*" | "*/*") {
                return None;
            }
            let parts: Vec<&str> = parts.filter(|part| !part.starts_with("q=")).collect();
            let is = |form: &str| form.split(';').skip(1).all(|part| parts.contains(&part));
            match release.minor() {
                30.. if is(V2) => Some(V2),
                26.. if is(V2BETA1) => Some(V2BETA1),
                _ => (!parts.iter().any(|part| part.starts_with("as="))).then_some(JSON),
            }
        })
        .unwrap_or(JSON)
}

/// The release as its `gitVersion` tells it.
pub(crate) fn git_version(release: Release) -> &'static str {
    match release {
        Release::V1_20 => "v1.20.2",
        Release::V1_30 => "v1.30.0",
        Release::V1_36 => "v1.36.0",
    }
}

fn version(release: Release) -> Value {
    let version = git_version(release);
    json!({
        "major": "1", "minor": release.minor().to_string(), "gitVersion": version, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": format!("{OS}/{ARCH}"),
    })
}

/// In order of their first kind.
fn groups(kinds: &[Arc<Kind>]) -> Vec<&str> {
    let mut groups: Vec<&str> = Vec::new();
    for kind in kinds {
        if !groups.contains(&kind.group.as_str()) {
            groups.push(&kind.group);
        }
    }
    groups
}

/// Of a group; the preferred one first.
fn versions<'a>(kinds: &'a [Arc<Kind>], group: &str) -> Vec<&'a str> {
    let mut versions: Vec<&str> = kinds
        .iter()
        .filter(|kind| kind.group == group)
        .map(|kind| kind.version.as_str())
        .collect();
    versions.sort_by_key(|version| (Reverse(priority(version)), *version));
    versions.dedup();
    versions
}

/// `v2` before `v1`, both before `v3beta1`, that before `v3alpha1`; anything else after them, by name.
fn priority(version: &str) -> Option<(u8, u32, u32)> {
    let version = version.strip_prefix('v')?;
    let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('0'));
    for (stage, word) in [(0, "alpha"), (1, "beta")] {
        if let Some((major, minor)) = version.split_once(word) {
            return Some((stage, number(major)?, number(minor)?));
        }
    }
    Some((2, number(version)?, 0))
}

fn group(kinds: &[Arc<Kind>], name: &str) -> Value {
    let versions: Vec<Value> = versions(kinds, name)
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn resources(kinds: &[Arc<Kind>], release: Release, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in served(kinds, group, version) {
        // Built-in kinds have told their singular since 1.27.
        let known = kind.custom() || release.minor() >= 27;
        let mut resource = json!({
            "name": kind.plural, "singularName": if known { &kind.singular } else { "" },
            "namespaced": kind.namespaced, "kind": kind.kind, "verbs": kind.verbs(),
        });
        let names = [
            ("shortNames", &kind.short_names),
            ("categories", &kind.categories),
        ];
        for (field, names) in names.into_iter().filter(|(_, names)| !names.is_empty()) {
            resource[field] = json!(names);
        }
        resources.push(resource);
        for sub in subresources(kind) {
            let mut resource = json!({
                "name": format!("{}/{}", kind.plural, sub.name), "singularName": "",
                "namespaced": kind.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            if (sub.group, sub.version) != (group, version) {
                resource["group"] = sub.group.into();
                resource["version"] = sub.version.into();
            }
            resources.push(resource);
        }
    }
    let mut list =
        json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
        list["groupVersion"] = format!("{group}/{version}").into();
    }
    (!resources.is_empty()).then_some(list)
}

fn served<'a>(
    kinds: &'a [Arc<Kind>],
    group: &str,
    version: &str,
) -> impl Iterator<Item = &'a Kind> {
    kinds
        .iter()
        .map(Arc::as_ref)
        .filter(move |kind| kind.group == group && kind.version == version)
}

/// All groups with all their resources: `APIGroupDiscoveryList`.
fn aggregated(kinds: &[Arc<Kind>], core: bool, v2: bool) -> Value {
    let groups = groups(kinds)
        .into_iter()
        .filter(|group| group.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|group| {
            let versions: Vec<Value> = versions(kinds, group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        served(kinds, group, version).map(described).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !core {
                metadata["name"] = group.into();
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let version = if v2 { "v2" } else { "v2beta1" };
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn described(kind: &Kind) -> Value {
    let mut resource = json!({
        "resource": kind.plural, "singularResource": kind.singular, "verbs": kind.verbs(),
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
    });
    let subresources: Vec<Value> = subresources(kind)
        .map(|sub| {
            json!({
                "subresource": sub.name, "verbs": sub.verbs,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
            })
        })
        .collect();
    let lists = [
        ("shortNames", json!(kind.short_names)),
        ("categories", json!(kind.categories)),
        ("subresources", json!(subresources)),
    ];
    for (field, list) in lists {
        if list != json!([]) {
            resource[field] = list;
        }
    }
    resource
}

struct Subresource<'a> {
    name: &'a str,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    verbs: &'static [&'static str],
}

fn subresources(kind: &Kind) -> impl Iterator<Item = Subresource<'_>> {
    let status = kind.status.then_some("status");
    kind.subresources.iter().copied().chain(status).map(|name| {
        let own = (kind.group.as_str(), kind.version.as_str());
        let ((group, version), of, verbs): (_, _, &[&str]) = match name {
            "attach" => (own, "PodAttachOptions", &["create", "get"]),
            "exec" => (own, "PodExecOptions", &["create", "get"]),
            "portforward" => (own, "PodPortForwardOptions", &["create", "get"]),
            "log" => (own, kind.kind.as_str(), &["get"]),
            "token" => (("authentication.k8s.io", "v1"), "TokenRequest", &["create"]),
            "scale" => (("autoscaling", "v1"), "Scale", &["get", "patch", "update"]),
            _ => (own, kind.kind.as_str(), &["get", "patch", "update"]),
        };
        Subresource {
            name,
            group,
            version,
            kind: of,
            verbs,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{Kinds, Schema};

    const KUBECTL: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
        application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

    fn kinds(release: Release) -> Arc<Vec<Arc<Kind>>> {
        let kinds = Kinds::builtin(release);
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
        kinds.define("drawbridge.dev", "consolesessions", custom.into());
        kinds.all()
    }

    fn get(release: Release, path: &str, accept: &str) -> Option<(&'static str, Value)> {
        document(&kinds(release), release, path, accept, "127.0.0.1:6443")
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
            (Release::V1_36, V2BETA1, V2BETA1),
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
            .last()
            .expect("it is there");
        assert_eq!(item["metadata"]["name"], "drawbridge.dev");
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
        assert!(!pods(Release::V1_20).contains(r#""singularName":"pod""#));
        assert!(pods(Release::V1_30).contains(r#""singularName":"pod""#));
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
