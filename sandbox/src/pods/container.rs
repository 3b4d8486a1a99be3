//! One start of a container: its main process, what attaches to it, what is executed in it, and its end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::log::Log;
use super::process::{self, Input, Output, Process, Spec};
use super::query::Streams;
use crate::clock::Clock;

/// What is read from a process at once: what Go's `io.Copy` takes.
pub(super) const CHUNK: usize = 32 << 10;

/// How to start a container.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// First part of its mark: the sandbox's.
    pub(super) sandbox: String,
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// Working directory and home.
    pub(super) dir: PathBuf,
    pub(super) log: PathBuf,
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) stdin_once: bool,
}

/// A container that was started.
pub(super) struct Container {
    pub(super) plan: Plan,
    /// 64 hexadecimal digits.
    pub(super) id: String,
    pub(super) log: Log,
    /// `None` if it was started without standard input, or that was ended.
    pub(super) input: tokio::sync::Mutex<Option<Input>>,
    /// Exit code, once every process is gone and all output was read.
    pub(super) over: watch::Receiver<Option<i32>>,
    /// When it was over.
    finished: Mutex<Timestamp>,
    main: rustix::process::Pid,
    /// Exit code of the main process.
    exit: watch::Receiver<Option<i32>>,
    attached: Mutex<Vec<mpsc::Sender<(u8, Bytes)>>>,
    leaders: Mutex<BTreeSet<i32>>,
    tasks: TaskTracker,
}

impl Container {
    /// Starts it.
    ///
    /// # Errors
    /// In a runtime's words.
    pub(super) fn start(
        plan: Plan,
        clock: &Clock,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>, String> {
        let say = |error: std::io::Error| error.to_string();
        std::fs::create_dir_all(&plan.dir).map_err(say)?;
        let log = Log::create(&plan.log).map_err(say)?;
        let id = random_id();
        let spec = Spec {
            argv: plan.argv.clone(),
            dir: plan.dir.clone(),
            env: environment(&plan, &id, plan.tty),
            streams: Streams {
                tty: plan.tty,
                stdin: plan.stdin,
                stdout: true,
                stderr: true,
            },
        };
        let process = Process::start(&spec, tasks)?;
        let (ended, over) = watch::channel(None);
        let container = Arc::new(Self {
            plan,
            id,
            log,
            // The writing half of a terminal is kept even if nobody may write: it sets the size.
            input: tokio::sync::Mutex::new(process.input),
            over,
            finished: Mutex::new(clock.now()),
            main: process.pid,
            exit: process.exit,
            attached: Mutex::default(),
            leaders: Mutex::new(BTreeSet::from([process.pid.as_raw_pid()])),
            tasks: tasks.clone(),
        });
        let pumps = [(1, process.stdout), (2, process.stderr)].map(|(channel, output)| {
            let (container, clock) = (Arc::clone(&container), clock.clone());
            tasks.spawn(async move {
                if let Some(output) = output {
                    container.pump(channel, output, &clock).await;
                }
            })
        });
        let (ending, clock) = (Arc::clone(&container), clock.clone());
        tasks.spawn(async move {
            let code = process::exited(&mut ending.exit.clone()).await;
            // As a kernel does with a PID namespace when its first process ends.
            ending.kill_rest().await;
            for pump in pumps {
                let _ = pump.await;
            }
            ending.log.finish(clock.now());
            ending.lock_attached().clear();
            // Whoever is just writing finds out.
            if let Ok(mut input) = ending.input.try_lock() {
                *input = None;
            }
            if let Ok(mut finished) = ending.finished.lock() {
                *finished = clock.now();
            }
            ended.send_replace(Some(code));
        });
        Ok(container)
    }

    /// When it was over; when it started, if it is not.
    pub(super) fn finished(&self) -> Timestamp {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its main process runs.
    pub(super) fn runs(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Asks the main process to end.
    pub(super) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Kills it; everything in it goes with the main process.
    pub(super) fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if self.runs() {
            let _ = rustix::process::kill_process(self.main, signal); // it may have ended just now
        }
    }

    /// Starts a process beside the main one.
    ///
    /// # Errors
    /// In a runtime's words.
    pub(super) async fn exec(&self, mut spec: Spec) -> Result<Process, String> {
        spec.dir.clone_from(&self.plan.dir);
        spec.env = environment(&self.plan, &self.id, spec.streams.tty);
        let process = Process::start(&spec, &self.tasks).map_err(|why| {
            format!(
                "failed to exec in container: failed to start exec \"{}\": OCI runtime exec failed: exec failed: unable to \
                 start container process: {why}: unknown",
                random_id()
            )
        })?;
        if let Ok(mut leaders) = self.leaders.lock() {
            leaders.insert(process.pid.as_raw_pid());
        }
        if !self.runs() {
            self.kill_rest().await; // it may have missed the one just started
        }
        Ok(process)
    }

    /// Everything the main process writes from now on, by channel (1, 2); ends with the container. Whoever does not
    /// take it stops the container's output for all, as in containerd.
    pub(super) fn attach(&self) -> mpsc::Receiver<(u8, Bytes)> {
        let (sender, receiver) = mpsc::channel(1);
        let mut attached = self.lock_attached();
        if self.over.borrow().is_none() {
            attached.push(sender);
        }
        receiver
    }

    /// Its mark in the environment of its processes.
    fn mark(&self) -> String {
        format!("{}/{}", self.plan.sandbox, self.id)
    }

    async fn kill_rest(&self) {
        let mut leaders = self
            .leaders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // The main process was waited for: its number may be somebody else's.
        leaders.remove(&self.main.as_raw_pid());
        process::kill_all(&self.mark(), &leaders).await;
    }

    async fn pump(&self, channel: u8, mut output: Output, clock: &Clock) {
        let mut buffer = vec![0; CHUNK];
        // A terminal whose last process has ended gives an error in place of an end.
        while let Ok(length @ 1..) = output.read(&mut buffer).await {
            self.log
                .append(usize::from(channel) - 1, &buffer[..length], clock.now());
            let attached = self.lock_attached().clone();
            if attached.is_empty() {
                continue;
            }
            let data = Bytes::copy_from_slice(&buffer[..length]);
            for one in attached {
                if one.send((channel, data.clone())).await.is_err() {
                    self.lock_attached().retain(|one| !one.is_closed());
                }
            }
        }
    }

    fn lock_attached(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::Sender<(u8, Bytes)>>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn environment(plan: &Plan, id: &str, tty: bool) -> Vec<(String, String)> {
    let mut env = vec![(process::MARK.to_owned(), format!("{}/{id}", plan.sandbox))];
    if tty {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    env.extend(plan.env.iter().cloned());
    env
}

/// 64 hexadecimal digits, as runtimes name things.
pub(super) fn random_id() -> String {
    let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    format!("{}{}", a.simple(), b.simple())
}
