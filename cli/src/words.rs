//! Values as people read them.

use std::time::Duration;

use drawbridge_audit::recording::{Manifest, Opening, Verdict};

/// `text` with everything that a terminal would obey written out.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if is_printable(character) {
            plain.push(character);
        } else {
            plain.extend(character.escape_default());
        }
    }
    plain
}

/// Whether a terminal just shows it: no control character, and none that turns the direction of what follows.
pub(crate) fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

/// `1h 02m 03s`, `2m 03s`, `3.4s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{:.1}s", duration.as_secs_f64()),
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, seconds) => format!("{hours}h {minutes:02}m {seconds:02}s"),
    }
}

/// `00:01:02.345`.
pub(crate) fn position(at: Duration) -> String {
    let seconds = at.as_secs();
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        at.subsec_millis()
    )
}

/// `a session of alice@example.com in shop/web-0/app (session alice)`.
pub(crate) fn who(opening: &Opening) -> String {
    plain(&format!(
        "{} in {}/{}/{} (session {})",
        opening.user,
        opening.session.namespace,
        opening.pod.name,
        opening.pod.container,
        opening.session.name
    ))
}

/// `complete`, or `interrupted: why`.
pub(crate) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Complete => "complete".to_owned(),
        Verdict::Interrupted { reason } => format!("interrupted: {}", plain(reason)),
    }
}

/// How long a sealed recording is.
pub(crate) fn length(manifest: &Manifest) -> Duration {
    Duration::try_from_secs_f64(manifest.duration_seconds).unwrap_or_default()
}

/// Bytes of all segments of a sealed recording.
pub(crate) fn size(manifest: &Manifest) -> u64 {
    manifest.segments.iter().map(|segment| segment.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        assert_eq!(
            plain("a\x1b]0;x\x07é\u{9b}\u{202e}"),
            "a\\u{1b}]0;x\\u{7}é\\u{9b}\\u{202e}"
        );
    }

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        assert_eq!(duration(Duration::from_millis(3400)), "3.4s");
        assert_eq!(duration(Duration::from_secs(123)), "2m 03s");
        assert_eq!(duration(Duration::from_secs(3723)), "1h 02m 03s");
        assert_eq!(position(Duration::from_millis(3_723_045)), "01:02:03.045");
    }
}
