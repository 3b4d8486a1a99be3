//! Progress bars: on a terminal's standard error, and nowhere else.

use drawbridge_audit::recording::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// One for `verify`: bytes of one recording.
pub(crate) fn bytes() -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(style(
        "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}",
    ));
    bar
}

/// One for many recordings.
pub(crate) fn recordings(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    bar.set_style(style("{bar:30} {pos}/{len} recordings"));
    bar
}

/// Shows how far `verify` is.
pub(crate) fn show(bar: &ProgressBar, progress: Progress) {
    if let Some(total) = progress.total {
        bar.set_length(total);
    }
    bar.set_position(progress.bytes);
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is right")
}
