//! The log as a whole: nothing recorded is lost, whoever fails.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::chain::{Report, Verifier};
use crate::event::Record;

fn config(dir: &Path, sinks: Vec<Address>) -> Config {
    Config {
        directory: dir.join("spool"),
        component: Component::Gateway,
        name: "gateway-0".to_owned(),
        max_bytes: 1 << 20,
        when_full: WhenFull::Refuse,
        sinks,
        checkpoint_events: 100,
        checkpoint_interval: Duration::from_mins(1),
    }
}

fn event(number: usize) -> Event {
    let facts = Facts {
        message: Some(number.to_string()),
        ..Facts::default()
    };
    Event::now(Type::Connected, facts)
}

/// The messages in a file a sink wrote.
fn messages(path: &Path) -> Vec<String> {
    records(path)
        .into_iter()
        .filter(|record| record.kind == Type::Connected)
        .filter_map(|record| record.facts.message)
        .collect()
}

fn records(path: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect()
}

fn verified(path: &Path, key: Option<&SigningKey>) -> Report {
    let keys = key.map(|key| [key.public()].into_iter().collect());
    let mut verifier = Verifier::new(keys);
    let file = std::fs::File::open(path).expect("there");
    verifier
        .file("log", std::io::BufReader::new(file))
        .expect("read");
    verifier.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_arrives_in_order_chained_and_signed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.jsonl");
    let config = config(dir.path(), vec![Address::file(&path)]);
    let (log, running) = Log::start(config, Metrics::unregistered())
        .await
        .expect("starts");
    let key = Arc::new(SigningKey::generate());
    log.sign_with(Arc::clone(&key));
    for number in 0..250 {
        if number % 50 == 0 {
            log.record(event(number)).await.expect("written");
        } else {
            log.emit(event(number));
        }
    }
    running.stop().await;
    let wanted: Vec<String> = (0..250).map(|number| number.to_string()).collect();
    assert_eq!(messages(&path), wanted);
    let report = verified(&path, Some(&key));
    assert!(report.whole(), "{report:?}");
    let checkpoints = records(&path)
        .iter()
        .filter(|record| record.kind == Type::Checkpoint)
        .count();
    assert!(checkpoints >= 2, "{checkpoints}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_continues_the_one_before_and_its_sinks_go_on_where_they_were() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.jsonl");
    for run in 0..3 {
        let config = config(dir.path(), vec![Address::file(&path)]);
        let (log, running) = Log::start(config, Metrics::unregistered())
            .await
            .expect("starts");
        log.record(event(run)).await.expect("written");
        running.stop().await;
    }
    assert_eq!(messages(&path), ["0", "1", "2"]);
    let report = verified(&path, None);
    assert!(report.whole() && report.chains.len() == 3, "{report:?}");
    let records = records(&path);
    let started: Vec<_> = records
        .iter()
        .filter(|record| record.kind == Type::Started)
        .collect();
    assert_eq!(started[0].facts.predecessor, None);
    for (before, after) in started.iter().zip(&started[1..]) {
        let predecessor = after.facts.predecessor.as_ref().expect("continues");
        assert_eq!(predecessor.instance, before.instance);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_refuses_nothing_is_recorded_and_what_was_emitted_is_written_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.jsonl");
    let config = config(dir.path(), vec![Address::file(&path)]);
    let spool = config.directory.clone();
    let (log, running) = Log::start(config, Metrics::unregistered())
        .await
        .expect("starts");
    log.record(event(0)).await.expect("written");
    // Every further segment has a name that is taken; the first one is filled up.
    let taken = spool.join(format!("{:020}.jsonl", 2));
    std::fs::create_dir(&taken).expect("made");
    let mut number = 1;
    let refused = loop {
        let mut event = event(number);
        event.facts.justification = Some("x".repeat(1000));
        match log.record(event).await {
            Ok(()) => number += 1,
            Err(refused) => break refused,
        }
    };
    assert!(refused.to_string().contains("cannot write to"), "{refused}");
    assert_eq!(log.accepts(), Err(refused));
    log.emit(event(usize::MAX));
    std::fs::remove_dir(&taken).expect("removed");
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while log.accepts().is_err() {
        assert!(std::time::Instant::now() < until, "it does not recover");
        tokio::task::yield_now().await;
    }
    log.record(event(number)).await.expect("written");
    running.stop().await;
    let mut wanted: Vec<String> = (0..number).map(|number| number.to_string()).collect();
    wanted.extend([usize::MAX.to_string(), number.to_string()]);
    assert_eq!(messages(&path), wanted, "and the refused one is not there");
    let report = verified(&path, None);
    assert!(report.whole(), "{report:?}");
}

/// A sink whose directory is a file until it is released.
fn blocked(dir: &Path) -> (Address, std::path::PathBuf) {
    let path = dir.join("sink/audit.jsonl");
    (Address::file(&path), path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_sessions_until_the_sink_takes_events_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, path) = blocked(dir.path());
    let config = config(dir.path(), vec![address]);
    let (log, running) = Log::start(config, Metrics::unregistered())
        .await
        .expect("starts");
    // What the sink writes to is moved away, and its directory is no directory any more.
    let sink = path.parent().expect("has one");
    std::fs::rename(sink, dir.path().join("away")).expect("moved");
    std::fs::write(sink, "").expect("written");
    let mut number = 0;
    while log.accepts().is_ok() {
        let mut event = event(number);
        event.facts.justification = Some("x".repeat(1000));
        log.record(event).await.expect("written");
        number += 1;
        assert!(number < 3000, "the bound is not kept");
    }
    let why = log.accepts().expect_err("full").to_string();
    assert!(why.contains("nearly full: sink file-"), "{why}");
    std::fs::remove_file(sink).expect("removed");
    std::fs::create_dir(sink).expect("made");
    let until = std::time::Instant::now() + Duration::from_mins(1);
    while log.accepts().is_err() {
        assert!(std::time::Instant::now() < until, "it does not recover");
        tokio::task::yield_now().await;
    }
    running.stop().await;
    let all = messages(&path).len() + messages(&dir.path().join("away/audit.jsonl")).len();
    assert_eq!(all, number, "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_oldest_are_dropped_sessions_go_on_and_the_log_says_how_many() {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, path) = blocked(dir.path());
    let mut config = config(dir.path(), vec![address]);
    config.when_full = WhenFull::DropOldest;
    let (log, running) = Log::start(config, Metrics::unregistered())
        .await
        .expect("starts");
    let sink = path.parent().expect("has one");
    std::fs::rename(sink, dir.path().join("away")).expect("moved");
    std::fs::write(sink, "").expect("written");
    let total = 3000;
    for number in 0..total {
        let mut event = event(number);
        event.facts.justification = Some("x".repeat(1000));
        log.record(event).await.expect("always");
        assert_eq!(log.accepts(), Ok(()));
    }
    std::fs::remove_file(sink).expect("removed");
    std::fs::create_dir(sink).expect("made");
    let until = std::time::Instant::now() + Duration::from_mins(1);
    while messages(&path).last() != Some(&(total - 1).to_string()) {
        assert!(std::time::Instant::now() < until, "it does not recover");
        tokio::task::yield_now().await;
    }
    running.stop().await;
    let there = messages(&path).len() + messages(&dir.path().join("away/audit.jsonl")).len();
    let told: u64 = records(&path)
        .iter()
        .filter_map(|record| record.facts.dropped)
        .sum();
    assert!(told > 0);
    let sure = there as u64 + told;
    assert!(sure >= total as u64, "{there} there and {told} told");
}

#[tokio::test]
async fn who_emits_never_waits_and_what_finds_no_room_is_counted() {
    let (log, mut emitted) = Log::for_tests(2);
    for number in 0..5 {
        log.emit(event(number));
    }
    let shared = log.0.as_ref().expect("not discarded");
    assert_eq!(shared.dropped.load(Ordering::Relaxed), 3);
    assert_eq!(
        emitted.take().map(|event| event.kind),
        Some(Type::Connected)
    );
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_given_up_after_five_seconds() {
    let (log, _emitted) = Log::for_tests(8);
    let begun = tokio::time::Instant::now();
    let unwritten = log.record(event(1)).await.expect_err("nobody answers");
    assert_eq!(begun.elapsed(), RECORD);
    assert!(unwritten.to_string().contains("the disk does not answer"));
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_instead_of_written() {
    let (log, mut emitted) = Log::for_tests(QUEUE);
    for _ in 0..500 {
        log.refused(true, Facts::default);
    }
    let written = std::iter::from_fn(|| emitted.take()).count();
    assert!((100..200).contains(&written), "{written}");
    log.refused(false, Facts::default);
    assert!(emitted.take().is_some(), "others have their own bound");
}
