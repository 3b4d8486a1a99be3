//! Real kubectl, unmodified, with the kubeconfig from the Secret and nothing else.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_tests::{Terminal, Test, contains, note, run, wait_for};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Longest a refusal may take: "at once", with kubectl's own start and its second attempt over SPDY.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Longest a transfer may take. A hundredth of it is common.
const TRANSFER: Duration = Duration::from_mins(4);

/// A shell on a terminal, at its prompt.
async fn shell(test: &Test, rows: u16, columns: u16) -> Result<Terminal> {
    test.pod("web").await?;
    let session = test.session("web", json!({})).await?;
    let kubectl = session.kubectl(&test.cluster).await?;
    let mut terminal =
        Terminal::start(&kubectl, &["exec", "-it", "web", "--", "sh"], rows, columns)?;
    terminal.prompt().await?;
    Ok(terminal)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_on_a_terminal_types_interrupts_resizes_and_speaks_utf8() {
    run(async |test| {
        let mut terminal = shell(test, 24, 80).await?;
        terminal.type_text("echo si''ze $(stty size)\n").await?;
        terminal.shows("size 24 80").await?;

        // What answers is in the foreground: an interrupt ends it, and not the shell between two programs.
        terminal
            .type_text("echo wai''ting; awk '{print \"ru\" $0 \"ing\"}'\n")
            .await?;
        terminal.shows("waiting").await?;
        terminal.type_text("nn\n").await?;
        terminal.shows("running").await?;
        terminal.type_text("\x03").await?;
        // The shell drops what is typed before it is back.
        terminal.prompt().await?;
        terminal.type_text("echo co''de $?\n").await?;
        terminal.shows("code 130").await?;

        terminal.resize(40, 100)?;
        // The new size arrives when it arrives; the shell waits for it.
        terminal
            .type_text(
                "until [ \"$(stty size)\" = '40 100' ]; do :; done; echo si''ze $(stty size)\n",
            )
            .await?;
        terminal.shows("size 40 100").await?;

        terminal.type_text("echo lis''tening; cat\n").await?;
        terminal.shows("listening").await?;
        terminal.type_text("grüße 日本 🚪\n").await?;
        terminal
            .until("what was typed, and what cat made of it", |screen| {
                screen.matches("grüße 日本 🚪").count() == 2
            })
            .await?;
        terminal.type_text("\x04").await?;

        terminal.type_text("exit 3\n").await?;
        let status = terminal.exit(Duration::from_secs(10)).await?;
        ensure!(status.code() == Some(3), "{status}");
        contains(&terminal.screen(), "command terminated with exit code 3")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vi_writes_the_file_and_leaves_the_screen_clean() {
    run(async |test| {
        let mut terminal = shell(test, 24, 80).await?;
        terminal.type_text("echo bef''ore\n").await?;
        terminal.shows("before").await?;
        terminal.type_text("busybox vi note\n").await?;
        terminal
            .until("vi's empty lines", |screen| {
                screen.matches("\n~\n").count() > 5
            })
            .await?;
        // At a person's pace: vi takes an Escape and a key right behind it for one key.
        terminal.type_text("iup the drawbridge").await?;
        terminal.shows("up the drawbridge").await?;
        terminal.type_text("\x1b").await?;
        terminal
            .until("vi in command mode", |screen| screen.contains("\n- note"))
            .await?;
        terminal.type_text(":wq\r").await?;
        terminal
            .until("the screen as it was before vi", |screen| {
                screen.contains("before") && !screen.contains("\n~\n")
            })
            .await?;
        ensure!(
            !terminal.alternate(),
            "the alternate screen was left behind"
        );
        terminal.type_text("cat note; echo res''t\n").await?;
        terminal
            .until("the file", |screen| {
                screen.contains("up the drawbridge\n") && screen.contains("rest")
            })
            .await?;
        terminal.type_text("exit\n").await?;
        let status = terminal.exit(Duration::from_secs(10)).await?;
        ensure!(status.success(), "{status}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_both_outputs_arrive_as_they_are() {
    run(async |test| {
        test.pod("web").await?;
        let kubectl = test
            .session("web", json!({}))
            .await?
            .kubectl(&test.cluster)
            .await?;
        let output = kubectl
            .run(&["exec", "web", "--", "sh", "-c", "exit 42"])
            .await?;
        ensure!(output.code == Some(42), "{output:?}");
        contains(&output.stderr, "command terminated with exit code 42")?;
        let output = kubectl
            .run(&[
                "exec",
                "web",
                "--",
                "sh",
                "-c",
                "echo out; echo err >&2; printf last",
            ])
            .await?;
        ensure!(
            output.code == Some(0) && output.out() == "out\nlast" && output.stderr == "err\n",
            "{output:?}"
        );
        let output = kubectl
            .run(&[
                "exec", "web", "-c", "main", "--", "printf", "%s|", "a b", "c;d", "é", "", "*",
            ])
            .await?;
        ensure!(
            output.out() == "a b|c;d|é||*|",
            "argv arrives item by item: {output:?}"
        );
        let output = kubectl
            .run(&["exec", "web", "--", "no-such-program"])
            .await?;
        ensure!(output.code.is_some_and(|code| code != 0), "{output:?}");
        contains(&output.stderr, "no-such-program")?;
        contains(
            &kubectl.ok(&["get", "pod", "web", "-o", "yaml"]).await?,
            "phase: Running",
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_megabytes_arrive_with_the_same_sha256() {
    run(async |test| {
        test.pod("web").await?;
        let kubectl = test
            .session("web", json!({}))
            .await?
            .kubectl(&test.cluster)
            .await?;
        let make = "head -c 200000000 /dev/urandom >big && sha256sum <big";
        let sum = kubectl
            .run_with(&["exec", "web", "--", "sh", "-c", make], None, TRANSFER)
            .await?
            .ok(&["make"])?;
        let output = kubectl
            .run_with(&["exec", "web", "--", "cat", "big"], None, TRANSFER)
            .await?;
        ensure!(
            output.code == Some(0),
            "{:?} {}",
            output.code,
            output.stderr
        );
        ensure!(
            output.stdout.len() == 200_000_000,
            "{} bytes",
            output.stdout.len()
        );
        contains(&sum, &hex(&Sha256::digest(&output.stdout)))
    })
    .await;
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}"); // writing to a String cannot fail
        out
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cp_copies_a_tree_from_the_pod() {
    run(async |test| {
        test.pod("web").await?;
        let kubectl = test.session("web", json!({})).await?.kubectl(&test.cluster)
            .await?;
        let make = "mkdir -p tree/sub && echo one >tree/one && head -c 3000000 /dev/urandom >tree/sub/big && \
                    sha256sum <tree/sub/big";
        let sum = kubectl.ok(&["exec", "web", "--", "sh", "-c", make]).await?;
        let copy = test.file("copy");
        let target = copy.to_str().context("a path in UTF-8")?;
        kubectl.ok(&["cp", "web:tree", target]).await?;
        ensure!(std::fs::read(copy.join("one"))? == b"one\n");
        contains(&sum, &hex(&Sha256::digest(std::fs::read(copy.join("sub/big"))?)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_reaches_the_containers_own_process() {
    run(async |test| {
        test.pod_with(
            "console",
            // The variable is the process's own: nothing started by exec would have it.
            json!({"command": ["sh", "-c", "MARK=own exec sh"], "stdin": true, "tty": true}),
        )
        .await?;
        let kubectl = test
            .session("console", json!({"mode": "Attach"}))
            .await?
            .kubectl(&test.cluster)
            .await?;
        let mut terminal = Terminal::start(&kubectl, &["attach", "-it", "console"], 30, 90)?;
        terminal.type_text("\n").await?;
        terminal.prompt().await?;
        terminal
            .type_text("until [ \"$(stty size)\" = '30 90' ]; do :; done; echo pro''cess $MARK\n")
            .await?;
        terminal.shows("process own").await?;
        drop(terminal);
        let refused = kubectl.run(&["exec", "console", "--", "true"]).await?;
        ensure!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
        contains(&refused.stderr, "this session allows attach, not exec")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_with_an_end_works_where_the_cluster_can_do_it_and_is_refused_at_once_where_it_cannot()
 {
    run(async |test| {
        test.pod("web").await?;
        let kubectl = test
            .session("web", json!({}))
            .await?
            .kubectl(&test.cluster)
            .await?;
        let file = test.file("upload");
        let bytes: Vec<u8> = (0..3_000_000_u32)
            .map(|n| u8::try_from(n * 7 % 251).unwrap_or(0))
            .collect();
        std::fs::write(&file, &bytes)?;
        let path = file.to_str().context("a path in UTF-8")?;
        let exec = kubectl
            .run_with(
                &["exec", "-i", "web", "--", "sha256sum"],
                Some(&bytes),
                TRANSFER,
            )
            .await?;
        let cp = kubectl
            .run_with(&["cp", path, "web:upload"], None, TRANSFER)
            .await?;
        let sum = hex(&Sha256::digest(&bytes));
        if test.cluster.has_v5() {
            contains(&exec.ok(&["exec", "-i"])?, &sum)?;
            cp.ok(&["cp"])?;
            return contains(
                &kubectl
                    .ok(&["exec", "web", "--", "sha256sum", "upload"])
                    .await?,
                &sum,
            );
        }
        for output in [exec, cp] {
            ensure!(output.code.is_some_and(|code| code != 0), "{output:?}");
            ensure!(output.took < AT_ONCE, "it took {:?}", output.took);
            contains(&output.stderr, "reads stdin to its end")?;
            contains(&output.stderr, "Kubernetes 1.30 or newer")?;
        }
        let nothing = kubectl
            .run(&["exec", "web", "--", "test", "-e", "upload"])
            .await?;
        ensure!(nothing.code == Some(1), "no half of a file: {nothing:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_person_in_words() {
    run(async |test| {
        test.pod("web").await?;
        test.pod("db").await?;
        let session = test
            .session("web", json!({"command": ["echo", "allowed"]}))
            .await?;
        let kubectl = session.kubectl(&test.cluster).await?;
        ensure!(
            kubectl
                .ok(&["exec", "web", "--", "echo", "allowed"])
                .await?
                == "allowed\n"
        );
        for (args, says) in [
            (
                &["exec", "web", "--", "sh"][..],
                "this session allows one command only",
            ),
            (
                &["exec", "db", "--", "echo", "allowed"],
                "this session is for pod \"web\", not \"db\"",
            ),
            (&["get", "pods"], "this is a console gateway"),
            (&["logs", "web"], "this is a console gateway"),
        ] {
            let output = kubectl.run(args).await?;
            ensure!(
                output.code.is_some_and(|code| code != 0) && output.took < AT_ONCE,
                "{args:?}: {output:?}"
            );
            contains(&output.stderr.to_lowercase(), &says.to_lowercase())
                .with_context(|| format!("{args:?}"))?;
        }
        test.revoke(&session.name).await?;
        test.phase(&session.name, drawbridge_crds::v1alpha1::Phase::Revoked)
            .await?;
        let output = kubectl
            .run(&["exec", "web", "--", "echo", "allowed"])
            .await?;
        ensure!(output.code.is_some_and(|code| code != 0), "{output:?}");
        Ok(())
    })
    .await;
}

/// What a release before 1.25 cannot do. Through the cluster's own API: a gateway lets nobody change a pod.
#[tokio::test(flavor = "multi_thread")]
async fn debug_adds_an_ephemeral_container_and_attaches_to_it() {
    run(async |test| {
        if test.cluster.version < (1, 25) {
            note("ephemeral containers are of Kubernetes 1.25; the sandbox has them");
            return Ok(());
        }
        test.pod("web").await?;
        let kubectl = test.cluster.kubectl().await?;
        let image = format!("--image={}", test.cluster.pod_defaults().0);
        let args = [
            "-n",
            &test.namespace,
            "debug",
            "-it",
            "web",
            &image,
            "--container=debugger",
            "--target=main",
            "--",
            "sh",
            "-c",
            "MARK=own exec sh",
        ];
        let mut terminal = Terminal::start(kubectl, &args, 30, 100)?;
        terminal
            .until("a prompt, or the advice to ask for one", |screen| {
                screen.trim_end().ends_with(['#', '$', '.'])
            })
            .await?;
        terminal
            .type_text("\necho deb''ugging $MARK; exit 4\n")
            .await?;
        terminal.shows("debugging own").await?;
        terminal.exit(Duration::from_secs(20)).await?;
        let ended = wait_for("its end is told", TRANSFER, async || {
            let pod = test.api::<Pod>().get("web").await?;
            let statuses = pod.status.and_then(|pod| pod.ephemeral_container_statuses);
            let status = statuses.and_then(|all| all.into_iter().next());
            Ok(status.and_then(|one| one.state?.terminated))
        });
        ensure!(ended.await?.exit_code == 4);
        // Nobody can take it away again.
        let pod = test.api::<Pod>().get("web").await?;
        let names = pod.spec.and_then(|spec| spec.ephemeral_containers);
        ensure!(names.is_some_and(|all| all.len() == 1 && all[0].name == "debugger"));
        Ok(())
    })
    .await;
}
