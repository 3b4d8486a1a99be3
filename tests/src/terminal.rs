//! A program on a pseudo-terminal, and the screen a person would see.

use std::num::NonZero;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pty_process::{OwnedWritePty, Size};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::sync::watch;
use vt100::Parser;

use crate::kubectl::Kubectl;
use crate::wait::soon;

/// Longest wait for the screen to show what a test expects.
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of output kept for messages.
const TRANSCRIPT: usize = 1 << 20;

/// A running program on its own terminal.
pub struct Terminal {
    child: Child,
    keyboard: OwnedWritePty,
    seen: Arc<Mutex<Seen>>,
    /// Number of reads so far; closed when the terminal is.
    changed: watch::Receiver<u64>,
}

struct Seen {
    screen: Parser,
    transcript: Vec<u8>,
}

impl Terminal {
    /// Starts kubectl on a terminal of that size.
    ///
    /// # Errors
    /// When there is no terminal to be had, or kubectl does not start.
    pub fn start(kubectl: &Kubectl, args: &[&str], rows: u16, columns: u16) -> Result<Self> {
        let (pty, pts) = pty_process::open().context("failed to open a pseudo-terminal")?;
        pty.resize(Size::new(rows, columns))?;
        let mut command = pty_process::Command::new(kubectl.program())
            .args(args)
            .env("TERM", "xterm")
            .kill_on_drop(true);
        for (key, value) in kubectl.environment() {
            command = command.env(key, value);
        }
        let child = command
            .spawn(pts)
            .context("failed to run kubectl on a terminal")?;
        let (mut reader, keyboard) = pty.into_split();
        let seen = Arc::new(Mutex::new(Seen {
            screen: Parser::new(size(rows)?, size(columns)?, 0),
            transcript: Vec::new(),
        }));
        let (tell, changed) = watch::channel(0);
        let shown = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut buffer = vec![0; 8192];
            // Reading fails once the last process on the terminal is gone.
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                let mut seen = lock(&shown);
                seen.screen.process(&buffer[..count]);
                if seen.transcript.len() < TRANSCRIPT {
                    seen.transcript.extend_from_slice(&buffer[..count]);
                }
                drop(seen);
                tell.send_modify(|reads| *reads += 1);
            }
        });
        Ok(Self {
            child,
            keyboard,
            seen,
            changed,
        })
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is closed.
    pub async fn type_text(&mut self, text: &str) -> Result<()> {
        self.keyboard
            .write_all(text.as_bytes())
            .await
            .with_context(|| format!("failed to type {text:?}"))
    }

    /// Changes the window's size, which kubectl is told by a signal.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        lock(&self.seen)
            .screen
            .screen_mut()
            .set_size(size(rows)?, size(columns)?);
        Ok(self.keyboard.resize(Size::new(rows, columns))?)
    }

    /// What the screen shows, line by line.
    #[must_use]
    pub fn screen(&self) -> String {
        lock(&self.seen).screen.screen().contents()
    }

    /// Everything written to the terminal so far, up to 1 MiB.
    #[must_use]
    pub fn transcript(&self) -> Vec<u8> {
        lock(&self.seen).transcript.clone()
    }

    /// Whether a full-screen program has switched to the alternate screen.
    #[must_use]
    pub fn alternate(&self) -> bool {
        lock(&self.seen).screen.screen().alternate_screen()
    }

    /// Waits until the screen satisfies `shows`.
    ///
    /// # Errors
    /// When the program ends or 20 s pass before; shows the screen.
    pub async fn until(&mut self, what: &str, shows: impl Fn(&str) -> bool) -> Result<()> {
        let mut changed = self.changed.clone();
        let look = async {
            loop {
                if shows(&self.screen()) {
                    return Ok(());
                }
                if changed.changed().await.is_err() {
                    bail!("the terminal was closed");
                }
            }
        };
        let done = soon(what, LIMIT, look).await.and_then(|done| done);
        done.with_context(|| format!("{what}; the screen shows:\n{}", self.screen()))
    }

    /// Waits until the screen shows `part`.
    ///
    /// # Errors
    /// As [`Terminal::until`].
    pub async fn shows(&mut self, part: &str) -> Result<()> {
        self.until(&format!("{part:?} on the screen"), |screen| {
            screen.contains(part)
        })
        .await
    }

    /// Waits until a shell asks for a command, whoever it runs as.
    ///
    /// # Errors
    /// As [`Terminal::until`].
    pub async fn prompt(&mut self) -> Result<()> {
        self.until("the prompt", |screen| {
            screen.trim_end().ends_with(['#', '$'])
        })
        .await
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    /// When it still runs after `limit`; shows the screen.
    pub async fn exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = soon("the program on the terminal ends", limit, self.child.wait()).await;
        let status = ended.with_context(|| format!("the screen shows:\n{}", self.screen()))??;
        // Its last words may still be on their way to the screen; whoever else holds the terminal is not waited for.
        let mut changed = self.changed.clone();
        let read = async { while changed.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(limit, read).await;
        Ok(status)
    }
}

fn size(cells: u16) -> Result<NonZero<u16>> {
    NonZero::new(cells).context("a terminal of no size")
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
