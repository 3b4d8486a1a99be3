//! The facts that a figure is worth nothing without.

use std::{fmt, fs, path::Path, thread, time::Duration};

use anyhow::Context;
use serde::Serialize;
use tokio::{process::Command, time::sleep};

use crate::proc::open_files;

/// The machine and the programs on it.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    processor: String,
    memory_gib: u64,
    kernel: String,
    open_files: Option<u64>,
    /// What other programs took of all cores in the second before the run, in percent. Times suffer from it first, CPU ratios
    /// little, memory not at all.
    busy_percent: u64,
    programs: Vec<String>,
}

impl Machine {
    /// Looks at this machine; `programs` are asked for their versions.
    ///
    /// # Errors
    /// A program cannot be run.
    pub(crate) async fn look(programs: &[(&Path, &[&str])]) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            line.split_once(':')
                .map_or("", |(_, value)| value)
                .trim()
                .to_owned()
        };
        let kib = value(&read("/proc/meminfo"), "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0_u64);
        let mut versions = Vec::new();
        for (program, args) in programs {
            let output = Command::new(program).args(*args).output().await;
            let output = output
                .with_context(|| format!("cannot run {}; is it installed?", program.display()))?;
            let line = String::from_utf8_lossy(&output.stdout)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            // haproxy ends its line with an address that says nothing about the version.
            versions.push(
                line.split(" - http")
                    .next()
                    .unwrap_or_default()
                    .replace("Client Version:", "kubectl"),
            );
        }
        Ok(Self {
            cores: thread::available_parallelism()?.get(),
            processor: value(&read("/proc/cpuinfo"), "model name"),
            memory_gib: kib.div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            open_files: open_files(),
            busy_percent: busy_percent().await?,
            programs: versions,
        })
    }
}

/// How busy all cores are over one second.
async fn busy_percent() -> anyhow::Result<u64> {
    let (idle, all) = ticks()?;
    sleep(Duration::from_secs(1)).await;
    let (later_idle, later_all) = ticks()?;
    let (idle, all) = (
        later_idle.saturating_sub(idle),
        later_all.saturating_sub(all),
    );
    Ok(100 - (100 * idle / all.max(1)).min(100))
}

/// Idle ticks and all ticks since boot: proc(5), the first line of `/proc/stat`; idle and iowait are its fields 4 and 5.
fn ticks() -> anyhow::Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8);
    let fields = fields
        .map(str::parse::<u64>)
        .collect::<Result<Vec<_>, _>>()?;
    let idle = fields.iter().skip(3).take(2).sum();
    Ok((idle, fields.iter().sum()))
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cores,
            processor,
            memory_gib,
            kernel,
            open_files,
            busy_percent,
            programs,
        } = self;
        write!(
            f,
            "{cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, "
        )?;
        match open_files {
            None => write!(f, "no limit of open files")?,
            Some(limit) => write!(f, "{limit} open files per process")?,
        }
        programs
            .iter()
            .try_for_each(|program| write!(f, ", {program}"))?;
        write!(
            f,
            "; other programs kept {busy_percent} % of the cores busy when it began"
        )
    }
}
