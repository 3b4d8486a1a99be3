//! Measured durations and what is told of them.

use std::time::Duration;

use crate::note;

/// Durations of one thing done several times.
#[derive(Clone, Debug, Default)]
pub struct Timings(Vec<Duration>);

impl Timings {
    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value half of them do not exceed; zero when there are none.
    #[must_use]
    pub fn p50(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted
            .get(sorted.len().saturating_sub(1) / 2)
            .copied()
            .unwrap_or_default()
    }

    /// The longest; zero when there are none.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    /// Prints p50 and maximum, and fails when the maximum is over `bound` or there is no sample.
    ///
    /// # Panics
    /// In those cases.
    pub fn must_stay_within(&self, what: &str, bound: Duration) {
        let (p50, max) = (self.p50(), self.max());
        note(format!(
            "{what}: p50 {p50:.1?}, max {max:.1?} of {} (bound {bound:?})",
            self.len()
        ));
        assert!(!self.is_empty(), "{what}: nothing was measured");
        assert!(
            max <= bound,
            "{what}: {max:?} is over {bound:?}; all: {:?}",
            self.0
        );
    }
}

impl Extend<Duration> for Timings {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl FromIterator<Duration> for Timings {
    fn from_iter<I: IntoIterator<Item = Duration>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_samples_do_not_exceed_the_p50() {
        let timings: Timings = [5, 1, 4, 2].into_iter().map(Duration::from_secs).collect();
        assert_eq!((timings.p50().as_secs(), timings.max().as_secs()), (2, 5));
        assert_eq!(Timings::default().max(), Duration::ZERO);
    }
}
