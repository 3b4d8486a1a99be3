//! Refusals just given to WebSocket requests, so that the `POST` kubectl tries next is told the same.
//!
//! kubectl repeats a refused exec as `POST` (SPDY) and shows only the second answer; "WebSocket only" would hide the first.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::refusal::Refusal;

/// How long a refusal is remembered; kubectl's second request follows at once.
const FOR: Duration = Duration::from_secs(5);
/// Refusals remembered; further ones are not.
const MAX: usize = 1024;

/// Refusals by session and request.
#[derive(Debug, Default)]
pub struct Recall {
    refusals: Mutex<HashMap<u64, (Instant, Refusal)>>,
    hasher: RandomState,
}

/// Which request of which session, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Recall {
    /// The key of a request: both attempts have the same path and query.
    #[must_use]
    pub fn key(&self, session: &str, uri: &http::Uri) -> Key {
        Key(self.hasher.hash_one((session, uri.path(), uri.query())))
    }

    /// Remembers what a request was told.
    pub fn remember(&self, key: Key, refusal: &Refusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if refusals.len() >= MAX {
            refusals.retain(|_, (until, _)| now < *until);
        }
        if refusals.len() < MAX {
            refusals.insert(key.0, (now + FOR, refusal.again()));
        }
    }

    /// What the request was told a moment ago, once.
    #[must_use]
    pub fn take(&self, key: Key) -> Option<Refusal> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, refusal) = refusals.remove(&key.0)?;
        (Instant::now() < until).then_some(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Kind;

    fn uri(text: &str) -> http::Uri {
        text.parse().expect("a URI")
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_request_of_the_same_session_is_told_the_same_once_and_soon() {
        let recall = Recall::default();
        let key = recall.key("a", &uri("/exec?command=sh"));
        recall.remember(
            key,
            &Refusal::new(Kind::UpstreamRefused, "container not found").with_code(500),
        );
        assert!(
            recall
                .take(recall.key("b", &uri("/exec?command=sh")))
                .is_none()
        );
        assert!(
            recall
                .take(recall.key("a", &uri("/exec?command=ls")))
                .is_none()
        );
        let again = recall
            .take(recall.key("a", &uri("/exec?command=sh")))
            .expect("remembered");
        assert_eq!((again.code(), again.public()), (500, "container not found"));
        assert!(recall.take(key).is_none());
        recall.remember(key, &again);
        tokio::time::advance(FOR).await;
        assert!(recall.take(key).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_holds_no_more_than_its_bound_and_forgets_what_is_over_first() {
        let recall = Recall::default();
        let refusal = Refusal::new(Kind::NotServed, "");
        for n in 0..2 * MAX {
            recall.remember(Key(n as u64), &refusal);
        }
        assert_eq!(recall.refusals.lock().expect("not poisoned").len(), MAX);
        tokio::time::advance(FOR).await;
        recall.remember(Key(u64::MAX), &refusal);
        assert_eq!(recall.refusals.lock().expect("not poisoned").len(), 1);
    }
}
