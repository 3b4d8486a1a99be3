//! The sandbox's API as kube-rs sees it: objects, watches, conflicts, finalizers, owners, namespaces.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use drawbridge_sandbox::faults::{Answer, Faults, RequestFault, WatchFault};
use drawbridge_sandbox::{Options, Release, Sandbox};
use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource as _;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
    Preconditions, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{GroupVersionKind, Status};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt as _};
use serde_json::{Value, json};

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    sandbox: Sandbox,
    client: Client,
}

async fn start(release: Release) -> Fixture {
    let options = Options {
        release,
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    let client = client(&sandbox, "admin", &["system:masters"]).await;
    Fixture { sandbox, client }
}

async fn client(sandbox: &Sandbox, user: &str, groups: &[&str]) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // by the first test
    let kubeconfig = Kubeconfig::from_yaml(&sandbox.kubeconfig(user, groups).unwrap()).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    config.default_retry = false; // what is refused is to be seen
    Client::try_from(config).unwrap()
}

impl Fixture {
    fn configs(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn make(&self, object: Value) -> ConfigMap {
        let object = serde_json::from_value(object).unwrap();
        self.configs()
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }
}

fn config(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("not refused: {other:?}"),
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let fixture = start(Release::default()).await;
    let api = fixture.configs();
    let made = fixture.make(config("one")).await;
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let mut changed = made.clone();
    changed
        .data
        .as_mut()
        .unwrap()
        .insert("b".into(), "2".into());
    let changed = api
        .replace("one", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_ne!(changed.resource_version(), made.resource_version());
    // The same again is no change.
    let again = api
        .replace("one", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_eq!(again.resource_version(), changed.resource_version());
    let late = refused(api.replace("one", &PostParams::default(), &made).await);
    assert_eq!((late.code, late.reason.as_str()), (409, "Conflict"));
    assert!(
        late.message
            .ends_with("please apply your changes to the latest version and try again")
    );
    let taken = refused(api.create(&PostParams::default(), &made_anew("one")).await);
    assert_eq!(taken.reason, "AlreadyExists");
    let wrong = DeleteParams::default().preconditions(Preconditions {
        uid: Some("other".into()),
        ..Preconditions::default()
    });
    assert_eq!(refused(api.delete("one", &wrong).await).code, 409);
    api.delete("one", &DeleteParams::default()).await.unwrap();
    assert_eq!(refused(api.get("one").await).reason, "NotFound");
    fixture.sandbox.stop().await;
}

fn made_anew(name: &str) -> ConfigMap {
    serde_json::from_value(config(name)).unwrap()
}

#[tokio::test]
async fn names_are_made_up_and_demanded() {
    let fixture = start(Release::default()).await;
    let made = fixture
        .make(json!({"metadata": {"generateName": "x-"}}))
        .await;
    assert!(made.name_any().starts_with("x-") && made.name_any().len() == 7);
    let api = fixture.configs();
    let nameless = serde_json::from_value(json!({"metadata": {}})).unwrap();
    let status = refused(api.create(&PostParams::default(), &nameless).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let mut dry = made_anew("dry");
    dry.metadata.annotations = None;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    assert!(api.create(&params, &dry).await.unwrap().uid().is_some());
    assert_eq!(refused(api.get("dry").await).code, 404);
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn a_watch_tells_what_is_selected_and_what_no_longer_is() {
    let fixture = start(Release::default()).await;
    let api = fixture.configs();
    let params = WatchParams::default().labels("app=web").timeout(20);
    let version = api.list(&ListParams::default()).await.unwrap();
    let version = version.metadata.resource_version.unwrap();
    let mut watch = api.watch(&params, &version).await.unwrap().boxed();
    fixture.make(config("other")).await;
    fixture.make(config("one")).await;
    for labels in [
        json!({"app": "web"}),
        json!({"app": "web", "b": "c"}),
        json!({"app": null}),
    ] {
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        api.patch("one", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    api.delete("one", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    let mut last = 0;
    while seen.len() < 3 {
        let event = within(watch.try_next()).await.unwrap().unwrap();
        let (what, object) = match event {
            WatchEvent::Added(object) => ("added", object),
            WatchEvent::Modified(object) => ("modified", object),
            WatchEvent::Deleted(object) => ("deleted", object),
            other => panic!("{other:?}"),
        };
        let revision: u64 = object.resource_version().unwrap().parse().unwrap();
        assert!(revision > last);
        last = revision;
        seen.push((what, object.name_any()));
    }
    let one = |what| (what, "one".to_owned());
    assert_eq!(seen, [one("added"), one("modified"), one("deleted")]);
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn a_watch_can_begin_with_everything_and_says_when_that_is_done() {
    let fixture = start(Release::V1_36).await;
    fixture.make(config("one")).await;
    let params = WatchParams::default()
        .initial_events()
        .fields("metadata.name=one");
    let mut watch = fixture.configs().watch(&params, "0").await.unwrap().boxed();
    let first = within(watch.try_next()).await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Added(one) if one.name_any() == "one"));
    let WatchEvent::Bookmark(mark) = within(watch.try_next()).await.unwrap().unwrap() else {
        panic!("no bookmark");
    };
    assert_eq!(
        mark.metadata.annotations["k8s.io/initial-events-end"],
        "true"
    );
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_is_told_so() {
    let fixture = start(Release::default()).await;
    let made = fixture.make(config("one")).await;
    fixture.make(config("two")).await;
    fixture.sandbox.cluster().store.compact();
    let version = made.resource_version().unwrap();
    let api = fixture.configs();
    let mut watch = api
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let WatchEvent::Error(status) = within(watch.try_next()).await.unwrap().unwrap() else {
        panic!("no error");
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_moment() {
    let fixture = start(Release::default()).await;
    for name in ["a", "b", "c", "d"] {
        fixture.make(config(name)).await;
    }
    let api = fixture.configs();
    let first = ListParams::default().limit(2);
    let page = api.list(&first).await.unwrap();
    assert_eq!(names(&page.items), ["a", "b"]);
    api.delete("c", &DeleteParams::default()).await.unwrap();
    let token = page.metadata.continue_.clone().unwrap();
    let next = api
        .list(&first.clone().continue_token(&token))
        .await
        .unwrap();
    assert_eq!(names(&next.items), ["c", "d"]);
    assert_eq!(
        next.metadata.resource_version,
        page.metadata.resource_version
    );
    fixture.sandbox.cluster().store.compact();
    let gone = refused(api.list(&first.continue_token(&token)).await);
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    fixture.sandbox.stop().await;
}

fn names(items: &[ConfigMap]) -> Vec<String> {
    items.iter().map(kube::ResourceExt::name_any).collect()
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_out() {
    let fixture = start(Release::default()).await;
    let api = fixture.configs();
    fixture
        .make(json!({"metadata": {"name": "one", "finalizers": ["example.com/a"]}}))
        .await;
    let left = api
        .delete("one", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(left.metadata.deletion_timestamp.is_some());
    let patch = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let more = patch(json!(["example.com/a", "example.com/b"]));
    let status = refused(api.patch("one", &PatchParams::default(), &more).await);
    assert_eq!(status.code, 422);
    assert!(
        status
            .message
            .contains("no new finalizers can be added if the object is being deleted")
    );
    api.patch("one", &PatchParams::default(), &patch(json!([])))
        .await
        .unwrap();
    assert_eq!(refused(api.get("one").await).code, 404);
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner() {
    let fixture = start(Release::default()).await;
    let api = fixture.configs();
    let owner = fixture.make(config("owner")).await;
    let reference =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}]);
    let dependent = json!({"metadata": {"name": "owned", "ownerReferences": reference}});
    let dependent = fixture.make(dependent).await.uid().unwrap();
    let params = DeleteParams::default();
    api.delete("owner", &params).await.unwrap();
    let gone = conditions::is_deleted(&dependent);
    within(await_condition(api.clone(), "owned", gone))
        .await
        .unwrap();
    // An owner of another UID is none.
    let reference =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "gone"}]);
    let dependent = fixture
        .make(json!({"metadata": {"name": "late", "ownerReferences": reference}}))
        .await;
    let dependent = dependent.uid().unwrap();
    let gone = conditions::is_deleted(&dependent);
    within(await_condition(api, "late", gone)).await.unwrap();
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn a_namespace_takes_its_contents_along() {
    let fixture = start(Release::default()).await;
    let namespaces: Api<Namespace> = Api::all(fixture.client.clone());
    let made = serde_json::from_value(json!({"metadata": {"name": "box"}})).unwrap();
    let made = namespaces
        .create(&PostParams::default(), &made)
        .await
        .unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(fixture.client.clone(), "box");
    let there = |account: Option<&ServiceAccount>| account.is_some();
    within(await_condition(accounts, "default", there))
        .await
        .unwrap();
    let api: Api<ConfigMap> = Api::namespaced(fixture.client.clone(), "box");
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/a"]}});
    let held = serde_json::from_value(held).unwrap();
    api.create(&PostParams::default(), &held).await.unwrap();
    namespaces
        .delete("box", &DeleteParams::default())
        .await
        .unwrap();
    let going =
        |held: Option<&ConfigMap>| held.is_some_and(|one| one.meta().deletion_timestamp.is_some());
    within(await_condition(api.clone(), "held", going))
        .await
        .unwrap();
    let status = refused(api.create(&PostParams::default(), &made_anew("late")).await);
    assert_eq!(status.code, 403);
    assert!(
        status.message.contains("because it is being terminated"),
        "{}",
        status.message
    );
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("held", &PatchParams::default(), &free)
        .await
        .unwrap();
    let made = made.uid().unwrap();
    let gone = conditions::is_deleted(&made);
    within(await_condition(namespaces, "box", gone))
        .await
        .unwrap();
    fixture.sandbox.stop().await;
}

fn definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": "lamps.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "lamps", "singular": "lamp", "kind": "Lamp"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["room"], "properties": {
                        "room": {"type": "string"}, "watts": {"type": "integer", "default": 5},
                    }},
                    "status": {"type": "object", "properties": {"on": {"type": "boolean"}}},
                }}},
            }],
        },
    }))
    .unwrap()
}

