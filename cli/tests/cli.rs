//! The binary, as an auditor runs it.

#![expect(clippy::unwrap_used, reason = "these are tests")]

#[path = "common/audit.rs"]
mod audit;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use drawbridge_audit::hash::Sha256;
use drawbridge_audit::keys::SigningKey;
use drawbridge_audit::recording::{MANIFEST, segment_name};

use audit::Audit;

const HOSTILE: &str = "\x1b]52;c;c3RvbGVu\x07\x1b]0;title\x07\x1b[6n";

/// Records these outputs, a second and a segment each; the recording's directory.
fn record(audit: &Audit, name: &str, output: &[&str]) -> String {
    let mut recorder = audit.begin(name);
    for (second, output) in (1..).zip(output) {
        recorder.output(Duration::from_secs(second), output.as_bytes(), 0);
    }
    audit.end(recorder, Duration::from_secs(output.len() as u64))
}

/// Runs the binary where the recordings are.
fn run(audit: &Audit, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drawbridge-audit"))
        .args(args)
        .current_dir(audit.root.path())
        .env_remove("DRAWBRIDGE_AUDIT_KEYS")
        .output()
        .unwrap()
}

/// Exit code and standard output.
fn says(audit: &Audit, args: &[&str]) -> (Option<i32>, String) {
    let output = run(audit, args);
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

#[test]
fn verify_says_what_is_whole_and_where_what_is_not_was_changed() {
    let audit = Audit::new();
    let one = record(&audit, "one", &["first\r\n", "second\r\n", "third\r\n"]);
    let two = record(&audit, "two", &["first\r\n", "second\r\n", "third\r\n"]);
    let all = ["verify", "recordings", "--keys", "keys.pem"];
    let (code, text) = says(&audit, &all);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.lines()
            .all(|line| line.contains(": complete; alice@example.com")),
        "{text}"
    );

    let segment = Path::new(&two).join(segment_name(1));
    let mut bytes = fs::read(&segment).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (code, text) = says(&audit, &all);
    assert_eq!(code, Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with(&format!("recordings/{}: complete", name(&one))),
        "{text}"
    );
    assert!(lines[1].contains("BROKEN: segment 1, chunk 0"), "{text}");

    fs::remove_file(Path::new(&one).join(MANIFEST)).unwrap();
    let (code, text) = says(&audit, &["verify", &one, "--keys", "keys.pem"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("UNSEALED"), "{text}");
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

#[test]
fn verify_believes_nobody_by_default() {
    let audit = Audit::new();
    record(&audit, "one", &["text"]);
    assert_eq!(
        run(&audit, &["verify", "recordings"]).status.code(),
        Some(2)
    );
    let other = SigningKey::generate().public().to_pem();
    fs::write(audit.root.path().join("other.pem"), other).unwrap();
    let (code, text) = says(&audit, &["verify", "recordings", "--keys", "other.pem"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("BROKEN: manifest: it is signed by none of the trusted keys"),
        "{text}"
    );
}

#[test]
fn a_recording_in_a_store_is_like_one_in_a_directory() {
    let audit = Audit::new();
    let path = record(&audit, "one", &["first\r\n", "second\r\n"]);
    let url = format!("file://{}", Path::new(&path).parent().unwrap().display());
    let (code, text) = says(&audit, &["verify", &url, "--keys", "keys.pem"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        run(&audit, &["ls", "file:///no/such/place"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_line_missing_in_a_log_is_named() {
    let audit = Audit::new();
    let mut previous = "0".repeat(64);
    let mut lines: Vec<String> = Vec::new();
    for (seq, kind) in (1..).zip(["Started", "Requested", "Granted", "Stopped"]) {
        let line = serde_json::json!({
            "version": "drawbridge.dev/audit/v1",
            "id": uuid::Uuid::now_v7(),
            "time": "2026-01-02T03:04:05Z",
            "type": kind,
            "component": "gateway",
            "instance": "gateway-0",
            "seq": seq,
            "previous": previous,
        });
        lines.push(line.to_string());
        previous = Sha256::of(lines[lines.len() - 1].as_bytes()).to_string();
    }
    let log = audit.root.path().join("audit.jsonl");
    fs::write(&log, format!("{}\n", lines.join("\n"))).unwrap();
    let verify = ["verify", "audit.jsonl", "--keys", "keys.pem"];
    let (code, text) = says(&audit, &verify);
    assert_eq!(code, Some(1));
    let unsigned =
        "BROKEN: audit.jsonl: line 4: ends gateway-0, and no trusted key vouches for it\n";
    assert!(text.starts_with(unsigned), "{text}");
    assert!(
        text.ends_with("4 lines, 0 of them delivered again, 1 runs, 1 problems\n"),
        "{text}"
    );
    lines.remove(1);
    fs::write(&log, format!("{}\n", lines.join("\n"))).unwrap();
    let (code, text) = says(&audit, &verify);
    assert_eq!(code, Some(1));
    assert!(text.starts_with("BROKEN: audit.jsonl: line 2: "), "{text}");
}

#[test]
fn ls_tells_who_and_when() {
    let audit = Audit::new();
    record(&audit, "one", &["text\r\n"; 70]);
    let open = record(&audit, "two", &["text\r\n"]);
    fs::remove_file(Path::new(&open).join(MANIFEST)).unwrap();
    let (code, text) = says(&audit, &["ls", "recordings"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = text.lines().collect();
    let who = "alice@example.com in shop/web-0/app";
    assert!(
        lines[0].starts_with("2026-01-02T03:04:05Z") && lines[0].contains("1m 10s"),
        "{text}"
    );
    assert!(
        lines[0].contains(who) && lines[0].contains("complete"),
        "{text}"
    );
    assert!(
        lines[1].contains(who) && lines[1].contains("unsealed"),
        "{text}"
    );
}

#[test]
fn search_finds_what_was_printed_and_when() {
    let audit = Audit::new();
    record(
        &audit,
        "one",
        &["nothing\r\n", "the \x1b[1mse", "cret\x1b[0m word\r\n"],
    );
    record(&audit, "two", &["nothing\r\n"]);
    let (code, text) = says(&audit, &["search", "-i", "SECRET w", "recordings"]);
    assert_eq!(code, Some(0));
    assert_eq!(text, "recordings/one 00:00:02.000 the secret word\n");
    assert_eq!(
        says(&audit, &["search", "-F", "s.cret", "recordings"]),
        (Some(1), String::new())
    );
}

#[test]
fn export_gives_the_cast_and_the_text() {
    let audit = Audit::new();
    let path = record(&audit, "one", &["$ ls\r\n", HOSTILE, "file\r\n"]);
    let (code, text) = says(&audit, &["export", &path, "--format", "text"]);
    assert_eq!((code, &text[..]), (Some(0), "$ ls\nfile\n"));
    assert!(
        run(&audit, &["export", &path, "-o", "x.cast"])
            .status
            .success()
    );
    let cast = fs::read_to_string(audit.root.path().join("x.cast")).unwrap();
    assert!(cast.starts_with(r#"{"version":2,"width":80,"height":24,"#));
    assert!(cast.contains(r#"[1.000000,"o","$ ls\r\n"]"#));
    assert_eq!(
        run(&audit, &["export", "recordings", "--keys", "keys.pem"])
            .status
            .code(),
        Some(0)
    );
    record(&audit, "two", &["text"]);
    assert_eq!(
        run(&audit, &["export", "recordings"]).status.code(),
        Some(2)
    );
}

#[test]
fn replay_draws_and_does_nothing_else() {
    let audit = Audit::new();
    let path = record(&audit, "one", &["\x1b[1mone", HOSTILE, "\x1b[0mtwo\r\n"]);
    let (code, text) = says(&audit, &["replay", &path, "--speed", "1000"]);
    assert_eq!((code, &text[..]), (Some(0), "\x1b[1mone\x1b[0mtwo\r\n"));
}

#[test]
fn a_broken_recording_is_not_replayed_by_who_gave_keys() {
    let audit = Audit::new();
    let path = record(&audit, "one", &["one", "two", "three"]);
    fs::remove_file(Path::new(&path).join(segment_name(1))).unwrap();
    let (code, text) = says(
        &audit,
        &["replay", &path, "--keys", "keys.pem", "--speed", "1000"],
    );
    assert_eq!((code, &text[..]), (Some(2), ""));
}
