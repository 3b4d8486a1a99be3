//! Recordings that are being written, for those who follow them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use drawbridge_audit::recording::Opening;
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

/// Pieces a follower may be behind before it misses some: two seconds' worth at 20 a second.
const BEHIND: usize = 40;

/// Lines that are in the recording now.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The segment they are in.
    pub segment: u32,
    /// The chunk of that segment, from 0.
    pub chunk: u32,
    /// Whole lines of asciicast.
    pub lines: Arc<[u8]>,
}

/// Every recording that is being written here.
#[derive(Debug, Default)]
pub struct Lives {
    by_id: Mutex<HashMap<Uuid, Arc<Live>>>,
}

/// A recording that is being written.
///
/// A follower takes [`Live::pieces`] first, then reads the segments in [`Live::dir`] up to where they end, then the
/// pieces that come after what it has read. One that fell behind reads the files again.
#[derive(Debug)]
pub struct Live {
    /// Its facts.
    pub opening: Arc<Opening>,
    /// Where its segments are, closed ones and the open one.
    pub dir: PathBuf,
    /// Made for the first who follows: hardly anybody is.
    pieces: OnceLock<broadcast::Sender<Piece>>,
    joined: Notify,
}

/// Takes the recording from the list when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the followers"]
pub(crate) struct Listed {
    lives: Arc<Lives>,
    pub(crate) live: Arc<Live>,
}

impl Lives {
    /// The recording with this ID, if it is being written here.
    #[must_use]
    pub fn get(&self, id: Uuid) -> Option<Arc<Live>> {
        self.lock().get(&id).cloned()
    }

    /// Those of the session with this UID.
    #[must_use]
    pub fn of(&self, session: &str) -> Vec<Arc<Live>> {
        let lives = self.lock();
        lives
            .values()
            .filter(|live| live.opening.session.uid == session)
            .cloned()
            .collect()
    }

    /// Lists one.
    pub(crate) fn list(self: &Arc<Self>, opening: Arc<Opening>, dir: PathBuf) -> Listed {
        let id = opening.recording;
        let live = Arc::new(Live {
            opening,
            dir,
            pieces: OnceLock::new(),
            joined: Notify::new(),
        });
        self.lock().insert(id, Arc::clone(&live));
        Listed {
            lives: Arc::clone(self),
            live,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Live>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// What is written from now on, as it is written. While somebody follows, that is at most 50 ms after it was heard.
    #[must_use]
    pub fn pieces(&self) -> broadcast::Receiver<Piece> {
        let pieces = self.pieces.get_or_init(|| broadcast::Sender::new(BEHIND));
        let pieces = pieces.subscribe();
        self.joined.notify_one();
        pieces
    }

    /// Whether somebody follows.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.pieces
            .get()
            .is_some_and(|pieces| pieces.receiver_count() > 0)
    }

    /// Resolves when somebody begins to follow.
    pub(super) async fn joined(&self) {
        self.joined.notified().await;
    }

    /// Tells who follows. What nobody follows yet is in the files by now: whoever comes later reads it there.
    pub(crate) fn tell(&self, segment: u32, chunk: u32, lines: Vec<u8>) {
        if self.is_followed()
            && let Some(pieces) = self.pieces.get()
        {
            let piece = Piece {
                segment,
                chunk,
                lines: lines.into(),
            };
            let _ = pieces.send(piece); // they left
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.lives.lock().remove(&self.live.opening.recording);
    }
}
