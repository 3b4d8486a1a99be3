//! An open exec or attach: the process on one side, the WebSocket on the other.

use std::{io, sync::Arc};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWriteExt as _, BufReader, WriteHalf};
use tokio::select;
use tokio::sync::{Mutex, Notify};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_util::sync::CancellationToken;

use super::channel::{self, ERROR, RESIZE, STDERR, STDIN, STDOUT, Subprotocol, V5};
use super::process::{Process, Started, kill_all};
use crate::faults::{Faults, StreamFault};
use crate::{cluster::Cluster, request::Query, server::Io};

/// After this time without data a connection is dropped: `stream_idle_timeout` of containerd and
/// `defaultIdleConnectionTimeout` of the API server.
const IDLE: SignedDuration = SignedDuration::from_hours(4);

/// An exec or attach about to be served.
pub(super) struct Stream {
    pub(super) cluster: Arc<Cluster>,
    /// What is asked for, in the API server's words.
    pub(super) query: Query,
    pub(super) attach: bool,
    /// What is talked to.
    pub(super) container: Arc<Process>,
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

type Socket = TokioIo<Upgraded>;
type Out<'a> = Mutex<WriteHalf<&'a mut Socket>>;

impl Stream {
    /// Serves a client until either side is done, or something ends it without a word. A process whose client left goes
    /// on, as in Kubernetes.
    pub(super) async fn run(self, mut io: Socket) {
        let mut started = self.begin().await;
        let mut faults = self.cluster.faults.subscribe();
        let reset = |now: &Faults| now.streams == StreamFault::Reset;
        select! {
            biased;
            _ = faults.wait_for(|now| reset(now) || now.kubelet_dead) => {}
            () = self.cluster.stop.cancelled() => {}
            () = self.idle() => {}
            // An error is a connection that broke: nobody is left to tell.
            _ = self.converse(&mut io, &mut started) => {}
        }
        let reset = reset(&faults.borrow());
        if reset && let Ok(parts) = io.into_inner().downcast::<TokioIo<Io>>() {
            let _ = parts.io.inner().get_ref().0.set_zero_linger(); // it was closed already, then
        }
        if !self.attach {
            started.0.end_input().await;
        }
    }

    /// What is talked to, with what it writes from now on.
    async fn begin(&self) -> Started {
        let container = &self.container;
        if self.attach {
            return (Arc::clone(container), container.attach());
        }
        let mut plan = container.plan.clone();
        let spec = json!({
            "command": self.query.all("command").collect::<Vec<_>>(), "args": null,
            "tty": self.query.flag("tty"), "stdin": self.wants(STDIN), "stdinOnce": true,
        });
        json_patch::merge(&mut plan.spec, &spec);
        let started = Process::start(plan, false, &self.cluster.tasks);
        if !container.runs() {
            kill_all(&container.plan.mark).await; // what was just started may have been missed
        }
        started
    }

    /// Whether the client asked for standard input, output or error.
    pub(super) fn wants(&self, channel: u8) -> bool {
        let asked = ["stdin", "stdout", "stderr"][usize::from(channel)];
        self.query.flag(asked) && (channel != STDERR || !self.query.flag("tty"))
    }

    /// Waits until nothing has moved for too long.
    async fn idle(&self) {
        let clock = &self.cluster.clock;
        loop {
            let end = clock.now().saturating_add(IDLE).unwrap_or_default();
            select! {
                () = self.moved.notified() => {}
                () = clock.sleep_until(end) => return,
            }
        }
    }

    async fn converse(&self, io: &mut Socket, (process, output): &mut Started) -> io::Result<()> {
        let (from, to) = tokio::io::split(io);
        let out = Mutex::new(to);
        // One empty message on the first channel the client reads tells it that it is connected.
        let mut channels = [STDOUT, STDERR].into_iter();
        let first = channels.find(|channel| self.wants(*channel));
        self.send(&out, first.unwrap_or(ERROR), &[]).await?;
        let deaf = CancellationToken::new();
        // No piece before the last one was taken.
        let tell = async {
            let mut next = async || deaf.run_until_cancelled(output.recv()).await;
            while let Some(Some((from, data))) = next().await {
                if self.wants(from) {
                    self.send(&out, from, &data).await?;
                }
            }
            output.close(); // or the process would wait for it
            io::Result::Ok(match &process.failure {
                _ if self.attach => Ok(0),
                Some(why) => Err(format!("error executing command in container: {why}")),
                None => Ok(process.exit().await),
            })
        };
        let end = select! {
            biased;
            end = tell => Some(end?),
            () = self.listen(process, BufReader::new(from), &deaf, &out) => None,
        };
        let argv: Vec<&str> = self.query.all("command").collect();
        let report = |end| {
            self.protocol
                .report(end, &argv.join(" "), self.cluster.release)
        };
        if let Some(report) = end.and_then(report) {
            self.send(&out, ERROR, report.as_bytes()).await?;
        }
        let (code, reason) = (CloseCode::Normal, "".into());
        let close = Frame::close(Some(CloseFrame { code, reason }));
        self.frame(&out, close).await?;
        out.into_inner().shutdown().await
    }

    /// Sends data on a channel.
    async fn send(&self, out: &Out<'_>, channel: u8, data: &[u8]) -> io::Result<()> {
        self.moved.notify_one();
        self.frame(out, self.protocol.encode(channel, data)).await
    }

    async fn frame(&self, out: &Out<'_>, frame: Frame) -> io::Result<()> {
        let mut out = out.lock().await;
        let fault = self.cluster.faults.borrow().streams;
        channel::write(&mut *out, frame, fault).await
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
        let (v5, terminal) = (self.protocol.0 == V5, process.plan.flag("tty"));
        let (mut open, mut stuck) = (self.wants(STDIN) && process.plan.flag("stdin"), false);
        while let Ok((opcode, frame)) = channel::read(&mut from).await {
            match opcode {
                OpCode::Control(Control::Close) => return,
                OpCode::Control(Control::Ping) => match self.frame(out, Frame::pong(frame)).await {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                OpCode::Control(Control::Pong) => continue,
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
                    stuck = size.is_err() || v5 && !terminal;
                    let Size { width, height } = size.unwrap_or_default();
                    process.resize(width, height).await;
                }
                // What containerd does at the end of standard input: a pipe is closed; with a terminal the output is,
                // though the process goes on. An attachment ends unless the container wants to see the end.
                (channel::CLOSE, [STDIN]) if v5 && open => {
                    open = false;
                    if terminal || !process.plan.flag("stdinOnce") {
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
