//! The time everybody in the sandbox goes by, which a test may move.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

/// Wall time plus an offset in seconds; clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    offset: AtomicI64,
    moved: Notify,
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let offset = SignedDuration::from_secs(self.inner.offset.load(Ordering::Relaxed));
        Timestamp::now()
            .checked_add(offset)
            .unwrap_or(Timestamp::MAX)
    }

    /// Moves the clock, forward or back; who sleeps by it looks again.
    pub fn advance(&self, by: SignedDuration) {
        self.inner.offset.fetch_add(by.as_secs(), Ordering::Relaxed);
        self.inner.moved.notify_waiters();
    }

    /// Waits until `then`, by this clock.
    pub async fn sleep_until(&self, then: Timestamp) {
        loop {
            let moved = self.inner.moved.notified();
            let left = then.duration_since(self.now());
            if left <= SignedDuration::ZERO {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.unsigned_abs()) => {}
                () = moved => {}
            }
        }
    }
}
