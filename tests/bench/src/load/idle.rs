//! Memory of sessions in which nothing happens.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{Bed, Figures, figures, float, join};
use crate::{
    client::{KEYSTROKES, type_byte},
    ws::{BINARY, PING, PONG, Socket},
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Sessions to hold open.
    #[arg(long, default_value_t = 5000)]
    sessions: usize,
    /// Seconds to hold them before memory is read.
    #[arg(long, default_value_t = 3)]
    hold: u64,
    /// Types a byte into each first, as nobody leaves a shell before its prompt has appeared.
    #[arg(long)]
    prompt: bool,
}

/// KiB per session: what `count` sessions added to the whole tree.
pub(super) async fn run(bed: Bed, args: Args) -> anyhow::Result<Figures> {
    let Args {
        sessions,
        hold,
        prompt,
    } = args;
    let before = bed.usage()?;
    let (over, _) = watch::channel(());
    let mut held = JoinSet::new();
    for socket in bed.open_all(sessions, &["echo"], KEYSTROKES).await? {
        let over = over.subscribe();
        held.spawn(async move {
            let mut socket = socket;
            if prompt {
                type_byte(&mut socket, b'$').await?;
            }
            hold_open(socket, over).await
        });
    }
    sleep(Duration::from_secs(hold)).await;
    let after = bed.usage()?;
    over.send(()).context("every session ended early")?;
    // Each one types a byte: a session that was only half open, or lost on the way, fails the measurement.
    join(held).await?;
    let per = |after: u64, before: u64| {
        float(usize::try_from(after.saturating_sub(before)).unwrap_or(0)) / float(sessions)
    };
    Ok(figures([
        ("sessions", float(sessions)),
        ("rss_kib", per(after.rss, before.rss)),
        ("anon_kib", per(after.anon, before.anon)),
        ("empty_rss_kib", per(before.rss, 0) * float(sessions)),
    ]))
}

/// Answers pings until told that it is over, then proves that the session still works.
async fn hold_open(mut socket: Socket, mut over: watch::Receiver<()>) -> anyhow::Result<()> {
    loop {
        let frame = tokio::select! {
            biased;
            _ = over.changed() => break,
            frame = socket.next() => frame?.context("an idle session was hung up on")?,
        };
        match frame.opcode {
            PING => socket.pong(&frame).await?,
            // Empty messages are a keepalive some proxies send.
            BINARY | PONG => {}
            other => bail!("opcode {other} on an idle session"),
        }
    }
    type_byte(&mut socket, b'x').await
}
