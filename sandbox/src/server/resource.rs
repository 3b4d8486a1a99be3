//! Requests about resources: from path, query and body to the registry, and its results to answers.

use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{admit_connect, text};
use super::negotiate::{Form, form};
use super::{Body, body, watch};
use crate::auth::{Identity, rbac, reviews, tokens};
use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::object::meta;
use crate::request::{Attributes, flag, parameter};
use crate::rest::{Delete, Options, Page, Patch, Selection, Written};
use crate::selector::Selector;
use crate::status::{Cause, Failure};
use crate::table::{self, Include};

/// Longest `fieldManager`, in characters.
const MAX_MANAGER: usize = 128;

/// 405
pub(super) fn no_such_method() -> Failure {
    let message = "the server does not allow this method on the requested resource";
    let mut failure = Failure::new(405, "MethodNotAllowed", message);
    failure.details = json!({});
    failure
}

/// A request about a resource that is served.
struct Call<'a> {
    cluster: &'a Arc<Cluster>,
    who: &'a Identity,
    asked: &'a Attributes,
    kind: Arc<Kind>,
    /// Of objects; empty for kinds that are in none.
    namespace: &'a str,
    query: String,
}

/// Answers it.
pub(super) async fn answer(
    cluster: &Arc<Cluster>,
    who: &Identity,
    asked: &Attributes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let kind = cluster
        .kinds
        .find(&asked.group, &asked.version, &asked.resource)
        .ok_or_else(Failure::no_such_path)?;
    let subresource = asked.subresource.as_str();
    let known = match subresource {
        "" => true,
        "status" => kind.status,
        other => kind.subresources.contains(&other),
    };
    let is_namespace = kind.group.is_empty() && kind.plural == "namespaces";
    let collection = matches!(asked.verb.as_str(), "list" | "watch" | "deletecollection");
    let misplaced = if kind.namespaced {
        asked.namespace.is_empty() && !collection && !asked.name.is_empty()
    } else {
        !asked.namespace.is_empty() && !is_namespace
    };
    // A path has no more parts than these.
    let parts = asked.path.trim_matches('/').split('/').count();
    if !known || misplaced || parts > 8 {
        return Err(Failure::no_such_path());
    }
    let call = Call {
        cluster,
        who,
        asked,
        namespace: if kind.namespaced {
            &asked.namespace
        } else {
            ""
        },
        kind,
        query: request.uri().query().unwrap_or_default().to_owned(),
    };
    match (asked.verb.as_str(), subresource) {
        ("get" | "create", "exec" | "attach" | "portforward") | ("get", "log") => {
            call.connect(request).await
        }
        ("create", "token") => {
            let review = call.body(request).await?;
            let token = tokens::request(cluster, call.namespace, &asked.name, review)?;
            Ok(body::answer(201, &token, &[]))
        }
        ("create", "") if call.kind.virtual_only => {
            let review = call.body(request).await?;
            let review = reviews::review(cluster, who, &call.kind, call.namespace, review)?;
            Ok(body::answer(201, &review, &[]))
        }
        _ if call.kind.virtual_only => Err(no_such_method()),
        ("get", _) => {
            let form = form(request.headers())?;
            let object = cluster.get(&call.kind, call.namespace, &asked.name)?;
            call.show(200, &object, form, &[])
        }
        ("list", _) => call.list(&request),
        ("watch", _) => {
            let selection = call.selection()?;
            let form = form(request.headers())?;
            watch::answer(cluster, &call.kind, selection, &call.query, form)
        }
        ("create", "")
            if asked.name.is_empty() && (!call.kind.namespaced || !call.namespace.is_empty()) =>
        {
            call.write(request).await
        }
        ("update" | "patch", _) if !asked.name.is_empty() => call.write(request).await,
        ("delete" | "deletecollection", "") => call.delete(request).await,
        _ => Err(no_such_method()),
    }
}

