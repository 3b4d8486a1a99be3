//! What a connection carried is on record, signed, and survives the gateway.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use drawbridge_audit::keys::KeySet;
use drawbridge_audit::recording::{
    Directory, Event, Identities, Manifest, Reader, Stream, Verdict, Verification, verify,
};
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, Recorded, RecordingVerdict};
use drawbridge_tests::{
    Opening, PROTOCOLS, SYSTEM_NAMESPACE, Session, Test, contains, run, run_alone, wait_for,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use rustix::process::Signal;
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(1);

/// Bytes nobody else prints or types, to be looked for where they must not be.
const CANARY: &str = "canary-5be1d9c04a";

/// The public keys, as an auditor gets them.
pub(crate) async fn keys(test: &Test) -> Result<KeySet> {
    let maps = Api::<ConfigMap>::namespaced(test.cluster.client.clone(), SYSTEM_NAMESPACE);
    let map = maps.get(names::SIGNING_KEYS).await?;
    let all: String = map.data.unwrap_or_default().into_values().collect();
    Ok(KeySet::from_pem(&all)?)
}

/// What the session says was recorded, once that is so many connections.
pub(crate) async fn recorded(
    test: &Test,
    session: &Session,
    count: usize,
) -> Result<Vec<Recorded>> {
    let sessions = test.api::<ConsoleSession>();
    wait_for(&format!("{count} recordings"), LIMIT, async || {
        let found = sessions.get(&session.name).await?;
        let recordings = found.status.unwrap_or_default().recordings;
        Ok((recordings.len() >= count).then_some(recordings))
    })
    .await
}

/// A recording as it lies in the store.
pub(crate) struct Played {
    pub(crate) manifest: Manifest,
    streams: BTreeMap<&'static str, Vec<u8>>,
    sizes: Vec<(u16, u16)>,
}

impl Played {
    /// Reads it, and fails unless the keys vouch for every byte of it.
    pub(crate) fn read(entry: &Recorded, keys: &KeySet) -> Result<Self> {
        let path = entry.location.strip_prefix("file://");
        let source = Directory(PathBuf::from(path.context("it lies in a directory")?));
        let nobody = Identities::default();
        let manifest = match verify(&source, keys, &nobody, &mut |_| {})? {
            Verification::Sealed(sealed) => sealed.manifest,
            other => bail!("{}: {other:?}", entry.location),
        };
        let mut played = Self {
            manifest,
            streams: BTreeMap::new(),
            sizes: Vec::new(),
        };
        for timed in Reader::new(&source, &nobody) {
            match timed?.event {
                Event::Data(stream, data) => played.add(stream, &data),
                Event::Resize(columns, rows) => played.sizes.push((columns, rows)),
                _ => {}
            }
        }
        ensure!(entry.chain_head == played.manifest.chain_head.to_string());
        Ok(played)
    }

    fn add(&mut self, stream: Stream, data: &[u8]) {
        self.streams
            .entry(name(stream))
            .or_default()
            .extend_from_slice(data);
    }

    pub(crate) fn stream(&self, stream: Stream) -> &[u8] {
        self.streams.get(name(stream)).map_or(&[], Vec::as_slice)
    }
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdin => "stdin",
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// What is printed: text, characters in several bytes, escape sequences, a NUL and bytes that are no text if `binary`.
fn script(mark: &str, binary: bool) -> String {
    let noise = if binary {
        "printf 'a\\000b\\377\\376'; head -c 100000 /dev/zero;"
    } else {
        "i=0; while [ $i -lt 2000 ]; do echo \"line $i of gr\u{fc}\u{df}e \u{20ac}\"; i=$((i+1)); done; printf '\\033]0;title\\007';"
    };
    format!(": {mark}; {noise} echo err-{mark} >&2; exit 3")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_received_is_on_record_in_every_subprotocol() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let mut seen = BTreeMap::new();
        for (number, protocol) in PROTOCOLS.into_iter().enumerate() {
            for (tty, binary) in [(false, false), (false, true), (true, false), (true, true)] {
                let mark = format!("mark-{number}-{tty}-{binary}");
                let opening = Opening::exec(&session, &["sh", "-c", &script(&mark, binary)]);
                let opening = if tty { opening.tty() } else { opening };
                let console = opening.protocol(protocol).open(&test.gateway()).await?;
                let end = console.finish().await?;
                ensure!(end.exit_code(protocol)? == 3, "{mark}: {end:?}");
                seen.insert(mark, (tty, binary, end));
            }
        }
        let keys = keys(test).await?;
        for entry in recorded(test, &session, seen.len()).await? {
            ensure!(entry.verdict == RecordingVerdict::Complete, "{entry:?}");
            let played = Played::read(&entry, &keys)?;
            let opening = &played.manifest.opening;
            let mark = opening
                .argv
                .last()
                .and_then(|script| script.get(2..)?.split(';').next());
            let mark = mark.context("it is ours")?;
            let (tty, binary, end) = seen.remove(mark).context("each once")?;
            ensure!(opening.session.uid == session.uid && opening.tty == tty);
            ensure!(opening.user == "alice@example.com", "{opening:?}");
            let told = played.manifest.end.as_ref().and_then(|end| end.exit_code);
            ensure!(told == Some(3), "{mark}: {:?}", played.manifest.end);
            for (stream, got) in [(Stream::Stdout, &end.stdout), (Stream::Stderr, &end.stderr)] {
                ensure!(
                    played.manifest.bytes.of(stream) == got.len() as u64,
                    "{mark}"
                );
                if binary && !tty && stream == Stream::Stdout {
                    // Told by its hash, and not by its bytes.
                    let transfers = &played.manifest.transfers;
                    let transfer = transfers.iter().find(|transfer| transfer.stream == stream);
                    let transfer = transfer.with_context(|| format!("{mark}: a transfer"))?;
                    ensure!(transfer.bytes == got.len() as u64);
                    let hash = drawbridge_audit::hash::Sha256::of(got);
                    ensure!(transfer.sha256 == Some(hash), "{mark}");
                } else {
                    ensure!(played.stream(stream) == got, "{mark}: {}", name(stream));
                }
            }
        }
        ensure!(seen.is_empty(), "not on record: {:?}", seen.keys());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_on_record_and_what_is_typed_is_not_unless_asked_for() {
    run(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let mut console = Opening::exec(&session, &["sh"])
            .tty()
            .open(&test.gateway())
            .await?;
        console.resize(101, 41).await?;
        console.stdin(b"stty -echo; echo of''f\n").await?;
        console.until("off").await?;
        console
            .stdin(format!(": {CANARY}; echo do''ne; exit\n").as_bytes())
            .await?;
        console.until("done").await?;
        console.finish().await?;
        let entry = recorded(test, &session, 1).await?.remove(0);
        let played = Played::read(&entry, &keys(test).await?)?;
        ensure!(played.stream(Stream::Stdin).is_empty());
        contains(
            &String::from_utf8_lossy(played.stream(Stream::Stdout)),
            "done",
        )?;
        let path = entry.location.strip_prefix("file://").unwrap_or_default();
        let mut files = 0;
        for file in std::fs::read_dir(path)? {
            let bytes = std::fs::read(file?.path())?;
            let plain = !bytes
                .windows(CANARY.len())
                .any(|part| part == CANARY.as_bytes());
            ensure!(plain, "what was typed unseen is on record");
            files += 1;
        }
        ensure!(files >= 2, "a segment and a manifest");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_session_is_on_record_too() {
    run(async |test| {
        let command = [
            "sh",
            "-c",
            "while read -r line; do echo \"got $line\"; done",
        ];
        let container = json!({"command": command, "stdin": true});
        test.pod_with("talker", container).await?;
        let session = test.session("talker", json!({"mode": "Attach"})).await?;
        let mut console = Opening::attach(&session)
            .stdin()
            .open(&test.gateway())
            .await?;
        console.stdin(b"a word\n").await?;
        console.until("got a word").await?;
        drop(console);
        let entry = recorded(test, &session, 1).await?.remove(0);
        ensure!(entry.verdict == RecordingVerdict::Complete, "{entry:?}");
        let played = Played::read(&entry, &keys(test).await?)?;
        contains(
            &String::from_utf8_lossy(played.stream(Stream::Stdout)),
            "got a word",
        )?;
        // Typed bytes of a pipe are told by number and hash.
        ensure!(
            played.manifest.bytes.stdin == 7,
            "{:?}",
            played.manifest.bytes
        );
        Ok(())
    })
    .await;
}

/// How often the gateway is killed. `DRAWBRIDGE_CRASHES` sets another number; below 64, for a status lists no more.
fn crashes() -> u32 {
    let asked = std::env::var("DRAWBRIDGE_CRASHES").ok();
    asked.and_then(|number| number.parse().ok()).unwrap_or(5)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_loses_no_recording_and_none_looks_whole_that_is_not() {
    run_alone(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({"maxConnections": 64})).await?;
        let mut opened = 0;
        for crash in 0..crashes() {
            let script = "i=0; while :; do echo \"line $i\"; i=$((i+1)); done";
            let opening = Opening::exec(&session, &["sh", "-c", script]);
            let mut console = opening.open(&test.gateway()).await?;
            opened += 1;
            // Under load, and each time at another moment.
            for _ in 0..=(crash * 7919 % 500) {
                console.event().await?;
            }
            let gateway = test.gateway();
            gateway.process.signal(Signal::KILL);
            gateway.process.exit(LIMIT).await?;
            test.drawbridge.restart_gateway(&[]).await?;
        }
        let entries = recorded(test, &session, opened).await?;
        ensure!(entries.len() == opened, "{} of {opened}", entries.len());
        let keys = keys(test).await?;
        for entry in entries {
            let played = Played::read(&entry, &keys)?;
            match &played.manifest.verdict {
                Verdict::Interrupted { reason } => contains(reason, "gateway ended")?,
                Verdict::Complete => bail!("{} looks whole", entry.id),
            }
            // From the first line on, without a hole.
            let text = String::from_utf8_lossy(played.stream(Stream::Stdout));
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            for (number, line) in whole.lines().enumerate() {
                ensure!(line == format!("line {number}"), "{}: {line:?}", entry.id);
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_at_trace_level_holds_what_was_typed_or_printed() {
    run_alone(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let gateway = test.gateway();
        gateway.process.signal(Signal::TERM);
        gateway.process.exit(LIMIT).await?;
        let gateway = test
            .drawbridge
            .restart_gateway(&["--log-filter=trace"])
            .await?;
        for protocol in PROTOCOLS {
            let mut console = Opening::exec(&session, &["sh"])
                .tty()
                .protocol(protocol)
                .open(&gateway)
                .await?;
            console
                .stdin(format!("echo {CANARY}; exit\n").as_bytes())
                .await?;
            contains(
                &String::from_utf8_lossy(&console.finish().await?.stdout),
                CANARY,
            )?;
        }
        recorded(test, &session, PROTOCOLS.len()).await?;
        let mut traced = false;
        for (path, log) in test.drawbridge.logs()? {
            traced |= log.contains("TRACE");
            ensure!(!log.contains(CANARY), "{} holds it", path.display());
            ensure!(
                !log.contains(&session.token),
                "{} holds a token",
                path.display()
            );
        }
        ensure!(traced, "nothing was logged at that level");
        Ok(())
    })
    .await;
}
