//! Watches: what happens to what is selected, as it happens.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_stream::stream;
use futures_util::StreamExt as _;
use http::Response;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at, sleep};

use super::{Body, body, resource::View};
use crate::status::{Failure, Result};
use crate::{faults::WatchFault, kinds::Kind, release::Release, selector::Selector, store::Event};

/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_mins(1);
/// A watch that says no limit ends after this many seconds; Kubernetes waits up to twice as long.
const USUAL_LIMIT: u64 = 1800;

/// Answers a watch.
pub(super) fn answer(view: View) -> Result<Response<Body>> {
    let (cluster, call) = (Arc::clone(&view.shared), &view.call);
    let (query, selector) = (&call.query, call.selector()?);
    let mut faults = cluster.faults.subscribe();
    if faults.borrow().watches == WatchFault::Refused {
        return Err(Failure::new(503, "refused by order"));
    }
    let streams = query.flag("sendInitialEvents") && cluster.release >= Release::V1_36;
    let (mut revision, mut initial) = (query.number("resourceVersion")?.unwrap_or(0), Vec::new());
    if streams || revision == 0 {
        (revision, initial) = cluster.select(call, None)?;
    }
    let limit = query.number("timeoutSeconds")?.unwrap_or(USUAL_LIMIT);
    let mut watch = (cluster.store).watch(&call.kind.resource(), &call.namespace, revision);
    let bookmarks = query.flag("allowWatchBookmarks");
    let events = stream! {
        for object in initial {
            yield ("ADDED", view.one(&object));
        }
        if streams && bookmarks {
            let mut mark = bookmark(&view, revision);
            mark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            yield ("BOOKMARK", mark);
        }
        let mut ticks = interval_at(Instant::now() + BOOKMARK, BOOKMARK);
        loop {
            let fault = faults.borrow_and_update().watches;
            if fault == WatchFault::Refused {
                return;
            }
            let flows = fault == WatchFault::None;
            tokio::select! {
                biased;
                _ = faults.changed() => {}
                event = watch.next(), if flows => {
                    let Some(event) = event else {
                        let why = format!("too old resource version: {}; list again", watch.seen);
                        yield ("ERROR", Failure::new(410, why).body());
                        return;
                    };
                    if let Some((what, object)) = seen(&selector, &view.call.kind, event) {
                        yield (what, view.one(&object));
                    }
                }
                _ = ticks.tick(), if flows && bookmarks => {
                    yield ("BOOKMARK", bookmark(&view, watch.seen));
                }
            }
        }
    };
    let lines = events.map(|(what, object)| {
        let line = format!("{}\n", json!({"type": what, "object": object}));
        Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
    });
    let lines = StreamBody::new(lines.take_until(sleep(Duration::from_secs(limit))));
    let response = body::typed(200, body::JSON, String::new());
    Ok(response.map(|_| Body::new(lines)))
}

/// A sign of the revision a watch has seen.
fn bookmark(view: &View, revision: u64) -> Value {
    let metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    let (kind, version) = (&view.call.kind.kind, view.call.kind.api_version());
    view.one(&json!({"kind": kind, "apiVersion": version, "metadata": metadata}).into())
}

/// What an event is to a watch of a selection.
fn seen(selector: &Selector, kind: &Kind, event: Event) -> Option<(&'static str, Arc<Value>)> {
    let object = kind.convert(event.object);
    let before = event.before.map(|before| kind.convert(before));
    let before = before.filter(|before| selector.matches(before));
    match (before, !event.gone && selector.matches(&object)) {
        (None, false) => None,
        (None, true) => Some(("ADDED", object)),
        (Some(_), true) => Some(("MODIFIED", object)),
        (Some(_), false) if event.gone => Some(("DELETED", object)),
        (Some(mut last), false) => {
            // What was selected, as it was, at the revision that took it out.
            let revision = event.revision.to_string();
            Arc::make_mut(&mut last)["metadata"]["resourceVersion"] = revision.into();
            Some(("DELETED", last))
        }
    }
}
