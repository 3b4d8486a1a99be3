//! What happened is in the audit logs of both programs, once each, in order, and joins with the API server's own.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drawbridge_audit::chain::{Report, Verifier, Wrong};
use drawbridge_audit::event::{Direction, Facts, Record, Stream, Transfer, Type};
use drawbridge_audit::hash::Sha256;
use drawbridge_audit::keys::KeySet;
use drawbridge_crds::v1alpha1::Phase;
use drawbridge_tests::{Connection, Needs, Opening, Session, Test, contains, run_alone};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use rustix::process::Signal;
use serde_json::json;

use crate::live::{View, about, list, observer};
use crate::recording::{keys, recorded};
use crate::shell;

const LIMIT: Duration = Duration::from_mins(1);

/// What our clients say they are.
const AGENT: &str = "drawbridge-tests/1";

/// What is run first.
const SCRIPT: [&str; 3] = ["sh", "-c", "echo all of it; exit 3"];

/// What the gateway tells of the session, in order.
const EXPECTED: [Type; 19] = {
    use Type::{
        Connected, Disconnected, Downloaded, Listed, LiveViewEnded, LiveViewed, Refused, Replayed,
        Transferred,
    };
    [
        Connected,
        Transferred,
        Disconnected,
        Connected,
        Transferred,
        Disconnected,
        Connected,
        Transferred,
        Transferred,
        Disconnected,
        Refused,
        Listed,
        Downloaded,
        Replayed,
        Connected,
        Listed,
        LiveViewed,
        LiveViewEnded,
        Disconnected,
    ]
};

/// Where that is in it.
const REFUSED: usize = 10;

/// What `drawbridge-audit verify` finds out about a log.
fn verified(text: &str, keys: &KeySet) -> Result<Report> {
    let mut verifier = Verifier::new(Some(keys.clone()));
    verifier.file("log", text.as_bytes())?;
    Ok(verifier.finish())
}

/// A log that is whole, as text and as events.
fn log(path: &Path, keys: &KeySet) -> Result<(String, Vec<Record>)> {
    let text = std::fs::read_to_string(path)?;
    let report = verified(&text, keys)?;
    ensure!(report.whole(), "{}: {report:?}", path.display());
    let records: Result<Vec<Record>, _> = text.lines().map(serde_json::from_str).collect();
    Ok((text, records?))
}

/// The events about one session, in order. The operator tells one again, under the same id, when the API server refuses a status
/// that was computed from an old one: readers know it by its id, and so does this.
fn of<'a>(records: &'a [Record], session: &Session) -> Result<Vec<&'a Record>> {
    let about = |record: &&Record| {
        let its = record.facts.session.as_ref();
        its.is_some_and(|its| its.uid == session.uid)
    };
    let mut ids = BTreeSet::new();
    let new = |record: &&Record| ids.insert(record.id);
    let found: Vec<_> = records.iter().filter(about).filter(new).collect();
    for record in &found {
        let its = record.facts.session.as_ref().context("it has one")?;
        ensure!(its.namespace == session.namespace && its.name == session.name);
        ensure!(record.facts.user.as_deref() == Some("alice@example.com"));
    }
    Ok(found)
}

fn kinds(records: &[&Record]) -> Vec<Type> {
    records.iter().map(|record| record.kind).collect()
}

/// Whether the end of stdin reaches the pod: a tar that reads from a pipe may wait for it. Older releases have no word for it.
fn ends_stdin(test: &Test) -> bool {
    test.cluster.version >= (1, 30)
}

/// Runs a command that is no terminal's, with `input` for its stdin, until it has ended and is on record.
async fn command(
    test: &Test,
    session: &Session,
    argv: &[&str],
    input: &[u8],
    number: usize,
) -> Result<Vec<u8>> {
    let opening = Opening::exec(session, argv).header("User-Agent", AGENT);
    let opening = if input.is_empty() {
        opening
    } else {
        opening.stdin()
    };
    let mut console = opening.open(&test.gateway()).await?;
    for part in input.chunks(4096) {
        console.stdin(part).await?;
    }
    let end = console.finish().await?;
    recorded(test, session, number).await?;
    Ok(end.stdout)
}

/// Looks at a recording in every way but live.
async fn look(test: &Test, session: &Session, observer: &Session) -> Result<()> {
    let gateway = test.gateway();
    let recordings = list(&gateway, session, &observer.token).await?;
    ensure!(recordings.len() == 3, "{recordings:?}");
    for item in &recordings {
        ensure!(item["state"] == "Complete", "{item}");
        ensure!(item["signedBy"].is_string(), "{item}");
    }
    let id = recordings[2]["id"].as_str().context("the oldest")?;
    for (rest, shows) in [("", "payloadType"), ("/cast", "all of it")] {
        let mut connection = Connection::open(&gateway).await?;
        let request = about(session, &format!("/{id}{rest}"), &observer.token);
        let answer = connection.ask(&request).await?;
        ensure!(answer.code == 200, "{answer:?}");
        contains(&String::from_utf8_lossy(&answer.body), shows)?;
    }
    Ok(())
}

