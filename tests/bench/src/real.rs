//! The same clients against a real cluster: straight to the API server, and through the gateway, taking turns.

mod kubeconfig;

use std::{
    fmt::Write,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::time::timeout;

use crate::{
    client::{Endpoint, KEYSTROKES, OUTPUT, drain, type_byte},
    load::{Figures, figures, float, quantile},
    run::{Machine, median, replace_between, spread},
    server::CHUNK,
    ws::BINARY,
};
use kubeconfig::Access;

/// Longest one measurement may take: all of them are of a fixed amount of work, and a few seconds long.
const ONE: Duration = Duration::from_mins(2);

/// Longest time until an exec on a busy node has said that it is ready.
const READY: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kubeconfig of somebody who may exec into the pod, at the API server.
    #[arg(long)]
    direct: PathBuf,
    /// Kubeconfig of a session for the same pod, at the gateway: the one in the session's Secret.
    #[arg(long)]
    session: PathBuf,
    /// Namespace of the pod. Default: that of the session's kubeconfig.
    #[arg(long)]
    namespace: Option<String>,
    /// A running pod with `sh`, `stty`, `dd` and `true`.
    #[arg(long)]
    pod: String,
    /// Its container. Default: its only one.
    #[arg(long)]
    container: Option<String>,
    /// Rounds; in each, both ways are measured once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Keystrokes per round.
    #[arg(long, default_value_t = 2000)]
    keystrokes: usize,
    /// Bytes of output per round, rounded up to 32 KiB.
    #[arg(long, default_value_t = 128 << 20)]
    bytes: usize,
    /// Execs of `true` per round.
    #[arg(long, default_value_t = 20)]
    connects: usize,
    /// Page whose table is replaced. Default: none.
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// A way to the pod.
struct Way {
    name: &'static str,
    access: Access,
    /// One set of figures per round.
    rounds: Vec<Figures>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        direct,
        session,
        namespace,
        pod,
        container,
        rounds,
        keystrokes,
        bytes,
        connects,
        docs,
    } = args;
    let mut ways = [
        Way {
            name: "direct",
            access: Access::load(&direct).await?,
            rounds: Vec::new(),
        },
        Way {
            name: "gateway",
            access: Access::load(&session).await?,
            rounds: Vec::new(),
        },
    ];
    let namespace = namespace
        .or_else(|| ways[1].access.namespace.clone())
        .context("no namespace: the session's kubeconfig names none, so --namespace must")?;
    let pod = Pod {
        namespace,
        name: pod,
        container,
    };
    let machine = Machine::look(&[]).await?;
    let version = ways[0].access.get("/version").await?;
    let version = version["gitVersion"]
        .as_str()
        .context("the API server does not tell its version")?
        .to_owned();
    eprintln!("{machine}, Kubernetes {version}");

    for round in 0..rounds {
        let first = round % 2;
        for turn in [first, 1 - first] {
            let way = &mut ways[turn];
            let figures = timeout(ONE, measure(&way.access, &pod, keystrokes, bytes, connects))
                .await
                .with_context(|| format!("{} took over {ONE:?}", way.name))?
                .with_context(|| format!("{}, round {}", way.name, round + 1))?;
            eprintln!("{}/{rounds} {:<8} {figures:.1?}", round + 1, way.name);
            way.rounds.push(figures);
        }
    }
    let amounts = format!(
        "{rounds} rounds, each {keystrokes} keystrokes, {} MiB, {connects} connects",
        bytes >> 20
    );
    let table = format!(
        "{machine}, Kubernetes {version}. {amounts}. Median (lowest to highest round).\n\n{}",
        table(&ways)
    );
    println!("{table}");
    if let Some(page) = docs {
        let text =
            fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        fs::write(&page, replace_between(&text, "real", &table)?)?;
    }
    Ok(())
}

/// What is exec'ed into.
struct Pod {
    namespace: String,
    name: String,
    container: Option<String>,
}

impl Pod {
    fn exec(&self, script: &str, flags: &[&str]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(["sh", "-c", script].map(|arg| ("command", arg)));
        query.extend_pairs(
            self.container
                .iter()
                .map(|container| ("container", container)),
        );
        query.extend_pairs(flags.iter().map(|flag| (flag, "true")));
        format!(
            "/api/v1/namespaces/{}/pods/{}/exec?{}",
            self.namespace,
            self.name,
            query.finish()
        )
    }
}

