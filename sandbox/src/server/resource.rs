//! Requests about resources: from path, query and body to the registry, and its results to answers.

use std::slice::from_ref;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::body::{self, Form};
use super::{Body, watch};
use crate::auth::{Identity, rbac, reviews, tokens};
use crate::cluster::Cluster;
use crate::object::{meta, partial};
use crate::request::{Attributes, Query};
use crate::rest::{Call, Change};
use crate::status::{Cause, Failure};
use crate::table;

const APPLY: &str = "application/apply-patch+yaml";

/// A request about a resource that is served, and the form its objects are wanted in.
pub(super) struct View {
    pub(super) cluster: Arc<Cluster>,
    pub(super) call: Call,
    pub(super) form: Form,
}

/// Answers it.
pub(super) async fn answer(
    cluster: &Arc<Cluster>,
    who: Identity,
    asked: &Attributes,
    query: Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let (verb, subresource) = (asked.verb.as_str(), asked.subresource.as_str());
    let kind = (cluster.kinds).find(&asked.group, &asked.version, &asked.resource);
    let kind = kind.ok_or_else(Failure::no_such_path)?;
    let status = kind.status && subresource == "status";
    let known = subresource.is_empty() || status || kind.subresources.contains(&subresource);
    let single = matches!(verb, "get" | "update" | "patch" | "delete");
    let misplaced = match asked.namespace.as_str() {
        "" => kind.namespaced && single,
        _ => !kind.namespaced && kind.resource() != "namespaces",
    };
    // A path has no more parts than these.
    if !known || misplaced || asked.path.trim_matches('/').split('/').count() > 8 {
        return Err(Failure::no_such_path());
    }
    let name = asked.name.as_str();
    let namespace = if kind.namespaced {
        asked.namespace.as_str()
    } else {
        ""
    };
    let in_place = name.is_empty() && kind.namespaced != namespace.is_empty();
    if matches!(
        (verb, subresource),
        ("get" | "create", "exec" | "attach" | "portforward") | ("get", "log")
    ) {
        return connect(cluster, &who, asked, request);
    }
    let mut call = Call {
        query,
        subresource: subresource.to_owned(),
        ..Call::new(who, &kind, namespace, name, "")
    };
    let form = body::form(request.headers())?;
    let media = body::media_type(request.headers()).to_owned();
    let mut content = Value::Null;
    if !matches!(verb, "get" | "list" | "watch") {
        let agent = body::text(request.headers(), &USER_AGENT);
        check_options(cluster, &mut call.query, &media, agent)?;
        content = body::object(request).await?;
    }
    let mut view = View {
        cluster: Arc::clone(cluster),
        call,
        form,
    };
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
        ("create", "") if in_place => view.write(&media, verb, &content, &mut warnings).await?,
        ("update" | "patch", _) if !name.is_empty() => {
            view.write(&media, verb, &content, &mut warnings).await?
        }
        ("delete", "") => {
            let before = cluster.get(&kind, namespace, name)?;
            let options = view.delete_options(content)?;
            let left = cluster.delete(&view.call, &options).await?;
            let details = json!({"name": name, "group": kind.group, "kind": kind.plural, "uid": meta(&before, "uid")});
            let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            (200, left.map_or(gone, |left| view.one(&left)))
        }
        ("deletecollection", "") => {
            let options = view.delete_options(content)?;
            let deleted = cluster.delete_all(&view.call, &options).await?;
            let revision = cluster.store.revision().to_string();
            (
                200,
                view.list(&deleted, &json!({"resourceVersion": revision})),
            )
        }
        _ => return Err(no_such_method()),
    };
    Ok(body::answer(code, &shown, &warnings))
}

/// 405
pub(super) fn no_such_method() -> Failure {
    let message = "the server does not allow this method on the requested resource";
    Failure::new(405, message)
}

/// Streams to and from a pod.
fn connect(
    cluster: &Arc<Cluster>,
    who: &Identity,
    asked: &Attributes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let subresource = asked.subresource.as_str();
    // A WebSocket is opened by GET, which is a right to read: 1.35 asks for the other one too.
    if subresource != "log" && cluster.release.minor() >= 35 {
        let verb = "create".to_owned();
        rbac::require(
            cluster,
            who,
            &Attributes {
                verb,
                ..asked.clone()
            },
        )?;
    }
    crate::pods::connect(cluster, &asked.namespace, &asked.name, subresource, request)
}

