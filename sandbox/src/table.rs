//! `meta.k8s.io/v1` Tables: what `kubectl get` prints. Pure.

mod cell;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::cell::Cell;
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
    let columns = columns(&kind.columns);
    let cells: Vec<Cell> = columns.iter().map(Cell::of).collect();
    let rows = objects.iter().map(|object| {
        let cells: Vec<Value> = cells.iter().map(|cell| cell.value(object, now)).collect();
        let mut row = json!({"cells": cells});
        match include {
            Include::None => {}
            Include::Object => row["object"] = (**object).clone(),
            Include::Metadata => {
                row["object"] = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": object["metadata"],
                });
            }
        }
        row
    });
    let rows: Vec<Value> = rows.collect();
    let definitions = columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    });
    let definitions: Vec<Value> = definitions.collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// The columns a kind declares, and those every kind has.
fn columns(declared: &[Column]) -> Vec<Column> {
    let column = |name: &str, kind: &str, path: &str| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        value: Source::Path(path.to_owned()),
        ..Column::default()
    };
    let mut columns = declared.to_vec();
    if columns.is_empty() {
        columns.push(column("Age", "date", ".metadata.creationTimestamp"));
    }
    if !columns.iter().any(|column| column.format == "name") {
        let name = Column {
            format: "name".to_owned(),
            description: "Unique among the objects of its kind and namespace".to_owned(),
            ..column("Name", "string", ".metadata.name")
        };
        columns.insert(0, name);
    }
    columns
}
