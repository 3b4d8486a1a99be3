//! What is in a column: where it is in the object, and how it is shown.

use jiff::Timestamp;
use jsonpath_rust::{parser::model::JpQuery, parser::parse_json_path, query::js_path_process};
use serde_json::Value;

use crate::{kinds::Column, object::deleting};

/// How the cells of a column are made: parts of a text.
pub(super) struct Cell(Vec<Part>);

#[derive(Default)]
struct Part {
    /// The first that leads somewhere counts. A path that makes no sense leads nowhere.
    paths: Vec<JpQuery>,
    /// `age`, `count`, `sum`, `podStatus` (the first value, unless the object is being deleted); empty for the values as
    /// they are.
    form: String,
    /// What stands for nothing.
    missing: Value,
}

impl Cell {
    pub(super) fn of(column: &Column) -> Self {
        let form = if column.kind == "date" { " | age" } else { "" };
        let parts = format!("{}{form}", column.value);
        Self(parts.split(" / ").map(Part::parse).collect())
    }

    pub(super) fn value(&self, object: &Value, now: Timestamp) -> Value {
        match self.0.as_slice() {
            [part] => part.value(object, now),
            parts => {
                let texts = parts.iter().map(|part| text(&part.value(object, now)));
                texts.collect::<Vec<_>>().join("/").into()
            }
        }
    }
}

impl Part {
    fn parse(text: &str) -> Self {
        let mut part = Self::default();
        for token in text.split(" | ") {
            if token.starts_with(['.', '[']) {
                part.paths.extend(parse_json_path(&format!("${token}")));
            } else if ["age", "count", "sum", "podStatus"].contains(&token) {
                token.clone_into(&mut part.form);
            } else {
                part.missing = serde_json::from_str(token).unwrap_or_else(|_| token.into());
            }
        }
        part
    }

    fn value(&self, object: &Value, now: Timestamp) -> Value {
        let mut paths = self.paths.iter().map(|path| find(path, object));
        if self.form == "count" {
            return paths.map(|found| found.len()).sum::<usize>().into();
        }
        let found = paths.find(|found| !found.is_empty()).unwrap_or_default();
        let numbers = found.iter().filter_map(|one| one.as_i64());
        match (self.form.as_str(), found.as_slice()) {
            ("podStatus", _) if deleting(object) => "Terminating".into(),
            (_, []) => self.missing.clone(),
            ("podStatus", [first, ..]) => text(first).into(),
            ("age", [date, ..]) => age(&text(date), now).into(),
            ("sum", _) => numbers.sum::<i64>().into(),
            (_, [one]) if one.is_number() || one.is_boolean() => (*one).clone(),
            (_, all) => {
                let texts: Vec<String> = all.iter().map(|one| text(one)).collect();
                texts.join(",").into()
            }
        }
    }
}

/// What is at a path, but for nothing at all.
fn find<'a>(path: &JpQuery, object: &'a Value) -> Vec<&'a Value> {
    let found = js_path_process(path, object).unwrap_or_default();
    let found = found.into_iter().map(|found| found.val);
    found.filter(|value| !value.is_null()).collect()
}

fn text(value: &Value) -> String {
    let text = value.as_str().map(str::to_owned);
    text.unwrap_or_else(|| value.to_string())
}

/// How long ago a date was, in the unit that matters.
fn age(date: &str, now: Timestamp) -> String {
    let Ok(then) = date.parse::<Timestamp>() else {
        return "<invalid>".to_owned();
    };
    match now.duration_since(then).as_secs().max(0) {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ 120..10_800 => format!("{}m", seconds / 60),
        seconds @ 10_800..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