/// Ends both programs in good order: their logs are whole then.
async fn stop(test: &Test) -> Result<()> {
    let (gateway, operator) = (test.gateway(), test.drawbridge.operator());
    for process in [&gateway.process, &operator.process] {
        process.signal(Signal::TERM);
        process.exit(LIMIT).await?;
    }
    Ok(())
}

/// What was done, for the logs to tell.
struct Life {
    pod_uid: Option<String>,
    session: Session,
    short: Session,
    observer: Session,
    archive: Vec<u8>,
    listed: Vec<u8>,
    /// Whether that was of a tar that read the archive.
    tar_reads: bool,
    refusal: String,
}

/// A session that runs commands, copies, is refused, looked at, watched and revoked, and another that expires.
async fn live(test: &Test) -> Result<Life> {
    let pod = test.pod("web").await?;
    let session = test
        .session("web", json!({"reason": "orders stuck"}))
        .await?;
    command(test, &session, &SCRIPT, b"", 1).await?;
    // As `kubectl cp` does, each way.
    let archive = command(
        test,
        &session,
        &["tar", "cf", "-", "-C", "/etc", "hosts"],
        b"",
        2,
    )
    .await?;
    let size = archive.len().to_string();
    let reader = if ends_stdin(test) {
        ["tar", "tf", "-"]
    } else {
        ["head", "-c", &size]
    };
    let listed = command(test, &session, &reader, &archive, 3).await?;
    let elsewhere = format!("/api/v1/namespaces/{}/pods/other/exec", test.namespace);
    let refused = Opening::exec(&session, &["id"]).path(&elsewhere);
    let refused = refused.header("User-Agent", AGENT);
    let refusal = refused.refused(&test.gateway()).await?.refusal(403)?;
    let observer = observer(test, &session).await?;
    look(test, &session, &observer).await?;
    let mut user = shell(test, &session).await?;
    let mut view = View::open(&test.gateway(), &session, &observer.token).await?;
    view.until("ready").await?;
    user.until("is watching this session").await?;
    drop(view);
    user.until("is no longer watching").await?;
    test.revoke(&session.name).await?;
    contains(&user.finish().await?.failure()?, "revoked")?;
    test.phase(&session.name, Phase::Revoked).await?;
    let until = Timestamp::now() + SignedDuration::from_secs(5);
    let until = until.round(jiff::Unit::Second)?;
    let short = test.session("web", json!({"notAfter": until})).await?;
    test.phase(&short.name, Phase::Expired).await?;
    Ok(Life {
        pod_uid: pod.uid(),
        session,
        short,
        observer,
        archive,
        listed,
        tar_reads: ends_stdin(test),
        refusal,
    })
}

impl Life {
    fn in_the_operators(&self, records: &[Record]) -> Result<()> {
        for (session, end) in [(&self.session, Type::Revoked), (&self.short, Type::Expired)] {
            let events = of(records, session)?;
            let kinds = kinds(&events);
            ensure!(kinds == [Type::Requested, Type::Granted, end], "{kinds:?}");
            for event in &events[1..] {
                self.is_its_pod(&event.facts)?;
            }
        }
        let reason = &of(records, &self.session)?[0].facts.justification;
        ensure!(reason.as_deref() == Some("orders stuck"), "{reason:?}");
        Ok(())
    }

    fn is_its_pod(&self, facts: &Facts) -> Result<()> {
        let pod = facts.pod.as_ref().context("a pod")?;
        ensure!(pod.uid == self.pod_uid, "{pod:?}");
        ensure!(pod.container.as_deref() == Some("main"), "{pod:?}");
        Ok(())
    }

    /// Returns the argv of each connection.
    fn in_the_gateways(&self, records: &[Record]) -> Result<HashMap<String, Vec<String>>> {
        let events = of(records, &self.session)?;
        ensure!(kinds(&events) == EXPECTED, "{:?}", kinds(&events));
        let mut connections = HashMap::new();
        for event in &events {
            let facts = &event.facts;
            let client = facts.client.as_ref().context("a client")?;
            contains(&client.address, "127.0.0.1:")?;
            let Some(upstream) = &facts.upstream else {
                continue;
            };
            self.is_its_pod(facts)?;
            ensure!(upstream.user == Some(self.account()), "{upstream:?}");
            ensure!(facts.connection.as_ref() == Some(&upstream.audit_id));
            connections.insert(upstream.audit_id.clone(), facts.argv.clone());
        }
        let facts: Vec<_> = events.iter().map(|event| &event.facts).collect();
        for facts in &facts[..=REFUSED] {
            let client = facts.client.as_ref().context("a client")?;
            ensure!(client.user_agent.as_deref() == Some(AGENT), "{client:?}");
        }
        let end = facts[2];
        ensure!(facts[0].argv == SCRIPT && end.argv == SCRIPT);
        ensure!(end.exit_code == Some(3), "{end:?}");
        ensure!(end.bytes.is_some_and(|bytes| bytes.from_pod == 10));
        ensure!(end.duration_seconds.is_some_and(|seconds| seconds > 0.0));
        let refused = facts[REFUSED];
        ensure!(refused.code == Some(403), "{refused:?}");
        ensure!(
            refused.message.as_ref() == Some(&self.refusal),
            "{refused:?}"
        );
        ensure!(
            refused.reason.as_deref() == Some("not_granted"),
            "{refused:?}"
        );
        self.copies(&facts)?;
        self.looks(&facts)?;
        let end = facts[18];
        ensure!(end.reason.as_deref() == Some("revoked"), "{end:?}");
        let recording = end.recording.as_ref().context("recorded")?;
        ensure!(Some(&recording.id) == end.connection.as_ref(), "{end:?}");
        Ok(connections)
    }

