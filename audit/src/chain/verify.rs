//! Whether a log is whole, and if not, which line is wrong. Needs the lines and public keys, nothing else.
//!
//! Memory is bounded, however long the log is. Lines of several runs may be mixed, as where many gateways write to one
//! topic; those of one run must be in order, and may be there twice, as at-least-once delivery brings them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, BufRead, Read as _};

use serde::Deserialize;

use super::{digest, vouching};
use crate::checkpoint::Statement;
use crate::dsse::Envelope;
use crate::event::{Component, MAX_LINE, NOTHING_BEFORE, Predecessor, Type, VERSION};
use crate::keys::KeySet;

/// Lines of each run whose hashes are kept, to tell one delivered twice from an altered one: a batch of a sink.
const WINDOW: usize = 512;
/// Most runs in one log; a gateway that restarts every minute for a week makes twice as many.
const MAX_RUNS: usize = 5000;
/// Most places of a run where lines are missing that are kept, to tell a line in the wrong order from one that is gone.
const MAX_GAPS: usize = 64;
/// Most problems told; the rest is counted.
const MAX_PROBLEMS: usize = 1000;

/// Where a line is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, or whatever the caller calls it.
    pub file: String,
    /// Its number there, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: line {}", self.file, self.line)
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which line: the altered one, the one in the wrong place, or the one after (at the end: before) missing ones.
    pub place: Place,
    /// What is wrong.
    pub wrong: Wrong,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.wrong)
    }
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It cannot be read as an event.
    #[error("is no event: {0}")]
    NoEvent(String),
    /// It has no newline: it was cut.
    #[error("is cut short")]
    CutShort,
    /// Its hash is not what the next line, or a signature, says.
    #[error("was altered")]
    Altered,
    /// It comes after one that was written later.
    #[error("is out of order: event {seq} of {instance} comes too late")]
    OutOfOrder {
        /// Whose.
        instance: String,
        /// Its place in the chain.
        seq: u64,
    },
    /// Lines before it are missing.
    #[error("follows a gap: events {first} to {last} of {instance} were removed")]
    Removed {
        /// Whose.
        instance: String,
        /// First one missing.
        first: u64,
        /// Last one missing.
        last: u64,
    },
    /// Lines after it are missing: the run after says that there were more.
    #[error("is followed by nothing: events {first} to {last} of {instance} were cut off")]
    Truncated {
        /// Whose.
        instance: String,
        /// First one missing.
        first: u64,
        /// Last one missing.
        last: u64,
    },
    /// The run before this one is not there at all.
    #[error("continues {0}, which was removed")]
    RunRemoved(String),
    /// It comes after the end of its own chain.
    #[error("comes after the end of {0}")]
    AfterTheEnd(String),
    /// What it vouches for is not vouched for.
    #[error("vouches for nothing: {0}")]
    Checkpoint(String),
    /// It is the last line of a run that ended, and no key that is trusted vouches for it.
    #[error("ends {0}, and no trusted key vouches for it")]
    Unsigned(String),
    /// There are too many runs to keep track of.
    #[error(
        "is of one run too many: a log of more than {MAX_RUNS} runs has to be verified in parts"
    )]
    TooManyRuns,
}

/// How a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With `Stopped`.
    Stopped,
    /// Without, as after a crash; but the next run says that this was its last line.
    Continued,
    /// Nobody says so: it still runs, or the end was cut off.
    Open,
}

/// One chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Whose.
    pub instance: String,
    /// Place of its first line here.
    pub first: u64,
    /// Place of its last line here.
    pub last: u64,
    /// Where that is.
    pub end: Place,
    /// How it ends.
    pub ending: Ending,
    /// The last place a trusted key vouches for; `None` when none does.
    pub signed: Option<u64>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines read.
    pub lines: u64,
    /// Of those, delivered again.
    pub duplicates: u64,
    /// What is wrong, in the order it was found. The first 1,000.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: u64,
    /// The chains, by instance.
    pub chains: Vec<Chain>,
    /// Whether there were keys to verify signatures with.
    pub keys: bool,
}

impl Report {
    /// Whether nothing is wrong, every chain has ended, and, if there were keys, every end is vouched for: a run's own,
    /// or that of a run that continues it.
    #[must_use]
    pub fn whole(&self) -> bool {
        let vouched = |chain: &Chain| !self.keys || chain.signed == Some(chain.last);
        let ended = |chain: &Chain| match chain.ending {
            Ending::Stopped => vouched(chain),
            Ending::Continued => true,
            Ending::Open => false,
        };
        self.problems.is_empty() && self.chains.iter().all(ended)
    }
}

/// As much of a line as its place in the chain depends on.
#[derive(Deserialize)]
struct Head {
    version: String,
    component: Component,
    instance: String,
    seq: u64,
    previous: String,
    #[serde(rename = "type")]
    kind: Type,
    #[serde(default)]
    predecessor: Option<Predecessor>,
    #[serde(default)]
    checkpoint: Option<Envelope>,
}

