//! Bridges one client WebSocket to one exec WebSocket.
//!
//! ```text
//!            ┌─ from_client: Walker ─► Input  ─► to_upstream ─┐
//!   client ──┤                                                ├── upstream (API server or kubelet)
//!            └─ to_client ◄─ Output ◄─ from_upstream: Walker ─┘
//!                              stop, notices, one timer
//! ```
//!
//! One task polls both directions. A frame that may pass is written from the thread's read buffer as it is; whatever
//! must change goes through `Input` or `Output` of the protocol crate. A direction reads only while the peer it
//! writes to has taken everything, so TCP carries back-pressure and a session holds at most what came of one chunk
//! each way. Nothing here knows about tokens, sessions or Kubernetes.

mod end;
mod heard;
mod outbound;
mod relay;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use drawbridge_crds::v1alpha1::EndReason;
use drawbridge_protocol::subprotocol::Subprotocol;
use drawbridge_protocol::transcode::{Outcome, Streams};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::sleep_until;

use self::relay::{End, Relay};
use crate::record::Tap;

/// One side of the bridge, after its handshake.
#[derive(Debug)]
pub struct Leg<S> {
    /// The stream.
    pub io: S,
    /// What was received behind the handshake.
    pub read: Bytes,
    /// What was negotiated.
    pub subprotocol: Subprotocol,
}

/// What one connection may do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The streams the client asked for.
    pub streams: Streams,
    /// The connection ends when no byte of data went either way for this long.
    pub idle: Duration,
    /// Whether the end of the connection should end the process: a terminal gets Ctrl-D, stdin its end. True for
    /// exec; false for attach, whose process belongs to the pod.
    pub hang_up: bool,
    /// The limits of every connection.
    pub limits: Limits,
}

/// Limits and intervals that do not depend on the session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How often each side is pinged, and a client whose stdin is blocked gets an unsolicited pong. Default 15 s:
    /// load balancers commonly cut after 60 s of silence, kubectl after 61 s without a pong.
    pub ping: Duration,
    /// A client that sent no frame of any kind for this long is gone. Default 60 s: it missed four pings.
    pub silence: Duration,
    /// A client that takes nothing for this long, while there is something for it, is cut. Default 10 min.
    pub stall: Duration,
    /// How often an empty message resets the API server's and the runtime's idle timer (4 h), which pings do not.
    /// Default 30 min.
    pub nudge: Duration,
    /// How long a connection that must be recorded waits for its recorder before it ends. Default 5 s.
    pub record: Duration,
    /// How long an ending connection waits for the last writes, and for the peer's Close. Default 5 s.
    pub close_grace: Duration,
    /// The least time between two resizes sent upstream. Default 50 ms.
    pub resize: Duration,
    /// The longest message that is put together, in bytes. Default 4 MiB; the servers' own limit is 32 MiB.
    pub max_message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(15),
            silence: Duration::from_mins(1),
            stall: Duration::from_mins(10),
            nudge: Duration::from_mins(30),
            record: Duration::from_secs(5),
            close_grace: Duration::from_secs(5),
            resize: Duration::from_millis(50),
            max_message: 4 << 20,
        }
    }
}

/// Why the gateway cuts a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// `expiresAt` passed.
    Expired,
    /// `spec.revoked` was set.
    Revoked,
    /// The session was deleted.
    SessionDeleted,
    /// The operator ended the session.
    SessionEnded(EndReason),
    /// The gateway stops.
    Draining,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The far side ended it, with a status or, for old subprotocols, in good order without one.
    ByPod,
    /// The client sent a Close frame.
    ByClient,
    /// The client's connection broke, or it fell silent.
    ClientLost,
    /// The far side's connection broke, or ended without a status.
    UpstreamLost,
    /// No data for the session's `idleTimeout`.
    Idle,
    /// The client took nothing for too long.
    Stalled,
    /// The client broke the protocol.
    Violation,
    /// It must be recorded, and the recorder failed or fell behind for [`Limits::record`].
    Unrecorded,
    /// The gateway cut it.
    Stopped(Stop),
}

/// How a connection ended and what went through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why it ended.
    pub closed: Closed,
    /// What the far side said about the process, if it said anything.
    pub outcome: Option<Outcome>,
    /// What went through it.
    pub tally: Tally,
}

/// What went through a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of stdin, decoded.
    pub bytes_in: u64,
    /// Bytes of stdout and stderr, decoded.
    pub bytes_out: u64,
    /// Client messages that were dropped because they mean nothing: unknown channels, bad base64 and the like.
    pub dropped: u64,
}

/// Runs until either side hangs up, a limit is reached or `stop` resolves, then closes both sides in good order.
///
/// `tap` hears every byte of data before it is sent on, decoded, and every resize.
///
/// `notices` carries a line for the user (how long a draining gateway will wait); the latest counts.
///
/// # Guarantees
/// - No byte passes in either direction once `stop` resolved.
/// - No byte of data passes that `tap` did not hear; while it has no room, nothing is read.
/// - A client is told a status before Close 1000, and never an invented success; only a client that is inside a
///   frame of more than 48 KiB, or takes nothing for [`Limits::close_grace`], is cut without.
pub async fn bridge<C, U>(
    client: Leg<C>,
    upstream: Leg<U>,
    settings: Settings,
    tap: Option<Tap>,
    stop: impl Future<Output = Stop>,
    mut notices: watch::Receiver<Option<Arc<str>>>,
) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut stop = pin!(stop);
    let mut relay = Relay::new(client, upstream, &settings, tap);
    let mut timer = pin!(sleep_until(relay.deadline()));
    let mut listening = true;
    notices.mark_changed();
    let end = loop {
        let event = {
            let mut notice = pin!(notices.changed());
            poll_fn(|cx| {
                // First: a cut must beat the bytes that are ready in the same moment.
                if let Poll::Ready(stop) = stop.as_mut().poll(cx) {
                    return Poll::Ready(Event::End(End::Stopped(stop)));
                }
                if listening && let Poll::Ready(changed) = notice.as_mut().poll(cx) {
                    return Poll::Ready(Event::Notice(changed.is_ok()));
                }
                relay.poll(cx, timer.as_mut()).map(Event::End)
            })
            .await
        };
        match event {
            Event::End(end) => break end,
            Event::Notice(open) => listening = open,
        }
        if listening && let Some(text) = &*notices.borrow_and_update() {
            relay.notice(text.clone());
        }
    };
    // In a box, for it comes but once, and all that bridges keep in memory until then counts.
    Box::pin(end::finish(relay, end, &settings, stop)).await
}

enum Event {
    End(End),
    /// The notice changed, or (`false`) will never change again.
    Notice(bool),
}
