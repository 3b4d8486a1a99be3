//! The auditor's keys, one at a time, while something plays.

use std::io::{self, IsTerminal, Stdin, stdin};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Stop, and go on.
    Pause,
    /// While stopped: the next event.
    Step,
    /// Twice as fast.
    Faster,
    /// Half as fast.
    Slower,
    /// Do not wait for the next event.
    Skip,
    /// Enough.
    Quit,
}

/// Waits, and hears keys meanwhile.
pub(crate) trait Keys {
    /// The next key, or nothing after `limit`; how long that took. Without a limit, waits for a key.
    fn wait(&mut self, limit: Option<Duration>) -> io::Result<(Option<Key>, Duration)>;
}

/// The terminal's, if standard input is one. What it was set to before, it is again afterwards.
pub(crate) struct Keyboard {
    before: Option<(Stdin, Termios)>,
}

impl Keyboard {
    /// Reads single keys without showing them. With `raw`, output reaches the terminal as it is, as for a program in it.
    pub(crate) fn open(raw: bool) -> io::Result<Self> {
        let stdin = stdin();
        if !stdin.is_terminal() {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(&stdin)?;
        let mut now = before.clone();
        now.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        if raw {
            now.output_modes -= OutputModes::OPOST;
        }
        now.special_codes[SpecialCodeIndex::VMIN] = 1;
        now.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &now)?;
        Ok(Self {
            before: Some((stdin, before)),
        })
    }
}

impl Keys for Keyboard {
    fn wait(&mut self, limit: Option<Duration>) -> io::Result<(Option<Key>, Duration)> {
        let begin = Instant::now();
        let Some((stdin, _)) = &self.before else {
            thread::sleep(limit.unwrap_or_default());
            return Ok((None, begin.elapsed()));
        };
        loop {
            let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut ready = [PollFd::new(stdin, PollFlags::IN)];
            match poll(&mut ready, timeout.as_ref()) {
                Ok(0) => return Ok((None, begin.elapsed())),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut byte = [0];
            if rustix::io::read(stdin, &mut byte)? == 0 {
                return Ok((Some(Key::Quit), begin.elapsed()));
            }
            let key = match byte[0] {
                b' ' => Key::Pause,
                b'.' => Key::Step,
                b'+' | b'>' => Key::Faster,
                b'-' | b'<' => Key::Slower,
                b'n' => Key::Skip,
                // ^C and ^D, too: the terminal does not turn them into signals now.
                b'q' | 0x03 | 0x04 => Key::Quit,
                _ => continue,
            };
            return Ok((Some(key), begin.elapsed()));
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        if let Some((stdin, before)) = &self.before {
            // There is nobody to tell if it fails.
            let _ = tcsetattr(stdin, OptionalActions::Now, before);
        }
    }
}
