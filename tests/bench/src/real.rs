//! The same clients against a real cluster: straight to the API server, through the gateway, and through the gateway while it
//! records, taking turns.

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

/// Bytes of the file in the pod that is printed again and again: made once, and in the node's memory from then on.
const FILE: usize = 32 << 20;

/// Longest time until an exec on a busy node has said that it is ready.
const READY: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kubeconfig of somebody who may exec into the pod, at the API server.
    #[arg(long)]
    direct: PathBuf,
    /// Kubeconfig of a session for the same pod, at the gateway: the one in the session's Secret. It was granted by an operator
    /// with `--recording=off`.
    #[arg(long)]
    session: PathBuf,
    /// The same of one granted by an operator with `--recording=required`. Default: recording is not measured.
    #[arg(long)]
    recorded: Option<PathBuf>,
    /// Namespace of the pod. Default: that of the session's kubeconfig.
    #[arg(long)]
    namespace: Option<String>,
    /// A running pod with `sh`, `stty`, `dd`, `base64` and `true`, and 32 MiB to spare in its `/tmp`.
    #[arg(long)]
    pod: String,
    /// Its container. Default: its only one.
    #[arg(long)]
    container: Option<String>,
    /// Rounds; in each, every way is measured once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Keystrokes per round.
    #[arg(long, default_value_t = 2000)]
    keystrokes: usize,
    /// Bytes of output per round, rounded up to 32 MiB.
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
        recorded,
        namespace,
        pod,
        container,
        rounds,
        keystrokes,
        bytes,
        connects,
        docs,
    } = args;
    let mut ways = Vec::new();
    for (name, kubeconfig) in [
        ("direct", Some(direct)),
        ("gateway", Some(session)),
        ("recording", recorded),
    ] {
        if let Some(kubeconfig) = kubeconfig {
            ways.push(Way {
                name,
                access: Access::load(&kubeconfig).await?,
                rounds: Vec::new(),
            });
        }
    }
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

    // What is printed is made before anything is measured.
    timeout(ONE, bulk(&ways[0].access, &pod, FILE))
        .await
        .context("what is to be printed was not ready in time")??;
    for round in 0..rounds {
        let count = ways.len();
        for turn in 0..count {
            let way = &mut ways[(round + turn) % count];
            let figures = timeout(ONE, measure(&way.access, &pod, keystrokes, bytes, connects))
                .await
                .with_context(|| format!("{} took over {ONE:?}", way.name))?
                .with_context(|| format!("{}, round {}", way.name, round + 1))?;
            eprintln!("{}/{rounds} {:<9} {figures:.1?}", round + 1, way.name);
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

/// Megabytes per second of output, from the word to begin until the status: lines of base64 of noise, which a recording has to
/// keep as they are, and which no compressor makes much shorter.
async fn bulk(access: &Access, pod: &Pod, bytes: usize) -> anyhow::Result<f64> {
    let blocks = FILE / CHUNK;
    let times = bytes.div_ceil(FILE);
    let bytes = times * FILE;
    // Not `head -c` and not `cat`: busybox copies byte by byte with the one, and in small pieces with the other; the pod would be
    // what is measured.
    let script = format!(
        "f=/tmp/drawbridge-bench; [ -e $f ] || {{ base64 /dev/urandom | dd bs={CHUNK} count={blocks} iflag=fullblock of=$f.new && mv $f.new $f; }} 2>/dev/null
        read go; n=0; while [ $n -lt {times} ]; do dd if=$f bs={CHUNK} 2>/dev/null; n=$((n+1)); done"
    );
    let mut socket = access
        .open(&pod.exec(&script, &["stdin", "stdout"]), OUTPUT)
        .await?;
    let began = Instant::now();
    socket.send(BINARY, b"\0go\n").await?;
    drain(&mut socket, bytes, |_, data| data.is_ascii()).await?;
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

/// One line of the table.
struct Row {
    figure: &'static str,
    what: &'static str,
    /// Digits after the point.
    digits: usize,
    /// What the gateway divided by direct must not exceed.
    most: Option<f64>,
    /// What recording divided by the gateway without must be at least.
    least: Option<f64>,
}

const ROWS: [Row; 4] = [
    row("p50_us", "µs from key to echo, median", 0, Some(1.3), None),
    row("p99_us", "… 99th percentile", 0, None, None),
    row(
        "mb_per_s",
        "MB/s of output, one session",
        0,
        None,
        Some(0.9),
    ),
    row(
        "connect_ms",
        "ms from dialling to the first message, median",
        1,
        None,
        None,
    ),
];

const fn row(
    figure: &'static str,
    what: &'static str,
    digits: usize,
    most: Option<f64>,
    least: Option<f64>,
) -> Row {
    Row {
        figure,
        what,
        digits,
        most,
        least,
    }
}

fn table(ways: &[Way]) -> String {
    let mut text = "| what | direct | gateway | ÷ direct | floor | kept | recording | ÷ gateway | floor | kept |\n\
         |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in ROWS {
        let of = |way: usize| -> Vec<f64> {
            let rounds = ways.get(way).map_or(&[][..], |way| &way.rounds);
            rounds
                .iter()
                .filter_map(|round| round.get(row.figure).copied())
                .collect()
        };
        let [direct, gateway, recording] = [0, 1, 2].map(of);
        let by = |these: &[f64], those: &[f64]| -> Vec<f64> {
            these.iter().zip(those).map(|(a, b)| a / b).collect()
        };
        let (apart, cost) = (by(&gateway, &direct), by(&recording, &gateway));
        let most = row
            .most
            .map(|most| (format!("≤ {most}×"), median(&apart).map(|is| is <= most)));
        let least = row
            .least
            .map(|least| (format!("≥ {least}×"), median(&cost).map(|is| is >= least)));
        let judged = |floor: Option<(String, Option<bool>)>| {
            let (floor, kept) = floor.unwrap_or_default();
            let kept = kept.map_or("", |kept| if kept { "yes" } else { "**no**" });
            format!("{floor} | {kept}")
        };
        let [direct, gateway, recording] =
            [direct, gateway, recording].map(|all| spread(&all, row.digits));
        let _ = writeln!(
            text,
            "| {} | {direct} | {gateway} | {} | {} | {recording} | {} | {} |",
            row.what,
            spread(&apart, 2),
            judged(most),
            spread(&cost, 2),
            judged(least),
        );
    }
    text
}
