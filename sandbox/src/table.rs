//! `meta.k8s.io/v1` Tables: what `kubectl get` prints. Pure.

mod columns;
mod path;
mod pod;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) use columns::columns;
pub use path::{Malformed, Path};

use crate::kinds::{Column, Kind, Source};

/// How much of each object a row carries (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata, as `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// The Table of some objects. `metadata` is the list's (`resourceVersion`, `continue`).
#[must_use]
#[expect(
    clippy::needless_pass_by_value,
    reason = "it becomes part of the table"
)]
pub fn table(
    kind: &Kind,
    objects: &[Arc<Value>],
    metadata: Value,
    include: Include,
    now: Timestamp,
) -> Value {
    let own = kind.custom().then(|| columns::custom(&kind.columns));
    let columns = own.as_ref().unwrap_or(&kind.columns);
    let cells: Vec<Cell> = columns
        .iter()
        .map(|column| Cell::of(kind, column))
        .collect();
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = cells.iter().map(|cell| cell.value(object, now)).collect();
            match include {
                Include::None => json!({"cells": cells}),
                Include::Object => json!({"cells": cells, "object": **object}),
                Include::Metadata => json!({
                    "cells": cells,
                    "object": {
                        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                        "metadata": object["metadata"],
                    },
                }),
            }
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// How the cells of a column are made.
enum Cell<'a> {
    Code(fn(&Value, Timestamp) -> Value),
    /// With the type of the column, and what stands for a value that is not there.
    Path(Path, &'a str, Value),
    /// The column's path makes no sense.
    Nothing,
}

impl<'a> Cell<'a> {
    fn of(kind: &Kind, column: &'a Column) -> Self {
        let missing = match column.kind.as_str() {
            _ if kind.custom() => Value::Null,
            "integer" => 0.into(),
            _ => "".into(),
        };
        match &column.value {
            Source::Code(code) => Self::Code(*code),
            Source::Path(path) => path.parse().map_or(Self::Nothing, |path| {
                Self::Path(path, &column.kind, missing)
            }),
        }
    }

    fn value(&self, object: &Value, now: Timestamp) -> Value {
        match self {
            Self::Code(code) => code(object, now),
            Self::Path(path, kind, missing) => path
                .first(object)
                .and_then(|value| shown(value, kind, now))
                .unwrap_or_else(|| missing.clone()),
            Self::Nothing => Value::Null,
        }
    }
}

/// A value in a column of a type; `None` if it is of another.
fn shown(value: &Value, kind: &str, now: Timestamp) -> Option<Value> {
    match (kind, value) {
        (_, Value::Null) => None,
        ("string", Value::String(_))
        | ("boolean", Value::Bool(_))
        | ("number", Value::Number(_)) => Some(value.clone()),
        ("string", other) => Some(other.to_string().into()),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a fraction is cut off, as Kubernetes does"
        )]
        ("integer", Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|number| number as i64))
            .map(Value::from),
        ("date", Value::String(date)) => Some(match date.parse() {
            Ok(date) => duration(date, now).into(),
            Err(_) => "<invalid>".into(),
        }),
        _ => None,
    }
}

/// The time since a text that is a date; `<unknown>` if there is none.
fn age(date: &Value, now: Timestamp) -> String {
    date.as_str()
        .and_then(|date| date.parse().ok())
        .map_or_else(|| "<unknown>".to_owned(), |date| duration(date, now))
}

/// How long ago something was, in two or three digits of the unit that matters.
fn duration(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{part}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// Whether a condition is `True`.
fn condition(status: &Value, kind: &str) -> bool {
    list(&status["conditions"]).any(|it| it["type"] == kind && it["status"] == "True")
}

/// A text; empty if there is none.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list; none if there is none.
fn list(value: &Value) -> std::slice::Iter<'_, Value> {
    value
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
}

/// A text, or `<none>`.
fn or_none(value: &Value) -> String {
    match text(value) {
        "" => "<none>".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
