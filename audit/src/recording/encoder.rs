//! From what happens on a connection to the lines of its recording. No clock, no I/O.

use std::collections::VecDeque;
use std::time::Duration;

use super::keystrokes::{Keystrokes, Typed};
use super::line::{self, Head};
use super::stream::Plain;
use super::text::Joiner;
use super::{Bytes, Carried, End, Gap, Opening, Stream, Transfer};

/// Bytes of lines from which a batch is full. One more event may follow, so that a batch is never over
/// [`MAX_TEXT`](super::chunk::MAX_TEXT).
const FULL: usize = 512 << 10;

/// Longest note, in bytes.
const MAX_MARKER: usize = 4096;

/// The terminal's size until the client tells it: what a terminal has been since 1978.
const SIZE: (u16, u16) = (80, 24);

/// Whole lines, ready to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The lines. At most 1 MiB.
    pub lines: Vec<u8>,
    /// How many there are.
    pub count: u64,
    /// The time of the last one.
    pub at: Duration,
    /// What the streams carried until then.
    pub bytes: Bytes,
}

/// Turns what happens on one connection into lines.
///
/// # Assumptions
/// `at` counts from the opening by a clock that is never set. A time before the last one is taken for the last one.
#[derive(Debug)]
pub struct Encoder {
    /// The facts, until the first line has told them.
    opening: Option<Box<Opening>>,
    ended: bool,
    at: Duration,
    full: VecDeque<Batch>,
    open: Batch,
    bytes: Bytes,
    form: Form,
    transfers: Vec<Transfer>,
    gaps: Vec<Gap>,
}

#[derive(Debug)]
enum Form {
    Terminal {
        output: Joiner,
        keystrokes: Option<Box<Keystrokes>>,
    },
    Plain(Box<[Plain; 3]>),
}

impl Encoder {
    /// For the connection that `opening` describes.
    #[must_use]
    pub fn new(opening: &Opening) -> Self {
        let form = if opening.tty {
            Form::Terminal {
                output: Joiner::default(),
                keystrokes: opening
                    .settings
                    .keystrokes
                    .then(|| Box::new(Keystrokes::new())),
            }
        } else {
            let plain = |stream| Plain::new(stream, opening);
            Form::Plain(Box::new(
                [Stream::Stdin, Stream::Stdout, Stream::Stderr].map(plain),
            ))
        };
        Self {
            opening: Some(Box::new(opening.clone())),
            ended: false,
            at: Duration::ZERO,
            full: VecDeque::new(),
            open: Batch::default(),
            bytes: Bytes::default(),
            form,
            transfers: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// Bytes that passed on `stream`. Input must be told before the output that answers it.
    ///
    /// Adds at most 8 bytes of lines for each, and 1 KiB.
    pub fn data(&mut self, at: Duration, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() || !self.begin(at, SIZE) {
            return;
        }
        self.bytes.add(stream, bytes.len() as u64);
        // A piece at a time, so that no batch outgrows its bound, however long the message.
        for bytes in bytes.chunks(super::text::MAX_PIECE) {
            self.piece(stream, bytes);
            self.roll();
        }
    }

    fn piece(&mut self, stream: Stream, bytes: &[u8]) {
        let (at, out) = (self.at, &mut self.open.lines);
        match &mut self.form {
            Form::Plain(streams) => streams[index(stream)].data(out, at, bytes),
            Form::Terminal { output, keystrokes } => {
                if stream == Stream::Stdin {
                    if let Some(keystrokes) = keystrokes {
                        keystrokes.typed(bytes, &mut |typed| tell(out, at, typed));
                    }
                } else {
                    let code = line::code(stream);
                    output.pieces(bytes, |piece| line::write_bytes(out, at, code, piece));
                    if let Some(keystrokes) = keystrokes {
                        keystrokes.output(bytes, &mut |typed| tell(out, at, typed));
                    }
                }
            }
        }
    }

    /// `stream` ended; of a stream that is not told as text, what it was. A terminal's streams end with the session.
    pub fn closed(&mut self, at: Duration, stream: Stream) -> Option<Transfer> {
        if !self.begin(at, SIZE) {
            return None;
        }
        let Form::Plain(streams) = &mut self.form else {
            return None;
        };
        let transfer = streams[index(stream)].close(&mut self.open.lines, self.at);
        self.transfers.extend(transfer.clone());
        self.roll();
        transfer
    }

    /// The terminal has `columns` and `rows`.
    pub fn resize(&mut self, at: Duration, columns: u16, rows: u16) {
        if self.begin(at, (columns, rows)) {
            line::write(
                &mut self.open.lines,
                self.at,
                'r',
                &format!("{columns}x{rows}"),
            );
            self.roll();
        }
    }

    /// A note of the gateway's. What is longer than 4 KiB is cut.
    pub fn marker(&mut self, at: Duration, note: &str) {
        if self.begin(at, SIZE) {
            let note = &note[..note.floor_char_boundary(MAX_MARKER)];
            line::write(&mut self.open.lines, self.at, 'm', note);
            self.roll();
        }
    }

    /// `bytes` of `stream` passed and were missed.
    pub fn gap(&mut self, at: Duration, stream: Stream, bytes: u64) {
        if bytes == 0 || !self.begin(at, SIZE) {
            return;
        }
        self.bytes.add(stream, bytes);
        let out = &mut self.open.lines;
        match &mut self.form {
            Form::Plain(streams) => streams[index(stream)].gap(out, self.at, bytes),
            Form::Terminal { output, .. } => flush(output, out, self.at),
        }
        let gap = Gap { stream, bytes };
        line::write_json(out, self.at, 'g', &gap);
        match self.gaps.iter_mut().find(|gap| gap.stream == stream) {
            Some(sum) => sum.bytes += bytes,
            None => self.gaps.push(gap),
        }
        self.roll();
    }

    /// The session ended. Nothing is told after it.
    pub fn end(&mut self, at: Duration, end: &End) {
        for stream in [Stream::Stdin, Stream::Stdout, Stream::Stderr] {
            self.closed(at, stream);
        }
        if !self.begin(at, SIZE) {
            return;
        }
        let (at, out) = (self.at, &mut self.open.lines);
        if let Form::Terminal { output, keystrokes } = &mut self.form {
            flush(output, out, at);
            if let Some(keystrokes) = keystrokes {
                keystrokes.end(&mut |typed| tell(out, at, typed));
            }
        }
        line::write_json(out, at, 'z', end);
        self.ended = true;
        self.roll();
    }

    /// Bytes of lines that were not taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.full
            .iter()
            .map(|batch| batch.lines.len())
            .sum::<usize>()
            + self.open.lines.len()
    }

    /// The next lines; `None` if there are none. Call it until then.
    pub fn take(&mut self) -> Option<Batch> {
        self.full.pop_front().or_else(|| {
            (!self.open.lines.is_empty()).then(|| {
                self.stamp();
                std::mem::take(&mut self.open)
            })
        })
    }

    /// What the streams carried until now.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.bytes
    }