/// Checks the options of a write or deletion, and fills in what the client does not say.
fn check_options(
    cluster: &Cluster,
    query: &mut Query,
    media: &str,
    agent: &str,
) -> Result<(), Failure> {
    let invalid = |reason, field, why: &str| {
        let cause = Cause::new(reason, field, why);
        Err(Failure::invalid(
            "meta.k8s.io",
            "PatchOptions",
            "",
            &[cause],
        ))
    };
    let dry_run = query.get("dryRun");
    if !["", "All"].contains(&dry_run) {
        let why = format!("Unsupported value: {dry_run:?}: supported values: \"All\"");
        return invalid("FieldValueNotSupported", "dryRun", &why);
    }
    if query.get("fieldManager").is_empty() {
        if media == APPLY {
            let why = "Required value: is required for apply patch";
            return invalid("FieldValueRequired", "fieldManager", why);
        }
        // What the client calls itself.
        query.set("fieldManager", agent.split('/').next().unwrap_or_default());
    }
    if cluster.release.minor() < 25 {
        query.set("fieldValidation", "Ignore"); // unknown there
    }
    Ok(())
}

impl View {
    /// An object as it is wanted.
    pub(super) fn one(&self, object: &Arc<Value>) -> Value {
        let metadata = json!({"resourceVersion": meta(object, "resourceVersion")});
        match self.form {
            Form::Plain => (**object).clone(),
            Form::Partial => partial(object),
            Form::Table => self.list(from_ref(object), &metadata),
        }
    }

    /// Objects as they are wanted.
    pub(super) fn list(&self, objects: &[Arc<Value>], metadata: &Value) -> Value {
        let kind = &self.call.kind;
        let plain = |object: &Arc<Value>| {
            let mut object = (**object).clone();
            // The list says it for all of them, but for those that Kubernetes knows no type of.
            if let Some(fields) = object.as_object_mut().filter(|_| !kind.custom()) {
                fields.retain(|field, _| field != "kind" && field != "apiVersion");
            }
            object
        };
        let (kind, version, items): (_, _, Vec<Value>) = match self.form {
            Form::Table => {
                let include = self.call.query.get("includeObject");
                return table::table(kind, objects, metadata, include, self.cluster.clock.now());
            }
            Form::Plain => {
                let items = objects.iter().map(plain).collect();
                (kind.list_kind.as_str(), kind.api_version(), items)
            }
            Form::Partial => {
                let items = objects.iter().map(|object| partial(object)).collect();
                (
                    "PartialObjectMetadataList",
                    "meta.k8s.io/v1".to_owned(),
                    items,
                )
            }
        };
        json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items})
    }

    async fn write(
        &self,
        media: &str,
        verb: &str,
        content: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<(u16, Value), Failure> {
        let change = match (verb, media) {
            ("create", _) => Change::Create,
            ("update", _) => Change::Update,
            (_, "application/json-patch+json") => Change::Json,
            (_, "application/merge-patch+json") => Change::Merge,
            (_, "application/strategic-merge-patch+json") if !self.call.kind.custom() => {
                Change::Strategic
            }
            (_, APPLY) => Change::Apply,
            _ => return Err(body::unsupported()),
        };
        let (code, object, more) = self.cluster.write(&self.call, change, content).await?;
        warnings.extend(more);
        Ok((code, self.one(&object)))
    }

    /// Of a deletion: what the body says, then what the query does.
    fn delete_options(&mut self, content: Value) -> Result<DeleteOptions, Failure> {
        let mut options: DeleteOptions = serde_json::from_value(content)
            .map_err(|error| Failure::bad_request(format!("no DeleteOptions: {error}")))?;
        let query = &mut self.call.query;
        let policy = Some(query.get("propagationPolicy")).filter(|policy| !policy.is_empty());
        options.propagation_policy = options.propagation_policy.or(policy.map(str::to_owned));
        let grace = query.number("gracePeriodSeconds")?;
        options.grace_period_seconds = options.grace_period_seconds.or(grace);
        if options.dry_run.iter().flatten().count() > 0 {
            query.set("dryRun", "All");
        }
        Ok(options)
    }
}
