//! An open exec or attach: the process on one side, the WebSocket on the other.

use std::io::{self, Cursor};
use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, WriteHalf};
use tokio::select;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::channel::{self, ERROR, End, RESIZE, STDERR, STDIN, STDOUT, Subprotocol, V5};
use super::plan::Plan;
use super::process::{Process, Started, kill_all};
use super::query::Ask;
use super::wire::{self, MAX_CONTROL};
use crate::cluster::Cluster;
use crate::faults::StreamFault;
use crate::server::Io;

/// After this time without data a connection is dropped: `stream_idle_timeout` of containerd and
/// `defaultIdleConnectionTimeout` of the API server.
const IDLE: SignedDuration = SignedDuration::from_hours(4);
/// Close code of an end in order.
const NORMAL: u16 = 1000;

/// An exec or attach about to be served.
pub(super) struct Stream {
    pub(super) cluster: Arc<Cluster>,
    pub(super) ask: Ask,
    /// What is talked to, or all the client is told.
    pub(super) container: Result<Arc<Process>, String>,
    pub(super) protocol: Subprotocol,
    /// Told of data that moves.
    pub(super) moved: Notify,
}

/// `{"Width":80,"Height":24}`, in columns and rows; 0 for what is not said.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Size {
    #[serde(alias = "Width")]
    width: u16,
    #[serde(alias = "Height")]
    height: u16,
}

type Out<'a> = Mutex<WriteHalf<&'a mut Io>>;

impl Stream {
    /// Serves a client until either side is done; `begun` was read from it already. A process whose client left goes on,
    /// as in Kubernetes.
    pub(super) async fn run(self, mut io: Io, begun: Bytes) {
        let started = self.begin().await;
        let own = started.as_ref().ok().filter(|_| !self.ask.attach);
        let own = own.map(|(process, _)| Arc::clone(process));
        let reset = select! {
            biased;
            reset = self.interrupted() => reset,
            // An error is a connection that broke: nobody is left to tell.
            _ = self.converse(&mut io, begun, started) => false,
        };
        if reset {
            let _ = io.get_ref().0.set_zero_linger(); // it was closed already, then
        }
        if let Some(process) = own {
            process.end_input().await;
        }
    }

    /// What is talked to, with what it writes from now on.
    async fn begin(&self) -> Result<Started, String> {
        let container = self.container.as_ref().map_err(String::clone)?;
        if self.ask.attach {
            return Ok((Arc::clone(container), container.attach()));
        }
        let plan = Plan {
            argv: self.ask.command.clone(),
            tty: self.ask.tty,
            stdin: self.ask.stdin,
            stdin_once: true,
            first: false,
            ..container.plan.clone()
        };
        let started = Process::start(plan, &self.cluster.tasks);
        if !container.runs() {
            kill_all(&container.plan.mark).await; // what was just started may have been missed
        }
        started.map_err(|error| format!("error executing command in container: {error:#}"))
    }

    /// Waits for what ends a connection without a word; whether by a reset.
    async fn interrupted(&self) -> bool {
        let (clock, faults) = (&self.cluster.clock, &self.cluster.faults);
        let (mut streams, mut kubelet) = (faults.streams.subscribe(), faults.kubelet.subscribe());
        loop {
            let idle = clock.now().saturating_add(IDLE).unwrap_or_default();
            select! {
                () = self.moved.notified() => {}
                () = self.cluster.stop.cancelled() => return false,
                () = clock.sleep_until(idle) => return false,
                _ = kubelet.wait_for(|lives| !lives), if !self.ask.translated => return false,
                _ = streams.wait_for(|fault| *fault == StreamFault::Reset) => return true,
            }
        }
    }

