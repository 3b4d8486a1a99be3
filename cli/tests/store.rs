//! Recordings in S3, on a server that speaks it and that nobody here wrote.

#![expect(clippy::unwrap_used, reason = "these are tests")]

#[path = "common/audit.rs"]
mod audit;
#[path = "../../audit/tests/common/s3.rs"]
mod s3;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use audit::Audit;

/// Exit code and standard output.
async fn says(audit: &Audit, endpoint: &str, args: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_drawbridge-audit"))
        .args(args.split(' '))
        .current_dir(audit.root.path())
        .env("AWS_ENDPOINT", endpoint)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

#[tokio::test]
async fn recordings_in_a_bucket_are_like_those_in_a_directory() {
    let audit = Audit::new();
    let mut paths = Vec::new();
    for name in ["one", "two"] {
        let mut recorder = audit.begin(name);
        for second in 1..4 {
            let line = format!("line {second} of {name}\r\n");
            recorder.output(Duration::from_secs(second), line.as_bytes(), 0);
        }
        paths.push(audit.end(recorder, Duration::from_secs(4)));
    }
    let endpoint = s3::server(audit.root.path()).await;

    let all = "verify s3://recordings --keys keys.pem";
    let (code, text) = says(&audit, &endpoint, all).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("s3://recordings/one: complete;"), "{text}");
    let one = "export s3://recordings/two --format text";
    let (code, text) = says(&audit, &endpoint, one).await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text, "line 1 of two\nline 2 of two\nline 3 of two\n");
    let (_, text) = says(&audit, &endpoint, "search of.one s3://recordings").await;
    assert_eq!(text.lines().count(), 3, "{text}");

    fs::remove_file(Path::new(&paths[1]).join("00000001.seg")).unwrap();
    let (code, text) = says(&audit, &endpoint, all).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("s3://recordings/two: BROKEN: segment 1: is missing"),
        "{text}"
    );
    let nothing = says(&audit, &endpoint, "ls s3://recordings/three").await;
    assert_eq!(nothing, (Some(2), String::new()));
}
