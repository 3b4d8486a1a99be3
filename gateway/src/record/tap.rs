//! Between a bridge and its writer: one buffer with a bound.
//!
//! The bridge appends what it sends on, and never waits for a disk; the writer takes everything at once. A bridge that
//! finds no room stops reading, unless its session may go on without: then it counts what it leaves out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use drawbridge_audit::recording::Stream;
use drawbridge_protocol::frame;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes waiting for the writer from which on nothing more is read: two buffers of the bridge. What came of one read is
/// taken all the same, so there may be one more message than that.
const FULL: usize = 256 * 1024;

/// Bytes waiting for the writer that are worth waking it before its second is over.
const MUCH: usize = 64 * 1024;

/// Pieces of one stream that come within this time become one entry: they came with one read.
const TOGETHER: u64 = 200;

/// Bytes in front of every entry: its kind, when (µs), how many bytes follow.
const HEAD: usize = 1 + 8 + 4;

/// The bridge's end.
#[derive(Debug)]
pub struct Tap {
    shared: Arc<Shared>,
    begun: Instant,
    /// Whether the bridge must wait where there is no room.
    required: bool,
}

/// The writer's end.
#[derive(Debug)]
pub struct Tape {
    shared: Arc<Shared>,
}

/// Whether what is read now can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Yes, or it need not be.
    Now,
    /// Not yet; the task is woken.
    Later,
    /// No, and it must be.
    Never,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Tells the writer.
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// Where the last entry begins, and what it is.
    last: Option<(usize, Kind, u64)>,
    /// What was left out and not told yet.
    missed: [u64; STREAMS.len()],
    /// The bridge, to be told of room or of the end of the writer.
    waiting: Option<Waker>,
    /// There is no bridge any more.
    ended: bool,
    /// There is no writer any more.
    lost: bool,
}

const STREAMS: [Stream; 3] = [Stream::Stdin, Stream::Stdout, Stream::Stderr];

/// What an entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data(Stream),
    Resize,
    Missed(Stream),
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Data(stream) => stream as u8,
            Self::Resize => 3,
            Self::Missed(stream) => 4 + stream as u8,
        }
    }

    fn of(byte: u8) -> Self {
        match byte {
            3 => Self::Resize,
            0..3 => Self::Data(STREAMS[usize::from(byte)]),
            _ => Self::Missed(STREAMS[usize::from(byte - 4) % STREAMS.len()]),
        }
    }
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Bytes of a stream.
    Data(Stream, &'a [u8]),
    /// Columns and rows of the terminal.
    Resize(u16, u16),
    /// So many bytes of a stream were left out for want of room.
    Missed(Stream, u64),
}

/// What was heard since the writer last asked, in order.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Nothing follows.
    pub ended: bool,
}

/// Both ends of a buffer. Times count from `begun`; a `required` bridge waits where there is no room.
#[must_use]
pub fn tap(begun: Instant, required: bool) -> (Tap, Tape) {
    let shared = Arc::<Shared>::default();
    let tap = Tap {
        shared: Arc::clone(&shared),
        begun,
        required,
    };
    (tap, Tape { shared })
}

