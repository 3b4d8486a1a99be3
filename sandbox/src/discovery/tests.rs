//! What discovery tells of built-in and custom kinds.

use http::header::ACCEPT;

use super::*;

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
        namespaced: true,
        status: true,
        generation: true,
        ..Kind::default()
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
    let pods = |release| plain(release, "/api/v1").to_string();
    assert!(!pods(Release::V1_20).contains("pods/ephemeralcontainers"));
    assert!(pods(Release::V1_30).contains("pods/ephemeralcontainers"));
    assert_eq!(plain(Release::V1_20, "/version")["gitVersion"], "v1.20.0");
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
        serde_json::from_value::<meta::APIResourceList>(plain(release, path)).expect("it is there");
    }
    serde_json::from_value::<meta::APIVersions>(plain(release, "/api")).expect("it is there");
    serde_json::from_value::<meta::APIGroupList>(plain(release, "/apis")).expect("it is there");
    serde_json::from_value::<k8s_openapi::apimachinery::pkg::version::Info>(plain(
        release, "/version",
    ))
    .expect("it is there");
}
