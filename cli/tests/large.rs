//! A long session needs no more memory than a short one.

#![expect(clippy::unwrap_used, reason = "these are tests")]

#[path = "common/audit.rs"]
mod audit;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use audit::Audit;

/// Most memory that the binary may make its own (`RLIMIT_DATA`), in KiB, however long the recording: a chunk of 1 MiB,
/// compressed and not, what zstd keeps, and the stacks of a few threads.
const MEMORY: usize = 16 << 10;

/// Records a session that printed `bytes`, and does with it whatever an auditor may, in bounded memory.
fn in_bounded_memory(bytes: usize) {
    let audit = Audit::new();
    let mut recorder = audit.begin("large");
    let line = |n: u64| {
        let noise = n * 0x9e37_79b9;
        format!("{n:05} {noise:x} a line of \x1b[1moutput\x1b[0m\r\n")
    };
    let text = (0..1000).map(line).collect::<Vec<_>>().concat();
    let frames = bytes / text.len() + 1;
    for frame in 0..frames {
        let at = Duration::from_millis(frame as u64);
        recorder.output(at, text.as_bytes(), 1 << 20);
    }
    audit.end(recorder, Duration::from_millis(frames as u64));
    for args in [
        "verify --keys keys.pem recordings",
        "export recordings",
        "export --format text recordings",
        "search no-such-text recordings",
        "replay --speed max --keys keys.pem recordings",
    ] {
        let script = format!("ulimit -d {MEMORY}; exec \"$0\" {args}");
        let begun = Instant::now();
        let status = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_drawbridge-audit")])
            .current_dir(audit.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        // 1 is what `search` says when it found nothing.
        let expected = i32::from(args.starts_with("search"));
        assert_eq!(status.code(), Some(expected), "{args}");
        println!("{} MiB: {:.1?} for {args}", bytes >> 20, begun.elapsed());
    }
}

#[test]
fn a_long_recording_is_verified_exported_searched_and_replayed_in_bounded_memory() {
    in_bounded_memory(32 << 20);
}

#[test]
#[ignore = "takes minutes without optimisation: just large"]
fn so_is_one_of_a_gigabyte() {
    in_bounded_memory(1 << 30);
}
