//! When recordings cannot be written, and when they are due to go: what consoles, statuses, metrics and the audit log say.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_audit::recording::{Stream, Verdict};
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, RecordingVerdict};
use drawbridge_tests::{Gateway, Opening, Session, Test, contains, note, run_alone, wait_for};
use kube::api::{Patch, PatchParams};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::recording::{Played, keys, recorded};
use crate::{echo, shell};

const LIMIT: Duration = Duration::from_mins(1);

/// Prints so many KiB that do not compress.
fn print_noise(kib: u32) -> Vec<u8> {
    format!("head -c {kib}k /dev/urandom | base64; echo pri''nted\n").into_bytes()
}

/// Starts another gateway in place of the first, with its store and its audit log where the test can see them.
async fn gateway(test: &Test, flags: &[&str]) -> Result<Arc<Gateway>> {
    let gateway = test.gateway();
    gateway.process.signal(Signal::TERM);
    gateway.process.exit(LIMIT).await?;
    let places = [
        format!("--recording-store=file://{}", store(test).display()),
        format!("--audit-sink=file:{}", test.file("audit.jsonl").display()),
    ];
    let flags: Vec<&str> = places
        .iter()
        .map(String::as_str)
        .chain(flags.iter().copied())
        .collect();
    test.drawbridge.restart_gateway(&flags).await
}

fn store(test: &Test) -> PathBuf {
    test.file("store")
}

/// What the audit log says of one type.
fn audited(test: &Test, kind: &str) -> Result<Vec<Value>> {
    let log = fs::read_to_string(test.file("audit.jsonl"))?;
    let lines = log.lines().map(serde_json::from_str::<Value>);
    let events = lines.collect::<Result<Vec<_>, _>>()?;
    Ok(events
        .into_iter()
        .filter(|event| event["type"] == kind)
        .collect())
}

/// Waits until the audit log holds an event like this.
async fn on_record(
    test: &Test,
    what: &str,
    kind: &str,
    like: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait_for(what, LIMIT, async || {
        Ok(audited(test, kind)?.into_iter().find(|event| like(event)))
    })
    .await
}

/// A disk of a few MiB.
struct Disk(PathBuf);

impl Disk {
    /// `None` where nothing can be mounted.
    fn mount(path: PathBuf) -> Result<Option<Self>> {
        fs::create_dir(&path)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "drawbridge-tests"]);
        let mounted = mount.arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Ok(Some(Self(path)));
        }
        note("NOT TESTED: a full disk. Only root can mount one");
        Ok(None)
    }

    /// Takes all the room there is.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.0.join("filler"))?;
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("filler"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the gateway may still have files open there.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            note(format!("{} stays mounted", self.0.display()));
        }
    }
}

