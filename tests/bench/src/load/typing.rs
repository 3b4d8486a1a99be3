//! Keystrokes: one byte in, the same byte out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{Instant as Due, sleep, sleep_until},
};

use super::{Bed, Figures, figures, float, join, quantile};
use crate::{
    client::{KEYSTROKES, type_byte},
    ws::Socket,
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Sessions that type.
    #[arg(long, default_value_t = 100)]
    sessions: usize,
    /// Keystrokes per second and session; 0: the next one as soon as the echo is back.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Seconds of the same typing before that.
    #[arg(long, default_value_t = 1)]
    warmup: u64,
}

/// What all sessions share.
#[derive(Default)]
struct Shared {
    measuring: AtomicBool,
    over: AtomicBool,
    echoed: AtomicUsize,
}

/// Quantiles of the echo time, and the candidate's CPU per keystroke.
pub(super) async fn run(bed: Bed, args: Args) -> anyhow::Result<Figures> {
    let Args {
        sessions,
        rate,
        seconds,
        warmup,
    } = args;
    let shared = Arc::new(Shared::default());
    let period = Duration::from_secs(1).checked_div(rate);
    let start = Due::now();
    let mut typing = JoinSet::new();
    for (number, socket) in (0_u32..).zip(bed.open_all(sessions, &["echo"], KEYSTROKES).await?) {
        // Spread over one period, so that the sessions do not type in step.
        let first =
            period.map(|period| start + period * number / u32::try_from(sessions).unwrap_or(1));
        typing.spawn(type_on(socket, first.zip(period), shared.clone()));
    }
    sleep(Duration::from_secs(warmup)).await;

    let (before, began, first) = (bed.usage()?, Instant::now(), shared.echoed.load(Relaxed));
    shared.measuring.store(true, Relaxed);
    sleep(Duration::from_secs(seconds)).await;
    shared.measuring.store(false, Relaxed);
    let (after, took, last) = (bed.usage()?, began.elapsed(), shared.echoed.load(Relaxed));
    shared.over.store(true, Relaxed);

    let mut times: Vec<Duration> = join(typing).await?.into_iter().flatten().collect();
    times.sort_unstable();
    let keystrokes = float(last - first);
    Ok(figures([
        ("keystrokes_per_s", keystrokes / took.as_secs_f64()),
        ("cpu_us", after.cpu_since(&before) * 1e6 / keystrokes),
        ("p50_us", quantile(&times, 0.5)),
        ("p99_us", quantile(&times, 0.99)),
    ]))
}

/// Types until it is over; returns the echo times of what was typed while measuring.
async fn type_on(
    mut socket: Socket,
    mut pace: Option<(Due, Duration)>,
    shared: Arc<Shared>,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for byte in (0..=u8::MAX).cycle() {
        if let Some((due, period)) = &mut pace {
            sleep_until(*due).await;
            // Late by more than a period: go on from now, instead of typing the backlog in a burst.
            *due = (*due + *period).max(Due::now());
        }
        if shared.over.load(Relaxed) {
            break;
        }
        let measured = shared.measuring.load(Relaxed);
        let typed = Instant::now();
        type_byte(&mut socket, byte).await?;
        if measured {
            times.push(typed.elapsed());
        }
        shared.echoed.fetch_add(1, Relaxed);
    }
    Ok(times)
}
