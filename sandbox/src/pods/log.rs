//! What a container wrote: the last 10 MiB of it.

use std::{convert::Infallible, iter::once, sync::Arc};

use async_stream::stream;
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::Response;
use http_body_util::StreamBody;
use hyper::body::Frame;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::process::Written;
use crate::server::{Body, typed};
use crate::{clock::Clock, cluster::Cluster, request::Query, status::Failure};

/// Bytes kept of a log: the kubelet's `containerLogMaxSize`.
const KEPT: usize = 10 << 20;

/// The log of one start of a container.
#[derive(Debug, Default)]
pub(super) struct Log {
    text: BytesMut,
    /// Bytes forgotten before those.
    forgotten: usize,
    /// Since when nothing more will come.
    pub(super) over: Option<Timestamp>,
}

impl Log {
    fn end(&self) -> usize {
        self.forgotten + self.text.len()
    }

    /// Where the last lines begin.
    fn tail(&self, lines: usize) -> usize {
        let length = self.text.len();
        let begins = (1..length).rev();
        let begins = begins.filter(|place| self.text[place - 1] == b'\n');
        let begin = once(length).chain(begins).nth(lines);
        self.forgotten + begin.unwrap_or_default()
    }
}

/// Keeps what a process writes until it ends.
pub(super) async fn keep(
    log: &watch::Sender<Log>,
    mut written: mpsc::Receiver<Written>,
    clock: &Clock,
) {
    while let Some((_, data)) = written.recv().await {
        log.send_modify(|log| {
            log.text.extend_from_slice(&data);
            let over = log.text.len().saturating_sub(KEPT);
            log.text.advance(over);
            log.forgotten += over;
        });
    }
    log.send_modify(|log| log.over = Some(clock.now()));
}

/// Answers with what is asked for of a log.
///
/// # Errors
/// 400 for a number that is none.
pub(super) fn answer(
    cluster: &Arc<Cluster>,
    mut log: watch::Receiver<Log>,
    query: &Query,
) -> Result<Response<Body>, Failure> {
    let follow = query.flag("follow");
    let tail = query.number("tailLines")?;
    let mut place = tail.map_or(0, |lines| log.borrow().tail(lines));
    let pieces = stream! {
        loop {
            let more = |log: &Log| log.end() > place || log.over.is_some() || !follow;
            let _ = log.wait_for(more).await; // an error: there is nothing more
            let piece = {
                let log = log.borrow();
                let new = place.saturating_sub(log.forgotten);
                place = log.end();
                Bytes::copy_from_slice(&log.text[new..])
            };
            if piece.is_empty() {
                return;
            }
            yield Ok::<_, Infallible>(Frame::data(piece));
        }
    };
    let pieces = pieces.take_until(cluster.stop.clone().cancelled_owned());
    let response = typed(200, "text/plain", String::new());
    Ok(response.map(|_| Body::new(StreamBody::new(pieces))))
}

#[cfg(test)]
mod tests;
