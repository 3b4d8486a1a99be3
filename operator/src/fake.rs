//! An API server for tests, as far as the operator uses one: objects by path, versions, conflicts, injected failures.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Client;
use kube::client::Body;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Lookup;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Guarded;
use crate::grant::digested;
use crate::watches::Feeds;

/// The server. Clones share their state.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By path, e.g. `/api/v1/namespaces/shop/secrets/x`.
    objects: BTreeMap<String, Value>,
    version: u64,
    log: Vec<String>,
    failures: Vec<(String, u16)>,
}

impl Api {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body in memory").to_bytes();
                let body = if body.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&body).expect("JSON")
                };
                let (code, answer) = api.state().answer(&head.method, head.uri.path(), body);
                let answer = Full::new(bytes::Bytes::from(answer.to_string()));
                let response = Response::builder()
                    .status(code)
                    .body(answer)
                    .expect("a response");
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().store(path, object);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state().objects.remove(path);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Paths of what is there that contain `part`.
    pub(crate) fn paths(&self, part: &str) -> Vec<String> {
        let state = self.state();
        state
            .objects
            .keys()
            .filter(|path| path.contains(part))
            .cloned()
            .collect()
    }

    /// Requests from now on whose `METHOD path` contains `part` fail with `code`.
    pub(crate) fn fail(&self, part: &str, code: u16) {
        self.state().failures.push((part.into(), code));
    }

    pub(crate) fn heal(&self) {
        self.state().failures.clear();
    }

    /// What was asked since the last call, `METHOD path`, reads too.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// What was asked since the last call but reads.
    pub(crate) fn writes(&self) -> Vec<String> {
        let mut log = self.log();
        log.retain(|line| !line.starts_with("GET"));
        log
    }

    /// Brings the caches up to date, as their watches would.
    pub(crate) fn watch(&self, feeds: &mut Feeds) {
        let state = self.state();
        let of = |part: &str| -> Vec<Value> {
            let under = |path: &&String| path.rsplit('/').nth(1) == Some(part);
            let keys = state.objects.keys().filter(under);
            keys.map(|path| state.objects[path].clone()).collect()
        };
        fill::<Guarded>(&mut feeds.sessions, of("consolesessions"), |_| ());
        fill::<PartialObjectMeta<Pod>>(&mut feeds.pods, of("pods"), |_| ());
        fill::<PartialObjectMeta<Namespace>>(&mut feeds.namespaces, of("namespaces"), |_| ());
        fill::<ServiceAccount>(&mut feeds.accounts, of("serviceaccounts"), |_| ());
        fill::<Secret>(&mut feeds.secrets, labelled(of("secrets")), |secret| {
            *secret = digested(std::mem::take(secret));
        });
        fill::<Role>(&mut feeds.roles, labelled(of("roles")), |_| ());
        fill::<RoleBinding>(&mut feeds.bindings, labelled(of("rolebindings")), |_| ());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics here")
    }
}

fn labelled(mut objects: Vec<Value>) -> Vec<Value> {
    objects.retain(|object| object["metadata"]["labels"]["drawbridge.dev/session-uid"].is_string());
    objects
}

fn fill<K>(writer: &mut Writer<K>, objects: Vec<Value>, trim: impl Fn(&mut K))
where
    K: Lookup<DynamicType = ()> + Clone + DeserializeOwned,
{
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        let mut object: K = serde_json::from_value(object).expect("an object of the kind");
        trim(&mut object);
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
    )
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let line = format!("{method} {path}");
        self.log.push(line.clone());
        if let Some((_, code)) = self.failures.iter().find(|(part, _)| line.contains(part)) {
            return status(*code, "Injected");
        }
        if let Some(account) = path.strip_suffix("/token") {
            if self.objects.contains_key(account) {
                return (201, self.token(body));
            }
            return status(404, "NotFound");
        }
        let target = path.strip_suffix("/status").unwrap_or(path).to_owned();
        match method.as_str() {
            "GET" => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => status(404, "NotFound"),
            },
            "POST" => {
                let name = body["metadata"]["name"].as_str().expect("named").to_owned();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return status(409, "AlreadyExists");
                }
                (201, self.store(&path, body))
            }
            "PUT" => {
                if let Some(refusal) = self.stale(&target, &body) {
                    return refusal;
                }
                (200, self.store(&target, body))
            }
            "PATCH" => {
                if let Some(refusal) = self.stale(&target, &body) {
                    return refusal;
                }
                let mut object = self.objects[&target].clone();
                merge(&mut object, body);
                (200, self.store(&target, object))
            }
            "DELETE" => {
                let uid = &body["preconditions"]["uid"];
                match self.objects.get(&target) {
                    None => status(404, "NotFound"),
                    Some(object) if uid.is_string() && object["metadata"]["uid"] != *uid => {
                        status(409, "Conflict")
                    }
                    Some(_) => (200, self.objects.remove(&target).expect("there")),
                }
            }
            other => panic!("no such method here: {other}"),
        }
    }

    fn stale(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let Some(object) = self.objects.get(path) else {
            return Some(status(404, "NotFound"));
        };
        let differs = |key: &str| {
            let wanted = &body["metadata"][key];
            wanted.is_string() && *wanted != object["metadata"][key]
        };
        (differs("uid") || differs("resourceVersion")).then(|| status(409, "Conflict"))
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = self.version.to_string().into();
        if metadata["uid"].is_null() {
            metadata["uid"] = format!("uid-{}", self.version).into();
        }
        if object["metadata"]["finalizers"] == json!([])
            && object["metadata"]["deletionTimestamp"].is_string()
        {
            self.objects.remove(path);
        } else {
            self.objects.insert(path.into(), object.clone());
        }
        object
    }

    fn token(&mut self, mut request: Value) -> Value {
        self.version += 1;
        let seconds = request["spec"]["expirationSeconds"]
            .as_i64()
            .expect("a lifetime");
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        request["status"] = json!({
            "token": format!("token-{}", self.version),
            "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        request
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            // A status is applied whole: what it does not name is no longer ours.
            for (key, value) in from {
                if key == "status" {
                    into.insert(key, value);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}
