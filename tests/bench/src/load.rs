//! One measurement against one candidate. Figures go to standard output as one JSON object; everything is verified as it is measured.

mod bulk;
mod connect;
mod idle;
mod replay;
mod typing;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Subcommand;
use rustls::pki_types::ServerName;
use tokio::task::JoinSet;

use crate::{
    client::Endpoint,
    net::{certificates, client_tls},
    proc::Usage,
    world,
    ws::Socket,
};

/// Figures by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Sessions that are being opened at the same time.
const OPENING: usize = 16;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address of the candidate.
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    address: SocketAddr,
    /// PEM file of the authority that signed the candidate's certificate. Default: no TLS.
    #[arg(long, global = true)]
    ca: Option<PathBuf>,
    /// Process whose CPU and memory are read, with its descendants.
    #[arg(long, global = true)]
    watch: Option<u32>,
    /// Connections per session token; the fake server must admit as many.
    #[arg(long, global = true, default_value_t = 4)]
    connections: usize,
    /// With a terminal, as `kubectl exec -it`.
    #[arg(long, global = true)]
    tty: bool,
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Opens sessions, reads memory before and after, proves that each is still alive.
    Idle(idle::Args),
    /// Types into sessions and times the echo.
    Typing(typing::Args),
    /// Reads output as fast as it comes.
    Bulk(bulk::Args),
    /// Opens and closes sessions.
    Connect(connect::Args),
    /// Records a session, then has its recording told as a page that plays it does.
    Replay(replay::Args),
}

/// A candidate, and how to read what it uses.
#[derive(Clone)]
pub(crate) struct Bed {
    pub(crate) endpoint: Endpoint,
    watch: Option<u32>,
    connections: usize,
    tty: bool,
}

impl Bed {
    /// Opens the connection with this number, with the token it is entitled to.
    async fn open(&self, number: usize, command: &[&str], size: usize) -> anyhow::Result<Socket> {
        let token = world::token(number / self.connections);
        self.endpoint
            .open(Some(&token), &world::exec_path(command, self.tty), size)
            .await
            .with_context(|| format!("connection {number}"))
    }

    /// Opens `count` connections, 16 at a time, in no particular order.
    async fn open_all(
        &self,
        count: usize,
        command: &'static [&'static str],
        size: usize,
    ) -> anyhow::Result<Vec<Socket>> {
        let mut opening = JoinSet::new();
        for first in 0..OPENING {
            let bed = self.clone();
            opening.spawn(async move {
                let mut opened = Vec::new();
                for number in (first..count).step_by(OPENING) {
                    opened.push(bed.open(number, command, size).await?);
                }
                anyhow::Ok(opened)
            });
        }
        let mut opened = Vec::with_capacity(count);
        while let Some(some) = opening.join_next().await {
            opened.extend(some??);
        }
        Ok(opened)
    }

    /// What the candidate has used so far. Zero when nobody is watched.
    fn usage(&self) -> anyhow::Result<Usage> {
        self.watch
            .map_or_else(|| Ok(Usage::default()), Usage::of_tree)
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        address,
        ca,
        watch,
        connections,
        tty,
        kind,
    } = args;
    let tls = match ca {
        None => None,
        Some(ca) => Some((
            client_tls(certificates(&ca)?, None)?,
            ServerName::from(address.ip()),
        )),
    };
    let endpoint = Endpoint {
        address,
        host: address.to_string(),
        tls,
        protocol: "v4.channel.k8s.io",
    };
    let bed = Bed {
        endpoint,
        watch,
        connections: connections.max(1),
        tty,
    };
    let figures = match kind {
        Kind::Idle(args) => idle::run(bed, args).await,
        Kind::Typing(args) => typing::run(bed, args).await,
        Kind::Bulk(args) => bulk::run(bed, args).await,
        Kind::Connect(args) => connect::run(bed, args).await,
        Kind::Replay(args) => replay::run(bed, args).await,
    }?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// Waits for every task and gathers what they return.
async fn join<T: 'static>(mut tasks: JoinSet<anyhow::Result<T>>) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::with_capacity(tasks.len());
    while let Some(one) = tasks.join_next().await {
        all.push(one??);
    }
    Ok(all)
}

/// The p-quantile (0 to 1) by nearest rank, in microseconds. 0 of nothing.
pub(crate) fn quantile(sorted: &[Duration], p: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = (sorted.len() as f64 * p).ceil() as usize;
    sorted
        .get(at.saturating_sub(1))
        .map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// Counts are far under 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts are far under 2^52")]
pub(crate) fn float(count: usize) -> f64 {
    count as f64
}

/// Figures from pairs.
pub(crate) fn figures<const N: usize>(pairs: [(&str, f64); N]) -> Figures {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_micros).collect();
        for (p, expected) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)] {
            assert!((quantile(&sorted, p) - expected).abs() < 1e-6, "p{p}");
        }
        assert!(quantile(&[], 0.5).abs() < f64::EPSILON);
    }
}
