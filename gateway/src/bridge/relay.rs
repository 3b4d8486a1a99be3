//! The two directions of a bridge, polled in one task.

use std::cell::RefCell;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use drawbridge_protocol::frame::{Opcode, Sender, Violation, close_code};
use drawbridge_protocol::resize::Size;
use drawbridge_protocol::transcode::{Input, Output, Taken, UpstreamEnd};
use drawbridge_protocol::walker::{MAX_TAIL, Payload, Step, Walker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::heard::{Heard, Passing};
use super::outbound::Outbound;
use super::{Leg, Limits, Settings, Stop, Tally};
use crate::record::{Room, Tap};

/// Bytes of the read buffer each thread shares among its sessions: one whole frame of any known server, twice.
const SCRATCH: usize = 128 * 1024;
const _: () = assert!(SCRATCH > MAX_TAIL);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// What ended the relay.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Upstream(UpstreamEnd),
    ClientClosed(u16),
    ClientLost,
    Violation(Violation),
    Idle,
    Stalled,
    /// There is no recording of what would come next, and there must be one.
    Unrecorded,
    Stopped(Stop),
}

/// Both sides of a bridge and what is on its way between them.
pub(super) struct Relay<C, U> {
    pub(super) client: C,
    pub(super) upstream: U,
    pub(super) to_client: Outbound,
    pub(super) to_upstream: Outbound,
    from_client: Inbound,
    from_upstream: Inbound,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) tally: Tally,
    /// Who keeps the record, if anybody does.
    pub(super) tap: Option<Tap>,
    /// Whether a write to the far side failed.
    deaf: bool,
    due: Due,
    clock: Clock,
}

/// What was received from one peer and not used yet.
struct Inbound {
    walker: Walker,
    /// The frame that passes, for the record.
    passing: Passing,
    /// Bytes that came with the handshake.
    early: Bytes,
    /// The beginning of a frame. Freed as soon as the rest came.
    tail: Vec<u8>,
    /// The payload of the latest ping that was not answered. A peer that floods gets one answer per chunk
    /// (RFC 6455, section 5.5.3, allows to answer only the latest).
    ping: Option<Vec<u8>>,
}

/// Adds `bytes` to the run in front of them, or begins a new run with them and returns the old one.
fn join(run: &mut Range<usize>, bytes: Range<usize>) -> Range<usize> {
    if run.end == bytes.start {
        run.end = bytes.end;
        return 0..0;
    }
    std::mem::replace(run, bytes)
}

/// Bytes of data in a frame that passes, or in a piece of one: its payload without the channel, which comes first.
fn data_bytes(bytes: &Range<usize>, payload: usize) -> u64 {
    let begins = bytes.len() > payload;
    payload as u64 - u64::from(begins)
}

/// What is owed to the peers besides what came from the other side.
#[derive(Default)]
struct Due {
    /// Empty frames to write; replaced, not added to, at each ping.
    client: Vec<Opcode>,
    upstream: Vec<Opcode>,
    notice: Option<Arc<str>>,
    size: Option<Size>,
}

/// When what happened last.
struct Clock {
    limits: Limits,
    idle: Duration,
    /// The last byte of data in either direction.
    data: Instant,
    /// The last frame of any kind from the client, or the last moment we did not listen.
    heard: Instant,
    pinged: Instant,
    /// The last data message to the far side.
    nudged: Instant,
    /// Since when the client takes nothing although there is something for it.
    blocked: Option<Instant>,
    /// Since when nothing is read because the record cannot follow.
    unrecorded: Option<Instant>,
    /// When the last resize was sent.
    resized: Option<Instant>,
    /// When the far side said how the process ended, or stopped taking anything: it should close now.
    status: Option<Instant>,
}

impl Inbound {
    fn new(from: Sender, early: Bytes, max_message: usize) -> Self {
        Self {
            walker: Walker::new(from, max_message),
            passing: Passing::default(),
            early,
            tail: Vec::new(),
            ping: None,
        }
    }

