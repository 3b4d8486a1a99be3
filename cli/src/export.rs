//! `export`: a recording in a form that other programs read.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::Context;
use drawbridge_audit::recording::{ReadError, Reader};

use crate::args::{self, Export, Format};
use crate::{place, printed, verify};

pub(crate) fn run(args: &Export) -> anyhow::Result<ExitCode> {
    let identities = args.one.trust.identities()?;
    let recording = place::only(&args.one.place)?;
    verify::before(&recording, &args.one, &identities)?;
    let reader = Reader::new(recording.source.as_ref(), &identities);
    let out: Box<dyn Write> = match &args.output {
        None => Box::new(io::stdout()),
        Some(path) => {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("cannot write {}", path.display()))?)
        }
    };
    let mut out = BufWriter::with_capacity(64 << 10, out);
    let end = match args.format {
        Format::Asciicast => asciicast(reader, &mut out),
        Format::Text => text(reader, &mut out),
    }?;
    out.flush()?;
    match end {
        None => Ok(ExitCode::SUCCESS),
        Some(error) if error.truncated() => {
            eprintln!("the recording breaks off there");
            Ok(ExitCode::from(args::NO))
        }
        Some(error) => Err(error).context("the recording cannot be read on"),
    }
}

/// The lines as they are. What kept it from the end, if anything did.
fn asciicast(mut reader: Reader<'_>, out: &mut impl Write) -> io::Result<Option<ReadError>> {
    loop {
        match reader.next_line() {
            Ok(Some(line)) => {
                out.write_all(line)?;
                out.write_all(b"\n")?;
            }
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        }
    }
}

/// What was printed. What kept it from the end, if anything did.
fn text(reader: Reader<'_>, out: &mut impl Write) -> io::Result<Option<ReadError>> {
    let mut wrote = Ok(());
    let end = printed::lines(reader, &mut |_, line| {
        if wrote.is_ok() {
            wrote = writeln!(out, "{line}");
        }
    });
    wrote.map(|()| end)
}
