//! A command as a process, behind pipes or a terminal; and the end of everything it started.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pty_process::{OwnedWritePty, Size};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::query::Streams;

/// Environment variable that every process of a container has, by which those that left its process group are found.
pub(super) const MARK: &str = "DRAWBRIDGE_SANDBOX_CONTAINER";

/// Rounds of killing: a process may fork while it is looked for, but each round kills what the one before missed.
const ROUNDS: u32 = 200;

/// What to start.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    /// Program, looked for in `PATH`, and its arguments.
    pub(super) argv: Vec<String>,
    /// Working directory.
    pub(super) dir: PathBuf,
    /// The whole environment.
    pub(super) env: Vec<(String, String)>,
    /// Behind a terminal; else behind pipes, of those asked for.
    pub(super) streams: Streams,
}

/// Where a process reads from.
pub(super) enum Input {
    Pipe(ChildStdin),
    Terminal(OwnedWritePty),
}

impl Input {
    pub(super) async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(data).await,
            Self::Terminal(terminal) => terminal.write_all(data).await,
        }
    }

    /// Sets a terminal's size. A pipe has none, and 0 is none.
    pub(super) fn resize(&self, columns: u16, rows: u16) {
        if let Self::Terminal(terminal) = self
            && columns > 0
            && rows > 0
        {
            // A terminal whose process has just ended cannot be resized any more.
            let _ = terminal.resize(Size::new(rows, columns));
        }
    }
}

/// What a process writes to.
pub(super) type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A process that was started.
pub(super) struct Process {
    pub(super) pid: Pid,
    /// `None` if it was not asked for.
    pub(super) input: Option<Input>,
    /// Of a terminal: everything.
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
    /// Exit code once it has ended; 128 plus the signal if one ended it.
    pub(super) exit: watch::Receiver<Option<i32>>,
}

impl Process {
    /// Starts it, in a process group of its own (with a terminal: a session of its own).
    ///
    /// # Errors
    /// In a runtime's words.
    pub(super) fn start(spec: &Spec, tasks: &TaskTracker) -> Result<Self, String> {
        let Some((program, arguments)) = spec.argv.split_first() else {
            return Err("args must not be empty".to_owned());
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&spec.dir)
            .env_clear()
            .envs(spec.env.iter().map(|(name, value)| (name, value)));
        let say = |error: io::Error| explain(program, &error);
        let (mut child, input, stdout, stderr) = if spec.streams.tty {
            let (terminal, far_end) = pty_process::open().map_err(|error| error.to_string())?;
            let child = pty_process::Command::from(command)
                .spawn(far_end)
                .map_err(|error| match error {
                    pty_process::Error::Io(error) => say(error),
                    other => other.to_string(),
                })?;
            let (output, input) = terminal.into_split();
            let output: Output = Box::new(output);
            (child, Some(Input::Terminal(input)), Some(output), None)
        } else {
            let pipe = |wanted| {
                if wanted {
                    Stdio::piped()
                } else {
                    Stdio::null()
                }
            };
            let mut child = command
                .process_group(0)
                .stdin(pipe(spec.streams.stdin))
                .stdout(pipe(spec.streams.stdout))
                .stderr(pipe(spec.streams.stderr))
                .spawn()
                .map_err(say)?;
            let input = child.stdin.take().map(Input::Pipe);
            let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Output);
            let stderr = child.stderr.take().map(|pipe| Box::new(pipe) as Output);
            (child, input, stdout, stderr)
        };
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .ok_or("it has no process ID")?;
        let (ended, exit) = watch::channel(None);
        tasks.spawn(async move {
            let code = child.wait().await.map_or(255, code);
            ended.send_replace(Some(code));
        });
        Ok(Self {
            pid,
            input,
            stdout,
            stderr,
            exit,
        })
    }
}

/// Waits for an exit code.
pub(super) async fn exited(exit: &mut watch::Receiver<Option<i32>>) -> i32 {
    match exit.wait_for(Option::is_some).await {
        Ok(code) => code.unwrap_or(255),
        Err(_) => 255, // the task that waits was dropped with its runtime
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Why a program could not be started, as runc says it.
fn explain(program: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            format!("stat {program}: no such file or directory")
        }
        io::ErrorKind::NotFound => "executable file not found in $PATH".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("exec: {program:?}: {why}")
}

/// Kills every process that carries this mark, and what those started, until none is left.
pub(super) async fn kill_all(mark: &str, leaders: &BTreeSet<i32>) {
    for _ in 0..ROUNDS {
        let (mark, leaders) = (mark.to_owned(), leaders.clone());
        let found = tokio::task::spawn_blocking(move || marked(&mark, &leaders)).await;
        let Ok(found) = found else { return };
        if found.is_empty() {
            return;
        }
        for pid in found.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL); // gone already is as good
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tracing::warn!(mark, "some processes of a container cannot be killed");
}

/// Processes of a container: those with its mark in their environment, those in a session or process group that one of
/// its processes leads, and descendants of either. One that cleared its environment, left its session and lost its parent
/// is missed.
fn marked(mark: &str, leaders: &BTreeSet<i32>) -> BTreeSet<i32> {
    let entry = format!("{MARK}={mark}");
    let own = rustix::process::getpid().as_raw_pid();
    let all: Vec<(i32, Stat)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|found| found.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect();
    let mut found: BTreeSet<i32> = all
        .iter()
        .filter(|(pid, stat)| {
            leaders.contains(&stat.group)
                || leaders.contains(&stat.session)
                || has_entry(Path::new(&format!("/proc/{pid}/environ")), entry.as_bytes())
        })
        .map(|(pid, _)| *pid)
        .collect();
    loop {
        let before = found.len();
        for (pid, stat) in &all {
            if found.contains(&stat.parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn has_entry(environ: &Path, entry: &[u8]) -> bool {
    std::fs::read(environ).is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == entry))
}

struct Stat {
    parent: i32,
    group: i32,
    session: i32,
}

/// Of a process that runs; a zombie is none.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in parentheses, may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let running = fields.next()? != "Z";
    let mut number = || fields.next()?.parse().ok();
    let stat = Stat {
        parent: number()?,
        group: number()?,
        session: number()?,
    };
    running.then_some(stat)
}

/// A shell that outlives the sandbox by a moment: when its standard input ends, because the sandbox ended or was killed,
/// it kills what carries the mark `sandbox/…`. It is the only way to do so without unsafe code: the signal a kernel sends
/// to orphans is bound to the thread that started them.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
read -r _
for round in 1 2 3 4 5 6 7 8 9; do
  found=$(grep -ls "$1/" /proc/[0-9]*/environ)
  [ -n "$found" ] || exit 0
  for file in $found; do pid=${file#/proc/}; kill -9 "${pid%/environ}"; done
done
"#;

/// Starts the watchdog for marks that begin with `sandbox`; it acts when this process ends without killing it first.
///
/// # Errors
/// When there is no `sh`.
pub(super) fn watchdog(sandbox: &str) -> io::Result<tokio::process::Child> {
    Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(format!("{MARK}={sandbox}"))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
