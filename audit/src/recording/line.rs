//! The lines of a recording: asciicast v2, and back.

use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{End, Event, Gap, Opening, Stream, Timed, Transfer};

/// Longest line, in bytes, that is read. What is written stays below 256 KiB.
pub(super) const MAX_LINE: usize = 2 << 20;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    version: u32,
    width: u16,
    height: u16,
    timestamp: i64,
    #[serde(default)]
    command: String,
    #[serde(default)]
    env: Env,
    pub(super) drawbridge: Opening,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Env {
    /// What container runtimes set where there is a terminal.
    #[serde(rename = "TERM", default, skip_serializing_if = "Option::is_none")]
    term: Option<String>,
}

impl Head {
    pub(super) fn new(opening: &Opening, width: u16, height: u16) -> Self {
        Self {
            version: 2,
            width,
            height,
            timestamp: opening.started_at.as_second(),
            command: command(&opening.argv),
            env: Env {
                term: opening.tty.then(|| "xterm".to_owned()),
            },
            drawbridge: opening.clone(),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("a header has a JSON form");
        out.push(b'\n');
    }
}

/// Writes one event.
pub(super) fn write(out: &mut Vec<u8>, at: Duration, code: char, data: &str) {
    write!(
        out,
        "[{}.{:06},\"{code}\",",
        at.as_secs(),
        at.subsec_micros()
    )
    .expect("a Vec takes everything");
    serde_json::to_writer(&mut *out, data).expect("text has a JSON form");
    out.extend_from_slice(b"]\n");
}

/// Writes bytes of a stream; before them, if they are no text, the bytes as they were.
pub(super) fn write_bytes(out: &mut Vec<u8>, at: Duration, code: char, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        write(out, at, code, text);
    } else {
        write(out, at, 'b', &BASE64.encode(bytes));
        write(out, at, code, &String::from_utf8_lossy(bytes));
    }
}

/// Writes bytes that nobody would want to see: players show nothing.
pub(super) fn write_payload(out: &mut Vec<u8>, at: Duration, code: char, bytes: &[u8]) {
    write(out, at, 'b', &BASE64.encode(bytes));
    write(out, at, code, "");
}

/// Writes an event whose data is JSON in a string, as players want a string.
pub(super) fn write_json(out: &mut Vec<u8>, at: Duration, code: char, data: &impl Serialize) {
    let data = serde_json::to_string(data).expect("an event has a JSON form");
    write(out, at, code, &data);
}

/// The code of a stream's events.
pub(super) fn code(stream: Stream) -> char {
    match stream {
        Stream::Stdin => 'i',
        Stream::Stdout => 'o',
        Stream::Stderr => 'e',
    }
}

/// Why a line is none of a recording.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is no JSON, or not what it should be.
    #[error("it does not parse: {0}")]
    Parse(#[from] serde_json::Error),
    /// It is longer than any line of a recording.
    #[error("it is too long: {0} bytes")]
    Long(usize),
    /// Its time is none, or before that of the line before.
    #[error("its time is out of order")]
    Time,
    /// It is of a kind that this program does not know.
    #[error("it is an event of the unknown kind {0:?}")]
    Code(char),
    /// Its data is not what an event of its kind has.
    #[error("it has no data for an event of its kind")]
    Data,
    /// The bytes before it are not followed by their event.
    #[error("it does not belong to the bytes before it")]
    Bytes,
    /// It follows the end.
    #[error("it comes after the end")]
    Trailing,
}

/// Reads the lines of a recording, one after the other.
#[derive(Debug, Default)]
pub struct Lines {
    opening: Option<Box<Opening>>,
    size: (u16, u16),
    raw: Option<Vec<u8>>,
    last: Duration,
    ended: bool,
}

impl Lines {
    /// Before the first line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The facts from the first line, once it was read.
    #[must_use]
    pub fn opening(&self) -> Option<&Opening> {
        self.opening.as_deref()
    }

    /// Columns and rows that the first line tells; 0 before it was read.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        self.size
    }

    /// Whether the end was read.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Reads the next line, without its line feed. Not every line is an event of its own.
    ///
    /// # Errors
    /// If it is no line of a recording, or cannot follow the one before.
    pub fn read(&mut self, line: &[u8]) -> Result<Option<Timed>, LineError> {
        if line.len() > MAX_LINE {
            return Err(LineError::Long(line.len()));
        }
        if self.opening.is_none() {
            let head: Head = serde_json::from_slice(line)?;
            self.size = (head.width, head.height);
            self.opening = Some(Box::new(head.drawbridge));
            return Ok(None);
        }
        if self.ended {
            return Err(LineError::Trailing);
        }
        let (seconds, code, data): (f64, char, &RawValue) = serde_json::from_slice(line)?;
        let at = Duration::try_from_secs_f64(seconds).map_err(|_| LineError::Time)?;
        if at < self.last {
            return Err(LineError::Time);
        }
        self.last = at;
        let data: String = serde_json::from_str(data.get())?;
        let raw = self.raw.take();
        if raw.is_some() && !matches!(code, 'o' | 'e' | 'i') {
            return Err(LineError::Bytes);
        }
        let bytes = |data: String| match raw {
            None => data.into_bytes(),
            Some(raw) => raw,
        };
        let event = match code {
            'o' => Event::Data(Stream::Stdout, bytes(data)),
            'e' => Event::Data(Stream::Stderr, bytes(data)),
            'i' => Event::Data(Stream::Stdin, bytes(data)),
            'b' => {
                self.raw = Some(BASE64.decode(data).map_err(|_| LineError::Data)?);
                return Ok(None);
            }
            'r' => {
                let (columns, rows) = data.split_once('x').ok_or(LineError::Data)?;
                let number = |text: &str| text.parse().map_err(|_| LineError::Data);
                Event::Resize(number(columns)?, number(rows)?)
            }
            'm' => Event::Marker(data),
            'h' => Event::Hidden(data.parse().map_err(|_| LineError::Data)?),
            'x' => Event::Transfer(serde_json::from_str::<Transfer>(&data)?),
            'g' => Event::Gap(serde_json::from_str::<Gap>(&data)?),
            'z' => {
                self.ended = true;
                Event::End(serde_json::from_str::<End>(&data)?)
            }
            code => return Err(LineError::Code(code)),
        };
        Ok(Some(Timed { at, event }))
    }
}

/// The argv as players show it; whole, it is among the facts.
fn command(argv: &[String]) -> String {
    let mut command = argv.join(" ");
    command.truncate(command.floor_char_boundary(1024));
    command
}