/// What is known of a chain while it is read.
#[derive(Debug)]
struct Run {
    component: Component,
    first: u64,
    last: u64,
    end: Place,
    /// Hashes of the latest lines, the last one's at the back.
    hashes: VecDeque<String>,
    gaps: Vec<(u64, u64, Place)>,
    /// The line before the last does not have the hash the last one names: which of the two was altered, the next tells.
    suspect: Option<Place>,
    stopped: bool,
    signed: Option<u64>,
}

/// Reads a log line by line.
#[derive(Debug)]
pub struct Verifier {
    keys: Option<KeySet>,
    /// Whether older lines may be gone.
    rotated: bool,
    runs: BTreeMap<String, Run>,
    /// Who says that it continues whom.
    claims: Vec<(Place, Predecessor)>,
    report: Report,
}

impl Verifier {
    /// With the keys that are trusted; `None`: signatures are not looked at, and a chain that was written anew from some
    /// line on passes.
    #[must_use]
    pub fn new(keys: Option<KeySet>) -> Self {
        Self {
            rotated: false,
            runs: BTreeMap::new(),
            claims: Vec::new(),
            report: Report {
                keys: keys.is_some(),
                ..Report::default()
            },
            keys,
        }
    }

    /// The beginning may be gone, as when the oldest files were deleted: a chain may begin after its first event, and the
    /// run before may be missing.
    #[must_use]
    pub fn rotated(mut self) -> Self {
        self.rotated = true;
        self
    }