impl Call<'_> {
    async fn body(&self, request: Request<Incoming>) -> Result<Value, Failure> {
        let (parts, incoming) = request.into_parts();
        let media = body::media_type(&parts.headers);
        body::object(media, &body::read(incoming).await?)
    }

    /// An object as it is wanted.
    fn show(
        &self,
        code: u16,
        object: &Arc<Value>,
        form: Form,
        warnings: &[String],
    ) -> Result<Response<Body>, Failure> {
        let shown = match form {
            Form::Plain => return Ok(body::answer(code, object, warnings)),
            Form::Partial => partial(object),
            Form::Table => {
                let metadata = json!({"resourceVersion": meta(object, "resourceVersion")});
                self.table(std::slice::from_ref(object), metadata)?
            }
        };
        Ok(body::answer(code, &shown, warnings))
    }

    fn table(&self, objects: &[Arc<Value>], metadata: Value) -> Result<Value, Failure> {
        let include = include(&self.query)?;
        let now = self.cluster.clock.now();
        Ok(table::table(&self.kind, objects, metadata, include, now))
    }

    fn selection(&self) -> Result<Selection, Failure> {
        let parameter = |name| parameter(&self.query, name).unwrap_or_default();
        let (labels, mut fields) = (parameter("labelSelector"), parameter("fieldSelector"));
        if fields.is_empty() && !self.asked.name.is_empty() {
            fields = format!("metadata.name={}", self.asked.name); // an old path that names one
        }
        Ok(Selection {
            namespace: (!self.namespace.is_empty()).then(|| self.namespace.to_owned()),
            selector: Selector::parse(&self.kind, &labels, &fields)?,
        })
    }

    fn list(&self, request: &Request<Incoming>) -> Result<Response<Body>, Failure> {
        let form = form(request.headers())?;
        let parameter = |name| parameter(&self.query, name).unwrap_or_default();
        let limit = parameter("limit");
        let limit = if limit.is_empty() {
            Ok(0)
        } else {
            limit.parse()
        };
        let limit: i64 = limit.map_err(|_| {
            let limit = parameter("limit");
            Failure::bad_request(format!(
                "strconv.ParseInt: parsing {limit:?}: invalid syntax"
            ))
        })?;
        let page = Page {
            limit: usize::try_from(limit).unwrap_or(0),
            token: parameter("continue"),
            revision: parameter("resourceVersion"),
            revision_match: parameter("resourceVersionMatch"),
        };
        let listing = self.cluster.list(&self.kind, &self.selection()?, &page)?;
        let shown = match form {
            Form::Table => self.table(&listing.items, listing.metadata)?,
            Form::Partial => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": listing.metadata,
                "items": listing.items.iter().map(|item| partial(item)).collect::<Vec<_>>(),
            }),
            Form::Plain => self.plain_list(&listing.items, &listing.metadata),
        };
        Ok(body::answer(200, &shown, &[]))
    }

    fn plain_list(&self, items: &[Arc<Value>], metadata: &Value) -> Value {
        let items: Vec<Value> = items
            .iter()
            .map(|item| {
                let mut item = (**item).clone();
                // The list says it for all of them, but for those that Kubernetes knows no type of.
                if !self.kind.custom()
                    && let Some(fields) = item.as_object_mut()
                {
                    fields.remove("kind");
                    fields.remove("apiVersion");
                }
                item
            })
            .collect();
        let (kind, version) = (&self.kind.list_kind, self.kind.api_version());
        json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items})
    }

    async fn write(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let form = form(request.headers())?;
        let (parts, incoming) = request.into_parts();
        let media = body::media_type(&parts.headers).to_owned();
        let patching = self.asked.verb == "patch";
        if patching {
            self.check_patch_type(&media)?;
        }
        let options = self.options(&media, text(&parts.headers, &USER_AGENT))?;
        let data = body::read(incoming).await?;
        let Self {
            cluster,
            who,
            kind,
            namespace,
            ..
        } = self;
        let name = self.asked.name.as_str();
        let Written {
            object,
            created,
            warnings,
        } = if patching {
            let patch = match media.as_str() {
                "application/json-patch+json" => Patch::Json(body::json(&data)?),
                "application/merge-patch+json" => Patch::Merge(body::json(&data)?),
                "application/strategic-merge-patch+json" => Patch::Strategic(body::json(&data)?),
                _ => Patch::Apply(body::yaml(&data)?),
            };
            cluster
                .patch(who, kind, namespace, name, &patch, &options)
                .await?
        } else {
            let object = body::object(&media, &data)?;
            if self.asked.verb == "create" {
                cluster
                    .create(who, kind, namespace, object, &options)
                    .await?
            } else {
                cluster
                    .update(who, kind, namespace, name, object, &options)
                    .await?
            }
        };
        self.show(if created { 201 } else { 200 }, &object, form, &warnings)
    }

    fn check_patch_type(&self, media: &str) -> Result<(), Failure> {
        let mut accepted = vec![
            "application/json-patch+json",
            "application/merge-patch+json",
        ];
        if !self.kind.custom() {
            accepted.push("application/strategic-merge-patch+json");
        }
        accepted.push("application/apply-patch+yaml");
        if accepted.contains(&media) {
            Ok(())
        } else {
            Err(body::unsupported(&accepted))
        }
    }

    fn options(&self, media: &str, agent: &str) -> Result<Options, Failure> {
        let parameter = |name| parameter(&self.query, name).unwrap_or_default();
        let apply = media == "application/apply-patch+yaml";
        let kind = match self.asked.verb.as_str() {
            "create" => "CreateOptions",
            "patch" => "PatchOptions",
            _ => "UpdateOptions",
        };
        let mut causes = Vec::new();
        let mut complain = |field: &str, reason, message: String| {
            let field = field.to_owned();
            causes.push(Cause {
                reason,
                field,
                message,
            });
        };
        let dry_run = dry_run(&self.query).map_err(|message| {
            complain("dryRun", "FieldValueNotSupported", message);
        });
        let mut manager = parameter("fieldManager");
        if apply && manager.is_empty() {
            let message = "Required value: is required for apply patch".to_owned();
            complain("fieldManager", "FieldValueRequired", message);
        }
        if manager.chars().count() > MAX_MANAGER {
            let message = format!("Too long: may not be more than {MAX_MANAGER} bytes");
            complain("fieldManager", "FieldValueTooLong", message);
        }
        if manager.is_empty() {
            // What the client calls itself.
            agent
                .split('/')
                .next()
                .unwrap_or_default()
                .clone_into(&mut manager);
        }
        if manager.is_empty() {
            "unknown".clone_into(&mut manager);
        }
        let force = flag(&self.query, "force");
        if force && !apply {
            let message = "Forbidden: may not be specified for non-apply patch".to_owned();
            complain("force", "FieldValueForbidden", message);
        }
        let mut field_validation = parameter("fieldValidation");
        if self.cluster.release.minor() < 25 {
            // Unknown there, as are the fields it is about.
            "Ignore".clone_into(&mut field_validation);
        }
        if !matches!(field_validation.as_str(), "" | "Ignore" | "Warn" | "Strict") {
            let message = format!(
                "Unsupported value: {field_validation:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
            );
            complain("fieldValidation", "FieldValueNotSupported", message);
        }
        if !causes.is_empty() {
            return Err(Failure::invalid("meta.k8s.io", kind, "", &causes));
        }
        Ok(Options {
            dry_run: dry_run.unwrap_or_default(),
            manager,
            force,
            field_validation,
            subresource: self.asked.subresource.clone(),
        })
    }

    async fn delete(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let form = form(request.headers())?;
        let (parts, incoming) = request.into_parts();
        let data = body::read(incoming).await?;
        let options = if data.is_empty() {
            Value::Null
        } else {
            body::object(body::media_type(&parts.headers), &data)?
        };
        let delete = self.delete_options(&options)?;
        let Self {
            cluster,
            who,
            kind,
            namespace,
            ..
        } = self;
        if self.asked.verb == "deletecollection" {
            let deleted = cluster
                .delete_all(who, kind, &self.selection()?, &delete)
                .await?;
            let metadata = json!({"resourceVersion": cluster.store.revision().to_string()});
            return Ok(body::answer(
                200,
                &self.plain_list(&deleted, &metadata),
                &[],
            ));
        }
        let before = cluster.get(kind, namespace, &self.asked.name)?;
        let left = cluster
            .delete(who, kind, namespace, &self.asked.name, &delete)
            .await?;
        let answer = Arc::new(Delete::answer(kind, &before, left.as_deref()));
        if answer["kind"] == "Status" {
            return Ok(body::answer(200, &answer, &[]));
        }
        self.show(200, &answer, form, &[])
    }

    fn delete_options(&self, body: &Value) -> Result<Delete, Failure> {
        let invalid = |field: &str, message: String| {
            let cause = Cause {
                reason: "FieldValueNotSupported",
                field: field.to_owned(),
                message,
            };
            Failure::invalid("meta.k8s.io", "DeleteOptions", "", &[cause])
        };
        let text = |value: &Value, name: &str| {
            let said = value.as_str().map(str::to_owned);
            said.or_else(|| parameter(&self.query, name))
        };
        let mut propagation =
            text(&body["propagationPolicy"], "propagationPolicy").unwrap_or_default();
        if !matches!(
            propagation.as_str(),
            "" | "Orphan" | "Background" | "Foreground"
        ) {
            let message = format!(
                "Unsupported value: {propagation:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            );
            return Err(invalid("propagationPolicy", message));
        }
        let orphan = body["orphanDependents"].as_bool().or_else(|| {
            parameter(&self.query, "orphanDependents")
                .map(|_| flag(&self.query, "orphanDependents"))
        });
        if propagation.is_empty()
            && let Some(orphan) = orphan
        {
            if orphan { "Orphan" } else { "Background" }.clone_into(&mut propagation);
        }
        let asked = parameter(&self.query, "gracePeriodSeconds");
        let grace = body["gracePeriodSeconds"]
            .as_i64()
            .or_else(|| asked.and_then(|seconds| seconds.parse().ok()));
        let dry_run = match body["dryRun"].as_array().map(Vec::as_slice) {
            Some([one]) if one == "All" => Ok(true),
            Some([one, ..]) => Err(unsupported_dry_run(one.as_str().unwrap_or_default())),
            _ => dry_run(&self.query),
        };
        let condition = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        Ok(Delete {
            // Below 0 means at once, as it does in Kubernetes.
            grace: grace.map(|grace| u64::try_from(grace).unwrap_or(1)),
            propagation,
            uid: condition("uid"),
            revision: condition("resourceVersion"),
            dry_run: dry_run.map_err(|message| invalid("dryRun", message))?,
        })
    }

    /// Streams to and from a pod.
    async fn connect(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let Attributes {
            verb,
            name,
            subresource,
            ..
        } = self.asked;
        if subresource != "log" {
            if parameter(&self.query, "dryRun").is_some() {
                return Err(Failure::bad_request("dryRun is not supported"));
            }
            // A WebSocket is opened by GET, which is a right to read: 1.35 asks for the other one too.
            if verb == "get" && self.cluster.release.minor() >= 35 {
                let mut create = self.asked.clone();
                "create".clone_into(&mut create.verb);
                rbac::require(self.cluster, self.who, &create)?;
            }
            admit_connect(self.cluster, self.who, &self.kind, self.asked, &self.query).await?;
        }
        crate::pods::connect(self.cluster, self.namespace, name, subresource, request)
    }
}

/// `dryRun` in a query: whether it is one.
fn dry_run(query: &str) -> Result<bool, String> {
    match parameter(query, "dryRun").as_deref() {
        None | Some("") => Ok(false),
        Some("All") => Ok(true),
        Some(other) => Err(unsupported_dry_run(other)),
    }
}

fn unsupported_dry_run(value: &str) -> String {
    format!("Unsupported value: {value:?}: supported values: \"All\"")
}

/// `includeObject` of a Table.
pub(super) fn include(query: &str) -> Result<Include, Failure> {
    match parameter(query, "includeObject").as_deref() {
        None | Some("" | "Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => Err(Failure::bad_request(format!(
            "unrecognized includeObject value {other:?}"
        ))),
    }
}

/// An object's metadata alone.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
