//! `ls`: which recordings there are, by what they say of themselves.

use std::io::{self, Write};
use std::process::ExitCode;

use drawbridge_audit::recording::{Chunks, Manifest, Opening, Source};
use indicatif::HumanBytes;

use crate::args::Where;
use crate::{place, progress, words};

pub(crate) fn run(at: &Where) -> anyhow::Result<ExitCode> {
    let recordings = place::find(&at.places)?;
    let bar = progress::recordings(recordings.len());
    for recording in recordings {
        let line = describe(recording.source.as_ref())?;
        let name = words::plain(&recording.name);
        bar.suspend(|| writeln!(io::stdout(), "{line}  {name}"))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(ExitCode::SUCCESS)
}

fn describe(source: &dyn Source) -> anyhow::Result<String> {
    if let Some(manifest) = source.manifest()? {
        return Ok(match Manifest::read(&manifest) {
            Ok(manifest) => format!(
                "{}  {:>11}  {:>10}  {}; {}",
                started(&manifest.opening),
                words::duration(words::length(&manifest)),
                HumanBytes(words::size(&manifest)).to_string(),
                words::who(&manifest.opening),
                words::verdict(&manifest.verdict),
            ),
            Err(error) => format!("unreadable manifest: {}", words::plain(&error.to_string())),
        });
    }
    let first = source
        .segment(0)?
        .and_then(|segment| Chunks::new(segment).next()?.ok());
    let opening =
        first.and_then(|chunk| serde_json::from_str::<Opening>(chunk.header.opening?.get()).ok());
    Ok(match opening {
        Some(opening) => format!("{}  {}; unsealed", started(&opening), words::who(&opening)),
        None => "unreadable, and unsealed".to_owned(),
    })
}

fn started(opening: &Opening) -> String {
    format!("{:.0}", opening.started_at)
}
