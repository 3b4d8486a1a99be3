//! Opening and closing sessions.

use std::time::{Duration, Instant};

use tokio::{task::JoinSet, time::sleep};

use super::{Bed, Figures, figures, float, join, quantile};
use crate::client::{KEYSTROKES, hang_up};

/// Clients that connect at the same time, each with tokens of its own.
const CLIENTS: usize = 4;

/// After the last Close: the candidate's time to let go of the connection belongs to its cost.
const SETTLE: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(super) struct Args {
    /// Sessions to open and close.
    #[arg(long, default_value_t = 1000)]
    count: usize,
}

/// The candidate's CPU per session opened and closed, and how long a client waits for the first message.
pub(super) async fn run(bed: Bed, args: Args) -> anyhow::Result<Figures> {
    let each = args.count.div_ceil(CLIENTS);
    let (before, began) = (bed.usage()?, Instant::now());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let bed = bed.clone();
        clients.spawn(async move {
            let mut times = Vec::with_capacity(each);
            for number in client * each..(client + 1) * each {
                let dialled = Instant::now();
                let socket = bed.open(number, &["echo"], KEYSTROKES).await?;
                times.push(dialled.elapsed());
                hang_up(socket).await?;
            }
            anyhow::Ok(times)
        });
    }
    let mut times: Vec<Duration> = join(clients).await?.into_iter().flatten().collect();
    let took = began.elapsed();
    sleep(SETTLE).await;
    let after = bed.usage()?;
    times.sort_unstable();
    let count = float(times.len());
    Ok(figures([
        ("per_s", count / took.as_secs_f64()),
        ("cpu_us", after.cpu_since(&before) * 1e6 / count),
        ("p50_us", quantile(&times, 0.5)),
        ("p99_us", quantile(&times, 0.99)),
    ]))
}
