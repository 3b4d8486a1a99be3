//! Whatever is done to a log, it shows, and the line is named.

use proptest::prelude::*;

use super::*;
use crate::chain;
use crate::event::{Event, Facts};
use crate::keys::SigningKey;

const GATEWAY: &str = "gateway-0/1";

/// The lines of a run with so many events between its first and its last line, and a checkpoint after every third.
fn run(
    instance: &str,
    events: usize,
    key: &SigningKey,
    predecessor: Option<Predecessor>,
) -> Vec<Vec<u8>> {
    let mut chain = chain::Chain::new(Component::Gateway, instance.to_owned());
    let mut lines = Vec::new();
    let mut add = |chain: &mut chain::Chain, event: Event| {
        let mut line = Vec::new();
        chain.link(&event, &mut line);
        lines.push(line);
    };
    let vouching = |chain: &chain::Chain, kind| {
        let mut event = Event::now(kind, Facts::default());
        event.facts.checkpoint = Some(chain.statement(&event).sign(key));
        event
    };
    let started = Facts {
        predecessor,
        ..Facts::default()
    };
    add(&mut chain, Event::now(Type::Started, started));
    for number in 0..events {
        let facts = Facts {
            message: Some(format!("event {number}")),
            ..Facts::default()
        };
        add(&mut chain, Event::now(Type::Connected, facts));
        if number % 3 == 2 {
            let event = vouching(&chain, Type::Checkpoint);
            add(&mut chain, event);
        }
    }
    let event = vouching(&chain, Type::Stopped);
    add(&mut chain, event);
    lines
}

fn last(lines: &[Vec<u8>], instance: &str) -> Predecessor {
    let line = lines.last().expect("a line");
    Predecessor {
        instance: instance.to_owned(),
        seq: lines.len() as u64,
        sha256: digest(line.strip_suffix(b"\n").expect("whole")),
    }
}

fn verify(log: &[u8], key: &SigningKey) -> Report {
    let mut verifier = Verifier::new(Some([key.public()].into_iter().collect()));
    verifier.file("log", log).expect("in memory");
    verifier.finish()
}

/// The lines a report points at: of its problems, and the ends of chains that nobody ended.
fn named(report: &Report) -> Vec<u64> {
    let problems = report.problems.iter().map(|problem| problem.place.line);
    let open = report
        .chains
        .iter()
        .filter(|chain| chain.ending == Ending::Open);
    problems.chain(open.map(|chain| chain.end.line)).collect()
}

#[test]
fn a_log_as_it_was_written_is_whole_and_vouched_for_to_its_end() {
    let key = SigningKey::generate();
    let lines = run(GATEWAY, 7, &key, None);
    let report = verify(&lines.concat(), &key);
    assert!(report.whole(), "{report:?}");
    let chain = &report.chains[0];
    assert_eq!((chain.first, chain.last, chain.signed), (1, 11, Some(11)));
    assert_eq!(chain.ending, Ending::Stopped);
}

#[test]
fn a_run_that_crashed_is_whole_when_the_next_one_says_where_it_ended() {
    let key = SigningKey::generate();
    let mut crashed = run(GATEWAY, 4, &key, None);
    crashed.pop();
    let next = run("gateway-0/2", 2, &key, Some(last(&crashed, GATEWAY)));
    let log = [crashed.concat(), next.concat()].concat();
    let report = verify(&log, &key);
    assert!(report.whole(), "{report:?}");
    assert_eq!(report.chains[0].ending, Ending::Continued);
    // Its last event is cut off.
    let end = crashed.len() - 1;
    let log = [crashed[..end].concat(), next.concat()].concat();
    let report = verify(&log, &key);
    let wrong = Wrong::Truncated {
        instance: GATEWAY.into(),
        first: end as u64 + 1,
        last: end as u64 + 1,
    };
    assert_eq!(report.problems.len(), 1);
    assert_eq!(
        (report.problems[0].place.line, &report.problems[0].wrong),
        (end as u64, &wrong)
    );
    // All of it is.
    let report = verify(&next.concat(), &key);
    assert_eq!(report.problems[0].wrong, Wrong::RunRemoved(GATEWAY.into()));
    let mut verifier = Verifier::new(None).rotated();
    verifier.file("log", &next.concat()[..]).expect("in memory");
    assert!(verifier.finish().whole(), "older files may be gone");
}

#[test]
fn runs_may_be_mixed() {
    let key = SigningKey::generate();
    let (one, two) = (run("a/1", 9, &key, None), run("b/1", 9, &key, None));
    let mixed: Vec<u8> = one
        .iter()
        .zip(&two)
        .flat_map(|(a, b)| [b.clone(), a.clone()])
        .flatten()
        .collect();
    let report = verify(&mixed, &key);
    assert!(report.whole() && report.chains.len() == 2, "{report:?}");
}

