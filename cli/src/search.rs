//! `search`: which recordings printed what.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use drawbridge_audit::recording::Reader;
use regex::RegexBuilder;

use crate::args::{self, Search};
use crate::{place, printed, progress, words};

pub(crate) fn run(args: &Search) -> anyhow::Result<ExitCode> {
    let pattern = if args.fixed_strings {
        regex::escape(&args.pattern)
    } else {
        args.pattern.clone()
    };
    let pattern = RegexBuilder::new(&pattern)
        .case_insensitive(args.ignore_case)
        .build()
        .context("the pattern is no regular expression")?;
    let identities = args.trust.identities()?;
    let recordings = place::find(&args.at.places)?;
    let bar = progress::recordings(recordings.len());
    let mut found = false;
    for recording in &recordings {
        let name = words::plain(&recording.name);
        let mut wrote = Ok(());
        let events = Reader::new(recording.source.as_ref(), &identities);
        let end = printed::lines(events, &mut |at, line| {
            if pattern.is_match(line) && wrote.is_ok() {
                found = true;
                let at = words::position(at);
                wrote = bar.suspend(|| writeln!(io::stdout(), "{name} {at} {line}"));
            }
        });
        wrote?;
        // Others may hold what is looked for.
        if let Some(error) = end {
            let error = format!("{:#}", anyhow::Error::new(error));
            bar.suspend(|| eprintln!("{name}: {}", words::plain(&error)));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(ExitCode::from(if found { 0 } else { args::NO }))
}
