//! `replay`: a recording, played in the auditor's terminal.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use drawbridge_audit::recording::{Event, Opening, Reader, Stream, Timed};

use crate::args::{self, Replay};
use crate::keyboard::{Key, Keyboard, Keys};
use crate::safe::Safe;
use crate::{place, verify, words};

/// The speeds that keys reach.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;

pub(crate) fn run(args: &Replay) -> anyhow::Result<ExitCode> {
    let identities = args.one.trust.identities()?;
    let recording = place::only(&args.one.place)?;
    verify::before(&recording, &args.one, &identities)?;
    let mut events = Reader::new(recording.source.as_ref(), &identities);
    let Some(first) = events.next() else {
        eprintln!("there is nothing in it");
        return Ok(ExitCode::SUCCESS);
    };
    let first = first.context("cannot read the recording")?;
    let tty = events.opening().is_some_and(|opening| opening.tty);
    if let Some(opening) = events.opening() {
        introduce(opening, events.size());
    }
    let mut pace = Pace::new(args.speed, args.idle);
    let mut keyboard = Keyboard::open(tty)?;
    let mut screen = Screen::default();
    let played = play(
        [Ok(first)].into_iter().chain(&mut events),
        &mut pace,
        &mut keyboard,
        &mut |event| screen.show(event),
    );
    screen.reset()?;
    drop(keyboard);
    let Some(error) = played? else {
        return Ok(ExitCode::SUCCESS);
    };
    if !error.truncated() {
        return Err(error).context("the recording cannot be read on");
    }
    eprintln!("the recording breaks off here");
    Ok(ExitCode::from(args::NO))
}

fn introduce(opening: &Opening, (columns, rows): (u16, u16)) {
    eprintln!("{}, {:.0}", words::who(opening), opening.started_at);
    if let Ok(size) = rustix::termios::tcgetwinsize(io::stdout())
        && opening.tty
        && size.ws_col > 0
        && (size.ws_col < columns || size.ws_row < rows)
    {
        eprintln!(
            "its terminal had {columns} columns and {rows} rows; this one has {} and {}",
            size.ws_col, size.ws_row
        );
    }
}

/// How fast time passes.
struct Pace {
    /// Infinite: as fast as it can be shown.
    speed: f64,
    idle: Option<Duration>,
    paused: bool,
}

impl Pace {
    fn new(speed: f64, idle: Option<f64>) -> Self {
        Self {
            speed,
            idle: idle.and_then(|idle| Duration::try_from_secs_f64(idle).ok()),
            paused: false,
        }
    }