    /// Reads a file; older ones first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&mut self, name: &str, mut lines: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limit = MAX_LINE as u64 + 1;
            if (&mut lines).take(limit).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let place = Place {
                file: name.to_owned(),
                line: number,
            };
            match line.strip_suffix(b"\n") {
                Some(line) => self.line(&place, line),
                None if line.len() as u64 == limit => {
                    self.report.lines += 1;
                    self.problem(&place, Wrong::NoEvent("it is too long".into()));
                    skip_line(&mut lines)?;
                }
                None => {
                    self.report.lines += 1;
                    self.problem(&place, Wrong::CutShort);
                }
            }
        }
        Ok(())
    }

    /// Reads a line, without its newline.
    pub fn line(&mut self, place: &Place, line: &[u8]) {
        self.report.lines += 1;
        let head: Head = match serde_json::from_slice(line) {
            Ok(head) => head,
            Err(error) => return self.problem(place, Wrong::NoEvent(error.to_string())),
        };
        if head.version != VERSION {
            let why = format!("its version is {:?}, not {VERSION:?}", head.version);
            return self.problem(place, Wrong::NoEvent(why));
        }
        let hash = digest(line);
        match self.runs.get_mut(&head.instance) {
            None => self.begin(place, &head, hash.clone()),
            Some(run) if head.seq > run.last => self.follow(place, &head, hash.clone()),
            Some(run) => {
                let behind = usize::try_from(run.last - head.seq).unwrap_or(usize::MAX);
                let known =
                    (run.hashes.len().checked_sub(behind + 1)).and_then(|at| run.hashes.get(at));
                match known {
                    Some(known) if *known == hash => self.report.duplicates += 1,
                    Some(known) if !known.is_empty() => self.problem(place, Wrong::Altered),
                    _ => self.late(place, &head),
                }
                return;
            }
        }
        self.vouch(place, head, line);
    }

    /// The first line of a run.
    fn begin(&mut self, place: &Place, head: &Head, hash: String) {
        if self.runs.len() >= MAX_RUNS {
            return self.problem(place, Wrong::TooManyRuns);
        }
        let mut run = Run {
            component: head.component,
            first: head.seq,
            last: head.seq,
            end: place.clone(),
            hashes: VecDeque::from([hash]),
            gaps: Vec::new(),
            suspect: None,
            stopped: head.kind == Type::Stopped,
            signed: None,
        };
        let begins = head.seq == 1;
        if !begins && !self.rotated {
            run.gaps
                .push((1, head.seq.saturating_sub(1), place.clone()));
        }
        self.runs.insert(head.instance.clone(), run);
        if head.seq == 0
            || (begins && (head.previous != NOTHING_BEFORE || head.kind != Type::Started))
        {
            self.problem(place, Wrong::Altered);
        }
    }

    /// A line after the last of its run.
    fn follow(&mut self, place: &Place, head: &Head, hash: String) {
        let Some(run) = self.runs.get_mut(&head.instance) else {
            return; // never: the caller found it
        };
        let mut wrong = Vec::new();
        let gap = head.seq - run.last - 1;
        let matches = gap > 0 || run.hashes.back() == Some(&head.previous);
        if let Some(before) = run.suspect.take() {
            // Two in a row that do not match: it is the one between them.
            let altered = if matches { before } else { run.end.clone() };
            wrong.push((altered, Wrong::Altered));
        } else if !matches {
            run.suspect = Some(run.end.clone());
        }
        if head.component != run.component {
            wrong.push((place.clone(), Wrong::Altered));
        }
        if run.stopped {
            wrong.push((place.clone(), Wrong::AfterTheEnd(head.instance.clone())));
        }
        if gap > 0 {
            let gap = (run.last + 1, head.seq - 1, place.clone());
            if run.gaps.len() < MAX_GAPS {
                run.gaps.push(gap);
            } else {
                wrong.push((gap.2, removed(&head.instance, gap.0, gap.1)));
            }
            run.hashes.clear();
        }
        run.hashes.push_back(hash);
        if run.hashes.len() > WINDOW {
            run.hashes.pop_front();
        }
        run.last = head.seq;
        run.end = place.clone();
        run.stopped = head.kind == Type::Stopped;
        for (place, wrong) in wrong {
            self.problem(&place, wrong);
        }
    }

    /// A line that comes after a later one.
    fn late(&mut self, place: &Place, head: &Head) {
        if let Some(run) = self.runs.get_mut(&head.instance) {
            let seq = head.seq;
            let gap = run
                .gaps
                .iter()
                .position(|(first, last, _)| (*first..=*last).contains(&seq));
            if let Some(at) = gap {
                // It is not gone after all.
                let (first, last, after) = run.gaps.swap_remove(at);
                if first < seq {
                    run.gaps.push((first, seq - 1, after.clone()));
                }
                if seq < last {
                    run.gaps.push((seq + 1, last, after));
                }
            }
        }
        let wrong = Wrong::OutOfOrder {
            instance: head.instance.clone(),
            seq: head.seq,
        };
        self.problem(place, wrong);
    }

    /// What a line says about others.
    fn vouch(&mut self, place: &Place, head: Head, line: &[u8]) {
        if let Some(predecessor) = head.predecessor
            && self.claims.len() < MAX_RUNS
        {
            self.claims.push((place.clone(), predecessor));
        }
        let (Some(keys), Some(envelope)) = (&self.keys, head.checkpoint) else {
            return;
        };
        let vouched = Statement::verify(&envelope, keys).map_err(|error| error.to_string());
        let vouched = vouched.and_then(|(statement, _)| {
            let mut only = vouching(statement, envelope);
            only.pop(); // its newline
            (only == line)
                .then_some(())
                .ok_or_else(|| "it was signed for another line".to_owned())
        });
        match vouched {
            Err(why) => self.problem(place, Wrong::Checkpoint(why)),
            Ok(()) => {
                if let Some(run) = self.runs.get_mut(&head.instance) {
                    run.signed = Some(head.seq);
                }
            }
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let mut continued = Vec::new();
        for (place, predecessor) in std::mem::take(&mut self.claims) {
            let Predecessor {
                instance,
                seq,
                sha256,
            } = predecessor;
            match self.runs.get(&instance) {
                None if self.rotated => {}
                None => self.problem(&place, Wrong::RunRemoved(instance)),
                Some(run) if run.last < seq => {
                    let wrong = Wrong::Truncated {
                        first: run.last + 1,
                        last: seq,
                        instance,
                    };
                    let end = run.end.clone();
                    self.problem(&end, wrong);
                }
                Some(run) if run.last == seq && run.hashes.back() == Some(&sha256) => {
                    continued.push(instance);
                }
                Some(run) => {
                    let end = run.end.clone();
                    self.problem(&end, Wrong::Altered);
                }
            }
        }
        for (instance, run) in std::mem::take(&mut self.runs) {
            for (first, last, place) in run.gaps {
                self.problem(&place, removed(&instance, first, last));
            }
            if let Some(suspect) = run.suspect {
                self.problem(&suspect, Wrong::Altered);
            }
            let named = |problem: &Problem| problem.place == run.end;
            let unsigned = self.keys.is_some() && run.stopped && run.signed != Some(run.last);
            if unsigned && !self.report.problems.iter().any(named) {
                self.problem(&run.end, Wrong::Unsigned(instance.clone()));
            }
            let ending = if run.stopped {
                Ending::Stopped
            } else if continued.contains(&instance) {
                Ending::Continued
            } else {
                Ending::Open
            };
            self.report.chains.push(Chain {
                instance,
                first: run.first,
                last: run.last,
                end: run.end,
                ending,
                signed: run.signed,
            });
        }
        self.report
    }

    fn problem(&mut self, place: &Place, wrong: Wrong) {
        if self.report.problems.len() < MAX_PROBLEMS {
            self.report.problems.push(Problem {
                place: place.clone(),
                wrong,
            });
        } else {
            self.report.more += 1;
        }
    }
}

fn removed(instance: &str, first: u64, last: u64) -> Wrong {
    Wrong::Removed {
        instance: instance.to_owned(),
        first,
        last,
    }
}

/// Reads on to the next line.
fn skip_line(lines: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        if let Some(end) = memchr::memchr(b'\n', buffer) {
            lines.consume(end + 1);
            return Ok(());
        }
        let len = buffer.len();
        lines.consume(len);
    }
}

#[cfg(test)]
mod tests;
