//! An API server with one session for one running pod, and an operator that leads; for the driver's tests.

use kube::runtime::events::Reporter;
use kube::runtime::reflector::ObjectRef;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::fake::Api;
use crate::watches::Feeds;

pub(super) const SESSION: &str =
    "/apis/drawbridge.dev/v1alpha1/namespaces/shop/consolesessions/shell";
pub(super) const POD: &str = "/api/v1/namespaces/shop/pods/web-0";
pub(super) const ACCOUNT: &str =
    "/api/v1/namespaces/drawbridge-sessions/serviceaccounts/cs-6f1c0000-1";
pub(super) const ANCHOR: &str = "/api/v1/namespaces/drawbridge-sessions/secrets/cs-6f1c0000-1";
pub(super) const SECRET: &str = "/api/v1/namespaces/shop/secrets/shell-6f1c0000";
pub(super) const ROLE: &str =
    "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/shell-6f1c0000";
pub(super) const BINDING: &str =
    "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/shell-6f1c0000";

/// An API server with one session for one running pod, and an operator that leads.
pub(super) struct World {
    pub(super) api: Api,
    pub(super) feeds: Feeds,
    pub(super) ctx: Arc<Ctx>,
    /// What the audit log was told.
    pub(super) told: Told,
}

type Told = Arc<Mutex<Vec<drawbridge_audit::event::Event>>>;

impl World {
    pub(super) fn new() -> Self {
        let api = Api::default();
        api.put(SESSION, session());
        api.put(POD, pod("pod-1"));
        api.put(
            "/api/v1/namespaces/shop",
            json!({"metadata": {"name": "shop"}}),
        );
        Self::on(api)
    }

    /// Another operator process on the same API server.
    pub(super) fn on(api: Api) -> Self {
        let mut world = Self::unwatched(api);
        world.watch();
        world
    }

    /// The same, before its watches have shown anything.
    pub(super) fn unwatched(api: Api) -> Self {
        let feeds = Feeds::default();
        let watches = Arc::new(feeds.watches());
        let sessions = watches.sessions.watched().clone();
        let metrics = Arc::new(Metrics::register(&mut Registry::default(), sessions));
        let reporter = Reporter {
            controller: "test".into(),
            instance: Some("test".into()),
        };
        let (log, mut emitted) = Log::for_tests(1024);
        let told = Told::default();
        let list = Arc::clone(&told);
        tokio::spawn(async move {
            while let Some(event) = emitted.next().await {
                list.lock().expect("not poisoned").push(event);
            }
        });
        let ctx = Ctx {
            client: api.client(),
            sessions_namespace: "drawbridge-sessions".into(),
            gateway: Gateway {
                url: "https://gate.example.com".into(),
                ca: None,
            },
            recording: RecordingTerms::default(),
            watches,
            metrics,
            recorder: Recorder::new(api.client(), reporter),
            log,
            leading: CancellationToken::new(),
            stop: CancellationToken::new(),
            failures: Mutex::default(),
            repairs: Mutex::default(),
        };
        ctx.leading.cancel();
        let ctx = Arc::new(ctx);
        Self {
            api,
            feeds,
            ctx,
            told,
        }
    }

    pub(super) fn watch(&mut self) {
        self.api.watch(&mut self.feeds);
        self.ctx.watches.settle_all();
    }

    pub(super) async fn pass(&self) -> Result<Action, Error> {
        let session = self
            .ctx
            .watches
            .sessions
            .watched()
            .get(&ObjectRef::new("shell").within("shop"));
        reconcile(session.expect("the watch shows it"), Arc::clone(&self.ctx)).await
    }

    /// A world in which the session is Ready and the caches know it.
    pub(super) async fn granted() -> Self {
        let mut world = Self::new();
        world.pass().await.expect("granted");
        assert_eq!(world.status()["phase"], "Ready");
        world.watch();
        world.api.log();
        world
    }

    pub(super) fn status(&self) -> Value {
        self.api
            .get(SESSION)
            .map_or(Value::Null, |session| session["status"].clone())
    }

    pub(super) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.api.get(path).expect("is there");
        change(&mut object);
        self.api.put(path, object);
    }

    pub(super) fn revoke(&mut self) {
        self.change(SESSION, |session| {
            session["spec"]["revoked"] = true.into();
            session["metadata"]["generation"] = 2.into();
        });
        self.watch();
    }

    /// Nothing made for the session is there any more.
    pub(super) fn is_clean(&self) -> bool {
        self.api.paths("6f1c0000").is_empty()
    }
}

fn session() -> Value {
    json!({
        "apiVersion": "drawbridge.dev/v1alpha1",
        "kind": "ConsoleSession",
        "metadata": {"name": "shell", "namespace": "shop", "uid": "6f1c0000-1", "generation": 1},
        "spec": {"user": "alice@example.com", "target": {"pod": {"name": "web-0"}}},
    })
}

pub(super) fn pod(uid: &str) -> Value {
    json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": uid},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main"}]},
        "status": {"phase": "Running"},
    })
}
