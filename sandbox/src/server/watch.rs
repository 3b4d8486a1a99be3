//! Watches: what happens to what is selected, as it happens.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};

use super::negotiate::Form;
use super::resource::{include, partial};
use super::{Body, body};
use crate::cluster::Cluster;
use crate::faults::WatchFault;
use crate::kinds::Kind;
use crate::object::meta;
use crate::request::{flag, parameter};
use crate::rest::{Selection, too_large};
use crate::status::{Cause, Failure};
use crate::store::{Change, Event, TooOld, Watch};
use crate::table::{self, Include};

/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_mins(1);
/// A watch that says no limit ends after this many seconds, and up to twice as many, as in Kubernetes.
const USUAL_LIMIT: u64 = 1800;
/// Events handed over and not sent yet. The store keeps the rest.
const AHEAD: usize = 4;

/// A watch under way.
struct Watching {
    cluster: Arc<Cluster>,
    kind: Arc<Kind>,
    selection: Selection,
    watch: Result<Watch, TooOld>,
    initial: Vec<Arc<Value>>,
    /// Whether the initial events end with a bookmark that says so.
    mark_end: bool,
    bookmarks: bool,
    limit: Duration,
    form: Form,
    include: Include,
    /// Whether a Table has told its columns.
    headed: bool,
    events: mpsc::Sender<Bytes>,
}

/// The client is gone, or should be.
struct Over;

