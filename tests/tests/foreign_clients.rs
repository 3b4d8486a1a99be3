//! Clients nobody here wrote, through the gateway: the Python `kubernetes` package and `@kubernetes/client-node`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_tests::{Test, note, run, soon, text};
use serde_json::json;

/// Longest a client may take, its download on a fresh machine included.
const LIMIT: Duration = Duration::from_mins(8);

async fn client(test: &Test, name: &str) -> Result<()> {
    test.pod("web").await?;
    let session = test.session("web", json!({"maxConnections": 16})).await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/run");
    let child = tokio::process::Command::new(script)
        .args([
            name,
            "--namespace",
            &test.namespace,
            "--pod",
            "web",
            "--container",
            "main",
            "--kubeconfig",
        ])
        .arg(&session.kubeconfig)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = soon("the client is done", LIMIT, child)
        .await?
        .context("failed to run tests/clients/run")?;
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{}:\n{said}", output.status);
    note(format!(
        "{name}: {} promises held",
        said.lines().filter(|line| line.starts_with("ok")).count()
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_clients_stream_works_unmodified() {
    run(async |test| client(test, "python").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_clients_exec_works_unmodified() {
    run(async |test| client(test, "node").await).await;
}
