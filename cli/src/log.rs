//! `verify` for audit logs: which line is altered, missing or out of order.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use anyhow::Context;
use drawbridge_audit::chain::{Ending, Report, Verified, Verifier};
use drawbridge_audit::keys::KeySet;

use crate::progress;
use crate::words::plain;

/// Whether `place` is a file: recordings are directories.
pub(crate) fn is_log(place: &str) -> bool {
    place == "-" || Path::new(place).is_file()
}

/// Verifies the log that `files` are, and says what came out. Whether it is whole.
pub(crate) fn verify(files: &[String], keys: &KeySet, rotated: bool) -> anyhow::Result<bool> {
    let mut verifier = Verifier::new(Some(keys.clone()));
    if rotated {
        verifier = verifier.rotated();
    }
    let bar = progress::bytes();
    for name in files {
        if name == "-" {
            verifier.file("standard input", io::stdin().lock())?;
            continue;
        }
        let failed = || format!("cannot read {name}");
        let file = File::open(name).with_context(failed)?;
        bar.reset();
        bar.set_length(file.metadata().with_context(failed)?.len());
        let lines = BufReader::with_capacity(64 << 10, bar.wrap_read(file));
        verifier.file(name, lines).with_context(failed)?;
    }
    bar.finish_and_clear();
    let report = verifier.finish();
    tell(&report, &mut io::stdout())?;
    Ok(report.whole())
}

fn tell(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for problem in &report.problems {
        writeln!(out, "BROKEN: {}", plain(&problem.to_string()))?;
    }
    if report.more > 0 {
        writeln!(out, "BROKEN: and {} more", report.more)?;
    }
    for chain in &report.chains {
        writeln!(out, "{}", sentence(chain))?;
    }
    writeln!(
        out,
        "{} lines, {} of them delivered again, {} runs, {} problems",
        report.lines,
        report.duplicates,
        report.chains.len(),
        report.problems.len() as u64 + report.more
    )
}

fn sentence(chain: &Verified) -> String {
    let end = match chain.ending {
        Ending::Stopped => "ended".to_owned(),
        Ending::Continued => "broke off, and the next run says where".to_owned(),
        Ending::Open => "OPEN: it still runs, or its end was cut off".to_owned(),
    };
    let signed = match chain.signed {
        None => "nobody vouches for it".to_owned(),
        Some(seq) => format!("signed up to event {seq}"),
    };
    plain(&format!(
        "{}: events {} to {}, {end}; {signed}",
        chain.instance, chain.first, chain.last
    ))
}
