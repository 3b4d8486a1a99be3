//! Upstream to client: stdout, stderr, and how it ended.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::{Outbox, Streams, channel, pieces, read, same_layout, write};
use crate::encoding::PIECE;
use crate::status::{Received, SUCCESS, Status};
use crate::subprotocol::{StatusFormat, Subprotocol};

/// Most bytes of channel 3 that are held. A `Status` is some hundred bytes; runtimes put the text of an OCI error in it.
const MAX_STATUS: usize = 64 * 1024;

/// How the upstream's WebSocket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamEnd {
    /// A Close frame with this code; 1005 if it had none.
    Closed(u16),
    /// The connection ended or failed without a Close frame.
    Lost,
}

/// How the session ended, as far as anybody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended with 0, or an attach ended.
    Success,
    /// The process ended with this code, which is not 0.
    Exit(u32),
    /// The upstream told of another failure.
    Error {
        /// Kubernetes' name for it, as the upstream wrote it; `InternalError` if it gave none or told something that
        /// is no status. At most 64 bytes.
        reason: String,
        /// In the upstream's words, which may quote the command. At most 1 KiB.
        message: String,
    },
    /// The upstream went away without a word: the process may or may not have ended.
    Lost,
}

/// The state of one session's way down.
///
/// # Guarantees
/// Towards the client: an empty message on its first channel comes first, once; stdout and stderr in the order they came;
/// then at most one status, in one message. A success is only ever told if the upstream told it.
#[derive(Debug)]
pub struct Output {
    client: Subprotocol,
    upstream: Subprotocol,
    streams: Streams,
    phase: Phase,
    /// What channel 3 said so far, decoded.
    status: Vec<u8>,
    /// Channel 3 said more than [`MAX_STATUS`].
    overlong: bool,
    dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client was sent nothing yet.
    New,
    Open,
    /// The client was told the end.
    Ended,
}

