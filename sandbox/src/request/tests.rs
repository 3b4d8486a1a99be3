//! What requests are taken to ask for.

use proptest::prelude::*;

use super::*;

fn asked(method: &str, uri: &str) -> (String, String, String, String, String, String) {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let Attributes {
        verb,
        group,
        namespace,
        resource,
        subresource,
        name,
        ..
    } = attributes(&method.parse().unwrap(), path, query);
    (verb, group, namespace, resource, name, subresource)
}

#[test]
fn a_request_is_understood_as_kubernetes_does() {
    let crd = "/apis/drawbridge.dev/v1alpha1/namespaces/demo/consolesessions";
    for (method, uri, want) in [
        ("GET", "/api/v1/pods", ("list", "", "", "pods", "", "")),
        (
            "GET",
            "/api/v1/pods?watch",
            ("watch", "", "", "pods", "", ""),
        ),
        (
            "GET",
            "/api/v1/pods?watch=0",
            ("list", "", "", "pods", "", ""),
        ),
        (
            "GET",
            "/api/v1/namespaces",
            ("list", "", "", "namespaces", "", ""),
        ),
        (
            "GET",
            "/api/v1/namespaces/a",
            ("get", "", "a", "namespaces", "a", ""),
        ),
        (
            "PUT",
            "/api/v1/namespaces/a/finalize",
            ("update", "", "a", "namespaces", "a", "finalize"),
        ),
        (
            "POST",
            "/api/v1/namespaces/a/pods/b/exec?x=y",
            ("create", "", "a", "pods", "b", "exec"),
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/pods",
            ("deletecollection", "", "a", "pods", "", ""),
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/pods/b",
            ("delete", "", "a", "pods", "b", ""),
        ),
        (
            "GET",
            "/api/v1/pods?fieldSelector=metadata.name%3Db&watch=1",
            ("watch", "", "", "pods", "b", ""),
        ),
        (
            "GET",
            "/api/v1/pods?fieldSelector=metadata.name%21%3Db",
            ("list", "", "", "pods", "", ""),
        ),
    ] {
        let want = (
            want.0.to_owned(),
            want.1.to_owned(),
            want.2.to_owned(),
            want.3.to_owned(),
            want.4.to_owned(),
            want.5.to_owned(),
        );
        assert_eq!(asked(method, uri), want, "{method} {uri}");
    }
    let (verb, group, namespace, resource, name, subresource) =
        asked("PATCH", &format!("{crd}/s/status"));
    assert_eq!(
        [verb, group, namespace, resource, name, subresource],
        [
            "patch",
            "drawbridge.dev",
            "demo",
            "consolesessions",
            "s",
            "status"
        ]
    );
}

#[test]
fn what_is_no_resource_keeps_its_method_and_path() {
    for path in ["/", "/api", "/api/v1", "/apis/a/v1", "/healthz", "/x/y/z/a"] {
        let asked = attributes(&Method::POST, path, "");
        assert_eq!((asked.verb.as_str(), asked.path.as_str()), ("post", path));
        assert!(!asked.resource_request);
    }
}

proptest! {
    #[test]
    fn any_path_is_understood_without_a_panic(path in "(/(api|apis|namespaces|v1|status|%2[Ff]|[a-z.]{0,4})){0,8}/?", query in ".{0,40}") {
        let asked = attributes(&Method::GET, &path, &query);
        prop_assert_eq!(asked.resource_request, !asked.version.is_empty() || asked.path.contains("//") && asked.resource_request);
    }

    #[test]
    fn the_names_of_a_path_come_back(namespace in "[a-z]{1,9}", resource in "[a-z]{1,9}s", name in "[a-z]{1,9}", sub in "[a-z]{1,9}") {
        let path = format!("/apis/x.y/v1/namespaces/{namespace}/{resource}/{name}/{sub}");
        prop_assume!(!matches!(resource.as_str(), "status" | "finalize"));
        let asked = attributes(&Method::PUT, &path, "");
        prop_assert_eq!((asked.namespace, asked.resource, asked.name, asked.subresource), (namespace, resource, name, sub));
    }
}
