//! Requests about resources: from path, query and body to the registry, and its results to answers.

use std::{slice::from_ref, sync::Arc};

use http::{Response, header::USER_AGENT};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::{Asked, Body, body, body::Form, watch};
use crate::auth::{Identity, rbac, reviews, tokens};
use crate::object::{meta, partial, uid};
use crate::request::{Attributes, Query};
use crate::rest::{Call, Change};
use crate::status::{Cause, Failure, Result};
use crate::{cluster::Cluster, kinds::Kind, pods, release::Release, table};

const APPLY: &str = "application/apply-patch+yaml";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A request about a resource that is served, and the form its objects are wanted in.
pub(super) struct View {
    pub(super) shared: Arc<Cluster>,
    pub(super) call: Call,
    pub(super) form: Form,
}

/// Answers it.
pub(super) async fn answer(
    cluster: &Arc<Cluster>,
    who: Identity,
    asked: &Attributes,
    request: Asked,
) -> Result<Response<Body>> {
    let (verb, subresource) = (asked.verb.as_str(), asked.subresource.as_str());
    let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
    let kind = (cluster.kinds).find(&asked.group, &asked.version, &asked.resource);
    let unknown = "the server could not find the requested resource";
    let kind = kind.filter(|kind| has(kind, asked));
    let kind = kind.ok_or_else(|| Failure::new(404, unknown).about("", "", ""))?;
    if matches!(subresource, "exec" | "attach" | "log") {
        // A WebSocket is opened by GET, which is a right to read: 1.35 asks for the other one too.
        if subresource != "log" && cluster.release >= Release::V1_36 {
            let resource = format!("pods/{subresource}");
            let create = Attributes::about("create", "", namespace, &resource, name);
            rbac::require(cluster, &who, &create)?;
        }
        return pods::connect(cluster, asked, request);
    }
    let form = body::form(request.headers())?;
    let media = body::media_type(request.headers()).to_owned();
    let mut call = Call::new(who, &kind, namespace, name, "");
    (call.subresource, call.query) = (subresource.to_owned(), asked.query.clone());
    let agent = body::text(request.headers(), &USER_AGENT);
    check_options(&mut call.query, &media, agent)?;
    let content = body::object(request).await?;
    let shared = Arc::clone(cluster);
    let mut view = View { shared, call, form };
    let mut warnings = Vec::new();
    let (code, shown) = match (verb, subresource) {
        ("create", "token") => (201, tokens::request(cluster, namespace, name, content)?),
        ("create", "") if kind.virtual_only => (
            201,
            reviews::review(cluster, &view.call.who, &kind, content)?,
        ),
        _ if kind.virtual_only => return Err(no_such_method()),
        ("get", _) => (200, view.one(&cluster.get(&kind, namespace, name)?)),
        ("list", _) => {
            let (metadata, items) = cluster.list(&view.call)?;
            (200, view.list(&items, &metadata))
        }
        ("watch", _) => return watch::answer(view),
        ("delete", "") => {
            let options = delete_options(&mut view.call.query, content)?;
            let (stays, last) = cluster.delete(&view.call, &options).await?;
            let details =
                json!({"name": name, "group": kind.group, "kind": kind.plural, "uid": uid(&last)});
            let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            (200, if stays { view.one(&last) } else { gone })
        }
        ("deletecollection", "") => {
            let options = delete_options(&mut view.call.query, content)?;
            let deleted = cluster.delete_all(&view.call, &options).await?;
            let metadata = json!({"resourceVersion": cluster.store.revision().to_string()});
            (200, view.list(&deleted, &metadata))
        }
        _ => {
            let change = change(&view.call, verb, &media)?;
            let (code, object, more) = cluster.write(&view.call, change, &content).await?;
            warnings = more;
            (code, view.one(&object))
        }
    };
    Ok(body::answer(code, &shown, &warnings))
}

/// Whether a kind has what is asked for, there.
fn has(kind: &Kind, asked: &Attributes) -> bool {
    let part = &asked.subresource;
    let placed = kind.namespaced || asked.namespace.is_empty() || kind.plural == "namespaces";
    let status = kind.status && part == "status";
    placed && (part.is_empty() || status || kind.subresources.contains(part))
}

/// 405
fn no_such_method() -> Failure {
    let message = "the server does not allow this method on the requested resource";
    Failure::new(405, message)
}

/// What a write is.
fn change(call: &Call, verb: &str, media: &str) -> Result<Change> {
    match (verb, call.name.is_empty(), media) {
        ("create", true, _) => Ok(Change::Create),
        ("update", false, _) => Ok(Change::Update),
        ("patch", false, "application/json-patch+json") => Ok(Change::Json),
        ("patch", false, "application/merge-patch+json") => Ok(Change::Merge),
        ("patch", false, STRATEGIC) if !call.kind.custom() => Ok(Change::Strategic),
        ("patch", false, APPLY) => Ok(Change::Apply),
        ("patch", false, _) => Err(body::unsupported()),
        _ => Err(no_such_method()),
    }
}

/// Checks the options of a write or deletion, and fills in what the client does not say.
fn check_options(query: &mut Query, media: &str, agent: &str) -> Result<()> {
    if query.get("fieldManager").is_empty() {
        if media == APPLY {
            let why = "Required value: is required for apply patch";
            let cause = [Cause::new("FieldValueRequired", "fieldManager", why)];
            return Err(Failure::invalid("meta.k8s.io", "PatchOptions", "", &cause));
        }
        // What the client calls itself.
        query.set("fieldManager", agent.split('/').next().unwrap_or_default());
    }
    Ok(())
}

/// Of a deletion: what its body says, then what the query does.
fn delete_options(query: &mut Query, content: Value) -> Result<DeleteOptions> {
    let options = serde_json::from_value::<DeleteOptions>(content);
    let mut options = options.map_err(|error| Failure::bad_request(error.to_string()))?;
    let grace = query.number("gracePeriodSeconds")?;
    options.grace_period_seconds = options.grace_period_seconds.or(grace);
    if options.dry_run.iter().flatten().count() > 0 {
        query.set("dryRun", "All");
    }
    Ok(options)
}

impl View {
    /// An object as it is wanted.
    pub(super) fn one(&self, object: &Arc<Value>) -> Value {
        match self.form {
            Form::Plain => (**object).clone(),
            Form::Partial => partial(object),
            Form::Table => {
                let metadata = json!({"resourceVersion": meta(object, "resourceVersion")});
                self.list(from_ref(object), &metadata)
            }
        }
    }

    /// Objects as they are wanted.
    pub(super) fn list(&self, objects: &[Arc<Value>], metadata: &Value) -> Value {
        let kind = &self.call.kind;
        let (list, version) = (kind.list_kind.as_str(), &*kind.api_version());
        let (list, version, show): (_, _, fn(&Value) -> Value) = match self.form {
            Form::Plain if kind.custom() => (list, version, Value::clone),
            Form::Plain => (list, version, untyped),
            Form::Partial => ("PartialObjectMetadataList", "meta.k8s.io/v1", partial),
            Form::Table => {
                let include = self.call.query.get("includeObject");
                return table::table(kind, objects, metadata, include, self.shared.clock.now());
            }
        };
        let items: Vec<Value> = objects.iter().map(|object| show(object)).collect();
        json!({"kind": list, "apiVersion": version, "metadata": metadata, "items": items})
    }
}

/// An object in a list, which says its kind for all of them, but for those that Kubernetes knows no type of.
fn untyped(object: &Value) -> Value {
    let mut object = object.clone();
    json_patch::merge(&mut object, &json!({"kind": null, "apiVersion": null}));
    object
}
