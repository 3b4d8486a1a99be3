//! Events become lines: each numbered, each with the hash of the one before; and whether lines are such a chain. Pure.

mod verify;

pub use self::verify::{Chain as Verified, Ending, Place, Problem, Report, Verifier, Wrong};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::checkpoint::Statement;
use crate::dsse::Envelope;
use crate::event::{Component, Event, Facts, NOTHING_BEFORE, Type, VERSION};
use crate::hash::Sha256;

/// A [`Record`](crate::event::Record) as it is written: the same fields in the same order, borrowed.
#[derive(Serialize)]
struct Line<'a> {
    version: &'static str,
    id: Uuid,
    time: Timestamp,
    #[serde(rename = "type")]
    kind: Type,
    component: Component,
    instance: &'a str,
    seq: u64,
    previous: &'a str,
    #[serde(flatten)]
    facts: &'a Facts,
}

/// The chain of one run.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    component: Component,
    instance: String,
    seq: u64,
    previous: String,
}

#[cfg_attr(
    not(any(test, feature = "log")),
    expect(dead_code, reason = "who only verifies writes none")
)]
impl Chain {
    /// Nothing written yet.
    pub(crate) fn new(component: Component, instance: String) -> Self {
        Self {
            component,
            instance,
            seq: 0,
            previous: NOTHING_BEFORE.to_owned(),
        }
    }

    /// Adds the line of `event`, with its newline, to `lines`.
    pub(crate) fn link(&mut self, event: &Event, lines: &mut Vec<u8>) {
        let line = Line {
            version: VERSION,
            id: event.id,
            time: event.time,
            kind: event.kind,
            component: self.component,
            instance: &self.instance,
            seq: self.seq + 1,
            previous: &self.previous,
            facts: &event.facts,
        };
        let begin = lines.len();
        // Into memory, of plain fields: it cannot fail.
        let written = serde_json::to_writer(&mut *lines, &line);
        debug_assert!(written.is_ok(), "{written:?}");
        self.seq += 1;
        self.previous = digest(&lines[begin..]);
        lines.push(b'\n');
    }

    /// Lines added since it was as `before`.
    pub(crate) fn lines_since(&self, before: &Self) -> u64 {
        self.seq - before.seq
    }

    /// What the line of `event`, if it comes next, is to vouch for: everything before, and itself.
    pub(crate) fn statement(&self, event: &Event) -> Statement {
        Statement {
            component: self.component,
            instance: self.instance.clone(),
            seq: self.seq,
            sha256: self.previous.clone(),
            id: event.id,
            time: event.time,
            kind: event.kind,
        }
    }
}

/// The only line that may hold `envelope`, which says `statement`.
fn vouching(statement: Statement, envelope: Envelope) -> Vec<u8> {
    let mut chain = Chain {
        component: statement.component,
        instance: statement.instance,
        seq: statement.seq,
        previous: statement.sha256,
    };
    let facts = Facts {
        checkpoint: Some(envelope),
        ..Facts::default()
    };
    let event = Event {
        id: statement.id,
        time: statement.time,
        kind: statement.kind,
        facts: Box::new(facts),
    };
    let mut line = Vec::new();
    chain.link(&event, &mut line);
    line
}

/// SHA-256 in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::of(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Record;

    #[test]
    fn each_line_has_its_number_and_the_hash_of_the_one_before() {
        let mut chain = Chain::new(Component::Operator, "operator-0/1".to_owned());
        let mut lines = Vec::new();
        for kind in [Type::Started, Type::Granted, Type::Stopped] {
            chain.link(&Event::now(kind, Facts::default()), &mut lines);
        }
        let mut previous = NOTHING_BEFORE.to_owned();
        for (line, seq) in lines.split(|byte| *byte == b'\n').take(3).zip(1..) {
            let record: Record = serde_json::from_slice(line).expect("a record");
            assert_eq!((record.seq, record.previous), (seq, previous));
            previous = digest(line);
        }
        assert_eq!((chain.seq, chain.previous), (3, previous));
    }
}