    async fn converse(
        &self,
        io: &mut Io,
        begun: Bytes,
        started: Result<Started, String>,
    ) -> io::Result<()> {
        let (from, to) = tokio::io::split(io);
        let from = BufReader::new(Cursor::new(begun).chain(from));
        let out = Mutex::new(to);
        // One empty message on the first channel the client reads tells it that it is connected.
        let first = match self.ask {
            Ask { stdout: true, .. } => STDOUT,
            Ask { stderr: true, .. } => STDERR,
            _ => ERROR,
        };
        self.send(&out, first, &[]).await?;
        let end = match started {
            Err(why) => Some(End::Failed(why)),
            Ok((process, mut output)) => {
                let deaf = CancellationToken::new();
                let wanted = [false, self.ask.stdout, self.ask.stderr];
                // No piece before the last one was taken.
                let tell = async {
                    while let Some(Some((channel, data))) =
                        deaf.run_until_cancelled(output.recv()).await
                    {
                        if wanted[usize::from(channel)] {
                            self.send(&out, channel, &data).await?;
                        }
                    }
                    output.close(); // or the process would wait for it
                    let attach = self.ask.attach;
                    io::Result::Ok(End::Exit(if attach { 0 } else { process.exit().await }))
                };
                let mut kubelet = self.cluster.faults.kubelet.subscribe();
                select! {
                    biased;
                    _ = kubelet.wait_for(|lives| !lives), if self.ask.translated => Some(End::Exit(0)),
                    end = tell => Some(end?),
                    () = self.listen(&process, from, &deaf, &out) => None,
                }
            }
        };
        let (argv, release) = (&self.ask.command, self.cluster.release);
        let report = end.and_then(|end| self.protocol.report(&end, argv, release));
        if let Some(report) = report {
            self.send(&out, ERROR, report.as_bytes()).await?;
        }
        self.frame(&out, wire::CLOSE, &NORMAL.to_be_bytes()).await?;
        out.into_inner().shutdown().await
    }

    /// Sends data on a channel.
    async fn send(&self, out: &Out<'_>, channel: u8, data: &[u8]) -> io::Result<()> {
        let (opcode, payload) = self.protocol.encode(channel, data);
        self.moved.notify_one();
        self.frame(out, opcode, &payload).await
    }

    async fn frame(&self, out: &Out<'_>, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut out = out.lock().await;
        let fault = *self.cluster.faults.streams.borrow();
        wire::write(&mut *out, opcode, payload, fault).await
    }

    /// The read loop of the real server, until the client closes or breaks a rule that closes: a process that takes no
    /// input stops it, and with it answers to pings and the notice of a Close. So does a size after a malformed one, and
    /// v5's second one without a terminal.
    async fn listen(
        &self,
        process: &Process,
        mut from: impl AsyncRead + Unpin,
        deaf: &CancellationToken,
        out: &Out<'_>,
    ) {
        let v5 = self.protocol.0 == V5;
        let (mut open, mut stuck) = (self.ask.stdin && process.plan.stdin, false);
        // What containerd does at the end of standard input: a pipe is closed; with a terminal the output is, though the
        // process goes on. An attachment ends unless the container wants to see the end.
        while let Ok((opcode, mut frame)) = wire::read(&mut from).await {
            match opcode {
                wire::CLOSE => return,
                wire::PING => {
                    frame.truncate(MAX_CONTROL);
                    if self.frame(out, wire::PONG, &frame).await.is_err() {
                        return;
                    }
                    continue;
                }
                wire::PONG => continue,
                _ => self.moved.notify_one(),
            }
            let Some((channel, data)) = self.protocol.decode(&frame) else {
                continue;
            };
            match (channel, &*data) {
                (STDIN, data) if open => open = process.write(data).await,
                (RESIZE, _) if stuck => std::future::pending().await,
                (RESIZE, data) => {
                    let size = serde_json::from_slice(data);
                    stuck = size.is_err() || v5 && !process.plan.tty;
                    let Size { width, height } = size.unwrap_or_default();
                    process.resize(width, height).await;
                }
                (channel::CLOSE, [STDIN]) if v5 && open => {
                    open = false;
                    if process.plan.tty || !process.plan.stdin_once {
                        deaf.cancel();
                    } else {
                        process.end_input().await;
                    }
                }
                (channel::CLOSE, [0..=RESIZE]) => {}
                (channel::CLOSE, _) if v5 => return,
                _ => {}
            }
        }
    }
}
