//! What users were promised, on a Kubernetes and with the product's own programs.
//!
//! One binary, so that one sandbox, one operator and one gateway serve all of it.

mod audit;
mod bounds;
mod cut;
mod failures;
mod faults;
mod forged;
mod grant;
mod hostile;
mod isolation;
mod keepalive;
mod live;
mod quiet;
mod recorder;
mod recording;
mod refusals;
mod subprotocols;

use anyhow::Result;
use drawbridge_tests::{Console, Opening, Session, Test};
use serde_json::json;

/// A command that ends at once, for tests of what comes before it.
fn exec(session: &Session) -> Opening {
    Opening::exec(session, &["true"])
}

/// A session for a pod named `web`, both made here.
async fn granted(test: &Test) -> Result<Session> {
    test.pod("web").await?;
    test.session("web", json!({})).await
}

/// A shell on a terminal, at its prompt.
async fn shell(test: &Test, session: &Session) -> Result<Console> {
    let mut console = Opening::exec(session, &["sh"])
        .tty()
        .open(&test.gateway())
        .await?;
    echo(&mut console, "rea''dy", "ready").await?;
    Ok(console)
}

/// Has a shell print something that looks otherwise as it is typed, so that the terminal's echo does not count.
async fn echo(console: &mut Console, typed: &str, shown: &str) -> Result<()> {
    console.stdin(format!("echo {typed}\n").as_bytes()).await?;
    console.until(shown).await.map(drop)
}
