//! A long recording, told to a page that plays it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::time::{interval, sleep};

use super::{Bed, Figures, bulk, figures, float};
use crate::{
    output::Output,
    world::{self, AUDITOR},
};

/// How often memory is read meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// How long a recording may take until it is in the store.
const DELIVERY: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(super) struct Args {
    /// Bytes of output that are recorded.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: usize,
}

/// Megabytes per second of the answer, and by how much the candidate's memory grew at most while it was sent.
pub(super) async fn run(bed: Bed, args: Args) -> anyhow::Result<Figures> {
    let Args { bytes } = args;
    bulk::run(bed.clone(), bulk::Args::one(bytes, Output::Text)).await?;
    let path = sealed(&bed).await?;

    let (before, began) = (bed.usage()?.rss, Instant::now());
    let mut most = before;
    let mut look = interval(LOOK);
    let answer = bed.endpoint.read_all(Some(AUDITOR), &path);
    tokio::pin!(answer);
    let (told, end) = loop {
        tokio::select! {
            answer = &mut answer => break answer?,
            _ = look.tick() => most = most.max(bed.usage()?.rss),
        }
    };
    let took = began.elapsed();
    ensure!(
        told >= bytes as u64,
        "the recording of {bytes} bytes has {told}"
    );
    let end = String::from_utf8_lossy(&end);
    ensure!(
        end.contains(r#","z","#) && end.ends_with("0\r\n\r\n"),
        "the recording breaks off: {end}"
    );
    Ok(figures([
        (
            "mb_per_s",
            float(usize::try_from(told)?) / 1e6 / took.as_secs_f64(),
        ),
        (
            "grew_mib",
            float(usize::try_from(most.saturating_sub(before))?) / 1024.0,
        ),
    ]))
}

/// Waits until the recording of the first session is in the store; where it is told.
async fn sealed(bed: &Bed) -> anyhow::Result<String> {
    let list = format!(
        "/sessions/{}/{}/recordings",
        world::NAMESPACE,
        world::name(0)
    );
    let deadline = Instant::now() + DELIVERY;
    loop {
        let found = bed.endpoint.get(Some(AUDITOR), &list).await?;
        if let Some(recording) = found["recordings"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|recording| recording["state"] == "Complete")
        {
            let id = recording["id"].as_str().context("a recording has an ID")?;
            return Ok(format!("{list}/{id}/cast"));
        }
        if Instant::now() > deadline {
            bail!("no recording in the store after {DELIVERY:?}: {found}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}
