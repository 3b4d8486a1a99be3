//! Exec, attach, log and the life of pods, as a client sees them.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod lab;

use drawbridge_sandbox::Release;
use drawbridge_sandbox::faults::StreamFault;
use futures_util::{SinkExt as _, StreamExt as _};
use jiff::SignedDuration;
use lab::{Lab, running, soon, within};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";
const TERMINAL: &str = "command=sh&stdin=true&stdout=true&tty=true";
/// Long enough for something that must not come.
const MOMENT: std::time::Duration = std::time::Duration::from_millis(300);
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// A query that runs a shell script.
fn script(text: &str) -> String {
    let script: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    format!("command=sh&command=-c&command={script}&stdin=true&stdout=true&stderr=true")
}

#[tokio::test]
async fn a_terminal_echoes_and_knows_its_size() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let mut shell = lab.exec(TERMINAL, V5).await;
    shell.send(4, br#"{"Width":101,"Height":37}"#).await;
    shell.send(0, b"stty size; echo $TERM $HOSTNAME\n").await;
    let seen = shell.until("xterm web").await;
    assert!(seen.contains("stty size"), "no echo: {seen}");
    assert!(seen.contains("37 101"), "{seen}");
    shell.send(0, b"exit 7\n").await;
    assert!(shell.end().await.text(3).contains("exit code 7"));
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn output_and_errors_come_apart_and_the_exit_code_last() {
    for (release, offer, metadata) in [
        (Release::V1_20, V4, true),
        (Release::V1_30, V5, true),
        (Release::V1_36, V4, false),
        (Release::V1_36, "v4.base64.channel.k8s.io", false),
    ] {
        let lab = Lab::start(release).await;
        lab.sleeper().await;
        let told = lab
            .exec(&script("echo out; echo err >&2; exit 42"), offer)
            .await
            .end()
            .await;
        assert_eq!(
            (told.text(1), told.text(2)),
            ("out\n".to_owned(), "err\n".to_owned())
        );
        let status: Value = serde_json::from_str(&told.text(3)).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "42");
        assert_eq!(
            status.get("metadata").is_some(),
            metadata,
            "{release:?} {offer}"
        );
        assert_eq!(told.close, Some(1000));
        lab.sandbox.stop().await;
    }
}

