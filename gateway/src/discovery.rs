//! The documents kubectl reads before it does anything, cut down to what is served here. Pure.

use bytes::Bytes;

use crate::route::Discovery;

const API: &str = r#"{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[]}"#;
const APIS: &str = r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#;
const CORE_V1: &str = concat!(
    r#"{"kind":"APIResourceList","groupVersion":"v1","resources":["#,
    r#"{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get"],"shortNames":["po"]},"#,
    r#"{"name":"pods/attach","singularName":"","namespaced":true,"kind":"PodAttachOptions","verbs":["create","get"]},"#,
    r#"{"name":"pods/exec","singularName":"","namespaced":true,"kind":"PodExecOptions","verbs":["create","get"]}]}"#,
);

/// A discovery document, in the form every client understands.
#[must_use]
pub fn document(which: Discovery) -> Bytes {
    Bytes::from_static(match which {
        Discovery::Api => API.as_bytes(),
        Discovery::Apis => APIS.as_bytes(),
        Discovery::CoreV1 => CORE_V1.as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
        APIGroupList, APIResourceList, APIVersions,
    };

    use super::*;

    #[test]
    fn the_documents_are_what_clients_expect_and_name_what_is_served() {
        serde_json::from_slice::<APIVersions>(&document(Discovery::Api)).expect("reads");
        serde_json::from_slice::<APIGroupList>(&document(Discovery::Apis)).expect("reads");
        let list: APIResourceList =
            serde_json::from_slice(&document(Discovery::CoreV1)).expect("reads");
        let names: Vec<_> = list
            .resources
            .iter()
            .map(|resource| resource.name.as_str())
            .collect();
        assert_eq!(names, ["pods", "pods/attach", "pods/exec"]);
    }
}
