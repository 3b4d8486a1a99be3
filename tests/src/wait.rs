//! Waiting for a condition: the only place of this crate where time passes on purpose.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, MissedTickBehavior};

/// Between two looks. Short beside every bound the tests assert, long beside the cost of a look.
const TICK: Duration = Duration::from_millis(20);

/// Looks until `look` answers `Some`, and returns that. An error is a "not yet": it is told if nothing better comes.
///
/// # Errors
/// When `limit` is over; says `what` was waited for and the last error seen.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        tick.tick().await;
        match tokio::time::timeout_at(end, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
        if Instant::now() >= end {
            match last {
                Some(error) => {
                    return Err(error.context(format!("waited {limit:?} in vain: {what}")));
                }
                None => bail!("waited {limit:?} in vain: {what}"),
            }
        }
    }
}

/// `future`, which must be done within `limit`.
///
/// # Errors
/// When it is not; says `what` was waited for.
pub async fn soon<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> Result<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(done) => Ok(done),
        Err(_) => bail!("waited {limit:?} in vain: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_named_with_the_last_error() {
        let vain = wait_for(
            "the tide",
            Duration::from_secs(1),
            async || -> Result<Option<()>> { bail!("ebb") },
        )
        .await;
        assert_eq!(
            format!("{:#}", vain.expect_err("never comes")),
            "waited 1s in vain: the tide: ebb"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_returned() -> Result<()> {
        let mut looks = 0;
        let found = wait_for("the third look", Duration::from_secs(1), async || {
            looks += 1;
            Ok((looks == 3).then_some("there"))
        });
        assert_eq!(found.await?, "there");
        Ok(())
    }
}
