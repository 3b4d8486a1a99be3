//! Real kubectl, with one kubeconfig and nothing else.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::checks::text;

/// Longest any kubectl may take unless a test says otherwise: nothing here takes a tenth of it, so over it is a hang.
const LIMIT: Duration = Duration::from_mins(1);

/// kubectl with one kubeconfig. Its home and cache are its own, so nothing of the person running the tests leaks in.
#[derive(Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: TempDir,
}

/// What one run of kubectl left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Kubectl {
    /// `program` with `kubeconfig`.
    ///
    /// # Errors
    /// When no directory for its cache can be made.
    pub fn new(program: &Path, kubeconfig: &Path) -> Result<Self> {
        Ok(Self {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            home: tempfile::tempdir()?,
        })
    }

    /// The program itself.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What it needs in its environment, and all it gets from us.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        [
            ("KUBECONFIG", self.kubeconfig.clone()),
            ("HOME", self.home.path().to_owned()),
        ]
        .into_iter()
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started or takes more than a minute; never for its exit code.
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        self.run_with(args, None, LIMIT).await
    }

    /// The same with standard input and a limit. Without `stdin` it reads `/dev/null`.
    ///
    /// # Errors
    /// When it cannot be started or takes longer.
    pub async fn run_with(
        &self,
        args: &[&str],
        stdin: Option<&[u8]>,
        limit: Duration,
    ) -> Result<Output> {
        let begin = Instant::now();
        let mut child = Command::new(&self.program)
            .args(args)
            .envs(self.environment())
            .stdin(if stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to run {}", self.program.display()))?;
        let pipe = child.stdin.take();
        let feed = async {
            if let (Some(mut pipe), Some(bytes)) = (pipe, stdin) {
                let _ = pipe.write_all(bytes).await; // it may end without reading
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let Ok(output) = tokio::time::timeout(limit, both).await else {
            bail!("kubectl {} hangs: no end within {limit:?}", args.join(" "));
        };
        let output = output?;
        Ok(Output {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: text(&output.stderr),
            took: begin.elapsed(),
        })
    }

    /// Runs it to success and returns what it printed.
    ///
    /// # Errors
    /// Also when it exits other than 0.
    pub async fn ok(&self, args: &[&str]) -> Result<String> {
        self.run(args).await?.ok(args)
    }

    /// `kubectl apply -f -` of this YAML.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        let args = ["apply", "-f", "-"];
        self.run_with(&args, Some(yaml.as_bytes()), LIMIT)
            .await?
            .ok(&args)
    }
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        text(&self.stdout)
    }

    /// Standard output, if it exited 0.
    ///
    /// # Errors
    /// When it did not; shows `args` and both outputs.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        ensure!(
            self.code == Some(0),
            "kubectl {} exited {:?}\n{}{}",
            args.join(" "),
            self.code,
            self.out(),
            self.stderr
        );
        Ok(self.out())
    }
}
