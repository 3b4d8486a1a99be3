//! `verify`: whether recordings, and logs, are what their recorders wrote.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use drawbridge_audit::keys::KeySet;
use drawbridge_audit::recording::{Identities, Verification, verify};
use indicatif::HumanBytes;

use crate::args::{self, One, Verify};
use crate::place::{self, Recording};
use crate::{log, progress, words};

pub(crate) fn run(args: &Verify) -> anyhow::Result<ExitCode> {
    let keys = args.trust.keys()?;
    if keys.is_empty() {
        bail!("whom shall be believed? give --keys");
    }
    let identities = args.trust.identities()?;
    let (logs, places): (Vec<_>, Vec<_>) = args
        .places
        .iter()
        .cloned()
        .partition(|place| log::is_log(place));
    let mut sealed = logs.is_empty() || log::verify(&logs, &keys, args.rotated)?;
    for recording in place::find(&places)? {
        let verification = check(&recording, &keys, &identities)?;
        sealed &= matches!(verification, Verification::Sealed(_));
        let name = words::plain(&recording.name);
        writeln!(io::stdout(), "{name}: {}", sentence(&verification))?;
    }
    Ok(ExitCode::from(if sealed { 0 } else { args::NO }))
}

/// Verifies `one` if there are keys to do it with, and says on standard error what came out. Nothing broken is shown.
pub(crate) fn before(
    recording: &Recording,
    one: &One,
    identities: &Identities,
) -> anyhow::Result<()> {
    let keys = one.trust.keys()?;
    if keys.is_empty() {
        eprintln!("not verified: give --keys to have it verified first");
        return Ok(());
    }
    let verification = check(recording, &keys, identities)?;
    if matches!(verification, Verification::Broken(_)) {
        bail!("{}: {}", recording.name, sentence(&verification));
    }
    eprintln!("{}", sentence(&verification));
    Ok(())
}

fn check(
    recording: &Recording,
    keys: &KeySet,
    identities: &Identities,
) -> anyhow::Result<Verification> {
    let bar = progress::bytes();
    let source = recording.source.as_ref();
    let verification = verify(source, keys, identities, &mut |progress| {
        progress::show(&bar, progress);
    });
    bar.finish_and_clear();
    verification.with_context(|| format!("cannot read {}", recording.name))
}

fn sentence(verification: &Verification) -> String {
    match verification {
        Verification::Sealed(sealed) => {
            let manifest = &sealed.manifest;
            let unread = if sealed.read {
                ""
            } else {
                "; encrypted, its lines were not read"
            };
            let untold = if manifest.transfers_unknown {
                "; what its binary streams carried is not known"
            } else {
                ""
            };
            format!(
                "{}{untold}; {}, {} in {} segments, {}; signed by {}{unread}",
                words::verdict(&manifest.verdict),
                words::who(&manifest.opening),
                words::duration(words::length(manifest)),
                manifest.segments.len(),
                HumanBytes(words::size(manifest)),
                sealed.key,
            )
        }
        Verification::Unsealed(unsealed) => {
            let who = unsealed.opening.as_deref().map(words::who);
            format!(
                "UNSEALED: nobody vouches for it; {}, {} segments, {} lines, then {} bytes that are no whole chunk",
                who.unwrap_or_default(),
                unsealed.segments,
                unsealed.lines,
                unsealed.cut
            )
        }
        Verification::Broken(broken) => format!("BROKEN: {}", words::plain(&broken.to_string())),
    }
}