#[tokio::test]
async fn the_old_protocol_tells_success_by_silence_and_failure_in_prose() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let told = lab
        .exec(&script("true"), "base64.channel.k8s.io")
        .await
        .end()
        .await;
    assert_eq!((told.text(3), told.close), (String::new(), Some(1000)));
    let told = lab
        .exec(&script("exit 3"), "channel.k8s.io")
        .await
        .end()
        .await;
    assert!(
        told.text(3).ends_with("[sh -c exit 3], exit code 3"),
        "{told:?}"
    );
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn the_end_of_input_reaches_the_process_on_v5() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let mut shell = lab.exec(&script("cat; echo done"), V5).await;
    shell.send(0, b"hello\n").await;
    shell.send(255, &[0]).await;
    let told = shell.end().await;
    assert_eq!(
        (told.text(1).as_str(), told.text(3).as_str()),
        ("hello\ndone\n", SUCCESS)
    );
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn the_end_of_input_of_a_terminal_silences_a_process_that_goes_on() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let go = lab.cluster().dir.join("go");
    let wait = format!(
        "echo ready; until [ -e {} ]; do sleep 0.05; done; echo unheard; exit 5",
        go.display()
    );
    let mut shell = lab.exec(&format!("{}&tty=true", script(&wait)), V5).await;
    shell.until("ready").await;
    shell.send(255, &[0]).await;
    // The server handles frames in order: with the pong the end was handled, too.
    shell.socket.send(Message::Ping("x".into())).await.unwrap();
    while !matches!(shell.next().await, Some(Err(Message::Pong(_)))) {}
    std::fs::write(go, "").unwrap();
    let told = shell.end().await;
    assert!(!told.text(1).contains("unheard"), "{told:?}");
    assert!(told.text(3).contains("exit code 5"), "{told:?}");
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_signal_and_a_missing_command_are_reported() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let told = lab.exec(&script("kill -TERM $$"), V5).await.end().await;
    assert!(
        told.text(3)
            .contains("command terminated with exit code 143"),
        "{told:?}"
    );
    let told = lab
        .exec("command=nosuchthing&stdout=true", V4)
        .await
        .end()
        .await;
    let status: Value = serde_json::from_str(&told.text(3)).unwrap();
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with("Internal error occurred: error executing command in container")
            && message.contains("nosuchthing"),
        "{message}"
    );
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn much_output_arrives_whole() {
    const LENGTH: usize = 100_000_000;
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let shell = lab
        .exec(
            &script(&format!("head -c {LENGTH} /dev/zero; echo tail >&2")),
            V5,
        )
        .await;
    let told = shell.end().await;
    assert_eq!(told.data[&1].len(), LENGTH);
    assert_eq!(
        (told.text(2).as_str(), told.text(3).as_str()),
        ("tail\n", SUCCESS)
    );
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_deleted_pod_takes_its_shells_along() {
    let lab = Lab::start(Release::V1_36).await;
    let pod = lab.sleeper().await;
    let dir = lab
        .cluster()
        .dir
        .join("pods")
        .join(pod["metadata"]["uid"].as_str().unwrap());
    let mut shell = lab.exec(TERMINAL, V5).await;
    // A job of an interactive shell has a process group of its own.
    shell.send(0, b"set -m; sleep 4711 & echo read''y\n").await;
    shell.until("ready").await;
    assert!(dir.exists());
    lab.delete(30).await;
    let told = shell.end().await;
    assert!(
        told.text(3)
            .contains("command terminated with exit code 137"),
        "{told:?}"
    );
    lab.until(Value::is_null).await;
    assert_eq!(lab.processes("4711"), Vec::<u32>::new());
    soon(|| (!dir.exists()).then_some(())).await;
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_pod_that_ignores_the_signal_is_killed_when_its_grace_is_over() {
    let lab = Lab::start(Release::V1_36).await;
    let stubborn = "trap 'touch asked' TERM; touch ready; while :; do sleep 0.05; done";
    let pod = lab
        .pod(
            json!({"containers": [{"name": "app", "command": ["sh", "-c", stubborn]}]}),
            running,
        )
        .await;
    let dir = lab
        .cluster()
        .dir
        .join("pods")
        .join(pod["metadata"]["uid"].as_str().unwrap())
        .join("app");
    let there = |file: &str| {
        let path = dir.join(file);
        soon(move || path.exists().then_some(()))
    };
    there("ready").await;
    lab.delete(600).await;
    there("asked").await;
    lab.cluster().clock.advance(SignedDuration::from_secs(600));
    lab.until(Value::is_null).await;
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_end_the_process_but_the_sandbox_does() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let mut shell = lab.exec(&script("echo ready; sleep 4712"), V5).await;
    shell.until("ready").await;
    shell.socket.close(None).await.unwrap();
    assert_eq!(shell.end().await.close, Some(1000));
    let left = lab.processes("4712");
    assert!(!left.is_empty());
    lab.sandbox.stop().await;
    for pid in left {
        // Whoever takes over orphans may take a moment to bury it.
        soon(move || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())).await;
    }
}

#[tokio::test]
async fn a_child_in_the_background_keeps_the_exec_open() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let go = lab.cluster().dir.join("go");
    let wait = format!(
        "(until [ -e {} ]; do sleep 0.05; done; echo late) & echo early",
        go.display()
    );
    let mut shell = lab.exec(&script(&wait), V5).await;
    shell.until("early").await;
    std::fs::write(go, "").unwrap();
    let told = shell.end().await;
    assert_eq!(
        (told.text(1).as_str(), told.text(3).as_str()),
        ("late\n", SUCCESS)
    );
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_malformed_size_makes_the_next_one_stop_everything() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let mut shell = lab.exec(TERMINAL, V5).await;
    shell.send(4, b"not json").await;
    shell.send(0, b"echo still''alive\n").await;
    shell.until("stillalive").await;
    shell.send(4, br#"{"Width":1,"Height":1}"#).await;
    shell.socket.send(Message::Ping("x".into())).await.unwrap();
    shell.send(0, b"exit\n").await;
    let silent = tokio::time::timeout(MOMENT, async {
        while let Some(Ok(message)) = shell.socket.next().await {
            assert!(!message.is_pong());
        }
    });
    assert!(silent.await.is_err(), "it ended");
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn frames_are_read_as_the_go_server_reads_them() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let open = |protocol: &str| {
        format!(
            "GET /api/v1/namespaces/default/pods/web/exec?command=cat&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\
             Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Version: 13\r\n{protocol}\r\n"
        )
    };
    // No offer: an empty header. A frame without a mask is the end.
    let unmasked = [open("").as_bytes(), b"\x82\x03\x00hi"].concat();
    let mut stream = lab.connect(false).await;
    stream.write_all(&unmasked).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(
        head.contains("101 switching protocols") && head.contains("sec-websocket-protocol: \r\n"),
        "{head}"
    );
    assert!(answer.ends_with(b"\x88\x02\x03\xe8"), "{answer:?}");
    // A continuation is a message of its own; reserved bits mean nothing.
    let mut stream = lab.connect(false).await;
    stream
        .write_all(open("Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n").as_bytes())
        .await
        .unwrap();
    stream
        .write_all(b"\x02\x83\0\0\0\0\x00ab\x80\x83\0\0\0\0\x00cd\xf3\x83\0\0\0\0\x00ef")
        .await
        .unwrap();
    // `cat` may answer in one frame or in three. The head is not for searching: its audit id is letters, too.
    let mut seen = Vec::new();
    within(async {
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(stream.read_u8().await.unwrap());
        }
        seen.clear();
        while seen != b"abcdef" {
            seen.extend(Some(stream.read_u8().await.unwrap()).filter(u8::is_ascii_lowercase));
        }
    })
    .await;
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_handshake_is_refused_as_the_real_servers_refuse_it() {
    let exec = "/api/v1/namespaces/default/pods/web/exec?command=true&stdout=true";
    for (release, offer, code) in [
        (Release::V1_20, V5, 403),
        (Release::V1_36, "v3.channel.k8s.io", 403),
        (Release::V1_36, "v5.base64.channel.k8s.io", 403),
    ] {
        let lab = Lab::start(release).await;
        lab.sleeper().await;
        let refused = lab.try_open(exec, offer).await.err().unwrap();
        assert_eq!(refused.status(), code, "{offer}");
        assert!(refused.body().as_ref().is_none_or(Vec::is_empty));
        lab.sandbox.stop().await;
    }
    let lab = Lab::start(Release::V1_36).await;
    lab.pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        running,
    )
    .await;
    let pods = "/api/v1/namespaces/default/pods";
    for (path, expected) in [
        (
            format!("{pods}/none/exec?stdout=1"),
            r#"pods \"none\" not found"#,
        ),
        (
            format!("{pods}/web/exec?stdout=1"),
            "a container name must be specified for pod web, choose one of: [a b]",
        ),
        (
            format!("{pods}/web/exec?stdout=1&container=c"),
            "container c is not valid for pod web",
        ),
        (
            format!("{pods}/web/exec?stdout=1&container=a"),
            "Upgrade request required",
        ),
    ] {
        let answer = lab.get(&path).await;
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    let spdy = format!(
        "POST {pods}/web/exec?stdout=1&container=a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: SPDY/3.1\r\n\r\n"
    );
    let answer = lab.raw(&spdy).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("not SPDY"),
        "{answer}"
    );
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn the_death_of_the_kubelet_ends_a_stream_without_a_word() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let mut shell = lab.exec(TERMINAL, V5).await;
    shell.send(0, b"echo read''y\n").await;
    shell.until("ready").await;
    lab.cluster()
        .faults
        .send_modify(|now| now.kubelet_dead = true);
    let told = shell.end().await;
    assert_eq!((told.text(3).as_str(), told.close), ("", None));
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn streams_break_as_ordered() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    for fault in [
        StreamFault::CutMidFrame,
        StreamFault::Reset,
        StreamFault::StallMidFrame,
    ] {
        let mut shell = lab.exec(TERMINAL, V5).await;
        shell.send(0, b"echo read''y\n").await;
        shell.until("ready").await;
        lab.cluster().faults.send_modify(|now| now.streams = fault);
        if fault == StreamFault::Reset {
            assert!(shell.was_reset().await);
        } else {
            shell.send(0, b"echo more\n").await;
            if fault == StreamFault::StallMidFrame {
                // Not any frame: the prompt after "ready" may still be on its way.
                let more = tokio::time::timeout(MOMENT, shell.until("more")).await;
                assert!(more.is_err());
            } else {
                assert_eq!(shell.end().await.close, None);
            }
        }
        lab.cluster()
            .faults
            .send_modify(|now| now.streams = StreamFault::None);
    }
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_process_that_takes_no_input_stops_the_answers_to_pings() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let go = lab.cluster().dir.join("go");
    let wait = format!(
        "until [ -e {} ]; do sleep 0.05; done; cat | wc -c",
        go.display()
    );
    let mut shell = lab.exec(&script(&wait), V5).await;
    for _ in 0..8 {
        shell.send(0, &vec![b'x'; 32 << 10]).await;
    }
    shell.socket.send(Message::Ping("x".into())).await.unwrap();
    let pong = async {
        while let Some(Ok(message)) = shell.socket.next().await {
            assert!(!message.is_pong());
        }
    };
    assert!(tokio::time::timeout(MOMENT, pong).await.is_err());
    std::fs::write(go, "").unwrap();
    shell.send(255, &[0]).await;
    assert_eq!(shell.end().await.text(1), format!("{}\n", 8 * (32 << 10)));
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn no_process_outlives_a_sandbox_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut sandbox = tokio::process::Command::new(env!("CARGO_BIN_EXE_drawbridge-sandbox"))
        .arg("--dir")
        .arg(dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let config = dir.path().join("kubeconfig");
    let config = soon(|| kube::config::Kubeconfig::read_from(&config).ok()).await;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options)
        .await
        .unwrap();
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::default_namespaced(kube::Client::try_from(config).unwrap());
    let command = "setsid sleep 4714 & echo $! >child; exec sleep 4714";
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "app", "image": "x", "command": ["sh", "-c", command]}]}});
    let pod = pods
        .create(
            &kube::api::PostParams::default(),
            &serde_json::from_value(pod).unwrap(),
        )
        .await
        .unwrap();
    let child = dir
        .path()
        .join("pods")
        .join(pod.metadata.uid.unwrap())
        .join("app/child");
    let child = soon(|| {
        let child = std::fs::read_to_string(&child).ok()?;
        let number = child.strip_suffix('\n')?;
        Some(format!("/proc/{number}"))
    })
    .await;
    assert!(std::path::Path::new(&child).exists());
    sandbox.kill().await.unwrap();
    soon(|| (!std::path::Path::new(&child).exists()).then_some(())).await;
}

