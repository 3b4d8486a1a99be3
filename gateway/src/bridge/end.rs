//! The last frames of a bridge, to each side what it is owed.

use std::future::{Future, poll_fn};
use std::io;

use drawbridge_crds::v1alpha1::EndReason;
use drawbridge_protocol::frame::{Opcode, close_payload};
use drawbridge_protocol::status::{Reason, Status};
use drawbridge_protocol::transcode::{Outcome, UpstreamEnd};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::outbound::Outbound;
use super::relay::{End, Relay};
use super::{Closed, Ended, Settings, Stop};

/// Bytes read at once while waiting for a peer's Close. What is read is not looked at.
const DISCARD: usize = 4096;

/// Tells both sides that it is over and closes them. Takes three times [`super::Limits::close_grace`] at most, or
/// [`super::Limits::stall`] when a pod's last output waits for a slow client; a cut ends that wait too.
pub(super) async fn finish<C, U>(
    mut relay: Relay<C, U>,
    end: End,
    settings: &Settings,
    stop: impl Future<Output = Stop>,
) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let outcome = say_to_client(&mut relay, end);
    let patience = match end {
        End::Upstream(_) => settings.limits.stall,
        _ => settings.limits.close_grace,
    };
    let linger = say_to_upstream(&mut relay, end, settings);
    // Nothing more passes: the record ends here, not when the last socket is closed.
    relay.tap = None;
    let tally = super::Tally {
        dropped: relay.input.dropped(),
        ..relay.tally
    };

    let grace = settings.limits.close_grace;
    let Relay {
        mut client,
        mut upstream,
        mut to_client,
        mut to_upstream,
        ..
    } = relay;
    let client_side = async {
        let written = timeout(patience, flush(&mut client, &mut to_client));
        tokio::select! {
            biased;
            written = written => if !matches!(written, Ok(Ok(()))) { return None },
            // The pod ended, and its last output is still under way to a slow client: access ends all the same.
            stop = stop, if matches!(end, End::Upstream(_)) => return Some(stop),
        }
        // Closing at once could destroy what the client has not read yet: the kernel answers late bytes with a reset.
        let _ = timeout(grace, close(&mut client)).await;
        None
    };
    let upstream_side = async {
        if !matches!(
            timeout(grace, flush(&mut upstream, &mut to_upstream)).await,
            Ok(Ok(()))
        ) {
            return;
        }
        if linger {
            // The process was told that its input ended; closing now would take away its time to act on it.
            let _ = timeout(grace, discard(&mut upstream)).await;
            to_upstream.control(Opcode::Close, &close_payload(1000, ""));
            let _ = timeout(grace, flush(&mut upstream, &mut to_upstream)).await;
        }
        let _ = timeout(grace, upstream.shutdown()).await;
    };
    let (cut, ()) = tokio::join!(client_side, upstream_side);
    Ended {
        closed: cut.map_or(closed(end, outcome.as_ref()), Closed::Stopped),
        outcome,
        tally,
    }
}

/// Queues the client's last frames.
fn say_to_client<C, U>(relay: &mut Relay<C, U>, end: End) -> Option<Outcome>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    if !relay.client_at_boundary() {
        // Inside a frame: anything written now would become part of the pod's output. The broken connection tells.
        return None;
    }
    let (outcome, code, reason) = match end {
        End::Upstream(end) => (
            Some(relay.output.finish(end, &mut relay.to_client)),
            1000,
            "",
        ),
        End::ClientLost => return None,
        // RFC 6455, section 5.5.1: echo the code. 1005 says that there was none.
        End::ClientClosed(code) => (None, if code == 1005 { 1000 } else { code }, ""),
        End::Violation(violation) => (None, violation.code, violation.reason),
        End::Idle | End::Stalled | End::Unrecorded | End::Stopped(_) => {
            relay.output.fail(&status(end), &mut relay.to_client);
            (None, 1000, "")
        }
    };
    relay
        .to_client
        .control(Opcode::Close, &close_payload(code, reason));
    outcome
}

