//! A command as a process, behind pipes or a terminal; and the end of everything it started.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::{Arc, Once};

use anyhow::Context as _;
use bytes::Bytes;
use pty_process::{OwnedWritePty, Size};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::channel::{STDERR, STDOUT};
use super::log::Log;
use super::plan::Plan;

/// Environment variable of every process of a container, by which they are found when they are to end.
const MARK: &str = "DRAWBRIDGE_SANDBOX_CONTAINER";
/// What is read from a process at once: what Go's `io.Copy` takes.
const CHUNK: usize = 32 << 10;

/// What a process wrote, by channel; of a terminal everything is standard output.
pub(super) type Written = (u8, Bytes);
type Output = Box<dyn AsyncRead + Send + Unpin>;
/// A process, and all it writes.
pub(super) type Started = (Arc<Process>, mpsc::Receiver<Written>);
type Spawned = (Child, Option<Input>, Vec<(u8, Output)>);

/// A process that was started: of a container, or by an exec.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) plan: Plan,
    /// Of a container: what it writes.
    pub(super) log: watch::Sender<Log>,
    pid: Pid,
    ended: CancellationToken,
    /// Whether it was asked to end.
    asked: Once,
    /// Exit code, once all it wrote was taken.
    code: watch::Receiver<Option<i32>>,
    input: Mutex<Option<Input>>,
    /// Whoever does not take what is written stops the process for all, as in containerd.
    listeners: watch::Sender<Vec<mpsc::Sender<Written>>>,
}

#[derive(Debug)]
enum Input {
    Pipe(ChildStdin),
    Terminal(OwnedWritePty),
}

impl Process {
    /// Starts it, with whoever hears all it writes.
    ///
    /// # Errors
    /// When there is no such program, or it cannot be run.
    pub(super) fn start(plan: Plan, tasks: &TaskTracker) -> anyhow::Result<Started> {
        std::fs::create_dir_all(&plan.dir)?;
        let (mut child, input, outputs) = spawn(&plan)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (sender, code) = watch::channel(None);
        let (listener, heard) = mpsc::channel(1);
        let process = Arc::new(Self {
            plan,
            log: watch::Sender::default(),
            pid: pid.context("it has no process ID")?,
            ended: CancellationToken::new(),
            asked: Once::new(),
            code,
            input: Mutex::new(input),
            listeners: watch::Sender::new(vec![listener]),
        });
        let pumps = TaskTracker::new();
        for (channel, output) in outputs {
            tasks.spawn(pumps.track_future(Arc::clone(&process).pump(channel, output)));
        }
        pumps.close();
        let this = Arc::clone(&process);
        tasks.spawn(async move {
            let status = child.wait().await.ok();
            this.ended.cancel();
            if this.plan.first {
                kill_all(&this.plan.mark).await;
            }
            pumps.wait().await;
            let code = status.and_then(|status| {
                let signal = status.signal().map(|signal| 128 + signal);
                status.code().or(signal)
            });
            sender.send_replace(Some(code.unwrap_or(255)));
            this.listeners.send_modify(Vec::clear);
        });
        Ok((process, heard))
    }

    /// Hears what it writes from now on; ends with it.
    pub(super) fn attach(&self) -> mpsc::Receiver<Written> {
        let (listener, heard) = mpsc::channel(1);
        self.listeners.send_modify(|listeners| {
            if self.code.borrow().is_none() {
                listeners.push(listener);
            }
        });
        heard
    }

    /// Whether it has not ended.
    pub(super) fn runs(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Sends a signal, if it still runs.
    pub(super) fn signal(&self, signal: Signal) {
        if self.runs() {
            let _ = kill_process(self.pid, signal); // it may have ended just now
        }
    }

    /// Asks it to end, once.
    pub(super) fn ask_to_end(&self) {
        self.asked.call_once(|| self.signal(Signal::TERM));
    }

    /// Waits for the exit code and all that was written; 128 and the signal if one ended it.
    pub(super) async fn exit(&self) -> i32 {
        let _ = self.code.clone().wait_for(Option::is_some).await; // an error: its runtime is gone
        self.code.borrow().unwrap_or(255)
    }

    /// Of a container: the exit code, once all it wrote is in its log.
    pub(super) fn over(&self) -> Option<i32> {
        let kept = self.log.borrow().over;
        self.code.borrow().filter(|_| kept)
    }

    /// Writes to its standard input; whether it may take more.
    pub(super) async fn write(&self, data: &[u8]) -> bool {
        let written = match &mut *self.input.lock().await {
            Some(Input::Pipe(pipe)) => pipe.write_all(data).await,
            Some(Input::Terminal(terminal)) => terminal.write_all(data).await,
            None => return false,
        };
        written.is_ok()
    }

    /// Ends its standard input, if that is no terminal.
    pub(super) async fn end_input(&self) {
        if !self.plan.tty {
            *self.input.lock().await = None;
        }
    }

    /// Sets a terminal's size; 0 is none.
    pub(super) async fn resize(&self, columns: u16, rows: u16) {
        if let Some(Input::Terminal(terminal)) = &*self.input.lock().await
            && columns > 0
            && rows > 0
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
            if self.listeners.borrow().is_empty() {
                return self.ended.cancelled().await; // nobody reads it: it stops once its pipe is full
            }
        }
    }
}

fn spawn(plan: &Plan) -> anyhow::Result<Spawned> {
    let (program, arguments) = plan.argv.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&plan.dir)
        .env_clear()
        .env(MARK, &plan.mark)
        .envs(plan.env.iter().map(|(name, value)| (name, value)));
    let cannot = || format!("cannot run {program:?}");
    if plan.tty {
        let (terminal, far_end) = pty_process::open()?;
        let command = pty_process::Command::from(command).env("TERM", "xterm");
        let child = command.spawn(far_end).with_context(cannot)?;
        let (output, input) = terminal.into_split();
        let input = Some(Input::Terminal(input));
        return Ok((child, input, vec![(STDOUT, Box::new(output))]));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if plan.stdin {
        command.stdin(Stdio::piped());
    }
    command.stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(cannot)?;
    let input = child.stdin.take().map(Input::Pipe);
    let stdout = child.stdout.take().context("no standard output")?;
    let stderr = child.stderr.take().context("no standard error")?;
    Ok((
        child,
        input,
        vec![(STDOUT, Box::new(stdout)), (STDERR, Box::new(stderr))],
    ))
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
