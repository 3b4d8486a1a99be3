//! Watches: what happens to what is selected, as it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use futures_util::StreamExt as _;
use http::Response;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at, sleep};

use super::body::Form;
use super::resource::Call;
use super::{Body, body};
use crate::faults::WatchFault;
use crate::request::flag;
use crate::rest::{Selection, too_large};
use crate::status::{Cause, Failure};
use crate::store::Event;

/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_mins(1);
/// A watch that says no limit ends after this many seconds, and up to twice as many, as in Kubernetes.
const USUAL_LIMIT: u64 = 1800;

/// Answers a watch.
pub(super) fn answer(call: Call, form: Form) -> Result<Response<Body>, Failure> {
    let (cluster, chosen) = (Arc::clone(&call.cluster), call.selection()?);
    let mut faults = cluster.faults.watches.subscribe();
    if *faults.borrow() == WatchFault::Refused {
        let why = "the server is currently unable to handle the request";
        return Err(Failure::new(503, "ServiceUnavailable", why));
    }
    let minor = cluster.release.minor();
    let mut streams = flag(&call.query, "sendInitialEvents");
    if streams && (27..32).contains(&minor) {
        let why = "Forbidden: sendInitialEvents needs the feature gate WatchList";
        let cause = Cause::new("FieldValueForbidden", "sendInitialEvents", why);
        return Err(Failure::invalid("meta.k8s.io", "ListOptions", "", &[cause]));
    }
    streams &= minor >= 32;
    let asked = call.number("resourceVersion")?;
    let (mut revision, mut initial) = (asked, Vec::new());
    if streams || asked == 0 {
        (revision, initial) = cluster.select(&call.kind, &chosen, None)?;
    }
    if asked > revision {
        return Err(too_large(asked, revision));
    }
    let limit = match call.number("timeoutSeconds")? {
        0 => rand::rng().random_range(USUAL_LIMIT..2 * USUAL_LIMIT),
        limit => limit,
    };
    let (resource, namespace) = (call.kind.resource(), chosen.namespace.as_deref());
    let mut watch = cluster.store.watch(&resource, namespace, revision);
    let bookmarks = flag(&call.query, "allowWatchBookmarks");
    let events = stream! {
        for object in initial {
            yield ("ADDED", call.shown(&object, form));
        }
        if streams && bookmarks {
            let mut mark = call.bookmark(revision, form);
            mark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            yield ("BOOKMARK", mark);
        }
        let mut ticks = interval_at(Instant::now() + BOOKMARK, BOOKMARK);
        loop {
            let fault = *faults.borrow_and_update();
            if fault == WatchFault::Refused {
                return;
            }
            let flows = fault == WatchFault::None;
            let event = tokio::select! {
                biased;
                _ = faults.changed() => continue,
                event = watch.next(), if flows => Some(event),
                _ = ticks.tick(), if flows && bookmarks => None,
            };
            match event {
                None => yield ("BOOKMARK", call.bookmark(watch.seen(), form)),
                Some(Err(_)) => {
                    yield ("ERROR", too_old(watch.seen()));
                    return;
                }
                Some(Ok(event)) => if let Some((what, object)) = seen(&chosen, event) {
                    yield (what, call.shown(&call.kind.convert(object), form));
                }
            }
        }
    };
    let mut headed = false;
    let lines = events.map(move |(what, mut object)| {
        // A Table tells its columns once.
        if form == Form::Table && std::mem::replace(&mut headed, true) {
            object["columnDefinitions"] = Value::Null;
        }
        let line = format!("{}\n", json!({"type": what, "object": object}));
        Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
    });
    let (stop, limit) = (cluster.stop.clone(), sleep(Duration::from_secs(limit)));
    let lines = lines.take_until(async move { stop.run_until_cancelled(limit).await });
    let mut response = body::typed(200, body::JSON, String::new());
    *response.body_mut() = Body::new(StreamBody::new(lines));
    Ok(response)
}

fn too_old(asked: u64) -> Value {
    Failure::expired(format!("too old resource version: {asked}; list again")).body()
}

/// What an event is to a watch of a selection.
fn seen(chosen: &Selection, event: Event) -> Option<(&'static str, Arc<Value>)> {
    let matches = |object: &Value| chosen.selector.matches(object);
    let was = event.before.as_deref().is_some_and(matches);
    let is = !event.gone && matches(&event.object);
    match (was, is) {
        (false, false) => None,
        (false, true) => Some(("ADDED", event.object)),
        (true, true) => Some(("MODIFIED", event.object)),
        (true, false) if event.gone => Some(("DELETED", event.object)),
        (true, false) => {
            // What was selected, as it was, at the revision that took it out.
            let mut last = event.before.as_deref().cloned().unwrap_or_default();
            last["metadata"]["resourceVersion"] = event.revision.to_string().into();
            Some(("DELETED", Arc::new(last)))
        }
    }
}
