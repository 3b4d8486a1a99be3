//! The end of the process, without the end of everybody's shell at once.
//!
//! ```text
//!   SIGTERM ─ pause ─────────── drain ──────────────────────────────── grace ─ exit
//!   not ready  still accepting   no new requests; users are told;       the rest is cut, with a Status
//!                                shells go on until they end
//! ```

use std::sync::Arc;
use std::time::Duration;

use drawbridge_admin::Ready;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::bridge::Stop;
use crate::open::Open;

/// How long consoles that were cut may take to tell both sides: the bridge's own grace, three times.
const GRACE: Duration = Duration::from_secs(16);

/// The parts that end.
pub struct Drain {
    /// Readiness, withdrawn first.
    pub ready: Ready,
    /// Cancelled to take no further request.
    pub stop: CancellationToken,
    /// The consoles.
    pub open: Arc<Open>,
    /// The tasks that relay.
    pub bridges: TaskTracker,
    /// The tasks of connections.
    pub connections: TaskTracker,
    /// Between readiness withdrawn and no further request: endpoints take time to notice.
    pub pause: Duration,
    /// How long consoles may go on after that.
    pub limit: Duration,
}

impl Drain {
    /// Ends everything, in order. Takes `pause`, then as long as there are consoles, `limit` at most, and the grace.
    pub async fn run(self) {
        let Self {
            ready,
            stop,
            open,
            bridges,
            connections,
            pause,
            limit,
        } = self;
        ready.withdraw();
        info!(
            ?pause,
            ?limit,
            "stopping: not ready any more, still serving"
        );
        tokio::time::sleep(pause).await;
        stop.cancel();
        connections.close();
        bridges.close();
        let seconds = limit.as_secs();
        open.notify(&format!("drawbridge: this gateway is restarting; this console ends in {seconds} s, finish or connect again"));
        info!(
            consoles = bridges.len(),
            "taking no further requests; consoles may finish"
        );
        // Connections first: a request being answered may still become a console.
        let finished = timeout(limit, async {
            connections.wait().await;
            bridges.wait().await;
        });
        if finished.await.is_err() {
            warn!(
                consoles = bridges.len(),
                "cutting the consoles that are still open"
            );
            open.close_all(Stop::Draining);
            let ended = timeout(GRACE, async {
                connections.wait().await;
                bridges.wait().await;
            });
            if ended.await.is_err() {
                warn!(
                    consoles = bridges.len(),
                    "some consoles did not end in time; leaving them"
                );
            }
        }
        info!("stopped");
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::clock::Clock;
    use crate::metrics::Metrics;

    fn drain() -> (Drain, Arc<Open>, TaskTracker, Ready, CancellationToken) {
        let open = Arc::new(Open::new(Arc::new(Metrics::unregistered())));
        let (ready, stop, bridges) = (
            Ready::default(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let drain = Drain {
            ready: ready.clone(),
            stop: stop.clone(),
            open: Arc::clone(&open),
            bridges: bridges.clone(),
            connections: TaskTracker::new(),
            pause: Duration::from_secs(3),
            limit: Duration::from_secs(25),
        };
        (drain, open, bridges, ready, stop)
    }

    #[tokio::test(start_paused = true)]
    async fn it_withdraws_then_pauses_then_stops_and_does_not_wait_for_nobody() {
        let (drain, _, _, ready, stop) = drain();
        let begun = Instant::now();
        let run = tokio::spawn(drain.run());
        tokio::task::yield_now().await;
        assert!(
            !ready.is_ready() && !stop.is_cancelled(),
            "still accepting while endpoints notice"
        );
        run.await.expect("ran");
        assert!(stop.is_cancelled());
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn shells_go_on_until_they_end_and_those_that_do_not_are_cut_with_the_reason() {
        let (drain, open, bridges, _, _) = drain();
        let clock = Clock::following_tokio(jiff::Timestamp::UNIX_EPOCH);
        let mut short = open.register("a");
        let mut long = open.register("b");
        let notices = long.notices();
        let ended = Instant::now();
        bridges.spawn(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            drop(short.stopped(&Clock::wall(), || Ok(jiff::Timestamp::MAX)));
        });
        let cut = bridges.spawn(async move {
            let stop = long.stopped(&clock, || Ok(jiff::Timestamp::MAX)).await;
            (stop, ended.elapsed().as_secs())
        });
        drain.run().await;
        assert_eq!(cut.await.expect("ran"), (Stop::Draining, 28));
        let told = notices
            .borrow()
            .as_deref()
            .map(str::to_owned)
            .expect("told");
        assert!(told.contains("ends in 25 s"), "{told}");
    }
}
