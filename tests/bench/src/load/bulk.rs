//! Output as fast as it comes.

use std::{sync::Arc, time::Instant};

use anyhow::ensure;
use tokio::task::JoinSet;

use super::{Bed, Figures, figures, float, join};
use crate::{
    client::{OUTPUT, drain},
    output::Output,
    ws::BINARY,
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Sessions that read at the same time.
    #[arg(long, default_value_t = 8)]
    sessions: usize,
    /// Bytes of output of each.
    #[arg(long, default_value_t = 256 << 20)]
    bytes: usize,
    /// What they read.
    #[arg(long, value_enum, default_value_t = Output::Binary)]
    output: Output,
    /// Megabytes per second that are printed in each session; 0: as fast as it goes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

impl Args {
    /// One session that reads so much.
    pub(super) fn one(bytes: usize, output: Output) -> Self {
        Self {
            sessions: 1,
            bytes,
            output,
            rate: 0,
        }
    }
}

/// Megabytes per second over all sessions, and the candidate's CPU seconds per gigabyte (10^9 bytes).
pub(super) async fn run(bed: Bed, args: Args) -> anyhow::Result<Figures> {
    let Args {
        sessions,
        bytes,
        output,
        rate,
    } = args;
    ensure!(sessions > 0 && bytes > 0, "nothing to read");
    let command = [
        "source",
        output.name(),
        &bytes.to_string(),
        &(rate * 1_000_000).to_string(),
    ];
    let mut sockets = Vec::new();
    for number in 0..sessions {
        sockets.push(bed.open(number, &command, OUTPUT).await?);
    }
    // Twice over, so that a piece that begins anywhere in the period can be compared in one go.
    let period = output.period();
    let (expected, period): (Arc<[u8]>, _) = (period.repeat(2).into(), period.len());

    let (before, began) = (bed.usage()?, Instant::now());
    let mut reading = JoinSet::new();
    for mut socket in sockets {
        let expected = expected.clone();
        reading.spawn(async move {
            socket.send(BINARY, b"\0g").await?;
            drain(&mut socket, bytes, |at, data| {
                expected[at % period..].starts_with(data)
            })
            .await
        });
    }
    join(reading).await?;
    let (after, took) = (bed.usage()?, began.elapsed());

    let total = float(sessions * bytes);
    Ok(figures([
        ("mb_per_s", total / 1e6 / took.as_secs_f64()),
        ("cpu_s_per_gb", after.cpu_since(&before) / (total / 1e9)),
    ]))
}
