//! What a tree of processes has used, from `/proc`.

use std::{collections::HashMap, fs, time::Duration};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU and memory of a process and all its descendants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time, all threads. Read in clock ticks: 10 ms on Linux.
    pub(crate) cpu: Duration,
    /// Resident memory, in KiB.
    pub(crate) rss: u64,
    /// Resident memory that belongs to no file, in KiB: heap and stacks.
    pub(crate) anon: u64,
}

impl Usage {
    /// Reads the tree under `pid`.
    ///
    /// # Errors
    /// No such process. Descendants that end meanwhile are left out.
    pub(crate) fn of_tree(pid: u32) -> anyhow::Result<Self> {
        let mut sum = Self::of(pid).with_context(|| format!("process {pid} is gone"))?;
        let parents = parents();
        for child in parents
            .keys()
            .filter(|child| descends(**child, pid, &parents))
        {
            if let Some(more) = Self::of(*child) {
                sum.cpu += more.cpu;
                sum.rss += more.rss;
                sum.anon += more.anon;
            }
        }
        Ok(sum)
    }

    /// Seconds of CPU since an earlier reading of the same tree.
    pub(crate) fn cpu_since(&self, earlier: &Self) -> f64 {
        self.cpu.saturating_sub(earlier.cpu).as_secs_f64()
    }

    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |at: usize| after_name(&stat)?.nth(at)?.parse::<u64>().ok();
        // proc(5): utime and stime are fields 14 and 15; the name (field 2) may hold spaces.
        let ticks = field(11)? + field(12)?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            cpu: Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()),
            rss: kib("VmRSS:")?,
            anon: kib("RssAnon:")?,
        })
    }
}

/// The fields of `/proc/PID/stat` after the process name, from the state on.
fn after_name(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

/// Every process and its parent.
fn parents() -> HashMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, after_name(&stat)?.nth(1)?.parse().ok()?))
    })
    .collect()
}

fn descends(mut child: u32, ancestor: u32, parents: &HashMap<u32, u32>) -> bool {
    while let Some(parent) = parents.get(&child) {
        if *parent == ancestor {
            return true;
        }
        child = *parent;
    }
    false
}

/// Raises the limit of open files as far as this process may. Children inherit it.
pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?)
}

/// The limit of open files in force; `None` when there is none.
pub(crate) fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_counts_the_children_too() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("cat runs");
        let alone = Usage::of(std::process::id()).expect("this process");
        let tree = Usage::of_tree(std::process::id()).expect("this process");
        child.kill().expect("it runs");
        child.wait().expect("it ran");
        assert!(tree.rss > alone.rss, "{tree:?} {alone:?}");
        assert!(alone.rss >= alone.anon && alone.anon > 0);
    }
}