async fn measure(
    access: &Access,
    pod: &Pod,
    keystrokes: usize,
    bytes: usize,
    connects: usize,
) -> anyhow::Result<Figures> {
    let mut echo = typing(access, pod, keystrokes).await.context("typing")?;
    echo.sort_unstable();
    let mb_per_s = bulk(access, pod, bytes).await.context("bulk")?;
    let mut dials = Vec::with_capacity(connects);
    for _ in 0..connects {
        dials.push(connect(access, pod).await.context("connect")?);
    }
    dials.sort_unstable();
    Ok(figures([
        ("p50_us", quantile(&echo, 0.5)),
        ("p99_us", quantile(&echo, 0.99)),
        ("mb_per_s", mb_per_s),
        ("connect_ms", quantile(&dials, 0.5) / 1e3),
    ]))
}

/// Echo times on a terminal, one key after the other. `dd` echoes byte by byte and ends by itself, so nothing is left behind.
async fn typing(access: &Access, pod: &Pod, keystrokes: usize) -> anyhow::Result<Vec<Duration>> {
    let script = format!("stty raw -echo; echo ready; exec dd bs=1 count={keystrokes} 2>/dev/null");
    let mut socket = access
        .open(&pod.exec(&script, &["stdin", "stdout", "tty"]), KEYSTROKES)
        .await?;
    let mut said = Vec::new();
    while !said.ends_with(b"ready\n") {
        ensure!(
            said.len() < KEYSTROKES,
            "instead of `ready`: {}",
            String::from_utf8_lossy(&said)
        );
        let frame = timeout(READY, socket.data())
            .await
            .context("the command did not start")??;
        said.extend_from_slice(&socket.payload(&frame)[1..]);
    }
    let mut times = Vec::with_capacity(keystrokes);
    for byte in (0..=u8::MAX).cycle().take(keystrokes) {
        let typed = Instant::now();
        type_byte(&mut socket, byte).await?;
        times.push(typed.elapsed());
    }
    drain(&mut socket, 0, |_, _| false).await?;
    Ok(times)
}

/// Megabytes per second of output, from the word to begin until the status.
async fn bulk(access: &Access, pod: &Pod, bytes: usize) -> anyhow::Result<f64> {
    let blocks = bytes.div_ceil(CHUNK);
    let bytes = blocks * CHUNK;
    // Not `head -c`: busybox copies with it byte by byte, and the pod would be what is measured.
    let script = format!("read go; exec dd if=/dev/zero bs={CHUNK} count={blocks} 2>/dev/null");
    let mut socket = access
        .open(&pod.exec(&script, &["stdin", "stdout"]), OUTPUT)
        .await?;
    let began = Instant::now();
    socket.send(BINARY, b"\0go\n").await?;
    drain(&mut socket, bytes, |_, data| {
        data.iter().all(|byte| *byte == 0)
    })
    .await?;
    Ok(float(bytes) / 1e6 / began.elapsed().as_secs_f64())
}

/// Time from dialling to the first message.
async fn connect(access: &Access, pod: &Pod) -> anyhow::Result<Duration> {
    let dialled = Instant::now();
    let mut socket = access
        .open(&pod.exec("true", &["stdout"]), KEYSTROKES)
        .await?;
    let took = dialled.elapsed();
    drain(&mut socket, 0, |_, _| false).await?;
    Ok(took)
}

/// What is measured, how many digits, and what the gateway divided by direct must not exceed.
const ROWS: [(&str, &str, usize, Option<f64>); 4] = [
    ("p50_us", "µs from key to echo, median", 0, Some(1.3)),
    ("p99_us", "… 99th percentile", 0, None),
    ("mb_per_s", "MB/s of output, one session", 0, None),
    (
        "connect_ms",
        "ms from dialling to the first message, median",
        1,
        None,
    ),
];

fn table(ways: &[Way; 2]) -> String {
    let mut text = "| what | direct | gateway | gateway ÷ direct | floor | kept |\n|---|---|---|---|---|---|\n".to_owned();
    for (figure, what, digits, floor) in ROWS {
        let of = |way: &Way| -> Vec<f64> {
            way.rounds
                .iter()
                .filter_map(|round| round.get(figure).copied())
                .collect()
        };
        let [direct, gateway] = [of(&ways[0]), of(&ways[1])];
        let ratios: Vec<f64> = gateway
            .iter()
            .zip(&direct)
            .map(|(gateway, direct)| gateway / direct)
            .collect();
        let kept =
            floor.zip(median(&ratios)).map_or(
                "",
                |(most, ratio)| if ratio <= most { "yes" } else { "**no**" },
            );
        let floor = floor.map_or_else(String::new, |most| format!("≤ {most}×"));
        let [direct, gateway] = [spread(&direct, digits), spread(&gateway, digits)];
        let _ = writeln!(
            text,
            "| {what} | {direct} | {gateway} | {} | {floor} | {kept} |",
            spread(&ratios, 2)
        );
    }
    text
}
