//! Connections that have not shown a valid credential, bounded: when it is full, whoever waited longest is shown out.
//!
//! A peer with a credential needs a few milliseconds here. Making room by dropping the *oldest* therefore keeps the door
//! open for those while somebody else opens connections and says nothing; refusing the newest would shut it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Where connections wait until they have shown a credential, and between two requests.
#[derive(Debug)]
pub struct Lobby {
    inner: Mutex<Inner>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the order of arrival.
    waiting: BTreeMap<u64, CancellationToken>,
    next: u64,
}

/// One connection's place. Dropping it gives it up.
#[derive(Debug)]
pub struct Place {
    lobby: Arc<Lobby>,
    /// Its number while it waits.
    number: Mutex<Option<u64>>,
    shown_out: CancellationToken,
}

impl Lobby {
    /// Room for `capacity` connections, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            inner: Mutex::default(),
            capacity: capacity.max(1),
        }
    }

    /// A place for a new connection, waiting from now on.
    #[must_use]
    pub fn place(self: &Arc<Self>) -> Place {
        let place = Place {
            lobby: Arc::clone(self),
            number: Mutex::new(None),
            shown_out: CancellationToken::new(),
        };
        place.enter();
        place
    }

    /// Connections waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits (again): the connection awaits its next request.
    pub fn enter(&self) {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        if number.is_some() {
            return;
        }
        let mut inner = self.lobby.lock();
        let oldest = if inner.waiting.len() >= self.lobby.capacity {
            inner.waiting.pop_first()
        } else {
            None
        };
        inner.next += 1;
        let own = inner.next;
        inner.waiting.insert(own, self.shown_out.clone());
        drop(inner);
        *number = Some(own);
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
    }

    /// No longer waits: the connection has shown a credential and is being served.
    pub fn leave(&self) {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = number.take() {
            self.lobby.lock().waiting.remove(&number);
        }
    }

    /// Resolves when the connection must make room.
    pub async fn shown_out(&self) {
        self.shown_out.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_who_waited_longest_makes_room() {
        let lobby = Arc::new(Lobby::new(2));
        let (first, second, third) = (lobby.place(), lobby.place(), lobby.place());
        assert!(first.shown_out.is_cancelled());
        assert!(!second.shown_out.is_cancelled() && !third.shown_out.is_cancelled());
        assert_eq!(lobby.len(), 2);
    }

    #[test]
    fn who_is_being_served_is_never_shown_out_until_it_waits_again() {
        let lobby = Arc::new(Lobby::new(1));
        let served = lobby.place();
        served.leave();
        let other = lobby.place();
        assert!(!served.shown_out.is_cancelled());
        served.enter();
        assert!(other.shown_out.is_cancelled());
        drop((served, other));
        assert!(lobby.is_empty());
    }
}
