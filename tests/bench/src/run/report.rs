//! From samples to the table.

use std::fmt::Write;

use anyhow::Context;

use super::{Machine, Sample, Size, peer::Peer, scenario::PACE};

/// What must hold for the gateway. It is beside haproxy in one table, and records beside itself in the other.
enum Floor {
    None,
    /// The figure is this at most.
    AtMost(f64),
    /// The figure divided by that of the other is this at most.
    Times(f64),
    /// The same, this at least.
    Share(f64),
    /// The figure is at most by this greater than that of the other.
    More(f64),
}

impl Floor {
    /// What it says, and whether it is kept; nothing to be said of a row without one, or without figures.
    fn judge(
        &self,
        beside: &str,
        own: &[f64],
        ratios: &[f64],
        differences: &[f64],
    ) -> (String, &'static str) {
        let (text, kept) = match *self {
            Self::None => (String::new(), None),
            Self::AtMost(most) => (format!("≤ {most}"), median(own).map(|is| is <= most)),
            Self::Times(most) => (
                format!("≤ {most:.1}× {beside}"),
                median(ratios).map(|is| is <= most),
            ),
            Self::Share(least) => (
                format!("≥ {least:.1}× {beside}"),
                median(ratios).map(|is| is >= least),
            ),
            Self::More(most) => (
                format!("≤ {most} more"),
                median(differences).map(|is| is <= most),
            ),
        };
        (
            text,
            kept.map_or("", |kept| if kept { "yes" } else { "**no**" }),
        )
    }
}

/// One line of the table: where it comes from, and what it says.
struct Row {
    scenario: &'static str,
    figure: &'static str,
    what: &'static str,
    /// Digits after the point.
    digits: usize,
    floor: Floor,
}

const ROWS: &[Row] = &[
    row(
        "idle",
        "rss_kib",
        "KiB resident per idle session, plain",
        1,
        Floor::AtMost(16.0),
    ),
    row(
        "idle",
        "anon_kib",
        "… of it heap and stacks",
        1,
        Floor::None,
    ),
    row(
        "idle-tls",
        "rss_kib",
        "KiB resident per idle session, TLS on both legs",
        1,
        Floor::AtMost(36.0),
    ),
    row(
        "idle-tls",
        "anon_kib",
        "… of it heap and stacks",
        1,
        Floor::None,
    ),
    row(
        "typing",
        "cpu_us",
        "µs of CPU per keystroke, plain",
        1,
        Floor::Times(1.2),
    ),
    row(
        "typing-tls",
        "cpu_us",
        "µs of CPU per keystroke, TLS on both legs",
        1,
        Floor::Times(1.2),
    ),
    row(
        "bulk",
        "cpu_s_per_gb",
        "s of CPU per GB of output, plain",
        3,
        Floor::Times(1.0),
    ),
    row(
        "bulk-tls",
        "cpu_s_per_gb",
        "s of CPU per GB of output, TLS on both legs",
        3,
        Floor::Times(1.0),
    ),
    row(
        "bulk",
        "mb_per_s",
        "MB/s over 8 sessions, plain",
        0,
        Floor::None,
    ),
    row(
        "bulk-tls",
        "mb_per_s",
        "MB/s over 8 sessions, TLS on both legs",
        0,
        Floor::None,
    ),
    row(
        "echo",
        "p50_us",
        "µs from key to echo, median, one session, all on one core, plain",
        1,
        Floor::None,
    ),
    row(
        "typing",
        "p50_us",
        "µs from key to echo, median, 100 sessions, plain",
        0,
        Floor::None,
    ),
    row("typing", "p99_us", "… 99th percentile", 0, Floor::None),
    row(
        "connect",
        "cpu_us",
        "µs of CPU per connect, plain",
        0,
        Floor::None,
    ),
    row(
        "connect-tls",
        "cpu_us",
        "µs of CPU per connect, TLS on both legs",
        0,
        Floor::None,
    ),
    row(
        "connect",
        "p50_us",
        "µs to connect, median, 4 clients, plain",
        0,
        Floor::None,
    ),
    row(
        "connect-tls",
        "p50_us",
        "µs to connect, median, 4 clients, TLS on both legs",
        0,
        Floor::None,
    ),
];

