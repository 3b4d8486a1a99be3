//! What is in a column: where it is in the object, and how it is shown.

use jiff::Timestamp;
use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::Value;

use crate::kinds::{Column, Source};
use crate::object::deleting;

/// How the cells of a column are made: parts of a text.
pub(super) struct Cell(Vec<Part>);

struct Part {
    /// The first that leads somewhere counts.
    paths: Vec<JpQuery>,
    /// `age`, `count`, `labels`, `sum`, `podStatus`, or the type of a definition's column; empty for a text.
    form: String,
    /// What stands for nothing.
    missing: Value,
}

impl Cell {
    pub(super) fn of(column: &Column) -> Self {
        match &column.value {
            Source::Path(path) => Self(vec![Part {
                paths: parse_json_path(&rfc(path)).into_iter().collect(),
                form: column.kind.clone(),
                missing: Value::Null,
            }]),
            Source::Parts(parts) => Self(parts.split(" / ").map(Part::parse).collect()),
        }
    }

    pub(super) fn value(&self, object: &Value, now: Timestamp) -> Value {
        let mut values: Vec<Value> = (self.0.iter())
            .map(|part| part.value(object, now))
            .collect();
        match values.len() {
            1 => values.remove(0),
            _ => values.iter().map(text).collect::<Vec<_>>().join("/").into(),
        }
    }
}

impl Part {
    fn parse(part: &str) -> Self {
        let (mut paths, mut form, mut missing) = (Vec::new(), String::new(), "".into());
        for token in part.split(" | ") {
            match token {
                "age" | "count" | "labels" | "sum" | "podStatus" => token.clone_into(&mut form),
                _ if token.starts_with(['.', '$']) => {
                    paths.extend(parse_json_path(&format!(
                        "${}",
                        token.trim_start_matches('$')
                    )));
                }
                _ => missing = serde_json::from_str(token).unwrap_or_else(|_| token.into()),
            }
        }
        Self {
            paths,
            form,
            missing,
        }
    }

    fn value(&self, object: &Value, now: Timestamp) -> Value {
        let mut found = self.paths.iter().map(|path| find(path, object));
        let found = found.find(|found| !found.is_empty()).unwrap_or_default();
        match (self.form.as_str(), found.as_slice()) {
            ("podStatus", _) => pod_status(object).into(),
            ("count", _) => (self.paths.iter())
                .flat_map(|path| find(path, object))
                .count()
                .into(),
            ("sum", all) => (all.iter().filter_map(|one| one.as_i64()))
                .sum::<i64>()
                .into(),
            (_, []) => self.missing.clone(),
            ("age", [date, ..]) => age(&text(date), now).into(),
            ("labels", [labels, ..]) => {
                let labels = labels.as_object().into_iter().flatten();
                let labels = labels.map(|(label, value)| format!("{label}={}", text(value)));
                labels.collect::<Vec<_>>().join(",").into()
            }
            ("", [one]) => (*one).clone(),
            ("", all) => {
                let texts: Vec<String> = all.iter().map(|value| text(value)).collect();
                texts.join(",").into()
            }
            (kind, [value, ..]) => typed(value, kind, now),
        }
    }
}

/// What is at a path, but for nothing at all.
fn find<'a>(path: &JpQuery, object: &'a Value) -> Vec<&'a Value> {
    let found = js_path_process(path, object).unwrap_or_default();
    let found = found.into_iter().map(|found| found.val);
    found.filter(|value| !value.is_null()).collect()
}

/// A path of Kubernetes as RFC 9535 has it: `.a\.b-c[0]` is `$['a.b-c'][0]`.
fn rfc(path: &str) -> String {
    let (mut out, mut name, mut depth) = ("$".to_owned(), String::new(), 0_usize);
    let mut characters = path.chars();
    loop {
        let next = characters.next();
        if matches!(next, None | Some('.' | '[')) && depth == 0 && !name.is_empty() {
            let quoted = format!("['{}']", name.replace('\'', "\\'"));
            out.push_str(if name == "*" { "[*]" } else { &quoted });
            name.clear();
        }
        match next {
            None => return out,
            Some('.') if depth == 0 => {}
            Some('\\') if depth == 0 => name.extend(characters.next()),
            Some(other) => {
                depth += usize::from(other == '[');
                if depth == 0 { &mut name } else { &mut out }.push(other);
                depth -= usize::from(other == ']' && depth > 0);
            }
        }
    }
}

/// A value in a column of a type; `Null` if it is of another.
fn typed(value: &Value, kind: &str, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", other) => text(other).into(),
        ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => value.clone(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a fraction is cut off, as Kubernetes does"
        )]
        ("integer", Value::Number(number)) => number.as_f64().map(|number| number as i64).into(),
        ("date", Value::String(date)) => age(date, now).into(),
        _ => Value::Null,
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// How long ago a date was, in two or three digits of the unit that matters.
fn age(date: &str, now: Timestamp) -> String {
    let Ok(then) = date.parse::<Timestamp>() else {
        return "<invalid>".to_owned();
    };
    let seconds = now.duration_since(then).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{part}"),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

/// What a pod is at, in a word: the first of its containers that is not well, or its phase.
fn pod_status(pod: &Value) -> String {
    let status = &pod["status"];
    let ended = matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
    if deleting(pod) && !ended {
        return "Terminating".to_owned();
    }
    let containers = |field: &str| status[field].as_array().into_iter().flatten();
    let unwell = |container: &Value| {
        let (waiting, over) = (
            &container["state"]["waiting"],
            &container["state"]["terminated"],
        );
        let reason = waiting["reason"].as_str().or(over["reason"].as_str());
        let reason = reason.map(str::to_owned);
        reason.or_else(|| {
            over.is_object()
                .then(|| format!("ExitCode:{}", over["exitCode"]))
        })
    };
    for (at, init) in containers("initContainerStatuses").enumerate() {
        if init["state"]["terminated"]["exitCode"] != 0 && init["started"] != true {
            let why = unwell(init).filter(|why| why != "PodInitializing");
            let all = pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
            return format!("Init:{}", why.unwrap_or_else(|| format!("{at}/{all}")));
        }
    }
    let why = containers("containerStatuses").find_map(unwell);
    let running = containers("containerStatuses").any(|one| one["ready"] == true);
    match why {
        Some(why) if why == "Completed" && running => "NotReady".to_owned(),
        Some(why) => why,
        None => text(status.get("reason").unwrap_or(&status["phase"])),
    }
}
