//! From a checked request to a running console: register, check, dial, upgrade, relay, account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drawbridge_audit::event;
use drawbridge_audit::log::Unwritten;
use drawbridge_crds::v1alpha1::{Mode, ResolvedTarget};
use drawbridge_protocol::subprotocol::{Offer, Subprotocol, loses_stdin_end};
use drawbridge_protocol::transcode::{Outcome, Streams};
use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::{Instrument, info, info_span};
use uuid::Uuid;

use crate::bridge::{Closed, Ended, Leg, Settings, Stop, bridge};
use crate::gate::{Gate, Peer};
use crate::grant::{self, Ask, Denied};
use crate::metrics::{Direction, DirectionLabels, EndLabels, Label, Metrics};
use crate::open::Entry;
use crate::record::console::Facts;
use crate::record::{self, Finished, Recording, Tap};
use crate::refusal::{Body, Kind, Refusal};
use crate::route::{Action, Stream, Transport as How};
use crate::session::Session;
use crate::told;
use crate::transport::Transport;
use crate::upgrade::Handshake;
use crate::upstream::Call;

/// The target of audit lines: one when a console opens, one when it ends.
pub const AUDIT: &str = "drawbridge::audit";

/// How long a client may take to receive its 101.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why stdin cannot be passed on, and what to do about it.
const NEEDS_V5: &str = "this command reads stdin to its end, and the cluster's exec servers cannot be told where stdin ends \
    (that takes v5.channel.k8s.io: Kubernetes 1.30 or newer, or 1.36 for kubelets); use a terminal (-it), or leave out -i";

/// Why a POST is refused that no WebSocket request came before.
const WEBSOCKET_ONLY: &str = "consoles are served over WebSocket only, and this is a POST (SPDY): use kubectl 1.30 or newer and \
    do not set KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false; if kubectl is new enough, a WebSocket upgrade was refused before, and -v=7 shows why";

/// One console, while it runs.
struct Console {
    gate: Arc<Gate>,
    entry: Entry,
    session: Arc<Session>,
    /// What was entered: the container asked for, of those granted.
    target: ResolvedTarget,
    streams: Streams,
    /// Its recording, if there is one, until the bridge takes the tap.
    recording: Option<(Recording, Tap)>,
    /// What the audit log knows of it.
    facts: Box<event::Facts>,
    begun: Instant,
}

