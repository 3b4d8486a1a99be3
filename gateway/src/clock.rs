//! The wall clock, as a value: grants end at wall-clock times, and tests need to choose them.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time. Clones tell the same one.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The operating system's.
    #[must_use]
    pub fn wall() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// Whatever `now` says.
    #[cfg(test)]
    pub(crate) fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// `start` now, then in step with tokio's clock: stands still while that one is paused.
    #[cfg(test)]
    pub(crate) fn following_tokio(start: Timestamp) -> Self {
        let origin = tokio::time::Instant::now();
        Self::from_fn(move || start + origin.elapsed())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