/// The rows about recording: the same work without and with it, on terminals unless it says otherwise.
const RECORDED: &[Row] = &[
    row(
        "recorded-paced",
        "mb_per_s",
        "MB/s of text, one session, 100 MB/s printed",
        1,
        Floor::Share(0.9),
    ),
    row(
        "recorded-text",
        "mb_per_s",
        "MB/s of text over 8 sessions, printed as fast as it goes",
        0,
        Floor::Share(0.9),
    ),
    row(
        "recorded-base64",
        "mb_per_s",
        "MB/s of base64 of noise, 8 sessions, the same",
        0,
        Floor::None,
    ),
    row(
        "recorded-copy",
        "mb_per_s",
        "MB/s of bytes that are no text, without a terminal, 8 sessions, the same",
        0,
        Floor::None,
    ),
    row(
        "recorded-paced",
        "cpu_s_per_gb",
        "s of CPU per GB of text, 100 MB/s printed",
        2,
        Floor::None,
    ),
    row(
        "recorded-text",
        "cpu_s_per_gb",
        "s of CPU per GB of text, as fast as it goes",
        2,
        Floor::None,
    ),
    row(
        "recorded-base64",
        "cpu_s_per_gb",
        "s of CPU per GB of base64 of noise",
        2,
        Floor::None,
    ),
    row(
        "recorded-copy",
        "cpu_s_per_gb",
        "s of CPU per GB of bytes that are no text",
        2,
        Floor::None,
    ),
    row(
        "recorded-echo",
        "p50_us",
        "µs from key to echo, median, one session that types as fast as it can, all on one core",
        1,
        Floor::None,
    ),
    row(
        "recorded-echo",
        "p99_us",
        "… 99th percentile",
        1,
        Floor::More(50.0),
    ),
    row(
        "recorded-typing",
        "p50_us",
        "µs from key to echo, median, 100 sessions",
        0,
        Floor::None,
    ),
    row(
        "recorded-typing",
        "p99_us",
        "… 99th percentile",
        0,
        Floor::More(50.0),
    ),
    row(
        "recorded-typing",
        "cpu_us",
        "µs of CPU per keystroke",
        1,
        Floor::None,
    ),
    row(
        "recorded-idle",
        "rss_kib",
        "KiB resident per idle session, plain",
        1,
        Floor::AtMost(16.0),
    ),
    row(
        "recorded-idle-tls",
        "rss_kib",
        "KiB resident per idle session, TLS on both legs",
        1,
        Floor::AtMost(36.0),
    ),
    row(
        "recorded-connect",
        "per_s",
        "connects per second, 4 clients",
        0,
        Floor::None,
    ),
    row(
        "recorded-connect",
        "p50_us",
        "µs to connect, median",
        0,
        Floor::None,
    ),
    row(
        "recorded-connect",
        "cpu_us",
        "µs of CPU per connect",
        0,
        Floor::None,
    ),
    row(
        "recorded-replay",
        "grew_mib",
        "MiB that the gateway grows by while a page is told a recording of as much output as 8 sessions read",
        1,
        Floor::AtMost(64.0),
    ),
    row(
        "recorded-replay",
        "mb_per_s",
        "… MB/s of that",
        0,
        Floor::None,
    ),
];

const fn row(
    scenario: &'static str,
    figure: &'static str,
    what: &'static str,
    digits: usize,
    floor: Floor,
) -> Row {
    Row {
        scenario,
        figure,
        what,
        digits,
        floor,
    }
}

const COLUMNS: [Peer; 5] = [
    Peer::Gateway,
    Peer::Haproxy,
    Peer::HaproxySplice,
    Peer::KubectlProxy,
    Peer::Direct,
];

/// The gateway beside others, in Markdown: median and spread of each figure, and the gateway's round by round by
/// haproxy's. `None` if nothing of it was measured.
pub(super) fn table(
    machine: &Machine,
    samples: &[Sample],
    rounds: usize,
    size: &Size,
) -> Option<String> {
    let mut text = String::new();
    let _ = writeln!(text, "{machine}.\n");
    let _ = writeln!(
        text,
        "{} of {rounds} rounds; {} idle sessions ({} for `kubectl proxy`); {} sessions typing {} keys/s each for {} s; \
         8 sessions reading {} MiB each; {} connects. Median (lowest to highest round).\n",
        done(samples, ROWS)?,
        size.idle,
        size.idle_files,
        size.typists,
        size.rate,
        size.seconds,
        size.bulk >> 20,
        size.connects,
    );
    let _ = write!(text, "| what |");
    for peer in COLUMNS {
        let _ = write!(text, " {peer} |");
    }
    let _ = writeln!(text, " gateway ÷ haproxy | floor | kept |");
    let _ = writeln!(text, "|---|{}---|---|---|", "---|".repeat(COLUMNS.len()));
    for row in ROWS {
        let cells = COLUMNS.map(|peer| spread(&values(samples, row, peer), row.digits));
        if cells.iter().all(String::is_empty) {
            continue;
        }
        let (ratios, differences) = compare(samples, row, Peer::Gateway, Peer::Haproxy);
        let own = values(samples, row, Peer::Gateway);
        let (floor, kept) = row.floor.judge("haproxy", &own, &ratios, &differences);
        let (what, cells, ratios) = (row.what, cells.join(" | "), spread(&ratios, 2));
        let _ = writeln!(text, "| {what} | {cells} | {ratios} | {floor} | {kept} |");
    }
    Some(text)
}