/// Queues the far side's last frames: whether its end should be waited for before the Close.
fn say_to_upstream<C, U>(relay: &mut Relay<C, U>, end: End, settings: &Settings) -> bool
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    if matches!(end, End::Upstream(UpstreamEnd::Lost)) || !relay.upstream_at_boundary() {
        return false;
    }
    let mut linger = false;
    if settings.hang_up && !matches!(end, End::Upstream(_)) {
        relay.input.hang_up(&mut relay.to_upstream);
        // A cut waits for nothing.
        linger = settings.streams.stdin && !settings.streams.tty && !matches!(end, End::Stopped(_));
    }
    if !linger {
        relay
            .to_upstream
            .control(Opcode::Close, &close_payload(1000, ""));
    }
    linger
}

/// What the client is told when the gateway ends the connection.
fn status(end: End) -> Status {
    let (reason, message) = match end {
        End::Stopped(
            Stop::Expired | Stop::SessionEnded(EndReason::Expired | EndReason::WindowMissed),
        ) => (Reason::Forbidden, "the session expired"),
        End::Stopped(Stop::Revoked | Stop::SessionEnded(EndReason::Revoked)) => {
            (Reason::Forbidden, "the session was revoked")
        }
        End::Stopped(Stop::SessionDeleted | Stop::SessionEnded(EndReason::SessionDeleted)) => {
            (Reason::Forbidden, "the session was deleted")
        }
        End::Stopped(Stop::SessionEnded(EndReason::NamespaceDeleted)) => (
            Reason::Forbidden,
            "the session's namespace is being deleted",
        ),
        End::Stopped(Stop::SessionEnded(EndReason::PodDeleted)) => {
            (Reason::Forbidden, "the pod was deleted")
        }
        End::Stopped(Stop::SessionEnded(EndReason::PodReplaced)) => {
            (Reason::Forbidden, "the pod was replaced by another")
        }
        End::Stopped(Stop::SessionEnded(EndReason::PodFinished)) => {
            (Reason::Forbidden, "the pod has finished")
        }
        End::Stopped(Stop::SessionEnded(EndReason::ContainerNotFound | EndReason::InvalidSpec)) => {
            (Reason::Forbidden, "the session failed")
        }
        End::Stopped(Stop::Draining) => (
            Reason::ServiceUnavailable,
            "gateway restarting, run the same command again",
        ),
        End::Idle => (
            Reason::Timeout,
            "no data went either way for the session's idleTimeout",
        ),
        End::Stalled => (Reason::Timeout, "the client did not read for too long"),
        End::Unrecorded => (
            Reason::ServiceUnavailable,
            "this session must be recorded, and its recording failed",
        ),
        End::Upstream(_) | End::ClientClosed(_) | End::ClientLost | End::Violation(_) => {
            (Reason::InternalError, "the connection ended")
        }
    };
    Status::new(reason, format!("drawbridge: {message}"))
}

fn closed(end: End, outcome: Option<&Outcome>) -> Closed {
    match end {
        End::Upstream(_) if matches!(outcome, None | Some(Outcome::Lost)) => Closed::UpstreamLost,
        End::Upstream(_) => Closed::ByPod,
        End::ClientClosed(_) => Closed::ByClient,
        End::ClientLost => Closed::ClientLost,
        End::Violation(_) => Closed::Violation,
        End::Idle => Closed::Idle,
        End::Stalled => Closed::Stalled,
        End::Unrecorded => Closed::Unrecorded,
        End::Stopped(stop) => Closed::Stopped(stop),
    }
}

async fn flush<W: AsyncWrite + Unpin>(io: &mut W, out: &mut Outbound) -> io::Result<()> {
    poll_fn(|cx| out.poll_flush(io, cx)).await
}

/// Ends our half, then reads until the peer ends its own.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S) -> io::Result<()> {
    io.shutdown().await?;
    discard(io).await
}

async fn discard<R: AsyncRead + Unpin>(io: &mut R) -> io::Result<()> {
    let mut bytes = Box::new([0; DISCARD]);
    while io.read(&mut bytes[..]).await? > 0 {}
    Ok(())
}
