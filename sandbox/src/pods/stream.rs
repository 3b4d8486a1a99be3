//! An open exec or attach: the process on one side, the WebSocket on the other.

use std::io::{self, Cursor};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::select;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::channel::{ERROR, End, RESIZE, STDERR, STDIN, STDOUT, Said, Sizes, Subprotocol};
use super::container::{CHUNK, Container};
use super::process::{self, Input, Output, Process, Spec};
use super::query::Streams;
use super::wire::{Idle, NORMAL, PROTOCOL_ERROR, Reader, Received, Writer};
use crate::cluster::Cluster;
use crate::faults::StreamFault;
use crate::server::Io;

/// Seconds without data after which a connection is dropped: `stream_idle_timeout` of containerd and
/// `defaultIdleConnectionTimeout` of the API server.
const IDLE: i64 = 4 * 60 * 60;

/// What is talked to.
pub(super) enum Subject {
    /// A command to be started in a container.
    Exec(Arc<Container>, Vec<String>),
    /// A container's main process.
    Attach(Arc<Container>),
    /// Nothing: this is all the client is told.
    Failed(End),
}

/// An exec or attach about to be served.
pub(super) struct Stream {
    pub(super) cluster: Arc<Cluster>,
    pub(super) subject: Subject,
    pub(super) streams: Streams,
    pub(super) protocol: Subprotocol,
    /// Whether the API server, and not something on the node, speaks v5 to the client: it calls it a success when the
    /// kubelet dies (kubernetes/kubectl#1726).
    pub(super) outlives_kubelet: bool,
}

/// Why a conversation was over.
enum Over {
    /// The end is to be told.
    Ended(End),
    /// The client closed, or broke a rule that closes.
    Closed,
    /// It sent a frame without a mask.
    Unmasked,
}

type Out<W> = Mutex<Writer<W>>;

impl Stream {
    /// Serves a client until either side is done; `begun` was read from it already. A process whose client left goes on,
    /// as in Kubernetes.
    pub(super) async fn run(self, mut io: Io, begun: Bytes) {
        let mut process = None;
        let idle = Idle::new(&self.cluster.clock);
        select! {
            biased;
            reset = self.interrupted(&idle) => if reset {
                let _ = io.reset_when_dropped(); // it was closed already, then
            },
            // An error is a connection that broke: nobody is left to tell.
            _ = self.converse(&mut io, begun, &mut process, idle.clone()) => {}
        }
        if let Some(process) = process {
            self.cluster.tasks.spawn(leave(process));
        }
    }

    /// Waits for what ends a connection without a word; whether by a reset.
    async fn interrupted(&self, idle: &Idle) -> bool {
        let mut faults = self.cluster.faults.streams.subscribe();
        let mut kubelet = self.cluster.faults.kubelet.subscribe();
        select! {
            () = self.cluster.stop.cancelled() => false,
            () = idle.expired(&self.cluster.clock, IDLE) => false,
            _ = kubelet.wait_for(|lives| !lives), if !self.outlives_kubelet => false,
            reset = faults.wait_for(|fault| *fault == StreamFault::Reset) => reset.is_ok(),
        }
    }

    async fn converse(
        &self,
        io: &mut Io,
        begun: Bytes,
        process: &mut Option<Process>,
        idle: Idle,
    ) -> io::Result<()> {
        let clock = &self.cluster.clock;
        let (from, to) = tokio::io::split(io);
        let from = Cursor::new(begun).chain(from);
        let mut reader = Reader::new(from, idle.clone(), clock.clone());
        let faults = self.cluster.faults.streams.subscribe();
        let out = Mutex::new(Writer::new(to, faults, idle, clock.clone()));
        // One empty message on the first channel the client reads tells it that it is connected.
        let first = match self.streams {
            Streams { stdout: true, .. } => STDOUT,
            Streams { stderr: true, .. } => STDERR,
            _ => ERROR,
        };
        self.send(&out, first, &[]).await?;
        let mut argv: &[String] = &[];
        let over = match &self.subject {
            Subject::Failed(end) => Over::Ended(end.clone()),
            Subject::Attach(container) => self.attach(container, &mut reader, &out).await?,
            Subject::Exec(container, command) => {
                argv = command;
                let spec = Spec {
                    argv: command.clone(),
                    streams: self.streams,
                    ..Spec::default()
                };
                match container.exec(spec).await {
                    Ok(started) => {
                        self.exec(process.insert(started), &mut reader, &out)
                            .await?
                    }
                    Err(why) => Over::Ended(End::Runtime(format!(
                        "error executing command in container: {why}"
                    ))),
                }
            }
        };
        match over {
            Over::Ended(end) => {
                if let Some(report) = self.protocol.report(&end, argv, self.cluster.release) {
                    self.send(&out, ERROR, &report).await?;
                }
            }
            Over::Unmasked => out.lock().await.close(PROTOCOL_ERROR).await?,
            Over::Closed => {}
        }
        let mut out = out.lock().await;
        out.close(NORMAL).await?;
        out.shutdown().await
    }

    async fn send<W: AsyncWrite + Unpin>(
        &self,
        out: &Out<W>,
        channel: u8,
        data: &[u8],
    ) -> io::Result<()> {
        let (opcode, payload) = self.protocol.encode(channel, data);
        out.lock().await.data(opcode, &payload).await
    }