/// What recording costs, in Markdown: the gateway with it beside the gateway without. `None` if nothing of it was measured.
pub(super) fn recording(
    machine: &Machine,
    samples: &[Sample],
    rounds: usize,
    size: &Size,
) -> Option<String> {
    let mut text = String::new();
    let _ = writeln!(text, "{machine}.\n");
    let _ = writeln!(
        text,
        "{} of {rounds} rounds; {} idle sessions; {} sessions typing {} keys/s each for {} s; 8 sessions reading {} MiB \
         each, one reading {} MiB at {PACE} MB/s; {} connects. Median (lowest to highest round).\n",
        done(samples, RECORDED)?,
        size.idle_files,
        size.typists,
        size.rate,
        size.seconds,
        size.bulk >> 20,
        size.bulk >> 19,
        size.connects,
    );
    let _ = writeln!(
        text,
        "| what | not recorded | recorded | ÷ | difference | floor | kept |\n|---|---|---|---|---|---|---|"
    );
    for row in RECORDED {
        let without = values(samples, row, Peer::Gateway);
        let with = values(samples, row, Peer::GatewayRecording);
        if with.is_empty() {
            continue;
        }
        let (ratios, differences) = compare(samples, row, Peer::GatewayRecording, Peer::Gateway);
        let (floor, kept) = row
            .floor
            .judge("not recorded", &with, &ratios, &differences);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {floor} | {kept} |",
            row.what,
            spread(&without, row.digits),
            spread(&with, row.digits),
            spread(&ratios, 2),
            spread(&differences, row.digits),
        );
    }
    Some(text)
}

/// Rounds in which anything of these rows was measured.
fn done(samples: &[Sample], rows: &[Row]) -> Option<usize> {
    let of_these = |sample: &&Sample| rows.iter().any(|row| row.scenario == sample.scenario);
    let rounds = samples
        .iter()
        .filter(of_these)
        .map(|sample| sample.round + 1);
    rounds.max()
}

/// One candidate's figures divided by another's, and less another's, round by round.
fn compare(samples: &[Sample], row: &Row, one: Peer, other: Peer) -> (Vec<f64>, Vec<f64>) {
    let others = rounds_of(samples, row, other);
    let pairs = rounds_of(samples, row, one)
        .into_iter()
        .filter_map(|(round, ours)| {
            let theirs = others.iter().find(|(other, _)| *other == round)?.1;
            // Less than a clock tick is no figure to divide by.
            (theirs > 0.0).then_some((ours / theirs, ours - theirs))
        });
    pairs.unzip()
}

/// A candidate's figures for a row.
fn values(samples: &[Sample], row: &Row, peer: Peer) -> Vec<f64> {
    let rounds = rounds_of(samples, row, peer);
    rounds.into_iter().map(|(_, value)| value).collect()
}

/// Round and figure of each sample for a row.
fn rounds_of(samples: &[Sample], row: &Row, peer: Peer) -> Vec<(usize, f64)> {
    let own = samples
        .iter()
        .filter(|sample| sample.scenario == row.scenario && sample.peer == peer);
    own.filter_map(|sample| Some((sample.round, *sample.figures.get(row.figure)?)))
        .collect()
}

/// The middle value; the mean of the two in the middle when there is none. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// `median (lowest–highest)`; empty of nothing.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let Some(median) = median(values) else {
        return String::new();
    };
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{median:.digits$} ({lowest:.digits$}–{highest:.digits$})")
}

/// Puts `text` between `<!-- NAME begins -->` and `<!-- NAME ends -->`.
///
/// # Errors
/// The page has no such marks.
pub(crate) fn replace_between(page: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let (begins, ends) = (
        format!("<!-- {name} begins -->"),
        format!("<!-- {name} ends -->"),
    );
    let marked = || {
        let (before, rest) = page.split_once(&begins)?;
        Some((before, rest.split_once(&ends)?.1))
    };
    let (before, after) = marked().with_context(|| format!("the page has no {begins} … {ends}"))?;
    Ok(format!(
        "{before}{begins}\n\n{}\n\n{ends}{after}",
        text.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(spread(&[2.0, 1.0, 3.5], 1), "2.0 (1.0–3.5)");
    }

    #[test]
    fn a_floor_is_kept_up_to_its_bound_and_not_beyond() {
        for (floor, ratio, difference, kept) in [
            (Floor::Share(0.9), 0.9, 0.0, "yes"),
            (Floor::Share(0.9), 0.89, 0.0, "**no**"),
            (Floor::Times(1.2), 1.2, 0.0, "yes"),
            (Floor::Times(1.2), 1.21, 0.0, "**no**"),
            (Floor::More(50.0), 9.0, 50.0, "yes"),
            (Floor::More(50.0), 1.0, 51.0, "**no**"),
            (Floor::None, 9.0, 99.0, ""),
        ] {
            let judged = floor.judge("other", &[1.0], &[ratio], &[difference]);
            assert_eq!(judged.1, kept, "{} of {ratio}, {difference}", judged.0);
        }
        assert_eq!(
            Floor::AtMost(2.0).judge("", &[], &[], &[]).1,
            "",
            "nothing measured"
        );
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = "a\n<!-- run begins -->\nold\n<!-- run ends -->\nb\n";
        let new = replace_between(page, "run", "| new |\n").expect("marked");
        assert_eq!(
            new,
            "a\n<!-- run begins -->\n\n| new |\n\n<!-- run ends -->\nb\n"
        );
        assert!(replace_between("no marks", "run", "x").is_err());
    }
}
