//! A command as a process, behind pipes or a terminal; and the end of everything it started.

use std::sync::{Arc, Once};
use std::{os::unix::process::ExitStatusExt as _, path::PathBuf, process::Stdio};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use pty_process::{OwnedWritePty, Size};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, SetOnce, mpsc, watch};
use tokio_util::{either::Either, task::TaskTracker};

use super::channel::{STDERR, STDOUT};
use super::log::Log;

/// Environment variable of every process of a container, by which they are found when they are to end.
const MARK: &str = "DRAWBRIDGE_SANDBOX_CONTAINER";
/// What is read from a process at once: what Go's `io.Copy` takes.
const CHUNK: usize = 32 << 10;

/// What a process wrote, by channel; of a terminal everything is standard output.
pub(super) type Written = (u8, Bytes);
/// A process, and all it writes.
pub(super) type Started = (Arc<Process>, mpsc::Receiver<Written>);
type Output = Box<dyn AsyncRead + Send + Unpin>;
type Spawned = (Option<Child>, Input, Vec<(u8, Output)>);
type Input = Option<Either<ChildStdin, OwnedWritePty>>;

/// What to start, and where. An exec's is that of its container but for the command and its streams.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The container as the pod's spec has it.
    pub(super) spec: Value,
    pub(super) dir: PathBuf,
    /// The pod's name.
    pub(super) host: String,
    /// Begins with the sandbox's own.
    pub(super) mark: String,
    /// Starts of the container before this one.
    pub(super) restarts: u32,
    /// What became of the last of those, as it is told in the pod's status.
    pub(super) before: Value,
    pub(super) started: Timestamp,
}

/// A process that was started: of a container, or by an exec.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) plan: Plan,
    /// Why it could not be started: then it has ended at once, with code 128.
    pub(super) failure: Option<String>,
    /// Of a container: what it writes.
    pub(super) log: watch::Sender<Log>,
    pid: Option<Pid>,
    /// Whether it was asked to end.
    asked: Once,
    /// Exit code, once it has ended.
    code: SetOnce<i32>,
    input: Mutex<Input>,
    /// Whoever does not take what is written stops the process for all, as in containerd.
    listeners: watch::Sender<Vec<mpsc::Sender<Written>>>,
}

impl Plan {
    /// A field of the container that is true or false.
    pub(super) fn flag(&self, field: &str) -> bool {
        self.spec[field] == true
    }

    /// Of the environment, variables with a plain value count.
    fn spawn(&self) -> anyhow::Result<Spawned> {
        let listed = |field: &str| self.spec[field].as_array().into_iter().flatten();
        let words = listed("command").chain(listed("args"));
        let mut words = words.filter_map(Value::as_str);
        let program = words.next().context("no command")?;
        let plain = listed("env");
        let plain = plain.filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?)));
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOSTNAME", &self.host)
            .env("HOME", &self.dir)
            .envs(self.flag("tty").then_some(("TERM", "xterm")))
            .envs(plain)
            .env(MARK, &self.mark);
        std::fs::create_dir_all(&self.dir)?;
        let cannot = || format!("cannot run {program:?}");
        if self.flag("tty") {
            let (terminal, far_end) = pty_process::open()?;
            let command = pty_process::Command::from(command);
            let child = command.spawn(far_end).with_context(cannot)?;
            let (output, input) = terminal.into_split();
            let output: Output = Box::new(output);
            let input = Some(Either::Right(input));
            return Ok((Some(child), input, vec![(STDOUT, output)]));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(cannot)?;
        let input = child.stdin.take().filter(|_| self.flag("stdin"));
        let stdout: Output = Box::new(child.stdout.take().context("no output")?);
        let stderr: Output = Box::new(child.stderr.take().context("no errors")?);
        let outputs = vec![(STDOUT, stdout), (STDERR, stderr)];
        Ok((Some(child), input.map(Either::Left), outputs))
    }
}

