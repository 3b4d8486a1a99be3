//! What a container wrote, line by line: the last 10 MiB of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use async_stream::stream;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Response;
use http_body_util::StreamBody;
use hyper::body::Frame;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::process::Written;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::request::Query;
use crate::server::{Body, typed};
use crate::status::Failure;

/// Bytes kept of a log: the kubelet's `containerLogMaxSize`.
const KEPT: usize = 10 << 20;
/// From this length on a line is not waited for any longer, in bytes, as in containerd.
const MAX_LINE: usize = 16 << 10;

/// The log of one start of a container.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: VecDeque<(Timestamp, Bytes)>,
    /// Bytes in `lines`.
    size: usize,
    /// Lines forgotten before those.
    forgotten: usize,
    /// Since when nothing more will come.
    pub(super) over: Option<Timestamp>,
}

impl Log {
    fn push(&mut self, now: Timestamp, line: &mut Vec<u8>) {
        self.size += line.len();
        self.lines.push_back((now, std::mem::take(line).into()));
        while self.size > KEPT {
            let (_, oldest) = self.lines.pop_front().unwrap_or_default();
            self.size -= oldest.len();
            self.forgotten += 1;
        }
    }

    fn end(&self) -> usize {
        self.forgotten + self.lines.len()
    }
}

/// Keeps what a process writes until it ends.
pub(super) async fn keep(
    log: &watch::Sender<Log>,
    mut written: mpsc::Receiver<Written>,
    clock: &Clock,
) {
    let mut begun = [Vec::new(), Vec::new(), Vec::new()];
    while let Some((channel, data)) = written.recv().await {
        let line = &mut begun[usize::from(channel)];
        log.send_modify(|log| {
            for part in data.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.ends_with(b"\n") || line.len() >= MAX_LINE {
                    log.push(clock.now(), line);
                }
            }
        });
    }
    log.send_modify(|log| {
        let unfinished = begun.iter_mut().filter(|line| !line.is_empty());
        unfinished.for_each(|line| log.push(clock.now(), line));
        log.over = Some(clock.now());
    });
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
    let (follow, stamps) = (query.flag("follow"), query.flag("timestamps"));
    let mut left = query.number("limitBytes")?.unwrap_or(usize::MAX);
    let tail = query.number("tailLines")?.unwrap_or(usize::MAX);
    let mut place = log.borrow().end().saturating_sub(tail);
    let pieces = stream! {
        while left > 0 {
            let mut piece = Vec::new();
            let more = |log: &Log| log.end() > place || log.over.is_some() || !follow;
            if let Ok(log) = log.wait_for(more).await {
                for (time, line) in log.lines.iter().skip(place.saturating_sub(log.forgotten)) {
                    if stamps {
                        piece.extend_from_slice(format!("{time:.9} ").as_bytes());
                    }
                    piece.extend_from_slice(line);
                }
                place = log.end();
            }
            piece.truncate(left);
            left -= piece.len();
            if piece.is_empty() {
                return;
            }
            yield Ok::<_, Infallible>(Frame::data(Bytes::from(piece)));
        }
    };
    let pieces = pieces.take_until(cluster.stop.clone().cancelled_owned());
    let mut response = typed(200, "text/plain", String::new());
    *response.body_mut() = Body::new(StreamBody::new(pieces));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn kept(pieces: Vec<Vec<u8>>) -> (usize, Vec<u8>) {
        let log = watch::Sender::<Log>::default();
        let (sender, written) = mpsc::channel(1);
        let write = async move {
            for piece in pieces {
                sender.send((1, piece.into())).await.unwrap();
            }
        };
        let clock = Clock::default();
        tokio::join!(write, keep(&log, written, &clock));
        let log = log.borrow();
        let lines: Vec<&[u8]> = log.lines.iter().map(|(_, line)| &**line).collect();
        assert!(log.over.is_some() && log.size == lines.concat().len());
        (log.end(), lines.concat())
    }

    proptest! {
        #[test]
        fn what_is_written_in_any_pieces_is_read_back(pieces in prop::collection::vec(prop::collection::vec(
            prop_oneof![Just(b'\n'), any::<u8>()], 0..60), 0..4), long in 0..40_000usize) {
            let mut pieces = pieces;
            pieces.push(vec![b'x'; long]);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, text) = runtime.block_on(kept(pieces.clone()));
            prop_assert_eq!(text, pieces.concat());
        }
    }

    #[tokio::test]
    async fn a_log_keeps_its_last_ten_mebibytes() {
        let line = [&[b'x'; 9_999][..], b"\n"].concat();
        let (count, text) = kept(vec![line; 2_000]).await;
        assert_eq!((count, text.len()), (2_000, KEPT / 10_000 * 10_000));
    }
}
