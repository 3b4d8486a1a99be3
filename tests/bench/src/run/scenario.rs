//! What is measured, and how much of it.

use super::peer::Peer;

/// How much of everything.
pub(super) struct Size {
    pub(super) rounds: usize,
    pub(super) idle: usize,
    /// For kubectl proxy, which opens six files per session, and for recordings: two sockets and two files.
    pub(super) idle_files: usize,
    hold: usize,
    pub(super) typists: usize,
    pub(super) rate: usize,
    pub(super) seconds: usize,
    pub(super) bulk: usize,
    pub(super) connects: usize,
}

pub(super) const FULL: Size = Size {
    rounds: 5,
    idle: 5000,
    idle_files: 2500,
    hold: 2,
    typists: 100,
    rate: 100,
    seconds: 4,
    bulk: 128 << 20,
    connects: 1000,
};

pub(super) const QUICK: Size = Size {
    rounds: 1,
    idle: 200,
    idle_files: 200,
    hold: 1,
    typists: 20,
    rate: 50,
    seconds: 1,
    bulk: 8 << 20,
    connects: 100,
};

/// Megabytes per second that an API server and a kubelet deliver on two cores: `just bench-real`, one session.
pub(super) const PACE: usize = 100;

/// Cores for load with fake server, and for the candidate.
#[derive(Clone, Copy)]
pub(super) enum Pin {
    No,
    /// All on one core: echo time is then a sum of work and context switches, not of luck with wake-ups.
    OneCore,
    /// The candidate has a core to itself.
    Apart,
}

/// One kind of measurement.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) tls: bool,
    pub(super) pin: Pin,
    pub(super) peers: &'static [Peer],
    load: Load,
}

/// What is done.
#[derive(Clone, Copy)]
enum Load {
    Idle,
    /// The same after a keystroke each, on terminals.
    Prompt,
    /// One session types as fast as the echo comes.
    Echo,
    /// Many sessions type.
    Typing,
    /// Eight sessions read, without a terminal.
    Bulk,
    /// Eight sessions read this from a terminal.
    Print(&'static str),
    /// One session reads text from a terminal, [`PACE`] megabytes of it a second.
    Paced,
    Connect,
    /// A recording as long as what eight sessions read is told to a page.
    Replay,
}

const fn scenario(
    name: &'static str,
    tls: bool,
    pin: Pin,
    peers: &'static [Peer],
    load: Load,
) -> Scenario {
    Scenario {
        name,
        tls,
        pin,
        peers,
        load,
    }
}

pub(super) const SCENARIOS: &[Scenario] = {
    use Peer::{Direct, Gateway, GatewayRecording, Haproxy, HaproxySplice, KubectlProxy};
    const THREE: &[Peer] = &[Gateway, Haproxy, KubectlProxy];
    const FOUR: &[Peer] = &[Direct, Gateway, Haproxy, KubectlProxy];
    const FIVE: &[Peer] = &[Direct, Gateway, Haproxy, HaproxySplice, KubectlProxy];
    const ONE: &[Peer] = &[GatewayRecording];
    const BOTH: &[Peer] = &[Gateway, GatewayRecording];
    &[
        scenario("idle", false, Pin::No, THREE, Load::Idle),
        scenario("idle-tls", true, Pin::No, THREE, Load::Idle),
        scenario("echo", false, Pin::OneCore, FOUR, Load::Echo),
        scenario("typing", false, Pin::Apart, THREE, Load::Typing),
        scenario("typing-tls", true, Pin::Apart, THREE, Load::Typing),
        scenario("bulk", false, Pin::No, FIVE, Load::Bulk),
        scenario("bulk-tls", true, Pin::No, FOUR, Load::Bulk),
        scenario("connect", false, Pin::No, THREE, Load::Connect),
        scenario("connect-tls", true, Pin::No, THREE, Load::Connect),
        scenario("recorded-idle", false, Pin::No, BOTH, Load::Prompt),
        scenario("recorded-idle-tls", true, Pin::No, BOTH, Load::Prompt),
        scenario("recorded-echo", false, Pin::OneCore, BOTH, Load::Echo),
        scenario("recorded-typing", false, Pin::Apart, BOTH, Load::Typing),
        scenario("recorded-paced", false, Pin::No, BOTH, Load::Paced),
        scenario("recorded-copy", false, Pin::No, BOTH, Load::Bulk),
        scenario("recorded-text", false, Pin::No, BOTH, Load::Print("text")),
        scenario(
            "recorded-base64",
            false,
            Pin::No,
            BOTH,
            Load::Print("base64"),
        ),
        scenario("recorded-connect", false, Pin::No, BOTH, Load::Connect),
        scenario("recorded-replay", false, Pin::No, ONE, Load::Replay),
    ]
};

impl Scenario {
    /// The arguments of the load.
    pub(super) fn flags(&self, peer: Peer, size: &Size) -> Vec<String> {
        // Recordings are of terminals, but for what `kubectl cp` moves.
        let tty = self.peers.contains(&Peer::GatewayRecording) && !matches!(self.load, Load::Bulk);
        let mut words: Vec<&str> = if tty { vec!["--tty"] } else { Vec::new() };
        let idle = if peer == Peer::KubectlProxy || tty {
            size.idle_files
        } else {
            size.idle
        };
        let numbers = match self.load {
            Load::Idle => {
                words.push("idle");
                vec![("--sessions", idle), ("--hold", size.hold)]
            }
            Load::Prompt => {
                words.extend(["idle", "--prompt"]);
                // A second until what was printed is written, and one until it is synced.
                vec![("--sessions", idle), ("--hold", size.hold + 2)]
            }
            Load::Echo => {
                words.push("typing");
                vec![
                    ("--sessions", 1),
                    ("--rate", 0),
                    ("--seconds", size.seconds.div_ceil(2)),
                ]
            }
            Load::Typing => {
                words.push("typing");
                vec![
                    ("--sessions", size.typists),
                    ("--rate", size.rate),
                    ("--seconds", size.seconds),
                ]
            }
            Load::Bulk => {
                words.push("bulk");
                vec![("--sessions", 8), ("--bytes", size.bulk)]
            }
            Load::Print(output) => {
                words.extend(["bulk", "--output", output]);
                vec![("--sessions", 8), ("--bytes", size.bulk)]
            }
            Load::Paced => {
                words.extend(["bulk", "--output", "text"]);
                vec![
                    ("--sessions", 1),
                    ("--bytes", 2 * size.bulk),
                    ("--rate", PACE),
                ]
            }
            Load::Replay => {
                words.push("replay");
                vec![("--bytes", 8 * size.bulk)]
            }
            Load::Connect => {
                words.push("connect");
                vec![("--count", size.connects)]
            }
        };
        let numbers = numbers
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]);
        words
            .into_iter()
            .map(str::to_owned)
            .chain(numbers)
            .collect()
    }
}