impl Gate {
    /// Opens a console: the answer is 101 once the pod's side is open.
    ///
    /// # Errors
    /// Why not. A refused WebSocket request is remembered for the `POST` that kubectl sends next.
    pub(crate) async fn stream<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        offer: &Offer,
        session: &Arc<Session>,
        stream: Stream,
        peer: &Peer,
    ) -> Result<Response<Body>, Refusal> {
        let key = self.recall.key(&session.uid, request.uri());
        match stream.transport {
            How::WebSocket => self
                .open_stream(request, offer, session, stream, peer)
                .await
                .inspect_err(|refusal| self.recall.remember(key, refusal)),
            How::Spdy => {
                self.check(session, &stream)?;
                if let Some(refusal) = self.recall.take(key) {
                    return Err(refusal);
                }
                if self.open.count(&session.uid) >= session.max_connections {
                    return Err(too_many(session));
                }
                let last = self.upstream.last_negotiated();
                if last.is_some_and(|upstream| {
                    loses_stdin_end(Subprotocol::V5, upstream, stream.streams)
                }) {
                    return Err(Refusal::new(Kind::Unsupported, NEEDS_V5));
                }
                Err(Refusal::new(Kind::Method, WEBSOCKET_ONLY))
            }
        }
    }

    fn check(&self, session: &Session, stream: &Stream) -> Result<(), Denied> {
        let ask = Ask::Stream {
            action: stream.action,
            namespace: &stream.namespace,
            pod: &stream.pod,
            container: stream.container.as_deref(),
            command: &stream.command,
        };
        grant::check(session, ask, self.clock.now()).map(drop)
    }

    /// Whether one more console is within the session's limit, and within the gateway's.
    fn check_room(&self, entry: &Entry, session: &Session) -> Result<(), Refusal> {
        if entry.rank() > session.max_connections {
            return Err(too_many(session));
        }
        self.check_not_full()
    }

    /// Whether no more connections are open here than may be, consoles and live views together.
    pub(crate) fn check_not_full(&self) -> Result<(), Refusal> {
        if usize::try_from(self.metrics.open.get()).unwrap_or(0) > self.rules.max_consoles {
            return Err(Refusal::new(
                Kind::Unavailable,
                "this gateway has as many connections open as it may",
            )
            .retry_after(5));
        }
        Ok(())
    }

    async fn open_stream<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        offer: &Offer,
        session: &Session,
        stream: Stream,
        peer: &Peer,
    ) -> Result<Response<Body>, Refusal> {
        // What can be refused without being counted is refused first.
        self.check(session, &stream)?;
        let handshake = Handshake::check(request.version(), request.headers())?;
        if offer.negotiate(|_| true).is_none() {
            return Err(no_subprotocol());
        }
        // Register, then check, then serve: what ends the session from here on finds the connection.
        let mut entry = self.open.register(&session.uid);
        let session = self
            .sessions
            .get(&session.uid)
            .ok_or(Denied::Ended(Stop::SessionDeleted))?;
        self.check(&session, &stream)?;
        self.check_room(&entry, &session)?;
        let mut target = session.target.clone().ok_or(Denied::NotReady(None))?;
        if let Some(container) = stream.container.clone() {
            target.container = container; // checked above
        }
        let id = Uuid::now_v7();
        let connection = id.to_string();
        let span = info_span!(
            "console",
            namespace = session.namespace, session = session.name, uid = session.uid, connection, user = session.user,
            client = %peer.addr,
        );

        // Before anything runs that would have to be recorded.
        let facts = Facts {
            connection: id,
            session: &session,
            target: &target,
            attach: stream.action == Action::Attach,
            argv: &stream.command,
            streams: stream.streams,
            now: self.clock.now(),
        };
        let prepared = self
            .recorder
            .prepare(facts)
            .instrument(span.clone())
            .await?;
        self.log.accepts().map_err(unlogged)?;
        let client = told::client(request.headers(), peer.addr);
        let account = self
            .upstream
            .account(&session.uid, &self.rules.sessions_namespace);
        let known = told::console(&session, &target, &stream, &connection, client, account);
        let call = Call {
            session: &session,
            target: &target,
            action: stream.action,
            command: &stream.command,
            streams: stream.streams,
            connection: &connection,
        };
        let holds = || grant::holds(self.sessions.get(&session.uid).as_deref(), self.clock.now());
        let upstream = tokio::select! {
            biased;
            stop = entry.stopped(&self.clock, holds) => return Err(stopped(stop)),
            leg = self.upstream.dial(&call, &self.metrics).instrument(span.clone()) => leg?,
        };
        let Some(subprotocol) = offer.negotiate_for(upstream.subprotocol, stream.streams) else {
            return Err(Refusal::new(Kind::Unsupported, NEEDS_V5)); // dropping the upstream closes it; nothing ran yet
        };

        let recording = self
            .recorder
            .start(prepared, subprotocol, upstream.subprotocol)
            .instrument(span.clone())
            .await?;
        // On record before anybody can type.
        let connected = self.log.record(told::connected(known.clone()));
        connected.instrument(span.clone()).await.map_err(unlogged)?;
        span.in_scope(|| {
            info!(
                target: AUDIT,
                pod = target.pod, pod_uid = target.pod_uid, container = target.container, node = target.node,
                action = ?stream.action, command = ?stream.command, tty = stream.streams.tty, stdin = stream.streams.stdin,
                subprotocol = subprotocol.name(), upstream = upstream.subprotocol.name(), "console opened"
            );
        });
        let console = Console {
            gate: Arc::clone(self),
            entry,
            session: Arc::clone(&session),
            target,
            streams: stream.streams,
            recording,
            facts: Box::new(known),
            begun: Instant::now(),
        };
        let upgraded = hyper::upgrade::on(&mut *request);
        // A task of its own: hyper's state for the connection is freed once the 101 is written.
        self.bridges.spawn(
            console
                .run(upgraded, subprotocol, upstream)
                .instrument(span),
        );
        Ok(handshake.response(subprotocol))
    }
}

impl Console {
    async fn run(
        mut self,
        upgraded: OnUpgrade,
        subprotocol: Subprotocol,
        upstream: Leg<Transport>,
    ) {
        let (recording, tap) = self.recording.take().unzip();
        let ended = if let Some(client) = client(upgraded, subprotocol).await {
            let Self {
                gate,
                entry,
                session,
                streams,
                ..
            } = &mut self;
            let settings = Settings {
                streams: *streams,
                idle: session.idle,
                hang_up: session.mode == Mode::Exec,
                limits: gate.rules.limits,
            };
            let holds =
                || grant::holds(gate.sessions.get(&session.uid).as_deref(), gate.clock.now());
            let notices = entry.notices();
            let stop = entry.stopped(&gate.clock, holds);
            Some(bridge(client, upstream, settings, tap, stop, notices).await)
        } else {
            drop(tap);
            None
        };
        // In a box: what most consoles come to much later is no part of what each keeps in memory until then.
        Box::pin(self.end(ended, recording)).await;
    }

    async fn end(mut self, ended: Option<Ended>, recording: Option<Recording>) {
        if let Some(recording) = recording {
            // Sealed on this disk before the connection counts as over.
            let end = record::console::end(ended.as_ref());
            if let Some(Finished { recorded, carried }) = recording.finish(end).await {
                for carried in carried {
                    let transferred = told::transferred(event::Facts::clone(&self.facts), carried);
                    self.gate.log.emit(transferred);
                }
                self.facts.recording = Some(told::recording(recorded));
            }
        }
        self.account(ended.as_ref());
    }

