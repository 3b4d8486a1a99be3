//! What a container wrote, line by line: the last 10 MiB of it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use tokio::select;
use tokio::sync::{mpsc, watch};

use super::process::Written;
use super::query::Query;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::server::Body;
use crate::status::Failure;

/// Bytes kept of a log: the kubelet's `containerLogMaxSize`.
const KEPT: usize = 10 << 20;
/// Longest line kept whole, in bytes, as in containerd; a longer one becomes several.
const MAX_LINE: usize = 16 << 10;

/// The log of one start of a container.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: VecDeque<(Timestamp, Bytes)>,
    /// Bytes in `lines`.
    size: usize,
    /// Lines forgotten before those.
    forgotten: usize,
    /// Whether nothing more will come.
    pub(super) over: bool,
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
            let lines = data.split_inclusive(|byte| *byte == b'\n');
            for part in lines.flat_map(|line| line.chunks(MAX_LINE)) {
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
        log.over = true;
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
    let (sender, mut pieces) = mpsc::channel::<Bytes>(1);
    let stop = cluster.stop.clone();
    cluster.tasks.spawn(async move {
        while left > 0 {
            let more = log.wait_for(|log| log.end() > place || log.over || !follow);
            let mut piece = Vec::new();
            select! {
                Ok(log) = more => {
                    for (time, line) in log.lines.iter().skip(place.saturating_sub(log.forgotten)) {
                        if stamps {
                            piece.extend_from_slice(format!("{time:.9} ").as_bytes());
                        }
                        piece.extend_from_slice(line);
                    }
                    place = log.end();
                }
                () = sender.closed() => {}
                () = stop.cancelled() => {}
                else => {}
            }
            piece.truncate(left);
            left -= piece.len();
            if piece.is_empty() || sender.send(piece.into()).await.is_err() {
                return;
            }
        }
    });
    let frames = poll_fn(move |context| {
        let piece = pieces.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed());
    let text = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(CONTENT_TYPE, text);
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
        assert!(log.over && log.size == lines.concat().len());
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
