//! One start of a container: its process, its log, and what is executed beside it.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::TaskTracker;

use super::connect::Ask;
use super::log::{self, Log};
use super::process::{self, Plan, Process, Written};
use crate::cluster::Cluster;
use crate::object;

/// A container that was started.
#[derive(Debug)]
pub(super) struct Container {
    plan: Plan,
    pub(super) process: Arc<Process>,
    pub(super) log: watch::Sender<Log>,
    /// Whether the process sees the end of what is typed into an attachment.
    pub(super) stdin_once: bool,
}

impl Container {
    /// Starts a container of a pod in this directory; `changed` hears of its end.
    ///
    /// # Errors
    /// When its command cannot be run.
    pub(super) fn start(
        cluster: &Cluster,
        pod: &Value,
        spec: &Value,
        dir: &Path,
        mark: String,
        changed: &Arc<Notify>,
    ) -> anyhow::Result<Arc<Self>> {
        let flag = |field: &str| spec[field] == true;
        let plan = Plan {
            argv: argv(spec),
            dir: dir.to_owned(),
            env: environment(pod, spec, dir),
            mark,
            tty: flag("tty"),
            stdin: flag("stdin"),
            first: true,
        };
        std::fs::create_dir_all(dir)?;
        let (process, output) = Process::start(&plan, &cluster.tasks)?;
        let container = Arc::new(Self {
            plan,
            process,
            log: watch::Sender::default(),
            stdin_once: flag("stdinOnce"),
        });
        let (this, clock, changed) = (
            Arc::clone(&container),
            cluster.clock.clone(),
            Arc::clone(changed),
        );
        cluster.tasks.spawn(async move {
            log::keep(&this.log, output, &clock).await;
            changed.notify_one();
        });
        Ok(container)
    }

    /// Starts a process beside the main one.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub(super) async fn exec(
        &self,
        ask: &Ask,
        tasks: &TaskTracker,
    ) -> Result<(Arc<Process>, mpsc::Receiver<Written>), String> {
        let plan = Plan {
            argv: ask.command.clone(),
            tty: ask.streams.tty,
            stdin: ask.streams.stdin,
            first: false,
            ..self.plan.clone()
        };
        let started = Process::start(&plan, tasks);
        if !self.process.runs() {
            process::kill_all(&plan.mark).await; // what was just started may have been missed
        }
        started.map_err(|error| format!("error executing command in container: {error:#}"))
    }

    /// Its exit code, once all it wrote is in the log.
    pub(super) fn over(&self) -> Option<i32> {
        let over = self.log.borrow().over;
        over.then(|| self.process.code())
    }
}

/// The command line. An image's own command is not known: a shell stands for it if there is an input, and otherwise
/// something that only waits, for about 68 years.
fn argv(spec: &Value) -> Vec<String> {
    let words = ["command", "args"].map(|field| spec[field].as_array());
    let words = words.into_iter().flatten().flatten();
    let argv: Vec<String> = words.filter_map(Value::as_str).map(str::to_owned).collect();
    match argv.as_slice() {
        [] if spec["stdin"] == true => vec!["sh".to_owned()],
        [] => ["sleep", "2147483647"].map(str::to_owned).to_vec(),
        _ => argv,
    }
}

/// The environment: variables with a plain value, after those every process has.
fn environment(pod: &Value, spec: &Value, home: &Path) -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let (host, home) = (object::name(pod), home.display().to_string());
    let given = spec["env"].as_array().into_iter().flatten();
    let given = given.filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?)));
    [("PATH", &*path), ("HOSTNAME", host), ("HOME", &home)]
        .into_iter()
        .chain(given)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