impl Tap {
    /// Whether there is room; where not, the task is woken when that changes.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Room {
        let mut state = self.shared.lock();
        match (self.required, state.lost) {
            (false, _) => Room::Now,
            (true, true) => Room::Never,
            (true, false) => {
                match &mut state.waiting {
                    Some(waker) => waker.clone_from(cx.waker()),
                    waiting => *waiting = Some(cx.waker().clone()),
                }
                if state.buffer.len() < FULL {
                    Room::Now
                } else {
                    Room::Later
                }
            }
        }
    }

    /// Hears bytes of a stream; `mask` is what they are masked with and their position in the payload.
    pub fn data(&mut self, stream: Stream, data: &[u8], mask: Option<([u8; 4], usize)>) {
        let at = self.micros();
        let mut state = self.shared.lock();
        if state.lost {
            return;
        }
        if !self.required && state.buffer.len() >= FULL {
            state.missed[stream as usize] += data.len() as u64;
            return;
        }
        let before = state.buffer.len();
        state.tell_missed(at);
        state.append(Kind::Data(stream), at, data);
        if let Some((key, offset)) = mask {
            let start = state.buffer.len() - data.len();
            frame::mask(&mut state.buffer[start..], key, offset);
        }
        self.announce(state, before);
    }

    /// Hears the size of the terminal.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        let at = self.micros();
        let mut state = self.shared.lock();
        if state.lost {
            return;
        }
        let before = state.buffer.len();
        let [a, b] = columns.to_le_bytes();
        let [c, d] = rows.to_le_bytes();
        state.append(Kind::Resize, at, &[a, b, c, d]);
        self.announce(state, before);
    }

    /// Wakes the writer when there is something after there was nothing, or enough to be worth it.
    fn announce(&self, state: MutexGuard<'_, State>, before: usize) {
        let after = state.buffer.len();
        drop(state);
        if before == 0 || (before < MUCH && after >= MUCH) {
            self.shared.news.notify_one();
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let at = self.micros();
        let mut state = self.shared.lock();
        if !state.lost {
            state.tell_missed(at);
        }
        state.ended = true;
        state.waiting = None;
        drop(state);
        self.shared.news.notify_one();
    }
}

impl Tape {
    /// Waits until something was heard that was not taken, or nothing follows.
    pub async fn something(&self) {
        self.until(|state| !state.buffer.is_empty() || state.ended)
            .await;
    }

    /// Waits until there is so much that it should be taken at once, or nothing follows.
    pub async fn much(&self) {
        self.until(|state| state.buffer.len() >= MUCH || state.ended)
            .await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            if reached(&self.shared.lock()) {
                return;
            }
            self.shared.news.notified().await;
        }
    }

    /// Everything heard since the last time. Makes room.
    #[must_use]
    pub fn take(&self) -> Batch {
        let mut state = self.shared.lock();
        // Its memory goes, too: most sessions are idle most of the time.
        let bytes = std::mem::take(&mut state.buffer);
        state.last = None;
        let waiting = (bytes.len() >= FULL)
            .then(|| state.waiting.take())
            .flatten();
        let ended = state.ended;
        drop(state);
        if let Some(waker) = waiting {
            waker.wake();
        }
        Batch { bytes, ended }
    }

    /// Nothing is written any more: a bridge that must be recorded ends, any other goes on unheard.
    pub fn lose(&self) {
        let mut state = self.shared.lock();
        state.lost = true;
        state.buffer = Vec::new();
        state.last = None;
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.lose();
    }
}