    /// The streams that ended and are not told as text.
    #[must_use]
    pub fn transfers(&self) -> &[Transfer] {
        &self.transfers
    }

    /// What the closed streams carried, each that carried something; nothing of a terminal.
    #[must_use]
    pub fn carried(&self) -> Vec<Carried> {
        match &self.form {
            Form::Plain(streams) => streams.iter().filter_map(Plain::carried).collect(),
            Form::Terminal { .. } => Vec::new(),
        }
    }

    /// What was missed until now: one for each stream.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Sets the time, and writes the first line if there is none. Whether anything may follow.
    fn begin(&mut self, at: Duration, (columns, rows): (u16, u16)) -> bool {
        self.at = self.at.max(at);
        if let Some(opening) = self.opening.take() {
            Head::new(&opening, columns, rows).write(&mut self.open.lines);
        }
        !self.ended
    }

    /// Puts a full batch aside.
    fn roll(&mut self) {
        if self.open.lines.len() >= FULL {
            self.stamp();
            self.full.push_back(std::mem::take(&mut self.open));
        }
    }

    fn stamp(&mut self) {
        self.open.count = memchr::memchr_iter(b'\n', &self.open.lines).count() as u64;
        self.open.at = self.at;
        self.open.bytes = self.bytes;
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdin => 0,
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

/// Tells the beginning of a sequence whose end will not come.
fn flush(output: &mut Joiner, out: &mut Vec<u8>, at: Duration) {
    let rest = output.rest();
    if !rest.is_empty() {
        line::write_bytes(out, at, line::code(Stream::Stdout), &rest);
    }
}

fn tell(out: &mut Vec<u8>, at: Duration, typed: Typed) {
    match typed {
        Typed::Shown(line) => line::write_bytes(out, at, line::code(Stream::Stdin), &line),
        Typed::Hidden(bytes) => line::write(out, at, 'h', &bytes.to_string()),
    }
}

#[cfg(test)]
mod tests;
