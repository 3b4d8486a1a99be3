//! Readiness as a set of named conditions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Whether this process should be sent work: ready once every condition made by [`Ready::condition`] is met.
///
/// Clones share their state. Without any condition it is ready from the start.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    conditions: BTreeMap<&'static str, bool>,
    withdrawn: bool,
}

/// The switch of one named condition of a [`Ready`].
#[derive(Clone, Debug)]
pub struct Condition {
    ready: Ready,
    name: &'static str,
}

impl Ready {
    /// Adds a condition, not met yet. `name` is what `/readyz` prints while it is not, e.g. `watching sessions`.
    ///
    /// The same name twice is the same condition.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        self.lock().conditions.entry(name).or_insert(false);
        Condition {
            ready: self.clone(),
            name,
        }
    }

    /// Not ready from now on, for good: the first step of a graceful stop, so that no new work arrives.
    pub fn withdraw(&self) {
        self.lock().withdrawn = true;
    }

    /// Whether every condition is met and nobody has called [`Ready::withdraw`].
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// What is not met, in alphabetical order; `shutting down` comes first. Empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let state = self.lock();
        let unmet = state.conditions.iter().filter(|(_, met)| !**met);
        state
            .withdrawn
            .then_some("shutting down")
            .into_iter()
            .chain(unmet.map(|(name, _)| *name))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every critical section is one assignment or read: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// The condition holds.
    pub fn met(&self) {
        self.set(true);
    }

    /// The condition does not hold (any more).
    pub fn unmet(&self) {
        self.set(false);
    }

    fn set(&self, met: bool) {
        self.ready.lock().conditions.insert(self.name, met);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_only_while_every_condition_is_met() {
        let ready = Ready::default();
        assert!(ready.is_ready(), "nothing to wait for");
        let (sessions, lease) = (ready.condition("sessions"), ready.condition("lease"));
        assert_eq!(ready.missing(), ["lease", "sessions"]);
        sessions.met();
        assert_eq!(ready.missing(), ["lease"]);
        lease.met();
        assert!(ready.is_ready());
        sessions.unmet();
        assert_eq!(ready.missing(), ["sessions"]);
    }

    #[test]
    fn a_withdrawn_process_never_becomes_ready_again() {
        let ready = Ready::default();
        let condition = ready.condition("sessions");
        ready.withdraw();
        condition.met();
        assert_eq!(ready.missing(), ["shutting down"]);
    }
}
