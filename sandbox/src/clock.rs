//! The time everybody in the sandbox goes by, which a test may move.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// Wall time plus an offset in seconds; clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<watch::Sender<i64>>);

impl Clock {
    /// Now.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now().checked_add(SignedDuration::from_secs(*self.0.borrow()));
        now.unwrap_or(Timestamp::MAX)
    }

    /// Moves the clock, forward or back; who sleeps by it looks again.
    pub fn advance(&self, by: SignedDuration) {
        self.0.send_modify(|offset| *offset += by.as_secs());
    }

    /// Waits until `then`, by this clock.
    pub async fn sleep_until(&self, then: Timestamp) {
        let mut offset = self.0.subscribe();
        loop {
            let left = then.duration_since(self.now());
            if left <= SignedDuration::ZERO {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.unsigned_abs()) => {}
                _ = offset.changed() => {}
            }
        }
    }
}
