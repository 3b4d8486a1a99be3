//! `--check`: a command through the gateway, the page, a revocation that ends an open shell, and the recordings of both.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_crds::v1alpha1::{Recorded, RecordingVerdict};
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use kube::{Api, Client};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::session::{NAMESPACE, POD, SHELL, recorded, revoke};
use crate::stage::client;

/// Longest wait for anything here. An answer takes milliseconds; a busy machine may take longer.
const LIMIT: Duration = Duration::from_secs(30);

/// Checks that the demo keeps what its summary says.
pub(crate) async fn check(alice: &Client, shell: &str, look: &str) -> Result<()> {
    let gateway = client(shell).await?;
    let pods = Api::<Pod>::namespaced(gateway.clone(), NAMESPACE);
    let said = timeout(LIMIT, command(&pods))
        .await
        .context("no answer through the gateway")??;
    ensure!(said == "hello from the pod\n", "the pod said {said:?}");
    println!("check: a command ran in the pod, through the gateway");

    let page = http::Request::get("/ui/").body(Vec::new())?;
    let page = gateway
        .request_text(page)
        .await
        .context("the gateway serves no terminal page")?;
    ensure!(page.contains("<html"), "the terminal page is no page");
    println!("check: the terminal page is served");

    let mut shell = pods
        .exec(POD, ["sh"], &AttachParams::interactive_tty())
        .await?;
    let mut out = shell.stdout().context("a shell has an output")?;
    // A prompt shows that it runs.
    timeout(LIMIT, out.read(&mut [0; 64]))
        .await
        .context("the shell shows no prompt")??;
    timeout(LIMIT, revoke(alice))
        .await
        .context("the session is not revoked")??;
    let ended = shell.take_status().context("a shell has a status")?;
    let drained = async {
        let mut rest = Vec::new();
        tokio::join!(ended, out.read_to_end(&mut rest)).0
    };
    let status = timeout(LIMIT, drained)
        .await
        .context("the revoked shell is still open")?;
    ensure!(
        status.as_ref().and_then(|status| status.status.as_deref()) != Some("Success"),
        "a revoked shell ended as a success"
    );
    ensure!(
        timeout(LIMIT, command(&pods)).await?.is_err(),
        "a revoked session was let in"
    );
    println!("check: revoked; the open shell ended, and no other is let in");

    // The command's, and the shell's.
    let recorded = timeout(LIMIT, recorded(alice, 2))
        .await
        .context("the session tells no recordings")??;
    let whole = |one: &Recorded| one.verdict == RecordingVerdict::Complete;
    ensure!(recorded.iter().all(whole), "not whole: {recorded:?}");
    let look = client(look).await?;
    let mut told = String::new();
    for one in &recorded {
        let path = format!("/sessions/{NAMESPACE}/{SHELL}/recordings/{}/cast", one.id);
        let cast = http::Request::get(path).body(Vec::new())?;
        told += &look.request_text(cast).await.context("no replay")?;
    }
    ensure!(told.contains("hello from the pod"), "recorded was {told}");
    println!("check: both were recorded, and are replayed to who may look");
    Ok(())
}

async fn command(pods: &Api<Pod>) -> Result<String> {
    let params = AttachParams::default().container("app").stderr(false);
    let mut process = pods
        .exec(POD, ["echo", "hello from the pod"], &params)
        .await?;
    let mut said = String::new();
    let mut out = process.stdout().context("it has an output")?;
    out.read_to_string(&mut said).await?;
    process.join().await?;
    Ok(said)
}
