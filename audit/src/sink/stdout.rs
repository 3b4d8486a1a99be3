//! Standard output: one event a line, for whoever collects a container's output. Our own log goes to standard error.

use std::io::Write as _;
use std::time::Duration;

use crate::log::blocking;
use crate::sink::{Batch, Delivered, Sink, SinkError};

/// Standard output.
#[derive(Debug)]
pub(crate) struct Stdout;

impl Sink for Stdout {
    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> Delivered<'a> {
        let bytes = batch.bytes.clone();
        Box::pin(async move {
            let written = blocking(move || {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()
            });
            written.await.map_err(|source| SinkError::File {
                path: "stdout".into(),
                source,
            })
        })
    }

    /// A write that was begun cannot be taken back, and the next one would follow half a line.
    fn timeout(&self) -> Option<Duration> {
        None
    }
}