impl Batch {
    /// Whether nothing was heard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was heard, and when since the beginning.
    pub fn iter(&self) -> impl Iterator<Item = (Duration, Heard<'_>)> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (head, after) = rest.split_first_chunk::<HEAD>()?;
            let (at, len) = (number(&head[1..9]), number(&head[9..]));
            let (data, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
            rest = after;
            let entry = match Kind::of(head[0]) {
                Kind::Data(stream) => Heard::Data(stream, data),
                Kind::Missed(stream) => Heard::Missed(stream, number(data)),
                Kind::Resize => {
                    let &[a, b, c, d] = data else { return None };
                    Heard::Resize(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
                }
            };
            Some((Duration::from_micros(at), entry))
        })
    }
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the buffer whole, whatever panicked elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, kind: Kind, at: u64, data: &[u8]) {
        if let Some((start, last, since)) = self.last
            && last == kind
            && matches!(kind, Kind::Data(_))
            && at.saturating_sub(since) < TOGETHER
        {
            let len = &mut self.buffer[start + 9..start + HEAD];
            let joined = number(len) + data.len() as u64;
            if let Ok(joined) = u32::try_from(joined) {
                len.copy_from_slice(&joined.to_le_bytes());
                self.buffer.extend_from_slice(data);
                return;
            }
        }
        // A message has 4 MiB at the very most.
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.last = Some((self.buffer.len(), kind, at));
        self.buffer.push(kind.byte());
        self.buffer.extend_from_slice(&at.to_le_bytes());
        self.buffer.extend_from_slice(&len.to_le_bytes());
        self.buffer.extend_from_slice(data);
    }

    fn tell_missed(&mut self, at: u64) {
        if self.missed == [0; STREAMS.len()] {
            return;
        }
        for (stream, bytes) in STREAMS.into_iter().zip(std::mem::take(&mut self.missed)) {
            if bytes > 0 {
                self.append(Kind::Missed(stream), at, &bytes.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn heard(batch: &Batch) -> Vec<(u64, Heard<'_>)> {
        batch
            .iter()
            .map(|(at, heard)| (u64::try_from(at.as_millis()).expect("short"), heard))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn everything_comes_out_in_order_with_its_time_and_without_its_mask() {
        let (mut tap, tape) = tap(Instant::now(), true);
        let key = [7, 8, 9, 10];
        let mut masked = b"_ls\n".to_vec();
        frame::mask(&mut masked, key, 0);
        tap.data(Stream::Stdin, &masked[1..], Some((key, 1)));
        tap.data(Stream::Stdout, b"a", None);
        tap.data(Stream::Stdout, b"\0b", None);
        tokio::time::advance(Duration::from_millis(5)).await;
        tap.data(Stream::Stdout, b"c", None);
        tap.data(Stream::Stderr, b"d", None);
        tap.resize(300, 41);
        let batch = tape.take();
        assert_eq!(
            heard(&batch),
            [
                (0, Heard::Data(Stream::Stdin, b"ls\n")),
                (0, Heard::Data(Stream::Stdout, b"a\0b")),
                (5, Heard::Data(Stream::Stdout, b"c")),
                (5, Heard::Data(Stream::Stderr, b"d")),
                (5, Heard::Resize(300, 41)),
            ]
        );
        assert!(!batch.ended);
        drop(tap);
        tape.much().await;
        let last = tape.take();
        assert!(last.ended && last.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_bridge_that_must_be_recorded_waits_for_room_and_is_woken() {
        let (mut tap, tape) = tap(Instant::now(), true);
        let woken = Arc::<Woken>::default();
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        assert_eq!(tap.poll(&mut cx), Room::Now);
        tap.data(Stream::Stdout, &vec![b'x'; FULL], None);
        assert_eq!(tap.poll(&mut cx), Room::Later);
        assert!(!tape.take().is_empty());
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(tap.poll(&mut cx), Room::Now);
        drop(tape);
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert_eq!(tap.poll(&mut cx), Room::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bridge_that_need_not_be_recorded_goes_on_and_says_what_is_missing() {
        let (mut tap, tape) = tap(Instant::now(), false);
        let mut cx = Context::from_waker(Waker::noop());
        tap.data(Stream::Stdout, &vec![b'x'; FULL], None);
        assert_eq!(tap.poll(&mut cx), Room::Now);
        tap.data(Stream::Stdout, b"lost", None);
        tap.data(Stream::Stderr, b"too", None);
        let batch = tape.take();
        assert_eq!(heard(&batch).len(), 1);
        tap.data(Stream::Stdout, b"back", None);
        let batch = tape.take();
        assert_eq!(
            heard(&batch),
            [
                (0, Heard::Missed(Stream::Stdout, 4)),
                (0, Heard::Missed(Stream::Stderr, 3)),
                (0, Heard::Data(Stream::Stdout, b"back")),
            ]
        );
        tape.lose();
        tap.data(Stream::Stdout, b"unheard", None);
        assert_eq!(tap.poll(&mut cx), Room::Now);
        assert!(tape.take().is_empty());
    }
}