    /// Waits until `gap` of the recording's time has passed. Whether to go on.
    fn wait(&mut self, gap: Duration, keys: &mut dyn Keys) -> io::Result<bool> {
        let mut left = self.idle.map_or(gap, |idle| gap.min(idle));
        while self.paused || !left.is_zero() {
            let limit = (!self.paused).then(|| left.div_f64(self.speed));
            let (key, took) = keys.wait(limit)?;
            if !self.paused {
                left = match key {
                    Some(_) if self.speed.is_finite() => {
                        left.saturating_sub(took.mul_f64(self.speed))
                    }
                    Some(_) | None => Duration::ZERO,
                };
            }
            match key {
                Some(Key::Pause) => self.paused = !self.paused,
                Some(Key::Faster) if self.speed.is_finite() => {
                    self.speed = (self.speed * 2.0).min(*SPEEDS.end());
                }
                // Nothing is faster than not to wait.
                None | Some(Key::Faster) => {}
                Some(Key::Slower) if self.speed.is_finite() => {
                    self.speed = (self.speed / 2.0).max(*SPEEDS.start());
                }
                Some(Key::Slower) => self.speed = *SPEEDS.end(),
                Some(Key::Step | Key::Skip) => return Ok(true),
                Some(Key::Quit) => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Shows every event at its time. What ended it, if that was not the end or a key.
fn play<E>(
    events: impl Iterator<Item = Result<Timed, E>>,
    pace: &mut Pace,
    keys: &mut dyn Keys,
    show: &mut dyn FnMut(&Event) -> io::Result<()>,
) -> io::Result<Option<E>> {
    let mut now = Duration::ZERO;
    for event in events {
        let timed = match event {
            Ok(timed) => timed,
            Err(error) => return Ok(Some(error)),
        };
        if !pace.wait(timed.at.saturating_sub(now), keys)? {
            return Ok(None);
        }
        now = timed.at;
        show(&timed.event)?;
    }
    Ok(None)
}

/// The auditor's terminal. Either stream has escape sequences of its own.
#[derive(Default)]
struct Screen {
    stdout: Safe,
    stderr: Safe,
    out: Vec<u8>,
}

impl Screen {
    fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Data(Stream::Stdout, bytes) => self.stdout.pass(bytes, &mut self.out),
            Event::Data(Stream::Stderr, bytes) => self.stderr.pass(bytes, &mut self.out),
            _ => return Ok(()),
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.out)?;
        self.out.clear();
        stdout.flush()
    }

    /// Leaves the terminal as it was, if there is one.
    fn reset(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if stdout.is_terminal() {
            stdout.write_all(&self.stderr.reset())?;
            stdout.write_all(&self.stdout.reset())?;
            stdout.write_all(b"\r\n")?;
        }
        stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys, each so long after the one before; then none.
    struct Script {
        keys: Vec<(Duration, Key)>,
        waited: Duration,
    }

    impl Keys for Script {
        fn wait(&mut self, limit: Option<Duration>) -> io::Result<(Option<Key>, Duration)> {
            let next = self.keys.first().copied();
            let (key, took) = match (next, limit) {
                (Some((after, key)), limit)
                    if limit.is_none_or(|limit| after < limit || after.is_zero()) =>
                {
                    self.keys.remove(0);
                    (Some(key), after)
                }
                (Some(_), Some(limit)) => {
                    self.keys[0].0 -= limit;
                    (None, limit)
                }
                (None, Some(limit)) => (None, limit),
                (_, None) => panic!("paused for ever"),
            };
            self.waited += took;
            Ok((key, took))
        }
    }

    /// Plays events at these seconds: how many were shown, and how long that took.
    fn played(at: &[u64], pace: &mut Pace, keys: &[(u64, Key)]) -> (usize, Duration) {
        let mut script = Script {
            keys: keys
                .iter()
                .map(|(s, key)| (Duration::from_secs(*s), *key))
                .collect(),
            waited: Duration::ZERO,
        };
        let mut shown = 0;
        let events = at.iter().map(|seconds| {
            Ok::<_, ()>(Timed {
                at: Duration::from_secs(*seconds),
                event: Event::Marker(String::new()),
            })
        });
        let end = play(events, pace, &mut script, &mut |_| {
            shown += 1;
            Ok(())
        });
        assert_eq!(end.unwrap(), None);
        (shown, script.waited)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn time_passes_as_it_did_or_faster_and_idle_time_is_cut() {
        let at = [1, 2, 100];
        assert_eq!(
            played(&at, &mut Pace::new(1.0, None), &[]),
            (3, seconds(100))
        );
        assert_eq!(
            played(&at, &mut Pace::new(4.0, None), &[]),
            (3, seconds(25))
        );
        assert_eq!(
            played(&at, &mut Pace::new(1.0, Some(3.0)), &[]),
            (3, seconds(5))
        );
    }

    #[test]
    fn at_the_highest_speed_nothing_is_waited_for_and_keys_are_heard_all_the_same() {
        let at = [1, 2, 100];
        let fastest = || Pace::new(f64::INFINITY, None);
        assert_eq!(played(&at, &mut fastest(), &[]), (3, Duration::ZERO));
        let mut keys = Script {
            keys: vec![(Duration::ZERO, Key::Quit)],
            waited: Duration::ZERO,
        };
        assert!(!fastest().wait(seconds(1), &mut keys).unwrap());
        let slower = [(0, Key::Faster), (0, Key::Slower)];
        let mut pace = fastest();
        played(&at, &mut pace, &slower);
        assert!((pace.speed - SPEEDS.end()).abs() < f64::EPSILON);
    }

    #[test]
    fn keys_stop_skip_and_change_the_speed() {
        let at = [10, 20, 30];
        let pause = [(4, Key::Pause), (60, Key::Pause)];
        assert_eq!(
            played(&at, &mut Pace::new(1.0, None), &pause),
            (3, seconds(90))
        );
        let step = [
            (4, Key::Pause),
            (1, Key::Step),
            (1, Key::Step),
            (1, Key::Pause),
        ];
        assert_eq!(
            played(&at, &mut Pace::new(1.0, None), &step),
            (3, seconds(17))
        );
        let faster = [(4, Key::Faster)];
        assert_eq!(
            played(&at, &mut Pace::new(1.0, None), &faster),
            (3, seconds(17))
        );
        let quit = [(4, Key::Skip), (2, Key::Quit)];
        assert_eq!(
            played(&at, &mut Pace::new(1.0, None), &quit),
            (1, seconds(6))
        );
    }
}
