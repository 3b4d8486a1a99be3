//! The comparison: every candidate under the same load, alternating, in one run.

mod machine;
mod peer;
mod report;
mod scenario;

use std::{
    env, fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::time::timeout;

use crate::load::Figures;
pub(crate) use machine::Machine;
use peer::{Peer, Stage};
pub(crate) use report::{median, replace_between, spread};
use scenario::{FULL, Pin, QUICK, SCENARIOS, Scenario, Size};

/// Longest a single measurement may take. The longest, 5,000 sessions over TLS, takes about 15 s on two idle cores.
const ONE: Duration = Duration::from_secs(90);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The gateway to measure. Default: beside this program.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// haproxy to measure it against.
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// kubectl whose `proxy` is measured too.
    #[arg(long, default_value = "kubectl")]
    kubectl: PathBuf,
    /// Small numbers and one round: shows that it works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Rounds; in each, every candidate is measured once. Default 5.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only measurements whose name contains one of these, e.g. `idle`, `typing-tls`; `recorded` are those of recording.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these candidates out, e.g. `gateway`.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Peer>,
    /// No measurement begins after this many minutes; the table then has fewer rounds and says so.
    #[arg(long, default_value_t = 28)]
    minutes: u64,
    /// Every figure of every round, as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Page whose tables are replaced, if there is anything to say. Default: none.
    #[arg(long, conflicts_with = "quick")]
    docs: Option<PathBuf>,
}

/// One measurement of one candidate.
#[derive(serde::Serialize)]
struct Sample {
    scenario: &'static str,
    peer: Peer,
    round: usize,
    figures: Figures,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        gateway,
        haproxy,
        kubectl,
        quick,
        rounds,
        only,
        without,
        minutes,
        json,
        docs,
    } = args;
    let size = if quick { QUICK } else { FULL };
    let rounds = rounds.unwrap_or(size.rounds);
    let gateway = match gateway {
        Some(path) => path,
        None => env::current_exe()?.with_file_name("drawbridge-gateway"),
    };
    let stage = Stage::new(gateway, haproxy, kubectl)?;
    let machine = Machine::look(&stage.programs()).await?;
    eprintln!("{machine}");
    ensure!(
        machine.cores >= 2,
        "two cores are needed: one for the candidate, one for everything else"
    );

    let deadline = Instant::now() + Duration::from_secs(minutes * 60);
    let wanted = |scenario: &&Scenario| {
        only.is_empty() || only.iter().any(|part| scenario.name.contains(part))
    };
    let mut samples = Vec::new();
    'rounds: for round in 0..rounds {
        for scenario in SCENARIOS.iter().filter(wanted) {
            let mut peers: Vec<Peer> = scenario
                .peers
                .iter()
                .copied()
                .filter(|peer| !without.contains(peer))
                .collect();
            let turn = round % peers.len().max(1);
            peers.rotate_left(turn);
            for peer in peers {
                if Instant::now() > deadline {
                    eprintln!("{minutes} minutes are over");
                    break 'rounds;
                }
                let began = Instant::now();
                let figures = timeout(ONE, measure(&stage, scenario, peer, &size))
                    .await
                    .map_err(anyhow::Error::from)
                    .flatten()
                    .with_context(|| {
                        format!(
                            "{}, {peer}: the candidate's last words:\n{}",
                            scenario.name,
                            stage.last_words()
                        )
                    })?;
                eprintln!(
                    "{}/{rounds} {:<17} {peer:<18} {figures:.1?} ({:.1?})",
                    round + 1,
                    scenario.name,
                    began.elapsed()
                );
                samples.push(Sample {
                    scenario: scenario.name,
                    peer,
                    round,
                    figures,
                });
            }
        }
    }

    if let Some(dir) = json.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(
        &json,
        serde_json::to_string_pretty(
            &serde_json::json!({ "machine": machine, "samples": samples }),
        )?,
    )?;
    let tables = [
        ("run", report::table(&machine, &samples, rounds, &size)),
        (
            "recording",
            report::recording(&machine, &samples, rounds, &size),
        ),
    ];
    for (name, table) in tables {
        let Some(table) = table else { continue };
        println!("{table}");
        if let Some(page) = &docs {
            let text = fs::read_to_string(page)
                .with_context(|| format!("cannot read {}", page.display()))?;
            fs::write(page, replace_between(&text, name, &table)?)?;
        }
    }
    Ok(())
}

/// A fake server, a candidate and a load of their own, started for this and ended after it.
async fn measure(
    stage: &Stage,
    scenario: &Scenario,
    peer: Peer,
    size: &Size,
) -> anyhow::Result<Figures> {
    let (others, candidate) = match scenario.pin {
        Pin::No => (None, None),
        Pin::OneCore => (Some(0), Some(0)),
        Pin::Apart => (Some(0), Some(1)),
    };
    let server = stage.fake_server(peer, others).await?;
    let proxy = stage.start(peer, scenario.tls, &server, candidate).await?;

    let mut load = peer::pinned(&env::current_exe()?, others);
    load.args(["load", "--address", &proxy.address.to_string()]);
    if scenario.tls && peer.client_tls() {
        load.arg("--ca").arg(&stage.pki.ca);
    }
    if let Some(pid) = proxy.pid() {
        load.args(["--watch", &pid.to_string()]);
    }
    load.args(scenario.flags(peer, size));
    let output = load
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    let watched = proxy.pid().is_some();
    proxy.stop().await?;
    server.stop().await?;
    ensure!(
        output.status.success(),
        "the load ended with {}",
        output.status
    );
    let mut figures: Figures = serde_json::from_slice(&output.stdout)?;
    // Nobody in between uses no CPU; a zero would read as a measurement.
    figures.retain(|name, _| watched || !name.starts_with("cpu_"));
    Ok(figures)
}