#[test]
fn a_chain_written_anew_without_the_key_is_vouched_for_by_nobody() {
    let (key, other) = (SigningKey::generate(), SigningKey::generate());
    let log = run(GATEWAY, 4, &other, None).concat();
    let report = verify(&log, &key);
    assert!(!report.whole());
    assert!(matches!(report.problems[0].wrong, Wrong::Checkpoint(_)));
    let mut blind = Verifier::new(None);
    blind.file("log", &log[..]).expect("in memory");
    assert!(blind.finish().whole(), "without keys nobody can tell");
}

#[test]
fn a_checkpoint_of_another_place_is_no_end() {
    let key = SigningKey::generate();
    let lines = run(GATEWAY, 4, &key, None);
    // The signed end of a shorter run of the same name, after this one's first lines.
    let short = run(GATEWAY, 0, &key, None);
    let log = [lines[..3].concat(), short[1].clone()].concat();
    assert!(!verify(&log, &key).whole());
}

#[test]
fn a_signature_hidden_at_the_end_is_missed_where_it_was() {
    let key = SigningKey::generate();
    let log = run(GATEWAY, 2, &key, None).concat();
    let log = String::from_utf8(log).expect("is UTF-8");
    let report = verify(
        log.replace("checkpoint\":", "chekcpoint\":").as_bytes(),
        &key,
    );
    let ends = Wrong::Unsigned(GATEWAY.to_owned());
    let wrong: Vec<_> = report
        .problems
        .iter()
        .map(|one| (one.place.line, &one.wrong))
        .collect();
    assert_eq!(wrong, [(4, &ends)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_changed_byte_is_found_in_its_line(events in 0_usize..9, at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let key = SigningKey::generate();
        let mut log = run(GATEWAY, events, &key, None).concat();
        let at = at.index(log.len());
        let line = memchr::memchr_iter(b'\n', &log[..at]).count() as u64 + 1;
        log[at] ^= flip;
        let report = verify(&log, &key);
        prop_assert!(!report.whole());
        prop_assert!(named(&report).contains(&line), "line {line}: {:?}", report);
    }

    #[test]
    fn removed_lines_are_missed_where_they_were(events in 0_usize..9, from in any::<prop::sample::Index>(), count in 1_usize..4) {
        let key = SigningKey::generate();
        let mut lines = run(GATEWAY, events, &key, None);
        let from = from.index(lines.len());
        let end = (from + count).min(lines.len());
        let to_the_end = end == lines.len();
        lines.drain(from..end);
        prop_assume!(!lines.is_empty());
        let report = verify(&lines.concat(), &key);
        prop_assert!(!report.whole());
        let line = if to_the_end { from } else { from + 1 } as u64;
        prop_assert_eq!(named(&report)[0], line, "{:?}", report);
    }

    #[test]
    fn swapped_lines_are_both_out_of_place(events in 1_usize..9, one in any::<prop::sample::Index>(), two in any::<prop::sample::Index>()) {
        let key = SigningKey::generate();
        let mut lines = run(GATEWAY, events, &key, None);
        let (one, two) = (one.index(lines.len()), two.index(lines.len()));
        prop_assume!(one != two);
        lines.swap(one, two);
        let report = verify(&lines.concat(), &key);
        prop_assert!(!report.whole());
        let late = report.problems.iter().any(|problem| matches!(problem.wrong, Wrong::OutOfOrder { .. }));
        prop_assert!(late, "{:?}", report);
        let named = named(&report);
        prop_assert!([one, two].iter().any(|at| named.contains(&(*at as u64 + 1))), "{:?}", report);
    }

    #[test]
    fn a_log_cut_anywhere_is_not_whole_and_the_last_line_is_named(events in 0_usize..9, at in any::<prop::sample::Index>()) {
        let key = SigningKey::generate();
        let log = run(GATEWAY, events, &key, None).concat();
        let log = &log[..=at.index(log.len() - 1)]; // something remains, and something is gone
        let report = verify(log, &key);
        prop_assert!(!report.whole());
        let lines = log.split_inclusive(|byte| *byte == b'\n').count() as u64;
        prop_assert!(named(&report).contains(&lines), "{:?}", report);
    }

    #[test]
    fn what_is_delivered_again_is_counted_and_no_problem(events in 1_usize..9, from in any::<prop::sample::Index>(), count in 1_usize..9) {
        let key = SigningKey::generate();
        let mut lines = run(GATEWAY, events, &key, None);
        let from = from.index(lines.len());
        let end = (from + count).min(lines.len());
        let again = lines[from..end].to_vec();
        lines.splice(end..end, again.clone());
        let report = verify(&lines.concat(), &key);
        prop_assert!(report.whole(), "{:?}", report);
        prop_assert_eq!(report.duplicates, again.len() as u64);
    }

    #[test]
    fn no_bytes_make_it_panic(log in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut verifier = Verifier::new(Some(KeySet::default()));
        verifier.file("log", &log[..]).expect("in memory");
        let _ = verifier.finish();
    }
}