impl Process {
    /// Starts it, with whoever hears all it writes. With the `first` of a container everything that carries its mark
    /// ends, as a PID namespace does with its first process.
    pub(super) fn start(plan: Plan, first: bool, tasks: &TaskTracker) -> Started {
        let spawned = plan.spawn();
        let failure = spawned.as_ref().err().map(|why| format!("{why:#}"));
        let (mut child, input, outputs) = spawned.unwrap_or_default();
        let id = child.as_ref().and_then(Child::id);
        let (listener, heard) = mpsc::channel(1);
        let process = Arc::new(Self {
            plan,
            failure,
            log: watch::Sender::default(),
            pid: id.and_then(|id| Pid::from_raw(id.cast_signed())),
            asked: Once::new(),
            code: SetOnce::new(),
            input: Mutex::new(input),
            listeners: watch::Sender::new(vec![listener]),
        });
        let pump = |(channel, output)| tasks.spawn(Arc::clone(&process).pump(channel, output));
        let pumps: Vec<_> = outputs.into_iter().map(pump).collect();
        let this = Arc::clone(&process);
        tasks.spawn(async move {
            let mut code = None;
            if let Some(child) = &mut child
                && let Ok(status) = child.wait().await
            {
                code = status.code().or(status.signal().map(|signal| 128 + signal));
            }
            let _ = this.code.set(code.unwrap_or(128)); // nobody else does
            if first {
                kill_all(&this.plan.mark).await;
            }
            join_all(pumps).await;
            this.listeners.send_modify(Vec::clear);
        });
        (process, heard)
    }

    /// Hears what it writes from now on; ends with it.
    pub(super) fn attach(&self) -> mpsc::Receiver<Written> {
        let (listener, heard) = mpsc::channel(1);
        self.listeners.send_modify(|listeners| {
            listeners.extend(self.runs().then_some(listener));
        });
        heard
    }

    /// Whether it has not ended.
    pub(super) fn runs(&self) -> bool {
        !self.code.initialized()
    }

    /// Sends a signal, if it still runs; TERM only once.
    pub(super) fn signal(&self, signal: Signal) {
        let send = || _ = self.pid.map(|pid| kill_process(pid, signal)); // an error: it ended just now
        match signal {
            _ if !self.runs() => {}
            Signal::TERM => self.asked.call_once(send),
            _ => send(),
        }
    }

    /// Waits for the exit code; 128 and the signal if one ended it.
    pub(super) async fn exit(&self) -> i32 {
        *self.code.wait().await
    }

    /// Of a container: the exit code, and when all it wrote was in its log.
    pub(super) fn over(&self) -> Option<(i32, Timestamp)> {
        Some((*self.code.get()?, self.log.borrow().over?))
    }

    /// Writes to its standard input; whether it may take more.
    pub(super) async fn write(&self, data: &[u8]) -> bool {
        match &mut *self.input.lock().await {
            Some(input) => input.write_all(data).await.is_ok(),
            None => false,
        }
    }

    /// Ends its standard input; a terminal stays open as long as it is read.
    pub(super) async fn end_input(&self) {
        *self.input.lock().await = None;
    }

    /// Sets a terminal's size; 0 is none.
    pub(super) async fn resize(&self, columns: u16, rows: u16) {
        if let Some(Either::Right(terminal)) = &*self.input.lock().await
            && columns.min(rows) > 0
        {
            let _ = terminal.resize(Size::new(rows, columns)); // its process may have ended just now
        }
    }

    async fn pump(self: Arc<Self>, channel: u8, mut output: Output) {
        let mut buffer = vec![0; CHUNK];
        // A terminal whose last process has ended gives an error in place of an end.
        while let Ok(length @ 1..) = output.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..length]);
            let listeners = self.listeners.borrow().clone();
            for listener in listeners {
                let _ = listener.send((channel, data.clone())).await; // it may have left
            }
            self.listeners
                .send_modify(|all| all.retain(|one| !one.is_closed()));
        }
    }
}

/// Kills what carries a mark that begins with `$1` once its standard input ends. As the sandbox's watchdog it does so
/// when that ends or is killed, which cannot be had otherwise without unsafe code: the signal a kernel sends to orphans
/// is bound to the thread that started them.
const REAPER: &str = r#"
trap '' INT TERM HUP
read -r _
for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  found=$(grep -lsF "$1" /proc/[0-9]*/environ)
  [ -n "$found" ] || exit 0
  for file in $found; do pid=${file#/proc/}; kill -9 "${pid%/environ}"; done
done
"#;

/// Starts it for all marks that begin with this.
///
/// # Errors
/// When there is no `sh`.
pub(super) fn reaper(mark: &str) -> std::io::Result<Child> {
    Command::new("sh")
        .args(["-c", REAPER, "reaper", &format!("{MARK}={mark}")])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Kills every process with this mark.
pub(super) async fn kill_all(mark: &str) {
    match reaper(mark) {
        Ok(mut reaper) => drop(reaper.wait().await), // which ends its input first
        Err(error) => tracing::warn!(%error, "processes of a container may be left"),
    }
}
