//! A long session needs no more memory than a short one.

#![expect(clippy::unwrap_used, reason = "these are tests")]

#[path = "common/audit.rs"]
mod audit;

use std::process::{Command, Stdio};
use std::time::Duration;

use audit::Audit;

/// What the session printed: more than fits into [`MEMORY`] many times over.
const OUTPUT: usize = 1 << 30;
/// Address space of the binary in KiB, of which its code takes a large part.
const MEMORY: usize = 256 << 10;

/// Minutes without optimisation: `cargo test -p drawbridge-cli --test large -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn a_gigabyte_is_verified_exported_searched_and_replayed_in_bounded_memory() {
    let audit = Audit::new();
    let mut recorder = audit.begin("large");
    let line = |n: u64| {
        let noise = n * 0x9e37_79b9;
        format!("{n:05} {noise:x} a line of \x1b[1moutput\x1b[0m\r\n")
    };
    let text = (0..1000).map(line).collect::<Vec<_>>().concat();
    let frames = OUTPUT / text.len() + 1;
    for frame in 0..frames {
        let at = Duration::from_millis(frame as u64);
        recorder.output(at, text.as_bytes(), 1 << 20);
    }
    audit.end(recorder, Duration::from_millis(frames as u64));
    for args in [
        "verify --keys keys.pem recordings",
        "export recordings",
        "search no-such-text recordings",
        "replay --speed 1000 recordings",
    ] {
        let script = format!("ulimit -v {MEMORY}; exec \"$0\" {args}");
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
    }
}
