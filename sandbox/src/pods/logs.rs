//! Answers with a container's log.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;

use super::container::Container;
use super::log::{Line, Place};
use super::query::Logs;
use crate::cluster::Cluster;
use crate::object;
use crate::server::Body;
use crate::status::Failure;

/// Read from a file at once, in bytes.
const CHUNK: u64 = 256 << 10;
/// Pieces of an answer between its reader and its writer.
const AHEAD: usize = 2;

/// Answers with what is wanted of a container's log.
///
/// # Errors
/// 400 if the container has not run yet.
pub(super) fn answer(
    cluster: &Arc<Cluster>,
    pod: &Value,
    container: &str,
    wanted: Logs,
) -> Result<Response<Body>, Failure> {
    let name = object::name(pod);
    let reach = cluster.pods.reach(object::uid(pod));
    let starts = reach.map(|reach| reach.get(container)).unwrap_or_default();
    let found = if wanted.previous {
        starts.last.ok_or_else(|| {
            format!("previous terminated container {container:?} in pod {name:?} not found")
        })
    } else {
        starts.current.or(starts.last).ok_or_else(|| {
            format!(
                "container {container:?} in pod {name:?} is waiting to start: ContainerCreating"
            )
        })
    };
    let container = found.map_err(Failure::bad_request)?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let stop = cluster.stop.clone();
    let mut kubelet = cluster.faults.kubelet.subscribe();
    cluster.tasks.spawn(async move {
        tokio::select! {
            done = send(&container, wanted, &sender) => if let Err(error) = done {
                tracing::warn!(%error, "failed to read a container's log");
            },
            () = stop.cancelled() => {}
            _ = kubelet.wait_for(|lives| !lives) => {}
            () = sender.closed() => {}
        }
    });
    let mut response = Response::new(Pieces(receiver).boxed());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

async fn send(
    container: &Container,
    wanted: Logs,
    to: &mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let log = &container.log;
    let mut written = log.written();
    let mut place = match wanted.tail {
        Some(tail) => tail_of(container, tail)?,
        None => Place::default(),
    };
    let mut left = wanted.limit.unwrap_or(u64::MAX);
    let mut begun = true;
    loop {
        let over = written.borrow_and_update().is_none();
        let (lines, next) = log.read(place, CHUNK)?;
        place = next;
        if lines.is_empty() {
            if over || !wanted.follow || written.changed().await.is_err() {
                return Ok(());
            }
            continue;
        }
        let mut out = Vec::new();
        for Line { time, text, .. } in lines {
            if wanted.since.is_some_and(|since| time < since) {
                continue;
            }
            if wanted.timestamps && begun {
                out.extend_from_slice(format!("{time:.9} ").as_bytes());
            }
            begun = text.ends_with(b"\n");
            out.extend_from_slice(&text);
        }
        out.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= out.len() as u64;
        if (!out.is_empty() && to.send(out.into()).await.is_err()) || left == 0 {
            return Ok(());
        }
    }
}

/// The place of the last `tail` lines.
fn tail_of(container: &Container, tail: u64) -> std::io::Result<Place> {
    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
    let (mut place, mut starts) = (Place::default(), std::collections::VecDeque::new());
    let mut begun = true;
    loop {
        // One at a time would be slow; a chunk's lines know where they begin.
        let (lines, next) = container.log.read(place, CHUNK)?;
        if lines.is_empty() {
            break;
        }
        let mut at = next.back(lines.iter().map(Line::stored).sum());
        for line in &lines {
            if begun {
                starts.push_back(at);
                if starts.len() > tail {
                    starts.pop_front();
                }
            }
            begun = line.text.ends_with(b"\n");
            at = at.forward(line.stored());
        }
        place = next;
    }
    Ok(starts.front().copied().unwrap_or(place))
}

/// A body in pieces as they come.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