async fn metric(gateway: &Gateway, name: &str, value: u8) -> Result<()> {
    let metrics = gateway.metrics().await?;
    let found = metrics.get(&format!("drawbridge_gateway_{name}"));
    ensure!(found == Some(f64::from(value)), "{name} is {found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_no_console_goes_unrecorded_that_must_be_and_room_heals_it() {
    run_alone(async |test| {
        let Some(disk) = Disk::mount(test.file("disk"))? else {
            return Ok(());
        };
        test.pod("web").await?;
        let required = test.session("web", json!({})).await?;
        let spool = format!("--spool={}", disk.0.display());
        let gateway = gateway(test, &[&spool]).await?;
        let mut console = shell(test, &required).await?;
        wait_for("the first lines are on the disk", LIMIT, async || {
            Ok(has_segment(&disk.0, 0).then_some(()))
        })
        .await?;
        disk.fill()?;
        console.stdin(&print_noise(1024)).await?;
        let end = console.finish().await?;
        contains(&end.failure()?, "its recording failed")?;

        let another = Opening::exec(&required, &["sh"]).tty();
        let message = another.refused(&gateway).await?.refusal(503)?;
        contains(&message, "must be recorded")?;
        contains(&message, "no room")?;
        metric(&gateway, "recordings_spool_up", 0).await?;
        let entry = recorded(test, &required, 1).await?.remove(0);
        ensure!(entry.verdict == RecordingVerdict::Interrupted, "{entry:?}");
        let why = entry.reason.clone().unwrap_or_default();
        contains(&why, "recorder failed")?;
        let keys = keys(test).await?;
        let played = Played::read(&entry, &keys)?;
        contains(
            &String::from_utf8_lossy(played.stream(Stream::Stdout)),
            "ready",
        )?;
        let broke = |event: &Value| event["connection"] == entry.id && event["reason"] == "full";
        on_record(test, "the failure", "RecorderFailed", broke).await?;
        let outage = |event: &Value| event["reason"] == "spool";
        on_record(test, "the outage", "RecorderFailed", outage).await?;

        disk.make_room()?;
        let mut console = shell(test, &required).await?;
        metric(&gateway, "recordings_spool_up", 1).await?;
        on_record(test, "its end", "RecorderRecovered", outage).await?;
        console.stdin(b"exit\n").await?;
        console.finish().await?;
        let entries = recorded(test, &required, 2).await?;
        let again = entries.iter().find(|other| other.id != entry.id);
        let again = again.context("another recording")?;
        ensure!(Played::read(again, &keys)?.manifest.verdict == Verdict::Complete);
        gateway.process.kill().await // before the disk goes
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_best_effort_consoles_go_on_and_status_audit_and_metrics_say_so() {
    run_alone(async |test| {
        let Some(disk) = Disk::mount(test.file("disk"))? else {
            return Ok(());
        };
        let operator = test.drawbridge.operator();
        operator.process.signal(Signal::TERM);
        operator.process.exit(LIMIT).await?;
        let flags = ["--recording=best-effort"];
        test.drawbridge.restart_operator(&flags).await?;
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let spool = format!("--spool={}", disk.0.display());
        let gateway = gateway(test, &[&spool]).await?;
        let mut console = shell(test, &session).await?;
        wait_for("the first lines are on the disk", LIMIT, async || {
            Ok(has_segment(&disk.0, 0).then_some(()))
        })
        .await?;
        disk.fill()?;
        console.stdin(&print_noise(1024)).await?;
        console.until("printed").await?;
        let broken = recorded(test, &session, 1).await?.remove(0);
        ensure!(
            broken.verdict == RecordingVerdict::Interrupted,
            "{broken:?}"
        );
        echo(&mut console, "sti''ll", "still").await?;
        let mut other = shell(test, &session).await?;
        echo(&mut other, "he''re", "here").await?;
        let entries = recorded(test, &session, 2).await?;
        let missing = entries.iter().find(|other| other.id != broken.id);
        let missing = missing.context("an entry for the other")?;
        ensure!(missing.verdict == RecordingVerdict::Missing, "{missing:?}");
        for id in [&broken.id, &missing.id] {
            let of_it = |event: &Value| event["connection"] == **id;
            on_record(test, "each console", "RecorderFailed", of_it).await?;
        }
        metric(&gateway, "connections_unrecorded_total", 2).await?;
        echo(&mut console, "aft''er", "after").await?;
        gateway.process.kill().await // before the disk goes
    })
    .await;
}

/// Whether some recording below a directory has this segment.
fn has_segment(root: &Path, number: u32) -> bool {
    segments(&root.join("recordings"))
        .iter()
        .any(|path| path.ends_with(format!("{number:08}.seg")))
}

/// Every segment below a directory.
fn segments(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            segments(&path)
        } else {
            vec![path]
        }
    });
    below
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_reach_the_store_while_they_are_made_and_go_when_they_are_due_unless_held() {
    run_alone(async |test| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let held = test.session("web", json!({})).await?;
        gateway(test, &[]).await?;
        let mut console = shell(test, &session).await?;
        console.stdin(&print_noise(2048)).await?;
        console.until("printed").await?;
        wait_for("the first segment is in the store", LIMIT, async || {
            Ok(has_segment(&store(test), 0).then_some(()))
        })
        .await?;
        echo(&mut console, "sti''ll open", "still open").await?;
        console.stdin(b"exit\n").await?;
        console.finish().await?;
        shell(test, &held).await?.stdin(b"exit\n").await?;
        let (gone, kept) = (
            recorded(test, &session, 1).await?.remove(0),
            recorded(test, &held, 1).await?.remove(0),
        );
        let there = |location: &str| Path::new(location.trim_start_matches("file://")).exists();
        ensure!(there(&gone.location) && there(&kept.location));

        // Labelled when it exists already: it is looked up when it would be deleted.
        label(test, &held, json!("true")).await?;
        gateway(test, &["--recording-retention=1s"]).await?;
        let of = |id: &str| {
            let id = id.to_owned();
            move |event: &Value| event["recording"]["id"] == id
        };
        let removed = on_record(test, "a deletion", "Removed", of(&gone.id)).await?;
        ensure!(removed["reason"] == "age", "{removed}");
        ensure!(removed["session"]["uid"] == session.uid, "{removed}");
        ensure!(
            removed["recording"]["chainHead"] == gone.chain_head,
            "{removed}"
        );
        wait_for("it is gone", LIMIT, async || {
            Ok((!there(&gone.location)).then_some(()))
        })
        .await?;
        Played::read(&kept, &keys(test).await?)?;

        label(test, &held, Value::Null).await?;
        gateway(test, &["--recording-retention-bytes=1"]).await?;
        let removed = on_record(test, "the other", "Removed", of(&kept.id)).await?;
        ensure!(removed["reason"] == "size", "{removed}");
        ensure!(audited(test, "Removed")?.len() == 2);
        Ok(())
    })
    .await;
}

async fn label(test: &Test, session: &Session, value: Value) -> Result<()> {
    let patch = json!({"metadata": {"labels": {names::LEGAL_HOLD_LABEL: value}}});
    let sessions = test.api::<ConsoleSession>();
    let params = PatchParams::default();
    sessions
        .patch(&session.name, &params, &Patch::Merge(patch))
        .await?;
    Ok(())
}
