//! Programs nobody here wrote: the Python `kubernetes` package and `@kubernetes/client-node` through the gateway, and
//! asciinema with what was recorded there.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_crds::v1alpha1::ConsoleSession;
use drawbridge_tests::{Opening, Test, note, run, soon, text, wait_for};
use serde_json::json;
use tokio::process::Command;

/// Longest a client may take, its download on a fresh machine included.
const LIMIT: Duration = Duration::from_mins(8);

/// A program that `tests/clients/run` installs and knows by this name.
fn program(name: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/run");
    let mut program = Command::new(script);
    program.arg(name);
    program
}

/// What it did, if that went well.
async fn done(mut program: Command) -> Result<Output> {
    let child = program.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = soon("the program is done", LIMIT, child).await?;
    let output = output.with_context(|| format!("failed to run {program:?}"))?;
    let said = || format!("{}{}", text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{}:\n{}", output.status, said());
    Ok(output)
}

async fn client(test: &Test, name: &str) -> Result<()> {
    test.pod("web").await?;
    let session = test.session("web", json!({"maxConnections": 16})).await?;
    let mut client = program(name);
    client
        .args([
            "--namespace",
            &test.namespace,
            "--pod",
            "web",
            "--container",
            "main",
            "--kubeconfig",
        ])
        .arg(&session.kubeconfig);
    let output = done(client).await?;
    let said = text(&output.stdout);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_plays_in_asciinema_as_it_was_shown() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let script = "i=0; while [ $i -lt 500 ]; do printf '\\033[1mline %s of gr\u{fc}\u{df}e \u{20ac}\\033[0m\\n' $i; i=$((i+1)); done";
        let opening = Opening::exec(&session, &["sh", "-c", script]).tty();
        let shown = opening.open(&test.gateway()).await?.finish().await?.stdout;
        ensure!(text(&shown).contains("line 499 of"), "{}", text(&shown));

        let sessions = test.api::<ConsoleSession>();
        let told = wait_for("the recording", LIMIT, async || {
            let status = sessions.get(&session.name).await?.status;
            Ok(status.unwrap_or_default().recordings.into_iter().next())
        });
        let location = told.await?.location;
        let segments = location.strip_prefix("file://").context("a directory")?;
        // As docs/recording.md says.
        let mut zstd = Command::new("sh");
        zstd.args(["-c", "cat \"$1\"/*.seg | zstd -dc", "sh", segments]);
        let cast = done(zstd).await?.stdout;
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("session.cast");
        std::fs::write(&file, cast)?;
        let mut asciinema = program("asciinema");
        asciinema
            .arg("cat")
            .arg(&file)
            .env("ASCIINEMA_CONFIG_HOME", dir.path())
            .env("LC_ALL", "C.UTF-8"); // it refuses others
        let played = done(asciinema).await?.stdout;
        ensure!(played == shown, "played: {}", text(&played));
        Ok(())
    })
    .await;
}