    fn account(&self) -> String {
        let uid = &self.session.uid;
        format!("system:serviceaccount:drawbridge-sessions:cs-{uid}")
    }

    fn copies(&self, facts: &[&Facts]) -> Result<()> {
        use {Direction::In, Direction::Out, Stream::Stdin, Stream::Stdout};
        for (at, stream, direction, bytes, is_archive) in [
            (1, Stdout, Out, &b"all of it\n"[..], false),
            (4, Stdout, Out, &self.archive, true),
            (7, Stdin, In, &self.archive, self.tar_reads),
            (8, Stdout, Out, &self.listed, self.tar_reads),
        ] {
            let told = facts[at].transfer.clone();
            let expected = Transfer {
                stream,
                direction,
                bytes: bytes.len() as u64,
                sha256: Some(Sha256::of(bytes).to_string()),
                archive: is_archive,
            };
            ensure!(told == Some(expected), "{at}: {told:?}");
        }
        Ok(())
    }

    fn looks(&self, facts: &[&Facts]) -> Result<()> {
        for at in [11, 12, 13, 15, 16, 17] {
            let by = facts[at].observer.as_ref().map(|by| &by.uid);
            ensure!(by == Some(&self.observer.uid), "{:?}", facts[at]);
        }
        let oldest = facts[2].recording.as_ref().context("recorded")?;
        ensure!(oldest.verdict.as_deref() == Some("Complete"), "{oldest:?}");
        ensure!(oldest.chain_head.is_some(), "{oldest:?}");
        for look in &facts[12..14] {
            let recording = look.recording.as_ref().context("of one")?;
            ensure!(recording.id == oldest.id, "{look:?}");
        }
        let (opened, ended) = (facts[16], facts[17]);
        ensure!(
            opened.connection == ended.connection,
            "{opened:?} {ended:?}"
        );
        ensure!(ended.duration_seconds.is_some_and(|seconds| seconds > 0.0));
        ensure!(ended.reason.as_deref() == Some("viewer_left"), "{ended:?}");
        Ok(())
    }
}

/// Whoever changes a word is found out, and where.
fn change_shows(text: &str, from: &str, to: &str, keys: &KeySet) -> Result<()> {
    let line = text.lines().position(|line| line.contains(from));
    let line = line.with_context(|| format!("no {from}"))? as u64 + 1;
    let report = verified(&text.replacen(from, to, 1), keys)?;
    ensure!(!report.whole(), "{report:?}");
    let problem = report.problems.first().context("a problem")?;
    ensure!(problem.wrong == Wrong::Altered, "{problem}");
    ensure!(problem.place.line == line, "{problem}, not {line}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_is_in_both_logs_once_in_order_and_in_the_api_servers_under_the_same_names() {
    run_alone(async |test| {
        if !test.cluster.offers(Needs::AuditLog)? {
            return Ok(());
        }
        let mark = test.cluster.audit()?.mark()?;
        let life = live(test).await?;
        let keys = keys(test).await?;
        stop(test).await?;
        let logs = ["operator", "gateway"].map(|name| test.drawbridge.audit_log(name));
        let logs = [log(&logs[0], &keys)?, log(&logs[1], &keys)?];
        test.drawbridge.restart_operator(&[]).await?;
        test.drawbridge.restart_gateway(&[]).await?;
        let [(operators, told), (gateways, seen)] = &logs;
        life.in_the_operators(told)?;
        let mut connections = life.in_the_gateways(seen)?;
        ensure!(connections.len() == 4, "{connections:?}");
        let theirs = test
            .cluster
            .audit()?
            .since(mark, |seen| seen.is_stream_in(&test.namespace))?;
        // When a request comes in, the API server does not know yet whom it is to impersonate.
        let done = theirs
            .into_iter()
            .filter(|seen| seen.stage != "RequestReceived");
        for seen in done {
            let Some(argv) = connections.remove(&seen.id) else {
                continue;
            };
            let as_whom = seen.impersonated_user.as_ref();
            let as_whom = as_whom.map(|who| who.username.clone());
            ensure!(as_whom == Some(life.account()), "{seen:?}");
            contains(&seen.uri, &format!("command={}", argv[0]))?;
        }
        ensure!(
            connections.is_empty(),
            "not in the API server's log: {connections:?}"
        );
        change_shows(gateways, "\"exitCode\":3", "\"exitCode\":0", &keys)?;
        change_shows(operators, "orders stuck", "orders moved", &keys)
    })
    .await;
}
