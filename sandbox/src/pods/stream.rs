//! An open exec or attach: the process on one side, the WebSocket on the other.

use std::io::{self, Cursor};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::SignedDuration;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, WriteHalf};
use tokio::select;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::channel::{self, ERROR, End, RESIZE, STDERR, STDIN, STDOUT, Subprotocol};
use super::connect::Ask;
use super::container::Container;
use super::process::{Process, Written};
use super::query::Streams;
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
    pub(super) container: Result<Arc<Container>, String>,
    pub(super) protocol: &'static Subprotocol,
    /// Told of data that moves.
    pub(super) moved: Notify,
    /// What was started for this client alone.
    pub(super) own: OnceLock<Arc<Process>>,
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
        let reset = select! {
            biased;
            reset = self.interrupted() => reset,
            // An error is a connection that broke: nobody is left to tell.
            _ = self.converse(&mut io, begun) => false,
        };
        if reset {
            let _ = io.reset_when_dropped(); // it was closed already, then
        }
        if let Some(process) = self.own.get() {
            process.end_input().await;
        }
    }

    /// Waits for what ends a connection without a word; whether by a reset.
    async fn interrupted(&self) -> bool {
        let Cluster {
            clock,
            faults,
            stop,
            ..
        } = &*self.cluster;
        let (mut streams, mut kubelet) = (faults.streams.subscribe(), faults.kubelet.subscribe());
        loop {
            let idle = clock.now().saturating_add(IDLE).unwrap_or_default();
            select! {
                () = self.moved.notified() => {}
                () = stop.cancelled() => return false,
                () = clock.sleep_until(idle) => return false,
                _ = kubelet.wait_for(|lives| !lives), if !self.ask.translated => return false,
                _ = streams.wait_for(|fault| *fault == StreamFault::Reset) => return true,
            }
        }
    }

    async fn converse(&self, io: &mut Io, begun: Bytes) -> io::Result<()> {
        let (from, to) = tokio::io::split(io);
        let from = BufReader::new(Cursor::new(begun).chain(from));
        let out = Mutex::new(to);
        // One empty message on the first channel the client reads tells it that it is connected.
        let first = match self.ask.streams {
            Streams { stdout: true, .. } => STDOUT,
            Streams { stderr: true, .. } => STDERR,
            _ => ERROR,
        };
        self.send(&out, first, &[]).await?;
        let deaf = CancellationToken::new();
        let mut kubelet = self.cluster.faults.kubelet.subscribe();
        let end = match self.begin().await {
            Err(why) => Some(End::Failed(why)),
            Ok((process, output)) => select! {
                biased;
                _ = kubelet.wait_for(|lives| !lives) => Some(End::Exit(0)),
                end = self.tell(&process, output, &deaf, &out) => Some(end?),
                () = self.listen(&process, from, &deaf, &out) => None,
            },
        };
        let release = self.cluster.release;
        let report = end.and_then(|end| self.protocol.report(&end, &self.ask.command, release));
        if let Some(report) = report {
            self.send(&out, ERROR, report.as_bytes()).await?;
        }
        self.frame(&out, wire::CLOSE, &NORMAL.to_be_bytes()).await?;
        out.into_inner().shutdown().await
    }

    /// What is talked to, with what it writes from now on.
    async fn begin(&self) -> Result<(Arc<Process>, mpsc::Receiver<Written>), String> {
        let container = self.container.as_ref().map_err(String::clone)?;
        if self.ask.attach {
            let process = &container.process;
            return Ok((Arc::clone(process), process.attach()));
        }
        let started = container.exec(&self.ask, &self.cluster.tasks).await;
        started.inspect(|(process, _)| drop(self.own.set(Arc::clone(process))))
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

    /// Passes on what the process writes until it ends, no piece before the last one was taken.
    async fn tell(
        &self,
        process: &Process,
        mut output: mpsc::Receiver<Written>,
        deaf: &CancellationToken,
        out: &Out<'_>,
    ) -> io::Result<End> {
        let wanted = [false, self.ask.streams.stdout, self.ask.streams.stderr];
        while let Some(Some((channel, data))) = deaf.run_until_cancelled(output.recv()).await {
            if wanted[usize::from(channel)] {
                self.send(out, channel, &data).await?;
            }
        }
        drop(output); // or the process would wait for it
        let attach = self.ask.attach;
        Ok(End::Exit(if attach { 0 } else { process.exit().await }))
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
        let v5 = self.protocol.version == 5;
        let (mut open, mut stuck) = (self.ask.streams.stdin, false);
        // What containerd does at the end of standard input: a pipe is closed; with a terminal the output is, though the
        // process goes on. An attachment ends unless the container wants to see the end.
        let sees_end = !self.ask.attach || self.container.as_ref().is_ok_and(|it| it.stdin_once);
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
                    stuck = size.is_err() || v5 && !process.tty;
                    let Size { width, height } = size.unwrap_or_default();
                    process.resize(width, height).await;
                }
                (channel::CLOSE, [STDIN]) if v5 && open => {
                    open = false;
                    if process.tty || !sees_end {
                        deaf.cancel();
                    }
                    if sees_end {
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
