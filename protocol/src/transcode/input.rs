//! Client to upstream: stdin, the end of stdin, terminal sizes.

use super::{MAX_PASSING, Outbox, Streams, channel, pieces, read, same_layout, write};
use crate::frame::{Opcode, Violation};
use crate::resize::{ResizeParser, Size};
use crate::subprotocol::Subprotocol;

/// End of transmission, Ctrl-D: how a terminal is told that no more input comes.
const EOT: u8 = 4;

/// What became of a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This many bytes of stdin were forwarded, 1 at least.
    Stdin(usize),
    /// The end of stdin was forwarded.
    StdinEnd,
    /// A good terminal size is waiting in [`Input::take_resize`].
    Resize,
    /// Nothing to do: a heartbeat, a size that is none, something dropped.
    Nothing,
}

/// The state of one session's way up.
#[derive(Debug)]
pub struct Input {
    client: Subprotocol,
    upstream: Subprotocol,
    tty: bool,
    stdin: Stdin,
    sizes: ResizeParser,
    size: Option<Size>,
    dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stdin {
    NotRequested,
    Open,
    Ended,
}

impl Input {
    /// The way up of a session that has just begun.
    #[must_use]
    pub fn new(client: Subprotocol, upstream: Subprotocol, streams: Streams) -> Self {
        Self {
            client,
            upstream,
            tty: streams.tty,
            stdin: if streams.stdin {
                Stdin::Open
            } else {
                Stdin::NotRequested
            },
            sizes: ResizeParser::default(),
            size: None,
            dropped: 0,
        }
    }

    /// Takes one whole data message from the client; its opcode does not matter.
    ///
    /// # Errors
    /// A v5 close message that is not one byte of a channel from 0 to 4: the servers close on it too. Everything else
    /// that is wrong is dropped and counted, as the servers drop it.
    pub fn message(&mut self, payload: &[u8], to: &mut impl Outbox) -> Result<Taken, Violation> {
        let Some((channel, data)) = read(self.client, payload) else {
            return Ok(Taken::Nothing);
        };
        Ok(match channel {
            channel::STDIN => self.stdin(data, to),
            channel::RESIZE => self.resize(data),
            channel::CLOSE if self.client.has_stdin_close() => match data {
                [channel::STDIN] => self.end_stdin(to),
                // Closing what the client only reads from changes nothing, and closing resizes would end them.
                [1..=channel::RESIZE] => Taken::Nothing,
                _ => {
                    return Err(Violation::protocol(
                        "close message of a channel that does not exist",
                    ));
                }
            },
            _ => self.drop(),
        })
    }

    /// Whether a whole unfragmented binary message may go to the upstream as it is. O(1), and nothing needs to be told
    /// when it did: it would change no state here.
    ///
    /// # Assumptions
    /// `channel` is the first payload byte, unmasked, `len` the whole payload with it. The mask may stay.
    #[must_use]
    pub fn passes(&self, channel: u8, len: u64) -> bool {
        channel == channel::STDIN
            && self.stdin == Stdin::Open
            && (2..=MAX_PASSING).contains(&len)
            && same_layout(self.client, self.upstream)
    }

    /// The newest good size that was not taken yet; never one without a TTY. The caller chooses when to send it
    /// ([`Input::encode_resize`]): at most some 20 a second reach the upstream, and the last one always does.
    pub fn take_resize(&mut self) -> Option<Size> {
        self.size.take()
    }

    /// Writes a size for the upstream.
    pub fn encode_resize(&self, size: Size, to: &mut impl Outbox) {
        write(self.upstream, channel::RESIZE, size.json().as_bytes(), to);
    }

    /// The client is gone. Closing the upstream does not end the process, so what can make it end by itself is written:
    /// Ctrl-D on a terminal, else the end of stdin if the upstream has a word for it. Nothing if stdin is not open.
    pub fn hang_up(&mut self, to: &mut impl Outbox) {
        if self.stdin == Stdin::Open {
            self.stdin = Stdin::Ended;
            if self.tty {
                write(self.upstream, channel::STDIN, &[EOT], to);
            } else if self.upstream.has_stdin_close() {
                self.write_stdin_end(to);
            }
        }
    }

    /// Messages dropped so far: unknown channels, bad base64, writes to channels 1 to 3, stdin that was not requested
    /// or comes after its end, an end of stdin that the upstream has no word for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn stdin(&mut self, data: &[u8], to: &mut impl Outbox) -> Taken {
        if data.is_empty() {
            return Taken::Nothing;
        }
        if self.stdin != Stdin::Open {
            return self.drop();
        }
        match pieces(self.client, data, |piece| {
            write(self.upstream, channel::STDIN, piece, to);
        }) {
            Ok(0) => Taken::Nothing,
            Ok(bytes) => Taken::Stdin(bytes),
            Err(_) => self.drop(),
        }
    }

    fn resize(&mut self, data: &[u8]) -> Taken {
        // Clients send sizes without a TTY, and a v5 server stops reading at the second one.
        if !self.tty {
            return Taken::Nothing;
        }
        let Self { sizes, size, .. } = self;
        let mut seen = None;
        match pieces(self.client, data, |piece| seen = sizes.push(piece).or(seen)) {
            Ok(_) if seen.is_some() => {
                *size = seen;
                Taken::Resize
            }
            Ok(_) => Taken::Nothing,
            Err(_) => self.drop(),
        }
    }

    fn end_stdin(&mut self, to: &mut impl Outbox) -> Taken {
        match self.stdin {
            Stdin::NotRequested => self.drop(),
            Stdin::Ended => Taken::Nothing,
            Stdin::Open => {
                self.stdin = Stdin::Ended;
                if self.upstream.has_stdin_close() {
                    self.write_stdin_end(to);
                } else if self.tty {
                    write(self.upstream, channel::STDIN, &[EOT], to);
                } else {
                    return self.drop();
                }
                Taken::StdinEnd
            }
        }
    }

    /// Only v5 has it, and v5 is binary.
    fn write_stdin_end(&self, to: &mut impl Outbox) {
        debug_assert!(self.upstream.has_stdin_close());
        to.message(Opcode::Binary, 2, |payload| {
            payload.copy_from_slice(&[channel::CLOSE, channel::STDIN]);
        });
    }

    fn drop(&mut self) -> Taken {
        self.dropped = self.dropped.saturating_add(1);
        Taken::Nothing
    }
}