#[tokio::test]
async fn four_hours_without_data_end_a_stream_without_a_close() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let mut shell = lab.exec(TERMINAL, V5).await;
    shell.send(0, b"echo read''y\n").await;
    shell.until("ready").await;
    lab.cluster().clock.advance(SignedDuration::from_hours(4));
    let told = shell.end().await;
    assert_eq!((told.text(3), told.close), (String::new(), None));
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn several_clients_attached_see_the_same_and_end_with_the_container() {
    let lab = Lab::start(Release::V1_36).await;
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "app", "command": ["sh"], "stdin": true, "tty": true}]});
    lab.pod(spec, running).await;
    let mut first = lab.open("attach", "stdin=1&stdout=1&tty=1", V5).await;
    let mut second = lab.open("attach", "stdout=1&tty=1", V5).await;
    assert_eq!(
        (first.next().await, second.next().await),
        (Some(Ok((1, vec![]))), Some(Ok((1, vec![]))))
    );
    // Attached means subscribed only a moment after the first frame: ask until both hear it.
    first.send(0, b"echo sha''red\n").await;
    first.until("shared").await;
    first.send(0, b"echo a''gain\n").await;
    second.until("again").await;
    first.send(0, b"exit 3\n").await;
    assert_eq!(first.end().await.text(3), SUCCESS);
    assert_eq!(second.end().await.text(3), SUCCESS);
    let pod = lab.until(|pod| pod["status"]["phase"] == "Failed").await;
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&state["exitCode"], &state["reason"]),
        (&json!(3), &json!("Error"))
    );
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_log_can_be_followed_to_its_end() {
    let lab = Lab::start(Release::V1_36).await;
    let go = lab.cluster().dir.join("go");
    let command = format!(
        "echo one; echo two >&2; until [ -e {} ]; do sleep 0.05; done; printf three",
        go.display()
    );
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "app", "command": ["sh", "-c", command]}]});
    lab.pod(spec, running).await;
    let log = "/api/v1/namespaces/default/pods/web/log";
    let follow = format!("{log}?follow=true");
    let follow = lab.get(&follow);
    let finish = async {
        lab.until(running).await;
        // What comes on the other output must not come after the end.
        while !lab.get(log).await.contains("two\n") {}
        std::fs::write(&go, "").unwrap();
    };
    let (followed, ()) = tokio::join!(follow, finish);
    for wanted in ["one\n", "two\n", "three"] {
        assert!(followed.contains(wanted), "{followed}");
    }
    lab.until(|pod| pod["status"]["phase"] == "Succeeded").await;
    let tail = lab.get(&format!("{log}?tailLines=1")).await;
    assert!(tail.contains("\r\nthree\r\n"), "{tail}");
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_container_that_fails_is_started_again_ever_later() {
    let lab = Lab::start(Release::V1_36).await;
    let restarts = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["restartCount"]
            .as_u64()
            .unwrap_or(0)
    };
    let waits = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let spec =
        json!({"containers": [{"name": "app", "command": ["sh", "-c", "echo run; exit 1"]}]});
    let pod = lab.pod(spec, |pod| waits(pod) && restarts(pod) == 1).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert!(
        status["state"]["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting failed container")
    );
    lab.cluster().clock.advance(SignedDuration::from_secs(10));
    let pod = lab.until(|pod| waits(pod) && restarts(pod) == 2).await;
    assert!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 20s")
    );
    assert_eq!(pod["status"]["phase"], "Running");
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_status_that_somebody_overwrites_starts_nothing_twice() {
    let lab = Lab::start(Release::V1_36).await;
    let spec = json!({"containers": [{"name": "app", "command": ["sleep", "4715"]}]});
    let live = lab.pod(spec, running).await;
    let mut pod = (*live).clone();
    pod["status"] = json!({});
    let key = drawbridge_sandbox::store::Key {
        resource: "pods".into(),
        namespace: "default".to_owned(),
        name: "web".to_owned(),
    };
    let store = &lab.cluster().store;
    store.write(&key, Some(&live), Some(pod)).unwrap();
    lab.until(running).await;
    assert_eq!(lab.processes("4715").len(), 1);
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn a_container_whose_command_is_missing_says_so() {
    let lab = Lab::start(Release::V1_36).await;
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "app", "command": ["nosuchthing"]}]});
    let pod = lab
        .pod(spec, |pod| pod["status"]["phase"] == "Failed")
        .await;
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&state["reason"], &state["exitCode"]),
        (&json!("StartError"), &json!(128))
    );
    assert!(state["message"].as_str().unwrap().contains("nosuchthing"));
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn init_containers_run_first_and_in_order() {
    let lab = Lab::start(Release::V1_36).await;
    let all = lab.cluster().dir.join("order");
    let write = |name: &str, then: &str| json!({"name": name, "image": "busybox", "command": ["sh", "-c", format!("echo {name} >>{}; {then}", all.display())]});
    let spec = json!({"initContainers": [write("a", "true"), write("b", "true")], "containers": [write("c", "exec sleep 4713")]});
    let pod = lab.pod(spec, running).await;
    assert_eq!(
        pod["status"]["initContainerStatuses"][1]["state"]["terminated"]["reason"],
        "Completed"
    );
    soon(|| (std::fs::read_to_string(&all).unwrap() == "a\nb\nc\n").then_some(())).await;
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn an_ephemeral_container_starts_when_it_is_added() {
    let lab = Lab::start(Release::V1_36).await;
    lab.sleeper().await;
    let patch = r#"{"spec":{"ephemeralContainers":[{"name":"debug","image":"busybox","stdin":true,"tty":true,"targetContainerName":"app"}]}}"#;
    let answer = lab
        .raw(&format!(
            "PATCH /api/v1/namespaces/default/pods/web/ephemeralcontainers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/strategic-merge-patch+json\r\nContent-Length: {}\r\n\r\n{patch}",
            patch.len()
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    lab.until(|pod| !pod["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_null())
        .await;
    let mut shell = lab
        .open("attach", "container=debug&stdin=1&stdout=1&tty=1", V5)
        .await;
    shell.send(0, b"echo de''bugging\n").await;
    shell.until("debugging").await;
    lab.sandbox.stop().await;
}

#[tokio::test]
async fn the_kubelet_serves_its_own_dialect() {
    let lab = Lab::start(Release::V1_36).await;
    let pod = lab.sleeper().await;
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let named = format!("/exec/default/web/{uid}/app?command=true&output=1");
    assert!(lab.try_open(&named, V5).await.is_ok());
    let other = named.replace(uid, "other");
    assert_eq!(lab.try_open(&other, V5).await.err().unwrap().status(), 404);
    let path = "/exec/default/web/app?command=echo&command=hi";
    let told = lab
        .try_open(&format!("{path}&output=1"), V5)
        .await
        .unwrap_or_else(|refused| panic!("{refused:?}"))
        .end()
        .await;
    assert_eq!(
        (told.text(1).as_str(), told.text(3).as_str()),
        ("hi\n", SUCCESS)
    );
    let refused = lab
        .try_open(&format!("{path}&stdout=true"), V5)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.status(), 400);
    let refused = lab
        .try_open("/exec/default/none/app?output=1", V5)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.status(), 404);
    lab.cluster()
        .faults
        .send_modify(|now| now.kubelet_dead = true);
    let reached = || std::net::TcpStream::connect(lab.cluster().kubelet).is_ok();
    soon(|| (!reached()).then_some(())).await;
    lab.cluster()
        .faults
        .send_modify(|now| now.kubelet_dead = false);
    soon(|| reached().then_some(())).await;
    lab.sandbox.stop().await;
}
