//! How many refusals are written: anybody can cause them, and a log full of them hides what matters.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Tokens that come back with time, and what went without one.
#[derive(Debug)]
pub(crate) struct Limit {
    burst: u32,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: u32,
    since: Instant,
    suppressed: u64,
}

impl Limit {
    /// `burst` at once, then one every `every`.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        let state = State {
            tokens: burst,
            since: Instant::now(),
            suppressed: 0,
        };
        Self {
            burst,
            every,
            state: Mutex::new(state),
        }
    }

    /// Whether one may pass, and how many did not since the last that did.
    pub(crate) fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let back = state.since.elapsed().as_nanos() / self.every.as_nanos().max(1);
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        if back >= self.burst {
            (state.tokens, state.since) = (self.burst, Instant::now());
        } else {
            state.tokens = self.burst.min(state.tokens.saturating_add(back));
            state.since += self.every * back;
        }
        if state.tokens == 0 {
            state.suppressed += 1;
            return None;
        }
        state.tokens -= 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_one_at_a_time_and_the_rest_is_counted() {
        let limit = Limit::new(3, Duration::from_millis(100));
        let passed = (0..10).filter(|_| limit.pass().is_some()).count();
        assert_eq!(passed, 3);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(limit.pass(), Some(7));
        assert_eq!(limit.pass(), Some(0));
        assert_eq!(limit.pass(), None);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(limit.pass(), Some(1), "the half that was left over counts");
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!((0..10).filter(|_| limit.pass().is_some()).count(), 3);
    }
}
