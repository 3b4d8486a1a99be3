//! From nothing to a shell through the gateway, with one command, on a real Kubernetes.
//!
//! Brings up the project's own cluster unless KUBECONFIG names one, installs the product, starts the operator and the
//! gateway with the rights they have in earnest, makes a pod and a ConsoleSession, and opens a shell with nothing but
//! the kubeconfig the session's user is given. Everything but the cluster is gone afterwards.

use std::io::IsTerminal as _;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use drawbridge_tests::{Cluster, Session, Test};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: cargo demo [--check]

  Opens a shell in a pod through the gateway. Not on a terminal, it prints the command for one and waits for Ctrl-C.
  --check   runs one command through the gateway instead and exits 0 if that worked

  KUBECONFIG          a cluster where you are administrator; if not set, one is brought up (root, Debian)
  KUBECTL             kubectl 1.30 or newer; default: the one on PATH, or the project's own cluster's
  DRAWBRIDGE_BIN_DIR  where drawbridge-operator and drawbridge-gateway are; default: built by cargo
";

#[tokio::main]
async fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match demo(check).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(check: bool) -> Result<()> {
    Cluster::ensure().await?;
    say("installing, and starting the operator and the gateway");
    let test = Test::new().await?;
    let done = tokio::select! {
        done = show(&test, check) => done,
        // A shell is not interrupted by Ctrl-C: its terminal passes that on as a byte.
        () = interrupted() => Ok(()),
    };
    say("cleaning up");
    test.clean_up().await;
    done
}

async fn show(test: &Test, check: bool) -> Result<()> {
    say("making a pod and a ConsoleSession for it");
    test.pod("web").await?;
    let session = test
        .session(
            "web",
            json!({"reason": "to see how it works", "duration": "30m"}),
        )
        .await?;
    println!(
        "{}",
        test.cluster
            .kubectl
            .ok(&["-n", &test.namespace, "get", "consolesessions"])
            .await?
    );
    if check {
        return one_command(test, &session).await;
    }
    let kubectl = session.kubectl(&test.cluster)?;
    println!(
        "{} is let in, until {}, by this and nothing else:\n\n  {} --kubeconfig {} exec -it web -- sh\n",
        session.object.spec.user,
        session.expires_at()?,
        kubectl.program().display(),
        session.kubeconfig.display()
    );
    if !std::io::stdin().is_terminal() {
        say("Ctrl-C ends it");
        std::future::pending::<()>().await;
    }
    let mut shell = tokio::process::Command::new(kubectl.program());
    shell
        .args(["exec", "-it", "web", "--", "sh"])
        .envs(kubectl.environment());
    shell
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit());
    let status = shell.status().await.context("failed to run kubectl")?;
    say(format!("the shell ended: {status}"));
    Ok(())
}

async fn one_command(test: &Test, session: &Session) -> Result<()> {
    let said = session
        .kubectl(&test.cluster)?
        .ok(&["exec", "web", "--", "echo", "hello from the pod"])
        .await?;
    ensure!(said == "hello from the pod\n", "the pod said {said:?}");
    say("a command ran in the pod, through the gateway");
    test.revoke(&session.name).await?;
    test.phase(&session.name, drawbridge_crds::v1alpha1::Phase::Revoked)
        .await?;
    let refused = session
        .kubectl(&test.cluster)?
        .run(&["exec", "web", "--", "true"])
        .await?;
    if refused.code == Some(0) {
        bail!("a revoked session was let in");
    }
    say("revoked, and not let in again");
    Ok(())
}

async fn interrupted() {
    match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        }
        _ => std::future::pending().await, // then a signal ends the process, and its children with it
    }
}

fn say(text: impl std::fmt::Display) {
    eprintln!("demo: {text}");
}
