//! Recordings in S3, on a server that speaks it and that nobody here wrote.

#![expect(clippy::unwrap_used, reason = "these are tests")]

#[path = "common/audit.rs"]
mod audit;

use std::fs;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::process::Command;

use audit::Audit;

/// A server whose buckets are the directories in `dir`; its address.
async fn server(dir: &Path) -> String {
    let mut service = S3ServiceBuilder::new(FileSystem::new(dir).unwrap());
    service.set_auth(SimpleAuth::from_single("key", "secret"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let builder = Builder::new(TokioExecutor::new());
                let served = builder.serve_connection(TokioIo::new(socket), service);
                let _ = served.await; // the client hangs up as it likes
            });
        }
    });
    format!("http://{address}")
}

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
    let s3 = server(audit.root.path()).await;

    let all = "verify s3://recordings --keys keys.pem";
    let (code, text) = says(&audit, &s3, all).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("s3://recordings/one: complete;"), "{text}");
    let one = "export s3://recordings/two --format text";
    let (code, text) = says(&audit, &s3, one).await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text, "line 1 of two\nline 2 of two\nline 3 of two\n");
    let (_, text) = says(&audit, &s3, "search of.one s3://recordings").await;
    assert_eq!(text.lines().count(), 3, "{text}");

    fs::remove_file(Path::new(&paths[1]).join("00000001.seg")).unwrap();
    let (code, text) = says(&audit, &s3, all).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("s3://recordings/two: BROKEN: segment 1: is missing"),
        "{text}"
    );
    let nothing = says(&audit, &s3, "ls s3://recordings/three").await;
    assert_eq!(nothing, (Some(2), String::new()));
}