    /// Puts the beginning of a frame back in front of the buffer.
    fn resume(&mut self, buffer: &mut [u8]) -> usize {
        let tail = std::mem::take(&mut self.tail);
        buffer[..tail.len()].copy_from_slice(&tail);
        tail.len()
    }

    fn keep(&mut self, tail: &[u8]) {
        if !tail.is_empty() {
            self.tail = tail.to_vec();
        }
    }

    /// Reads into `buffer`: how many bytes, 0 at the end of the stream.
    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        if !self.early.is_empty() {
            let len = self.early.len().min(buffer.len());
            self.early.copy_to_slice(&mut buffer[..len]);
            return Poll::Ready(Ok(len));
        }
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(io)
            .poll_read(cx, &mut buffer)
            .map_ok(|()| buffer.filled().len())
    }
}

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(
        client: Leg<C>,
        upstream: Leg<U>,
        settings: &Settings,
        tap: Option<Tap>,
    ) -> Self {
        let (ours, theirs, streams) = (client.subprotocol, upstream.subprotocol, settings.streams);
        let now = Instant::now();
        Self {
            from_client: Inbound::new(Sender::Client, client.read, settings.limits.max_message),
            from_upstream: Inbound::new(Sender::Server, upstream.read, settings.limits.max_message),
            client: client.io,
            upstream: upstream.io,
            to_client: Outbound::to_client(),
            to_upstream: Outbound::to_upstream(),
            input: Input::new(ours, theirs, streams),
            output: Output::new(ours, theirs, streams),
            tally: Tally::default(),
            tap,
            deaf: false,
            due: Due::default(),
            clock: Clock {
                limits: settings.limits,
                idle: settings.idle,
                data: now,
                heard: now,
                pinged: now,
                nudged: now,
                blocked: None,
                unrecorded: None,
                resized: None,
                status: None,
            },
        }
    }

    /// Tells the user `text` as soon as a frame can be written.
    pub(super) fn notice(&mut self, text: Arc<str>) {
        self.due.notice = Some(text);
    }

    /// Whether a frame can follow what was passed to the client.
    pub(super) fn client_at_boundary(&self) -> bool {
        self.from_upstream.walker.at_boundary()
    }

    /// Whether a frame can follow what was passed upstream.
    pub(super) fn upstream_at_boundary(&self) -> bool {
        self.from_client.walker.at_boundary()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<End> {
        loop {
            if self.room(cx) == Room::Never {
                return Poll::Ready(End::Unrecorded);
            }
            let end = BUFFER.with_borrow_mut(|buffer| {
                // The pod first: its status, if it is already here, says more than a client that hung up.
                let out = self.pod_to_client(cx, buffer);
                out.or_else(|| self.client_to_pod(cx, buffer))
                    .or_else(|| self.answer_client(cx))
            });
            if let Some(end) = end {
                return Poll::Ready(end);
            }
            self.note_blocked();
            let deadline = self.deadline();
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(end) = self.tick() {
                return Poll::Ready(end);
            }
            timer.as_mut().reset(self.deadline());
        }
    }

    fn pod_to_client(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Option<End> {
        let mut filled = self.from_upstream.resume(buffer);
        let end = loop {
            match self.to_client.poll_flush(&mut self.client, cx) {
                Poll::Pending => break None,
                Poll::Ready(Err(_)) => break Some(End::ClientLost),
                Poll::Ready(Ok(())) if self.tell_client() => continue,
                Poll::Ready(Ok(())) => {}
            }
            if self.room(cx) != Room::Now {
                break None;
            }
            match self
                .from_upstream
                .poll_read(&mut self.upstream, cx, &mut buffer[filled..])
            {
                Poll::Pending => break None,
                Poll::Ready(Ok(0) | Err(_)) => break Some(End::Upstream(UpstreamEnd::Lost)),
                Poll::Ready(Ok(read)) => filled += read,
            }
            match self.walk_upstream(cx, &mut buffer[..filled]) {
                Ok(used) => {
                    buffer.copy_within(used..filled, 0);
                    filled -= used;
                }
                Err(end) => break Some(end),
            }
        };
        self.from_upstream.keep(&buffer[..filled]);
        end
    }

    fn client_to_pod(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Option<End> {
        if self.deaf {
            return None;
        }
        let mut filled = self.from_client.resume(buffer);
        let end = loop {
            match self.to_upstream.poll_flush(&mut self.upstream, cx) {
                Poll::Pending => break None,
                Poll::Ready(Err(_)) => break self.upstream_is_deaf(),
                Poll::Ready(Ok(())) if self.tell_upstream() => continue,
                Poll::Ready(Ok(())) => {}
            }
            if self.room(cx) != Room::Now {
                // Nobody listens, so silence proves nothing.
                self.clock.heard = Instant::now();
                break None;
            }
            match self
                .from_client
                .poll_read(&mut self.client, cx, &mut buffer[filled..])
            {
                Poll::Pending => break None,
                Poll::Ready(Ok(0) | Err(_)) => break Some(End::ClientLost),
                Poll::Ready(Ok(read)) => filled += read,
            }
            self.clock.heard = Instant::now();
            match self.walk_client(cx, &mut buffer[..filled]) {
                Ok(used) => {
                    buffer.copy_within(used..filled, 0);
                    filled -= used;
                }
                Err(End::Upstream(_)) => break self.upstream_is_deaf(),
                Err(end) => break Some(end),
            }
        };
        self.from_client.keep(&buffer[..filled]);
        end
    }

    /// The far side takes nothing any more. What it said before, the status above all, is still to be read: the other
    /// direction goes on until it finds the end, or the grace is over.
    fn upstream_is_deaf(&mut self) -> Option<End> {
        self.deaf = true;
        self.to_upstream = Outbound::to_upstream();
        self.clock.status.get_or_insert_with(Instant::now);
        None
    }

    /// Whether what is read now can be recorded. Bytes are read only then, so none passes that is not on record.
    fn room(&mut self, cx: &mut Context<'_>) -> Room {
        let room = self.tap.as_mut().map_or(Room::Now, |tap| tap.poll(cx));
        match room {
            Room::Now => self.clock.unrecorded = None,
            Room::Later | Room::Never => {
                self.clock.unrecorded.get_or_insert_with(Instant::now);
            }
        }
        room
    }

    /// Writes what reading from the client made due to the client itself.
    fn answer_client(&mut self, cx: &mut Context<'_>) -> Option<End> {
        loop {
            match self.to_client.poll_flush(&mut self.client, cx) {
                Poll::Ready(Ok(())) if self.tell_client() => {}
                Poll::Ready(Err(_)) => return Some(End::ClientLost),
                Poll::Ready(Ok(())) | Poll::Pending => return None,
            }
        }
    }

    /// Sends on what lies in `chunk` and returns how much of it was used.
    fn walk_upstream(&mut self, cx: &mut Context<'_>, chunk: &mut [u8]) -> Result<usize, End> {
        let (mut at, mut run) = (0, 0..0);
        let before = self.tally.bytes_out;
        let walked = loop {
            let output = &self.output;
            let step = self
                .from_upstream
                .walker
                .step(chunk, &mut at, |channel, len| output.passes(channel, len));
            if let Ok(Step::Pass { bytes, payload }) = step {
                self.tally.bytes_out += data_bytes(&bytes, payload);
                if let Some(tap) = &mut self.tap {
                    self.from_upstream
                        .passing
                        .hear(&chunk[bytes.clone()], payload, false, tap);
                }
                self.put_client(cx, &chunk[join(&mut run, bytes)])?;
                continue;
            }
            self.put_client(cx, &chunk[std::mem::take(&mut run)])?;
            match step {
                Ok(Step::Message { payload, .. }) => {
                    let payload = match payload {
                        Payload::InChunk(range) => &chunk[range],
                        Payload::Assembled => self.from_upstream.walker.assembled(),
                    };
                    let mut to = Heard::new(&mut self.to_client, self.tap.as_mut());
                    self.tally.bytes_out += self.output.message(payload, &mut to) as u64;
                    self.from_upstream.walker.release();
                    if self.output.has_status() && self.clock.status.is_none() {
                        self.clock.status = Some(Instant::now());
                    }
                }
                Ok(Step::Control {
                    opcode: Opcode::Close,
                    payload,
                }) => {
                    let code = close_code(&chunk[payload]).unwrap_or(1002);
                    break Err(End::Upstream(UpstreamEnd::Closed(code)));
                }
                Ok(Step::Control {
                    opcode: Opcode::Ping,
                    payload,
                }) => {
                    self.from_upstream.ping = Some(chunk[payload].to_vec());
                }
                Ok(Step::Control { .. } | Step::Pass { .. }) => {}
                Ok(Step::More) => break Ok(at),
                // A far side that breaks the protocol is as good as lost: no later byte of it can be trusted.
                Err(_) => break Err(End::Upstream(UpstreamEnd::Lost)),
            }
        };
        if self.tally.bytes_out != before {
            self.clock.data = Instant::now();
        }
        walked
    }

    fn walk_client(&mut self, cx: &mut Context<'_>, chunk: &mut [u8]) -> Result<usize, End> {
        let (mut at, mut run) = (0, 0..0);
        let before = self.tally.bytes_in;
        let walked = loop {
            let input = &self.input;
            let step = self
                .from_client
                .walker
                .step(chunk, &mut at, |channel, len| input.passes(channel, len));
            if let Ok(Step::Pass { bytes, payload }) = step {
                self.tally.bytes_in += data_bytes(&bytes, payload);
                if let Some(tap) = &mut self.tap {
                    self.from_client
                        .passing
                        .hear(&chunk[bytes.clone()], payload, true, tap);
                }
                self.put_upstream(cx, &chunk[join(&mut run, bytes)])?;
                continue;
            }
            self.put_upstream(cx, &chunk[std::mem::take(&mut run)])?;
            match step {
                Ok(Step::Message { payload, .. }) => {
                    let payload = match payload {
                        Payload::InChunk(range) => &chunk[range],
                        Payload::Assembled => self.from_client.walker.assembled(),
                    };
                    let mut to = Heard::new(&mut self.to_upstream, self.tap.as_mut());
                    match self.input.message(payload, &mut to) {
                        Ok(Taken::Stdin(bytes)) => self.tally.bytes_in += bytes as u64,
                        Ok(Taken::StdinEnd | Taken::Resize | Taken::Nothing) => {}
                        Err(violation) => break Err(End::Violation(violation)),
                    }
                    self.from_client.walker.release();
                    self.due.size = self.input.take_resize().or(self.due.size);
                }
                Ok(Step::Control {
                    opcode: Opcode::Close,
                    payload,
                }) => {
                    break Err(
                        close_code(&chunk[payload]).map_or_else(End::Violation, End::ClientClosed)
                    );
                }
                Ok(Step::Control {
                    opcode: Opcode::Ping,
                    payload,
                }) => {
                    self.from_client.ping = Some(chunk[payload].to_vec());
                }
                Ok(Step::Control { .. } | Step::Pass { .. }) => {}
                Ok(Step::More) => break Ok(at),
                Err(violation) => break Err(End::Violation(violation)),
            }
        };
        if self.tally.bytes_in != before {
            self.clock.data = self.clock.heard;
            self.clock.nudged = self.clock.heard;
        }
        walked
    }

    fn put_client(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), End> {
        let put = self.to_client.put(&mut self.client, cx, bytes);
        put.map_err(|_| End::ClientLost)
    }

    fn put_upstream(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), End> {
        let put = self.to_upstream.put(&mut self.upstream, cx, bytes);
        put.map_err(|_| End::Upstream(UpstreamEnd::Lost))
    }

    /// Writes what is owed to the client, if a frame can be written now: whether there was anything.
    fn tell_client(&mut self) -> bool {
        if !self.from_upstream.walker.at_boundary() {
            return false;
        }
        if let Some(payload) = self.from_client.ping.take() {
            self.to_client.control(Opcode::Pong, &payload);
        }
        for opcode in std::mem::take(&mut self.due.client) {
            self.to_client.control(opcode, &[]);
        }
        if let Some(text) = self.due.notice.take() {
            // The user sees it, so it is on record, too.
            let mut to = Heard::new(&mut self.to_client, self.tap.as_mut());
            self.output.notice(&text, &mut to);
        }
        !self.to_client.is_empty()
    }

    /// Writes what is owed to the far side, if a frame can be written now: whether there was anything.
    fn tell_upstream(&mut self) -> bool {
        if !self.from_client.walker.at_boundary() {
            return false;
        }
        if let Some(payload) = self.from_upstream.ping.take() {
            self.to_upstream.control(Opcode::Pong, &payload);
        }
        for opcode in std::mem::take(&mut self.due.upstream) {
            self.to_upstream.control(opcode, &[]);
        }
        if let Some(size) = self.due.size
            && self
                .clock
                .resized
                .is_none_or(|last| last.elapsed() >= self.clock.limits.resize)
        {
            self.due.size = None;
            self.clock.resized = Some(Instant::now());
            self.input.encode_resize(size, &mut self.to_upstream);
            if let Some(tap) = &mut self.tap {
                tap.resize(size.width(), size.height());
            }
        }
        !self.to_upstream.is_empty()
    }

    fn note_blocked(&mut self) {
        if self.to_client.is_empty() {
            self.clock.blocked = None;
        } else if self.clock.blocked.is_none() {
            self.clock.blocked = Some(Instant::now());
        }
    }

    /// Whether the client is not being read because the far side takes nothing.
    fn stdin_blocked(&self) -> bool {
        !self.to_upstream.is_empty()
    }

    /// When [`Relay::tick`] has something to do, at the latest.
    pub(super) fn deadline(&self) -> Instant {
        let Clock {
            limits,
            idle,
            data,
            heard,
            pinged,
            nudged,
            blocked,
            unrecorded,
            resized,
            status,
        } = &self.clock;
        let soonest = (*data + *idle)
            .min(*pinged + limits.ping)
            .min(*nudged + limits.nudge);
        let others = [
            (!self.stdin_blocked()).then_some(*heard + limits.silence),
            blocked.map(|since| since + limits.stall),
            unrecorded.map(|since| since + limits.record),
            status.map(|since| since.max(*data) + limits.close_grace),
            self.due.size.and(*resized).map(|last| last + limits.resize),
        ];
        others.into_iter().flatten().fold(soonest, Instant::min)
    }

    /// Notes what has come due; `Some` when the connection has outlived a limit.
    fn tick(&mut self) -> Option<End> {
        let now = Instant::now();
        let stdin_blocked = self.stdin_blocked();
        let Clock {
            limits,
            idle,
            data,
            heard,
            pinged,
            nudged,
            blocked,
            unrecorded,
            status,
            ..
        } = &mut self.clock;
        if unrecorded.is_some_and(|since| now >= since + limits.record) {
            return Some(End::Unrecorded);
        }
        if now >= *data + *idle {
            return Some(End::Idle);
        }
        if blocked.is_some_and(|since| now >= since + limits.stall) {
            return Some(End::Stalled);
        }
        if let Some(since) = status
            && now >= (*since).max(*data) + limits.close_grace
        {
            if blocked.is_none() {
                return Some(End::Upstream(UpstreamEnd::Lost));
            }
            // The client is slow: what the far side still has for it has not been asked for.
            *since = now;
        }
        if stdin_blocked {
            // Nobody listened, so silence proves nothing.
            *heard = now;
        } else if now >= *heard + limits.silence {
            return Some(End::ClientLost);
        }
        if now >= *pinged + limits.ping {
            *pinged = now;
            // Our own ping asks the client for a frame; kubectl in turn needs a pong, and its pings wait behind the
            // stdin that nobody takes.
            self.due.client = if stdin_blocked {
                vec![Opcode::Ping, Opcode::Pong]
            } else {
                vec![Opcode::Ping]
            };
            self.due.upstream = vec![Opcode::Ping];
        }
        if now >= *nudged + limits.nudge {
            *nudged = now;
            self.due.upstream.push(Opcode::Binary);
        }
        None
    }
}
