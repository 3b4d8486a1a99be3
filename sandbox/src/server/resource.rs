//! Requests about resources: from path, query and body to the registry, and its results to answers.

use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::body::{self, Form, form, media_type};
use super::{Body, watch};
use crate::auth::{Identity, rbac, reviews, tokens};
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::meta;
use crate::request::{Attributes, flag, parameter};
use crate::rest::{Change, Delete, Options, Page, Selection, Write};
use crate::selector::Selector;
use crate::status::{Cause, Failure};
use crate::table::{self, Include};

/// 405
pub(super) fn no_such_method() -> Failure {
    let message = "the server does not allow this method on the requested resource";
    Failure::new(405, "MethodNotAllowed", message)
}

/// A request about a resource that is served.
pub(super) struct Call {
    pub(super) cluster: Arc<Cluster>,
    pub(super) kind: Arc<Kind>,
    pub(super) query: String,
    who: Identity,
    /// Its namespace is empty for kinds that are in none.
    asked: Attributes,
}

/// Answers it.
pub(super) async fn answer(
    cluster: &Arc<Cluster>,
    who: &Identity,
    asked: &Attributes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let (verb, subresource) = (asked.verb.as_str(), asked.subresource.as_str());
    let kinds = &cluster.kinds;
    let kind = kinds.find(&asked.group, &asked.version, &asked.resource);
    let kind = kind.ok_or_else(Failure::no_such_path)?;
    let status = kind.status && subresource == "status";
    let known = subresource.is_empty() || status || kind.subresources.contains(&subresource);
    let single = matches!(verb, "get" | "update" | "patch" | "delete");
    let stray = !kind.namespaced && kind.resource() != "namespaces";
    let misplaced = if asked.namespace.is_empty() {
        kind.namespaced && single
    } else {
        stray
    };
    // A path has no more parts than these.
    if !known || misplaced || asked.path.trim_matches('/').split('/').count() > 8 {
        return Err(Failure::no_such_path());
    }
    let mut asked = asked.clone();
    if !kind.namespaced {
        asked.namespace.clear();
    }
    let in_place = asked.name.is_empty() && kind.namespaced != asked.namespace.is_empty();
    let form = form(request.headers());
    let call = Call {
        cluster: Arc::clone(cluster),
        query: request.uri().query().unwrap_or_default().to_owned(),
        kind: Arc::clone(&kind),
        who: who.clone(),
        asked: asked.clone(),
    };
    let (namespace, name) = (&*asked.namespace, &*asked.name);
    let (code, shown, warnings) = match (verb, subresource) {
        ("get" | "create", "exec" | "attach" | "portforward") | ("get", "log") => {
            return call.connect(request);
        }
        ("create", "token") => {
            let review = body::object(request).await?;
            (
                201,
                tokens::request(cluster, namespace, name, review)?,
                vec![],
            )
        }
        ("create", "") if kind.virtual_only => {
            let review = body::object(request).await?;
            (201, reviews::review(cluster, who, &kind, review)?, vec![])
        }
        _ if kind.virtual_only => return Err(no_such_method()),
        ("get", _) => (
            200,
            call.shown(&cluster.get(&kind, namespace, name)?, form?),
            vec![],
        ),
        ("list", _) => (200, call.list(form?)?, vec![]),
        ("watch", _) => return watch::answer(call, form?),
        ("create", "") if in_place => call.write(request, form?).await?,
        ("update" | "patch", _) if !name.is_empty() => call.write(request, form?).await?,
        ("delete", "") => (200, call.delete(request, form?).await?, vec![]),
        ("deletecollection", "") => {
            let delete = call.delete_options(body::object(request).await?)?;
            let deleted = cluster
                .delete_all(who, &kind, &call.selection()?, &delete)
                .await?;
            let metadata = json!({"resourceVersion": cluster.store.revision().to_string()});
            (200, call.plain_list(&deleted, &metadata), vec![])
        }
        _ => return Err(no_such_method()),
    };
    Ok(body::answer(code, &shown, &warnings))
}

