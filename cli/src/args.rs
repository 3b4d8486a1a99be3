//! Every command and flag.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::trust::Trust;
use crate::{export, ls, replay, search, verify};

/// What was looked for is there but not good, or not there: as `grep` and `diff` say it.
pub(crate) const NO: u8 = 1;
/// The command could not do its work.
pub(crate) const TROUBLE: u8 = 2;

/// Verify, list, search, replay and export recordings of sessions. Offline: nothing is asked but the store they are in.
///
/// Exit codes: 0 yes, 1 no (something is broken, unsealed, or not found), 2 trouble.
#[derive(Debug, Parser)]
#[command(name = "drawbridge-audit", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every byte of recordings, or every line of audit logs, against hashes and signatures.
    Verify(Verify),
    /// List recordings, newest last. Believes what they say of themselves; `verify` does not.
    Ls(Where),
    /// Find text in what recordings printed.
    Search(Search),
    /// Play a recording in this terminal. Keys: space pauses, `.` steps, `+` and `-` change the speed, `n` skips idle time, `q` quits.
    Replay(Replay),
    /// Write a recording as asciicast or as text.
    Export(Export),
}

/// Where recordings are.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Where {
    /// Directory of a recording, or any directory or URL above (`s3://BUCKET/PREFIX`, `gs://…`, `az://…`; credentials from
    /// the usual environment variables).
    #[arg(value_name = "PATH|URL", required = true)]
    pub(crate) places: Vec<String>,
}

/// One recording.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct One {
    /// Directory or URL of the recording, or of one above that holds no other.
    #[arg(value_name = "PATH|URL")]
    pub(crate) place: String,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// `verify`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// Recordings: a directory or URL, as for `ls`. Audit logs: files of one log, the oldest first; `-` is standard input.
    #[arg(value_name = "PATH|URL", required = true)]
    pub(crate) places: Vec<String>,
    /// The log's oldest files may have been deleted, so it need not begin at its beginning.
    #[arg(long)]
    pub(crate) rotated: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// `search`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Search {
    /// Regular expression (syntax of the Rust crate `regex`), matched within a line of the screen.
    pub(crate) pattern: String,
    #[command(flatten)]
    pub(crate) at: Where,
    /// Take the pattern for a text, not for an expression.
    #[arg(short = 'F', long)]
    pub(crate) fixed_strings: bool,
    /// Take upper and lower case for the same.
    #[arg(short, long)]
    pub(crate) ignore_case: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// `replay`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) one: One,
    /// How many times faster than it was: 0.01 to 1000, or `max`, which waits for nothing but the terminal.
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    pub(crate) speed: f64,
    /// Longest time without output, in seconds of the recording; what is longer is cut to it.
    #[arg(long, value_parser = seconds)]
    pub(crate) idle: Option<f64>,
}

/// `export`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) one: One,
    /// As what.
    #[arg(long, value_enum, default_value_t = Format::Asciicast)]
    pub(crate) format: Format,
    /// File to write; standard output if there is none.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
}

/// What `export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Asciicast v2, byte for byte as recorded: escape sequences included, so play it with care.
    Asciicast,
    /// What was printed, line by line, without escape sequences.
    Text,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Verify(args) => verify::run(&args),
            Command::Ls(at) => ls::run(&at),
            Command::Search(args) => search::run(&args),
            Command::Replay(args) => replay::run(&args),
            Command::Export(args) => export::run(&args),
        }
    }
}

fn speed(text: &str) -> Result<f64, String> {
    if text == "max" {
        return Ok(f64::INFINITY);
    }
    let speed: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=1000.0).contains(&speed) {
        Ok(speed)
    } else {
        Err("must be between 0.01 and 1000".to_owned())
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be between 0 and 86400".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_fit_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_speed_is_a_number_within_bounds() {
        assert_eq!(speed("2.5"), Ok(2.5));
        assert_eq!(speed("max"), Ok(f64::INFINITY));
        for wrong in ["0", "-1", "NaN", "inf", "fast"] {
            assert!(speed(wrong).is_err(), "{wrong}");
            assert!(wrong == "0" || seconds(wrong).is_err(), "{wrong}");
        }
    }
}
