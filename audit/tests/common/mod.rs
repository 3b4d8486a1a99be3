//! What the tests of sinks share.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drawbridge_audit::chain::{Place, Verifier};
use drawbridge_audit::event::{Component, Event, Facts, Record, Type};
use drawbridge_audit::log::{Config, Log, Running, WhenFull};
use drawbridge_audit::metrics::Metrics;

/// A log with its spool in `dir` and one sink.
#[allow(dead_code, reason = "not every test starts one so")]
pub(crate) async fn start(dir: &Path, sink: &str) -> (Log, Running) {
    start_with(dir, sink, 64 << 20).await
}

/// The same, with so many bytes of spool.
pub(crate) async fn start_with(dir: &Path, sink: &str, max_bytes: u64) -> (Log, Running) {
    let config = Config {
        directory: dir.join("spool"),
        component: Component::Gateway,
        name: "gateway-0".to_owned(),
        max_bytes,
        when_full: WhenFull::Refuse,
        sinks: vec![sink.parse().expect("an address")],
        checkpoint_events: 1000,
        checkpoint_interval: Duration::from_mins(5),
    };
    Log::start(config, Metrics::unregistered())
        .await
        .expect("starts")
}

/// The event with this number.
pub(crate) fn event(number: usize) -> Event {
    let facts = Facts {
        message: Some(number.to_string()),
        ..Facts::default()
    };
    Event::now(Type::Connected, facts)
}

#[allow(dead_code, reason = "one test counts as it goes")]
/// The numbers of the events among `records`.
pub(crate) fn numbers(records: &[Record]) -> HashSet<usize> {
    records
        .iter()
        .filter(|record| record.kind == Type::Connected)
        .filter_map(|record| record.facts.message.as_ref()?.parse().ok())
        .collect()
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(2);
    while !holds().await {
        assert!(Instant::now() < end, "{what}: not within two minutes");
        tokio::time::sleep(Duration::from_millis(20)).await; // between two looks
    }
}

/// Whether lines, each delivered at least once and in any order, are whole chains once they are sorted.
#[allow(dead_code, reason = "not every sink is read line by line")]
pub(crate) fn verify(mut lines: Vec<Vec<u8>>) {
    lines.sort_by_cached_key(|line| {
        let record: Record = serde_json::from_slice(line).expect("a record");
        (record.instance, record.seq)
    });
    let mut verifier = Verifier::new(None);
    for (line, number) in lines.iter().zip(1..) {
        let place = Place {
            file: "sink".to_owned(),
            line: number,
        };
        verifier.line(&place, line);
    }
    let report = verifier.finish();
    assert!(report.whole(), "{report:?}");
}

/// A server that is killed when this is dropped.
#[allow(dead_code, reason = "the webhook is no process")]
pub(crate) struct Server(Child);

#[allow(dead_code, reason = "the webhook is no process")]
impl Server {
    /// Starts `program`, which must be on the PATH or in `/usr/sbin`.
    pub(crate) fn start(program: &str, args: &[String], log: &Path) -> Self {
        let sbin = Path::new("/usr/sbin").join(program);
        let program = if sbin.exists() { sbin } else { program.into() };
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let child = Command::new(&program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
    }

    /// Sends it a signal: `STOP` freezes it, `CONT` lets it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may be gone already
        let _ = self.0.wait();
    }
}

/// A port of 127.0.0.1 nobody has.
#[allow(dead_code, reason = "the webhook binds its own")]
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("bound").port()
}
