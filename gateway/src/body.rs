//! The body of an answer: whole, or piece by piece as it is made.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// All of it is there.
    Whole(Full<Bytes>),
    /// It comes in pieces; an error breaks the connection, so that what came is not taken for everything.
    Pieces(Pieces),
}

/// What comes piece by piece.
#[derive(Debug)]
pub struct Pieces {
    /// What was there before the answer began.
    first: Option<Bytes>,
    rest: mpsc::Receiver<io::Result<Bytes>>,
    /// Why it breaks off, as soon as what came before is on its way.
    failed: Option<io::Error>,
}

impl Pieces {
    /// What is there already, and what follows.
    #[must_use]
    pub fn new(first: Option<Bytes>, rest: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            first,
            rest,
            failed: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match self.rest.poll_recv(cx) {
            Poll::Ready(Some(Err(error))) => {
                // hyper writes its buffer when a body has nothing to give, and throws it away when one fails: without
                // this pause an answer could break off before its head is out.
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(full) => Pin::new(full)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Pieces(pieces) => pieces
                .poll(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(full) => full.is_end_stream(),
            Self::Pieces(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(full) => full.size_hint(),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}
