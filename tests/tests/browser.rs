//! The terminal page in a real browser: runs `tests/browser` against the gateway, as somebody with a link does.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_tests::{Test, run, soon};
use serde_json::json;

/// Longest the whole suite may take.
const LIMIT: Duration = Duration::from_mins(14);

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_page_keeps_its_promises_in_chromium() {
    run(async |test| suite(test).await).await;
}

async fn suite(test: &Test) -> Result<()> {
    test.create_pod("pair", vec![json!({}), json!({})]).await?;
    test.pod("web").await?;
    test.running("pair").await?;
    let kubectl = test.cluster.kubectl().await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/run");
    let child = tokio::process::Command::new(script)
        .envs(kubectl.environment().filter(|(name, _)| *name != "HOME"))
        .env("KUBECTL", kubectl.program())
        .env(
            "BROWSER_TEST_URL",
            format!("https://{}", test.gateway().addr),
        )
        // Some of its files, to look into one; unset: all.
        .args(
            std::env::var("DRAWBRIDGE_BROWSER_FILES")
                .unwrap_or_default()
                .split_whitespace(),
        )
        .env("BROWSER_TEST_NAMESPACE", &test.namespace)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    let status = soon("the browser is done", LIMIT, child)
        .await?
        .context("failed to run tests/browser/run")?;
    ensure!(status.success(), "{status}; what it printed says why");
    Ok(())
}
