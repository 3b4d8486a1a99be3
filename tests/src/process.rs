//! A child process that cannot outlive this one, with its log in a file.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_for;

/// How long a process has to stop after SIGTERM before [`Process`]'s drop kills it.
const STOP: Duration = Duration::from_secs(10);

/// Runs the program, tells its PID, and kills it when standard input closes, i.e. when whoever started it is gone,
/// however it went. The exit code is the program's own.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- >&2 &
child=$!
echo "$child"
exec >/dev/null
{ cat <&3; kill -KILL "$child"; } 2>/dev/null &
guard=$!
wait "$child"
code=$?
kill "$guard" 2>/dev/null
exit "$code"
"#;

/// A running program. Dropping it stops it: SIGTERM, and SIGKILL after ten seconds.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    ended: Arc<Ended>,
    /// Closing it ends the program.
    _tie: ChildStdin,
}

#[derive(Debug, Default)]
struct Ended {
    status: Mutex<Option<ExitStatus>>,
    signal: Condvar,
}

impl Process {
    /// Starts `program` with `args` and, on top of this process's own, `env`. Its output goes to `log`, which is appended to.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &str,
        program: &Path,
        args: &[String],
        env: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        let tie = guard.stdin.take().context("stdin is piped")?;
        let mut line = String::new();
        BufReader::new(guard.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{name} told no PID: {line:?}"))?;
        let ended = Arc::new(Ended::default());
        std::thread::spawn({
            let ended = Arc::clone(&ended);
            move || ended.set(guard)
        });
        Ok(Self {
            name: name.to_owned(),
            pid,
            log: log.to_owned(),
            ended,
            _tie: tie,
        })
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, or `None` while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.ended.lock()
    }

    /// Sends a signal; nothing when it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill_process(self.pid, signal); // it may end in between
        }
    }

    /// Waits until it has ended by itself or by a signal.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn exit(&self, limit: Duration) -> Result<ExitStatus> {
        wait_for(&format!("{} ends", self.name), limit, async || {
            Ok(self.ended())
        })
        .await
    }

    /// Kills it at once and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL);
        self.exit(STOP).await.map(drop)
    }

    /// Fails with the end of the log when it has ended.
    ///
    /// # Errors
    /// In that case.
    pub fn must_run(&self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log_tail(40)),
        }
    }

    /// Resident memory in bytes, as the kernel counts it now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn rss(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no VmRSS of {}", self.name))? * 1024)
    }

    /// Everything it has logged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log)
            .with_context(|| format!("failed to read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines it logged.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log().unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        if self.ended.within(STOP).is_none() {
            self.signal(Signal::KILL);
            self.ended.within(STOP);
        }
    }
}

impl Ended {
    fn set(&self, mut guard: Child) {
        let status = guard.wait().unwrap_or_default();
        *self.lock() = Some(status);
        self.signal.notify_all();
    }

    fn within(&self, limit: Duration) -> Option<ExitStatus> {
        let waited = self
            .signal
            .wait_timeout_while(self.lock(), limit, |status| status.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_has_a_pid_a_log_and_an_end() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (log, args) = (
            dir.path().join("log"),
            ["-c".to_owned(), "echo $$ $WHO; exit 7".to_owned()],
        );
        let process = Process::start("sh", Path::new("/bin/sh"), &args, &[("WHO", "alice")], &log)?;
        let status = process.exit(STOP).await?;
        assert_eq!(status.code(), Some(7));
        assert_eq!(process.log()?.trim(), format!("{} alice", process.pid()));
        Ok(())
    }

    #[tokio::test]
    async fn dropping_it_ends_it() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let args = ["99".to_owned()];
        let process = Process::start(
            "sleep",
            Path::new("/bin/sleep"),
            &args,
            &[],
            &dir.path().join("log"),
        )?;
        let pid = process.pid;
        drop(process);
        assert!(
            rustix::process::test_kill_process(pid).is_err(),
            "it is gone"
        );
        Ok(())
    }
}