    /// Says and counts how it ended; `None`: the client did not take its 101.
    fn account(&self, ended: Option<&Ended>) {
        let metrics = &self.gate.metrics;
        let reason = ended.map_or("never_upgraded", |ended| label(ended.closed));
        metrics
            .ended
            .get_or_create(&EndLabels {
                reason: Label(reason),
            })
            .inc();
        let tally = ended.map(|ended| ended.tally).unwrap_or_default();
        count(metrics, Direction::to_pod, tally.bytes_in);
        count(metrics, Direction::to_client, tally.bytes_out);
        let facts = event::Facts::clone(&self.facts);
        let lasted = self.begun.elapsed();
        let event = told::disconnected(facts, ended, reason, lasted);
        self.gate.log.emit(event);
        let outcome = ended.and_then(|ended| ended.outcome.as_ref());
        info!(
            target: AUDIT,
            pod = self.target.pod, container = self.target.container,
            seconds = self.begun.elapsed().as_secs_f64(), bytes_to_pod = tally.bytes_in, bytes_to_client = tally.bytes_out,
            dropped = tally.dropped, reason, outcome = outcome.map(describe), "console ended"
        );
    }
}

/// The client's stream, once it has received its 101.
pub(crate) async fn client(
    upgraded: OnUpgrade,
    subprotocol: Subprotocol,
) -> Option<Leg<Transport>> {
    let upgraded = tokio::time::timeout(UPGRADE_TIMEOUT, upgraded)
        .await
        .ok()?
        .ok()?;
    let parts = upgraded.downcast::<TokioIo<Transport>>().ok()?;
    Some(Leg {
        io: parts.io.into_inner(),
        // A copy of the few bytes there are: the slice would keep hyper's whole read buffer.
        read: bytes::Bytes::copy_from_slice(&parts.read_buf),
        subprotocol,
    })
}

fn count(metrics: &Metrics, direction: Direction, bytes: u64) {
    metrics
        .bytes
        .get_or_create(&DirectionLabels { direction })
        .inc_by(bytes);
}

/// The label of an end, out of a closed set.
fn label(closed: Closed) -> &'static str {
    match closed {
        Closed::ByPod => "by_pod",
        Closed::ByClient => "by_client",
        Closed::ClientLost => "client_lost",
        Closed::UpstreamLost => "upstream_lost",
        Closed::Idle => "idle",
        Closed::Stalled => "stalled",
        Closed::Violation => "violation",
        Closed::Unrecorded => "unrecorded",
        Closed::Stopped(Stop::Expired) => "expired",
        Closed::Stopped(Stop::Revoked) => "revoked",
        Closed::Stopped(Stop::SessionDeleted) => "session_deleted",
        Closed::Stopped(Stop::SessionEnded(_)) => "session_ended",
        Closed::Stopped(Stop::Draining) => "draining",
    }
}

/// How the process ended, without its own words: they may quote the command's output.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Success => "success".to_owned(),
        Outcome::Exit(code) => format!("exit {code}"),
        Outcome::Error { reason, .. } => format!("error {reason}"),
        Outcome::Lost => "lost".to_owned(),
    }
}

/// A console that cannot be put on record is not opened, nor is a recording shown.
pub(crate) fn unlogged(why: Unwritten) -> Refusal {
    Refusal::new(
        Kind::Unavailable,
        "this gateway cannot write its audit log at the moment, and lets nobody in without it",
    )
    .because(why)
    .retry_after(5)
}

fn stopped(stop: Stop) -> Refusal {
    match stop {
        Stop::Draining => Refusal::new(
            Kind::Unavailable,
            "this gateway is shutting down; connect again",
        )
        .retry_after(1),
        stop => Denied::Ended(stop).into(),
    }
}

fn too_many(session: &Session) -> Refusal {
    let most = session.max_connections;
    Refusal::new(
        Kind::TooManyConnections,
        format!("this session has {most} connections open, as many as it may: close one first"),
    )
}

fn no_subprotocol() -> Refusal {
    let known: Vec<_> = Subprotocol::ALL
        .iter()
        .rev()
        .map(|known| known.name())
        .filter(|name| !name.is_empty())
        .collect();
    Refusal::new(
        Kind::NoSubprotocol,
        format!(
            "none of the subprotocols offered is spoken here: offer one of {}",
            known.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_what_to_do() {
        assert_eq!(
            no_subprotocol().public(),
            "none of the subprotocols offered is spoken here: offer one of v5.channel.k8s.io, v4.base64.channel.k8s.io, \
             v4.channel.k8s.io, base64.channel.k8s.io, channel.k8s.io"
        );
        for text in [NEEDS_V5, WEBSOCKET_ONLY] {
            assert!(
                !text.contains("  "),
                "a continued line lost its space: {text}"
            );
        }
    }
}