/// What channel 3 said, read.
enum Verdict {
    Told(Received),
    /// Something that is no status.
    Unreadable(&'static str),
    /// Nothing, and silence does not mean success.
    Nothing(&'static str),
}

impl Output {
    /// The way down of a session that has just begun.
    #[must_use]
    pub fn new(client: Subprotocol, upstream: Subprotocol, streams: Streams) -> Self {
        Self {
            client,
            upstream,
            // A terminal has one output: the kubelet turns stderr off.
            streams: Streams {
                stderr: streams.stderr && !streams.tty,
                ..streams
            },
            phase: Phase::New,
            status: Vec::new(),
            overlong: false,
            dropped: 0,
        }
    }

    /// Tells the client that it is connected, unless it was told: the empty message on the lowest channel requested.
    /// The upstream sends one as well, but not always first and not always; [`Output::message`] merges them.
    pub fn opened(&mut self, to: &mut impl Outbox) {
        if self.phase == Phase::New {
            self.phase = Phase::Open;
            let lowest = match self.streams {
                Streams { stdout: true, .. } => channel::STDOUT,
                Streams { stderr: true, .. } => channel::STDERR,
                _ => channel::ERROR,
            };
            write(self.client, lowest, &[], to);
        }
    }

    /// Takes one whole data message from the upstream, of either opcode; returns how many bytes of stdout and stderr
    /// it carried to the client. A status is held until the end, so that it comes last.
    pub fn message(&mut self, payload: &[u8], to: &mut impl Outbox) -> usize {
        if self.phase == Phase::Ended {
            return 0;
        }
        let Some((channel, data)) = read(self.upstream, payload) else {
            return 0;
        };
        match channel {
            channel::STDOUT | channel::STDERR | channel::ERROR if data.is_empty() => {
                self.opened(to);
                0
            }
            channel::STDOUT if self.streams.stdout => self.data(channel, data, to),
            channel::STDERR if self.streams.stderr => self.data(channel, data, to),
            channel::ERROR => {
                self.hold(data);
                0
            }
            _ => self.drop(),
        }
    }

    /// Whether a whole unfragmented binary message may go to the client as it is. O(1), and nothing needs to be told
    /// when it did: it would change no state here. Never before the client was told that it is connected.
    ///
    /// # Assumptions
    /// `channel` is the first payload byte, `len` the whole payload with it.
    #[must_use]
    pub fn passes(&self, channel: u8, len: u64) -> bool {
        let requested = match channel {
            channel::STDOUT => self.streams.stdout,
            channel::STDERR => self.streams.stderr,
            _ => false,
        };
        requested && len > 1 && self.phase == Phase::Open && same_layout(self.client, self.upstream)
    }

    /// Whether channel 3 has said anything: the upstream should close now, and need not be waited for long.
    #[must_use]
    pub fn has_status(&self) -> bool {
        !self.status.is_empty()
    }

    /// The upstream has ended: tells the client how, in its form, and says it here. The caller then closes with 1000.
    ///
    /// A `Status` goes to a client that takes one byte for byte as it came. A client of an older subprotocol gets its
    /// message, and nothing of a success. Where the upstream ended without a status, the client is told a failure;
    /// only upstreams that never send a `Status` mean success by saying nothing and closing with 1000.
    ///
    /// Once the end was told (by this or by [`Output::fail`]), nothing is written, whatever comes.
    pub fn finish(&mut self, end: UpstreamEnd, to: &mut impl Outbox) -> Outcome {
        let verdict = self.verdict(end);
        let told = std::mem::take(&mut self.status);
        if self.end(to).is_continue() {
            match (&verdict, self.client.status_format()) {
                (Verdict::Told(received), StatusFormat::Text) => {
                    if let Some(prose) = received.prose() {
                        write(self.client, channel::ERROR, prose.as_bytes(), to);
                    }
                }
                (Verdict::Told(received), StatusFormat::Json) => {
                    let json = match self.upstream.status_format() {
                        StatusFormat::Json => Cow::Owned(told),
                        StatusFormat::Text => as_json(received),
                    };
                    write(self.client, channel::ERROR, &json, to);
                }
                (Verdict::Unreadable(why) | Verdict::Nothing(why), _) => {
                    self.write_status(&Status::internal(*why), to);
                }
            }
        }
        match verdict {
            Verdict::Told(Received::Success) => Outcome::Success,
            Verdict::Told(Received::Exit { code, .. }) => Outcome::Exit(code),
            Verdict::Told(Received::Failure { reason, message }) => {
                let reason = if reason.is_empty() {
                    "InternalError"
                } else {
                    &reason
                };
                Outcome::Error {
                    reason: cut(reason, 64),
                    message: cut(&message, 1024),
                }
            }
            Verdict::Unreadable(why) => Outcome::Error {
                reason: "InternalError".to_owned(),
                message: why.to_owned(),
            },
            Verdict::Nothing(_) => Outcome::Lost,
        }
    }

    /// The gateway ends the session: tells the client why, in its form. The caller then closes with 1000. What the
    /// upstream sends from now on is not forwarded. Nothing is written if the client was told an end before.
    pub fn fail(&mut self, status: &Status, to: &mut impl Outbox) {
        self.status = Vec::new();
        if self.end(to).is_continue() {
            self.write_status(status, to);
        }
    }

    /// Shows the user a line: on the terminal if there is one, else on stderr if it was requested, else nowhere, since
    /// programs read stdout. Control characters in it become spaces.
    pub fn notice(&mut self, text: &str, to: &mut impl Outbox) {
        if self.phase == Phase::Ended {
            return;
        }
        let line: String = text
            .chars()
            .map(|character| {
                if character.is_control() {
                    ' '
                } else {
                    character
                }
            })
            .collect();
        let (channel, line) = match self.streams {
            Streams {
                tty: true,
                stdout: true,
                ..
            } => (channel::STDOUT, format!("\r\n{line}\r\n")),
            Streams {
                tty: false,
                stderr: true,
                ..
            } => (channel::STDERR, format!("{line}\n")),
            _ => return,
        };
        self.opened(to);
        for piece in line.as_bytes().chunks(PIECE) {
            write(self.client, channel, piece, to);
        }
    }

    /// Messages dropped so far: unknown channels, channels not requested, bad base64.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn data(&mut self, channel: u8, data: &[u8], to: &mut impl Outbox) -> usize {
        self.opened(to);
        let written = pieces(self.upstream, data, |piece| {
            write(self.client, channel, piece, to);
        });
        written.unwrap_or_else(|_| self.drop())
    }

    fn hold(&mut self, data: &[u8]) {
        let Self {
            status, overlong, ..
        } = self;
        let held = pieces(self.upstream, data, |piece| {
            *overlong |= piece.len() > MAX_STATUS - status.len();
            status.extend_from_slice(&piece[..piece.len().min(MAX_STATUS - status.len())]);
        });
        if held.is_err() {
            self.drop();
        }
    }

    fn verdict(&self, end: UpstreamEnd) -> Verdict {
        match (self.upstream.status_format(), &self.status[..], end) {
            _ if self.overlong => {
                Verdict::Unreadable("drawbridge: the upstream sent a status of more than 64 KiB")
            }
            (StatusFormat::Text, [], UpstreamEnd::Closed(1000)) => Verdict::Told(Received::Success),
            (_, [], UpstreamEnd::Closed(_)) => Verdict::Nothing(
                "drawbridge: upstream closed the connection before it sent an exit status",
            ),
            (_, [], UpstreamEnd::Lost) => Verdict::Nothing(
                "drawbridge: upstream connection lost before an exit status was received",
            ),
            (StatusFormat::Text, prose, _) => Verdict::Told(Received::from_prose(prose)),
            (StatusFormat::Json, json, _) => Received::parse(json).map_or(
                Verdict::Unreadable("drawbridge: the upstream sent a status that cannot be read"),
                Verdict::Told,
            ),
        }
    }

    /// Breaks if the client was told the end before.
    fn end(&mut self, to: &mut impl Outbox) -> ControlFlow<()> {
        if self.phase == Phase::Ended {
            return ControlFlow::Break(());
        }
        self.opened(to);
        self.phase = Phase::Ended;
        ControlFlow::Continue(())
    }

    fn write_status(&self, status: &Status, to: &mut impl Outbox) {
        match self.client.status_format() {
            StatusFormat::Json => write(self.client, channel::ERROR, &status.channel_json(), to),
            StatusFormat::Text => {
                write(self.client, channel::ERROR, status.message().as_bytes(), to);
            }
        }
    }

    fn drop(&mut self) -> usize {
        self.dropped = self.dropped.saturating_add(1);
        0
    }
}

/// The `Status` for what an upstream told in words.
fn as_json(received: &Received) -> Cow<'static, [u8]> {
    match received {
        Received::Success => Cow::Borrowed(SUCCESS),
        Received::Exit { code, message } => {
            Cow::Owned(Status::exit(*code, message.as_str()).channel_json())
        }
        // These words came from a `Status` of the server's and begin as Kubernetes begins them.
        Received::Failure { message, .. } => Cow::Owned(
            Status::new(crate::status::Reason::InternalError, message.as_str()).channel_json(),
        ),
    }
}

fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    impl Outbox for Nowhere {
        fn message(&mut self, _: crate::frame::Opcode, len: usize, fill: impl FnOnce(&mut [u8])) {
            fill(&mut vec![0; len]);
        }
    }

    #[test]
    fn an_endless_status_is_held_up_to_its_bound() {
        let mut output = Output::new(Subprotocol::V5, Subprotocol::V5, Streams::default());
        for _ in 0..100 {
            output.message(&[channel::ERROR; 10_000], &mut Nowhere);
        }
        assert_eq!((output.status.len(), output.overlong), (MAX_STATUS, true));
        assert!(output.status.capacity() <= 2 * MAX_STATUS);
        output.fail(&Status::internal("cut"), &mut Nowhere);
        assert_eq!(output.status.capacity(), 0, "given back");
        output.message(&[channel::ERROR; 10_000], &mut Nowhere);
        assert_eq!(output.status.capacity(), 0, "and not taken again");
    }
}
