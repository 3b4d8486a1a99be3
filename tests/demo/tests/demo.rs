//! `cargo demo` as a person starts and ends it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A killed process is gone in milliseconds; a busy machine may take longer.
const BURIED: Duration = Duration::from_secs(10);

/// The demo with its files below `dir`.
fn demo(dir: &Path, args: &[&str]) -> Command {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.args(["--no-open"])
        .args(args)
        .env("TMPDIR", dir)
        .stdin(Stdio::null());
    demo
}

/// Ends it however the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// Processes whose command line or environment names `dir`.
fn processes(dir: &Path) -> Vec<Pid> {
    let needle = dir.to_str().expect("UTF-8").as_bytes();
    let names = |file: std::path::PathBuf| {
        std::fs::read(file)
            .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    };
    let all = std::fs::read_dir("/proc").expect("Linux");
    all.flatten()
        .filter(|entry| names(entry.path().join("cmdline")) || names(entry.path().join("environ")))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .collect()
}

fn empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).expect("it is there").count() == 0
}

#[test]
fn what_the_summary_says_is_so_and_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = demo(dir.path(), &["--port", "0", "--check"])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("no other is let in"), "{said}");
    assert!(empty(dir.path()));
}

#[test]
fn an_interrupt_ends_it_and_leaves_neither_a_process_nor_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let child = demo(dir.path(), &["--port", "0"])
        .stdout(Stdio::piped())
        .spawn();
    let mut running = Running(child.expect("it starts"));
    let mut said = BufReader::new(running.0.stdout.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("Ctrl-C") {
        line.clear();
        assert_ne!(said.read_line(&mut line).expect("text"), 0, "it ended");
    }
    let pid = Pid::from_child(&running.0);
    let before = processes(dir.path());
    assert!(
        before.len() > 3,
        "itself, two programs, and pods: {before:?}"
    );
    kill_process(pid, Signal::INT).expect("it runs");
    assert!(running.0.wait().expect("it ends").success());
    said.read_to_string(&mut line).expect("text");
    let ended = Instant::now();
    for pid in before {
        // Whoever takes over an orphan may take a moment to bury it.
        while test_kill_process(pid).is_ok() {
            assert!(ended.elapsed() < BURIED, "process {pid:?} is left");
            std::thread::yield_now();
        }
    }
    assert!(empty(dir.path()));
}

#[test]
fn a_port_that_is_taken_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = demo(dir.path(), &["--port", &port])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains(&format!("port {port} of 127.0.0.1 is taken"))
            && said.contains("--port 9443"),
        "{said}"
    );
    assert!(empty(dir.path()));
}