    async fn exec<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &self,
        process: &mut Process,
        reader: &mut Reader<R>,
        out: &Out<W>,
    ) -> io::Result<Over> {
        let Process {
            input,
            stdout,
            stderr,
            exit,
            ..
        } = process;
        let deaf = CancellationToken::new();
        let output = async {
            let both = async {
                tokio::try_join!(
                    self.copy(STDOUT, stdout, self.streams.stdout, out),
                    self.copy(STDERR, stderr, self.streams.stderr, out)
                )
            };
            select! {
                done = both => drop(done?),
                () = deaf.cancelled() => {}
            }
            Ok(match process::exited(exit).await {
                0 => End::Success,
                code => End::Exit(code),
            })
        };
        let input = Typed::Exec(input, &deaf);
        select! {
            biased;
            () = self.kubelet_died() => Ok(Over::Ended(End::Success)),
            end = output => end.map(Over::Ended),
            over = self.listen(input, reader, out) => over,
        }
    }

    async fn attach<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &self,
        container: &Container,
        reader: &mut Reader<R>,
        out: &Out<W>,
    ) -> io::Result<Over> {
        let detached = CancellationToken::new();
        let output = async {
            let mut output: mpsc::Receiver<_> = container.attach();
            loop {
                let (channel, data) = select! {
                    some = output.recv() => match some {
                        Some(some) => some,
                        None => return Ok(End::Success),
                    },
                    () = detached.cancelled() => return Ok(End::Success),
                };
                if (channel == STDOUT && self.streams.stdout)
                    || (channel == STDERR && self.streams.stderr)
                {
                    self.send(out, channel, &data).await?;
                }
            }
        };
        let input = Typed::Attach(container, &detached);
        select! {
            biased;
            () = self.kubelet_died() => Ok(Over::Ended(End::Success)),
            end = output => end.map(Over::Ended),
            over = self.listen(input, reader, out) => over,
        }
    }

    async fn kubelet_died(&self) {
        let mut kubelet: watch::Receiver<bool> = self.cluster.faults.kubelet.subscribe();
        if !self.outlives_kubelet || kubelet.wait_for(|lives| !lives).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Copies what a process writes until it ends: 32 KiB at most per frame, and not before the last one was taken.
    async fn copy<W: AsyncWrite + Unpin>(
        &self,
        channel: u8,
        from: &mut Option<Output>,
        wanted: bool,
        out: &Out<W>,
    ) -> io::Result<()> {
        let Some(from) = from else { return Ok(()) };
        let mut buffer = vec![0; CHUNK];
        // A terminal whose last process has ended gives an error in place of an end.
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if wanted {
                self.send(out, channel, &buffer[..length]).await?;
            }
        }
        Ok(())
    }

    /// The read loop of the real server: a process that takes no input stops it, and with it answers to pings and the
    /// notice of a Close.
    async fn listen<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &self,
        mut input: Typed<'_>,
        reader: &mut Reader<R>,
        out: &Out<W>,
    ) -> io::Result<Over> {
        let (mut sizes, mut resized) = (Sizes::default(), false);
        let mut open = self.streams.stdin;
        loop {
            let frame = match reader.next().await {
                Received::Data(frame) => frame,
                Received::Ping(payload) => {
                    out.lock().await.pong(&payload).await?;
                    continue;
                }
                Received::Nothing => continue,
                Received::End => return Ok(Over::Closed),
                Received::Unmasked => return Ok(Over::Unmasked),
            };
            match self.protocol.decode(&frame) {
                Said::Data(STDIN, data) if open => open = input.write(&data).await,
                Said::Closed(STDIN) if open => {
                    open = false;
                    input.end().await;
                }
                Said::Data(RESIZE, data) => {
                    let read = sizes.add(&data);
                    // v5 hands sizes to nobody without a terminal: the first is kept, the next is stuck.
                    let stuck = resized && !self.streams.tty && self.protocol == Subprotocol::V5;
                    let Ok(read) = read else {
                        return std::future::pending().await;
                    };
                    if stuck {
                        return std::future::pending().await;
                    }
                    resized |= !read.is_empty();
                    for (columns, rows) in read {
                        input.resize(columns, rows).await;
                    }
                }
                Said::Fault => return Ok(Over::Closed),
                _ => {}
            }
        }
    }
}

/// Where what a client types goes; what is cancelled when its end ends the output too.
enum Typed<'a> {
    Exec(&'a mut Option<Input>, &'a CancellationToken),
    Attach(&'a Container, &'a CancellationToken),
}

impl Typed<'_> {
    /// Whether more can be written.
    async fn write(&mut self, data: &[u8]) -> bool {
        match self {
            Self::Exec(Some(input), _) => input.write(data).await.is_ok(),
            Self::Exec(None, _) => false,
            // Nobody reads it.
            Self::Attach(container, _) if !container.plan.stdin => std::future::pending().await,
            Self::Attach(container, _) => match &mut *container.input.lock().await {
                Some(input) => input.write(data).await.is_ok(),
                None => false,
            },
        }
    }

    /// What containerd does at the end of standard input: a pipe is closed; with a terminal the output is, though the
    /// process goes on. An attachment ends unless the container wants to see the end.
    async fn end(&mut self) {
        match self {
            Self::Exec(Some(Input::Terminal(_)), deaf) => deaf.cancel(),
            Self::Exec(input, _) => **input = None,
            Self::Attach(container, _) if container.plan.stdin_once && !container.plan.tty => {
                *container.input.lock().await = None;
            }
            Self::Attach(_, detached) => detached.cancel(),
        }
    }

    async fn resize(&self, columns: u16, rows: u16) {
        match self {
            Self::Exec(Some(input), _) => input.resize(columns, rows),
            Self::Exec(None, _) => {}
            Self::Attach(container, _) => {
                if let Some(input) = &*container.input.lock().await {
                    input.resize(columns, rows);
                }
            }
        }
    }
}

/// Keeps a process whose client left: its pipe of input ends, its output is read no more, and its terminal stays, or it
/// would be hung up.
async fn leave(mut process: Process) {
    if matches!(process.input, Some(Input::Pipe(_))) {
        process.input = None;
    }
    process::exited(&mut process.exit).await;
}