impl Call {
    fn parameter(&self, name: &str) -> String {
        parameter(&self.query, name).unwrap_or_default()
    }

    /// A number in the query; 0 if there is none.
    pub(super) fn number(&self, name: &str) -> Result<u64, Failure> {
        let value = self.parameter(name);
        let number = format!("0{value}").parse();
        number.map_err(|_| Failure::bad_request(format!("{name} must be a number, is {value:?}")))
    }

    /// An object as it is wanted.
    pub(super) fn shown(&self, object: &Arc<Value>, form: Form) -> Value {
        match form {
            Form::Partial => partial(object),
            Form::Table if object["kind"] != "Status" => {
                let metadata = json!({"resourceVersion": meta(object, "resourceVersion")});
                self.table(std::slice::from_ref(object), metadata)
            }
            _ => (**object).clone(),
        }
    }

    fn table(&self, objects: &[Arc<Value>], metadata: Value) -> Value {
        let include = match &*self.parameter("includeObject") {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        };
        let now = self.cluster.clock.now();
        table::table(&self.kind, objects, metadata, include, now)
    }

    /// A sign of the revision a watch has seen.
    pub(super) fn bookmark(&self, revision: u64, form: Form) -> Value {
        let metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        let (kind, version) = (&self.kind.kind, self.kind.api_version());
        let mark = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        match form {
            Form::Plain => mark,
            Form::Partial => partial(&mark),
            Form::Table => self.table(&[], metadata),
        }
    }

    pub(super) fn selection(&self) -> Result<Selection, Failure> {
        let labels = self.parameter("labelSelector");
        let fields = self.parameter("fieldSelector");
        let namespace = &self.asked.namespace;
        Ok(Selection {
            namespace: (!namespace.is_empty()).then(|| namespace.clone()),
            selector: Selector::parse(&self.kind, &labels, &fields)?,
        })
    }

    fn list(&self, form: Form) -> Result<Value, Failure> {
        let page = Page {
            limit: usize::try_from(self.number("limit")?).unwrap_or(usize::MAX),
            token: self.parameter("continue"),
            revision: self.number("resourceVersion")?,
            exact: self.parameter("resourceVersionMatch") == "Exact",
        };
        let selection = self.selection()?;
        let (metadata, items) = self.cluster.list(&self.kind, &selection, &page)?;
        Ok(match form {
            Form::Table => self.table(&items, metadata),
            Form::Plain => self.plain_list(&items, &metadata),
            Form::Partial => {
                let items: Vec<Value> = items.iter().map(|item| partial(item)).collect();
                let kind = "PartialObjectMetadataList";
                json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
            }
        })
    }