/// Answers a watch.
pub(super) fn answer(
    cluster: &Arc<Cluster>,
    kind: &Arc<Kind>,
    selection: Selection,
    query: &str,
    form: Form,
) -> Result<Response<Body>, Failure> {
    if *cluster.faults.watches.borrow() == WatchFault::Refused {
        let message = "the server is currently unable to handle the request";
        return Err(Failure::new(503, "ServiceUnavailable", message));
    }
    let send_initial = send_initial(cluster, query)?;
    let asked = parameter(query, "resourceVersion").unwrap_or_default();
    let asked: u64 = if asked.is_empty() {
        0
    } else {
        asked.parse().map_err(|_| {
            Failure::bad_request(format!(
                "Invalid value: {asked:?}: strconv.ParseUint: parsing {asked:?}: invalid syntax"
            ))
        })?
    };
    let (mut revision, mut initial) = (asked, Vec::new());
    if send_initial.unwrap_or(asked == 0) {
        (revision, initial) = cluster.select(kind, &selection);
        if asked > revision {
            return Err(too_large(asked, revision));
        }
    } else if asked == 0 {
        revision = cluster.store.revision();
    }
    let limit = parameter(query, "timeoutSeconds").and_then(|seconds| seconds.parse().ok());
    let limit = limit.filter(|seconds| *seconds > 0);
    let limit = limit.unwrap_or_else(|| rand::rng().random_range(USUAL_LIMIT..2 * USUAL_LIMIT));
    let bookmarks = flag(query, "allowWatchBookmarks");
    let (events, pieces) = mpsc::channel(AHEAD);
    let watching = Watching {
        watch: cluster
            .store
            .watch(&kind.resource(), selection.namespace.as_deref(), revision),
        cluster: Arc::clone(cluster),
        kind: Arc::clone(kind),
        selection,
        initial,
        mark_end: send_initial == Some(true) && bookmarks,
        bookmarks,
        limit: Duration::from_secs(limit),
        form,
        include: include(query)?,
        headed: false,
        events,
    };
    cluster.tasks.spawn(watching.run(asked));
    let mut response = Response::new(body::streamed(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// `sendInitialEvents`, where it is known.
fn send_initial(cluster: &Cluster, query: &str) -> Result<Option<bool>, Failure> {
    let asked = parameter(query, "sendInitialEvents").map(|_| flag(query, "sendInitialEvents"));
    let how = parameter(query, "resourceVersionMatch").unwrap_or_default();
    let forbidden = |field: &str, why: &str| {
        let cause = Cause {
            reason: "FieldValueForbidden",
            field: field.to_owned(),
            message: format!("Forbidden: {why}"),
        };
        Err(Failure::invalid("meta.k8s.io", "ListOptions", "", &[cause]))
    };
    match cluster.release.minor() {
        ..27 => Ok(None),
        27..32 if asked.is_some() => forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ),
        _ if asked.is_none() && !how.is_empty() => forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        _ if asked.is_some() && how != "NotOlderThan" => forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        _ => Ok(asked),
    }
}

impl Watching {
    async fn run(mut self, asked: u64) {
        let stop = self.cluster.stop.clone();
        let (events, limit) = (self.events.clone(), tokio::time::sleep(self.limit));
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = events.closed() => {}
            () = limit => {}
            _ = self.follow(asked) => {}
        }
    }

    async fn follow(&mut self, asked: u64) -> Result<(), Over> {
        let mut faults = self.cluster.faults.watches.subscribe();
        for object in std::mem::take(&mut self.initial) {
            self.send("ADDED", &object).await?;
        }
        let mut watch = match std::mem::replace(&mut self.watch, Err(TooOld { oldest: 0 })) {
            Ok(watch) => watch,
            Err(too_old) => return self.too_old(asked, too_old).await,
        };
        if self.mark_end {
            self.bookmark(watch.seen(), true).await?;
        }
        let mut bookmark = interval_at(Instant::now() + BOOKMARK, BOOKMARK);
        loop {
            let fault = *faults.borrow_and_update();
            let flows = match fault {
                WatchFault::None => true,
                WatchFault::Stalled => false,
                WatchFault::Refused => return Err(Over),
            };
            tokio::select! {
                biased;
                _ = faults.changed() => {}
                event = watch.next(), if flows => match event {
                    Ok(event) => self.event(&event).await?,
                    Err(too_old) => return self.too_old(watch.seen(), too_old).await,
                },
                _ = bookmark.tick(), if flows && self.bookmarks => {
                    self.bookmark(watch.seen(), false).await?;
                }
            }
        }
    }

    async fn event(&mut self, event: &Event) -> Result<(), Over> {
        let matches = |object: &Value| self.selection.selector.matches(object);
        let was = event.before.as_deref().is_some_and(matches);
        let is = event.change != Change::Deleted && matches(&event.object);
        match (was, is) {
            (false, false) => Ok(()),
            (false, true) => self.send("ADDED", &event.object).await,
            (true, true) => self.send("MODIFIED", &event.object).await,
            (true, false) if event.change == Change::Deleted => {
                self.send("DELETED", &event.object).await
            }
            (true, false) => {
                // What was selected, as it was, at the revision that took it out.
                let mut last = event.before.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = event.revision.to_string().into();
                self.send("DELETED", &Arc::new(last)).await
            }
        }
    }

    async fn send(&mut self, what: &str, object: &Arc<Value>) -> Result<(), Over> {
        let object = self.kind.convert(Arc::clone(object));
        let shown = match self.form {
            Form::Plain => (*object).clone(),
            Form::Partial => partial(&object),
            Form::Table => {
                let metadata = json!({"resourceVersion": meta(&object, "resourceVersion")});
                let now = self.cluster.clock.now();
                let objects = std::slice::from_ref(&object);
                let mut table = table::table(&self.kind, objects, metadata, self.include, now);
                if std::mem::replace(&mut self.headed, true) {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
        };
        self.write(what, &shown).await
    }

    async fn bookmark(&self, revision: u64, end: bool) -> Result<(), Over> {
        let (kind, version) = match self.form {
            Form::Plain => (self.kind.kind.as_str(), self.kind.api_version()),
            Form::Partial => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Form::Table => ("Table", "meta.k8s.io/v1".to_owned()),
        };
        let mut mark = json!({
            "kind": kind, "apiVersion": version,
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if self.form == Form::Table {
            mark["rows"] = json!([]);
        }
        if end {
            mark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.write("BOOKMARK", &mark).await
    }

    async fn too_old(&self, asked: u64, too_old: TooOld) -> Result<(), Over> {
        let message = format!("too old resource version: {asked} ({})", too_old.oldest);
        self.write("ERROR", &Failure::expired(message).body()).await
    }

    async fn write(&self, what: &str, object: &Value) -> Result<(), Over> {
        let line = format!("{}\n", json!({"type": what, "object": object}));
        self.events.send(line.into()).await.map_err(|_| Over)
    }
}