#[tokio::test]
async fn a_custom_resource_has_defaults_a_status_of_its_own_and_a_generation() {
    let fixture = start(Release::default()).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(fixture.client.clone());
    definitions
        .create(&PostParams::default(), &definition())
        .await
        .unwrap();
    let served = conditions::is_crd_established();
    within(await_condition(
        definitions.clone(),
        "lamps.example.com",
        served,
    ))
    .await
    .unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Lamp"));
    let lamps: Api<DynamicObject> = Api::namespaced_with(fixture.client.clone(), "default", &kind);
    let lamp = |spec: Value| -> DynamicObject {
        let lamp = json!({"apiVersion": "example.com/v1", "kind": "Lamp", "metadata": {"name": "desk"},
                          "spec": spec, "status": {"on": true}});
        serde_json::from_value(lamp).unwrap()
    };
    let status = refused(lamps.create(&PostParams::default(), &lamp(json!({}))).await);
    assert_eq!(status.reason, "Invalid");
    let spec = json!({"room": "study", "colour": "red"});
    let made = lamps
        .create(&PostParams::default(), &lamp(spec))
        .await
        .unwrap();
    assert_eq!(made.data, json!({"spec": {"room": "study", "watts": 5}}));
    assert_eq!(made.metadata.generation, Some(1));
    let patch = json!({"spec": {"watts": 7}, "status": {"on": true}});
    let lit = lamps
        .patch_status("desk", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(
        lit.data,
        json!({"spec": {"room": "study", "watts": 5}, "status": {"on": true}})
    );
    assert_eq!(lit.metadata.generation, Some(1));
    let brighter = lamps
        .patch("desk", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(brighter.metadata.generation, Some(2));
    let made = made.metadata.uid.unwrap();
    let gone = conditions::is_deleted(&made);
    definitions
        .delete("lamps.example.com", &DeleteParams::default())
        .await
        .unwrap();
    let waited = tokio::time::timeout(PATIENCE, await_condition(lamps.clone(), "desk", gone)).await;
    // The kind itself may be gone before it is looked for.
    assert!(waited.is_ok());
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn two_managers_of_one_field_conflict_until_one_forces_it() {
    let fixture = start(Release::default()).await;
    let api = fixture.configs();
    let config = |value: &str| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": value}}),
        )
    };
    api.patch("one", &PatchParams::apply("first"), &config("1"))
        .await
        .unwrap();
    let status = refused(
        api.patch("one", &PatchParams::apply("second"), &config("2"))
            .await,
    );
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let forced = PatchParams::apply("second").force();
    let taken = api.patch("one", &forced, &config("2")).await.unwrap();
    assert_eq!(taken.data.unwrap()["a"], "2");
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn who_may_not_is_told_what_he_may_not() {
    let fixture = start(Release::default()).await;
    let alice = client(&fixture.sandbox, "alice@example.com", &[]).await;
    let api: Api<Secret> = Api::namespaced(alice, "default");
    let status = refused(api.get("x").await);
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        status.message,
        "secrets \"x\" is forbidden: User \"alice@example.com\" cannot get resource \"secrets\" in API group \"\" in the \
         namespace \"default\""
    );
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn requests_and_watches_fail_by_order() {
    let fixture = start(Release::default()).await;
    let (api, faults) = (fixture.configs(), &fixture.sandbox.cluster().faults);
    let order = |after, then| RequestFault {
        verb: "get".to_owned(),
        resource: "configmaps".to_owned(),
        after,
        times: 1,
        then,
    };
    fixture.make(config("one")).await;
    for (code, reason) in [
        (409, "Conflict"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
    ] {
        faults.send_modify(|now| now.requests.push(order(1, Answer::Code(code))));
        api.get("one").await.unwrap();
        let status = refused(api.get("one").await);
        assert_eq!((status.code, status.reason.as_str()), (code, reason));
    }
    faults.send_modify(|now| now.requests.push(order(0, Answer::Reset)));
    assert!(!matches!(
        api.get("one").await,
        Ok(_) | Err(kube::Error::Api(_))
    ));
    api.get("one").await.unwrap();
    let mut watch = api
        .watch(&WatchParams::default(), "0")
        .await
        .unwrap()
        .boxed();
    within(watch.try_next()).await.unwrap().unwrap();
    faults.send_modify(|now| now.watches = WatchFault::Refused);
    while let Ok(Some(_)) = within(watch.try_next()).await {}
    assert_eq!(
        refused(api.watch(&WatchParams::default(), "0").await.map(|_| ())).code,
        503
    );
    faults.send_replace(Faults::default());
    assert!(api.watch(&WatchParams::default(), "0").await.is_ok());
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn nothing_is_left_of_a_sandbox_that_was_stopped() {
    let fixture = start(Release::default()).await;
    let dir = fixture.sandbox.cluster().dir.clone();
    assert!(dir.join("audit.log").exists());
    fixture.sandbox.stop().await;
    assert!(!dir.exists());
}

#[tokio::test]
async fn only_loopback_is_listened_on_and_a_taken_port_is_named() {
    let fixture = start(Release::default()).await;
    let port = fixture.sandbox.cluster().address.port();
    let elsewhere = std::net::TcpListener::bind(("127.0.0.2", port));
    assert!(elsewhere.is_ok(), "{elsewhere:?}");
    let options = Options {
        port,
        ..Options::default()
    };
    let error = Sandbox::start(options).await.unwrap_err();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    fixture.sandbox.stop().await;
}
