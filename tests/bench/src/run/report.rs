//! From samples to the table.

use std::fmt::Write;

use anyhow::Context;

use super::{Machine, Sample, Size, peer::Peer};

/// What the gateway must not exceed.
enum Floor {
    None,
    /// The figure itself.
    AtMost(f64),
    /// The figure divided by haproxy's.
    Times(f64),
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

/// The Markdown table: median and spread of each figure, and the gateway beside haproxy round by round.
pub(super) fn table(machine: &Machine, samples: &[Sample], rounds: usize, size: &Size) -> String {
    let mut text = String::new();
    let done = samples
        .iter()
        .map(|sample| sample.round + 1)
        .max()
        .unwrap_or(0);
    let _ = writeln!(text, "{machine}.\n");
    let _ = writeln!(
        text,
        "{done} of {rounds} rounds; {} idle sessions ({} for `kubectl proxy`); {} sessions typing {} keys/s each for {} s; \
         8 sessions reading {} MiB each; {} connects. Median (lowest to highest round).\n",
        size.idle,
        size.idle_kubectl,
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
        let of = |peer: Peer| -> Vec<f64> {
            rounds_of(samples, row, peer)
                .into_iter()
                .map(|(_, value)| value)
                .collect()
        };
        if COLUMNS.iter().all(|peer| of(*peer).is_empty()) {
            continue;
        }
        let _ = write!(text, "| {} |", row.what);
        for peer in COLUMNS {
            let _ = write!(text, " {} |", spread(&of(peer), row.digits));
        }
        let haproxy = rounds_of(samples, row, Peer::Haproxy);
        let ratios: Vec<f64> = rounds_of(samples, row, Peer::Gateway)
            .into_iter()
            .filter_map(|(round, ours)| {
                Some(ours / haproxy.iter().find(|(other, _)| *other == round)?.1)
            })
            .collect();
        let (floor, kept) = match row.floor {
            Floor::None => (String::new(), None),
            Floor::AtMost(most) => (
                format!("≤ {most}"),
                median(&of(Peer::Gateway)).map(|ours| ours <= most),
            ),
            Floor::Times(most) => (
                format!("≤ {most:.1}× haproxy"),
                median(&ratios).map(|ratio| ratio <= most),
            ),
        };
        let kept = kept.map_or("", |kept| if kept { "yes" } else { "**no**" });
        let _ = writeln!(text, " {} | {floor} | {kept} |", spread(&ratios, 2));
    }
    text
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