    fn plain_list(&self, items: &[Arc<Value>], metadata: &Value) -> Value {
        let mut items: Vec<Value> = items.iter().map(|item| (**item).clone()).collect();
        // The list says it for all of them, but for those that Kubernetes knows no type of.
        if !self.kind.custom() {
            for item in items.iter_mut().filter_map(Value::as_object_mut) {
                item.retain(|field, _| field != "kind" && field != "apiVersion");
            }
        }
        let (kind, version) = (&self.kind.list_kind, self.kind.api_version());
        json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items})
    }

    async fn write(
        &self,
        request: Request<Incoming>,
        form: Form,
    ) -> Result<(u16, Value, Vec<String>), Failure> {
        let media = media_type(request.headers()).to_owned();
        let options = self.options(&media, body::text(request.headers(), &USER_AGENT))?;
        let change: fn(Value) -> Change = match (self.asked.verb.as_str(), media.as_str()) {
            ("create", _) => Change::Create,
            ("update", _) => Change::Update,
            (_, "application/json-patch+json") => Change::Json,
            (_, "application/merge-patch+json") => Change::Merge,
            (_, "application/strategic-merge-patch+json") if !self.kind.custom() => {
                Change::Strategic
            }
            (_, "application/apply-patch+yaml") => Change::Apply,
            _ => return Err(body::unsupported()),
        };
        let write = Write {
            who: &self.who,
            kind: &self.kind,
            namespace: &self.asked.namespace,
            name: &self.asked.name,
            change: change(body::object(request).await?),
            options: &options,
        };
        let written = self.cluster.write(&write).await?;
        let code = if written.created { 201 } else { 200 };
        Ok((code, self.shown(&written.object, form), written.warnings))
    }

    fn options(&self, media: &str, agent: &str) -> Result<Options, Failure> {
        let mut manager = self.parameter("fieldManager");
        if manager.is_empty() {
            if media == "application/apply-patch+yaml" {
                let why = "Required value: is required for apply patch";
                return Err(invalid("FieldValueRequired", "fieldManager", why));
            }
            // What the client calls itself.
            manager.extend(agent.split('/').next());
        }
        let mut field_validation = self.parameter("fieldValidation");
        if self.cluster.release.minor() < 25 {
            "Ignore".clone_into(&mut field_validation); // unknown there
        }
        Ok(Options {
            dry_run: self.dry_run()?,
            manager,
            force: flag(&self.query, "force"),
            field_validation,
            subresource: self.asked.subresource.clone(),
        })
    }

    fn dry_run(&self) -> Result<bool, Failure> {
        let asked = self.parameter("dryRun");
        if !matches!(asked.as_str(), "" | "All") {
            let why = format!("Unsupported value: {asked:?}: supported values: \"All\"");
            return Err(invalid("FieldValueNotSupported", "dryRun", &why));
        }
        Ok(!asked.is_empty())
    }

    async fn delete(&self, request: Request<Incoming>, form: Form) -> Result<Value, Failure> {
        let delete = self.delete_options(body::object(request).await?)?;
        let (cluster, kind, asked) = (&self.cluster, &self.kind, &self.asked);
        let (namespace, name) = (&*asked.namespace, &*asked.name);
        let before = cluster.get(kind, namespace, name)?;
        let left = cluster
            .delete(&self.who, kind, namespace, name, &delete)
            .await?;
        let answer = Delete::answer(kind, &before, left.as_deref());
        Ok(self.shown(&Arc::new(answer), form))
    }

    fn delete_options(&self, body: Value) -> Result<Delete, Failure> {
        let body: DeleteOptions = serde_json::from_value(body)
            .map_err(|error| Failure::bad_request(format!("no DeleteOptions: {error}")))?;
        let policy = body.propagation_policy;
        let asked = self.parameter("gracePeriodSeconds").parse().ok();
        let grace = body.grace_period_seconds.or(asked);
        let conditions = body.preconditions.unwrap_or_default();
        Ok(Delete {
            // Below 0 means at once, as it does in Kubernetes.
            grace: grace.map(|grace| u64::try_from(grace).unwrap_or(1)),
            propagation: policy.unwrap_or_else(|| self.parameter("propagationPolicy")),
            uid: conditions.uid,
            revision: conditions.resource_version,
            dry_run: self.dry_run()? || body.dry_run.is_some_and(|dry_run| !dry_run.is_empty()),
        })
    }

    /// Streams to and from a pod.
    fn connect(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let (cluster, asked) = (&self.cluster, &self.asked);
        let subresource = asked.subresource.as_str();
        // A WebSocket is opened by GET, which is a right to read: 1.35 asks for the other one too.
        if subresource != "log" && cluster.release.minor() >= 35 {
            let mut create = asked.clone();
            "create".clone_into(&mut create.verb);
            rbac::require(cluster, &self.who, &create)?;
        }
        crate::pods::connect(cluster, &asked.namespace, &asked.name, subresource, request)
    }
}

fn invalid(reason: &'static str, field: &str, why: &str) -> Failure {
    let cause = Cause::new(reason, field, why);
    Failure::invalid("meta.k8s.io", "PatchOptions", "", &[cause])
}

/// An object's metadata alone.
fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
