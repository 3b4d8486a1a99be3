//! `meta.k8s.io/v1` Tables: what `kubectl get` prints. Pure.

mod cell;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{kinds::Column, kinds::Kind, object::partial};
use cell::Cell;

/// The Table of some objects. `metadata` is the list's (`resourceVersion`, `continue`); `include` says how much of each
/// object a row carries: `Object`, `None`, or else its metadata.
pub(crate) fn table(
    kind: &Kind,
    objects: &[Arc<Value>],
    metadata: &Value,
    include: &str,
    now: Timestamp,
) -> Value {
    let columns = columns(&kind.columns);
    let cells: Vec<Cell> = columns.iter().map(Cell::of).collect();
    let row = |object: &Arc<Value>| {
        let cells: Vec<Value> = cells.iter().map(|cell| cell.value(object, now)).collect();
        match include {
            "None" => json!({"cells": cells}),
            "Object" => json!({"cells": cells, "object": **object}),
            _ => json!({"cells": cells, "object": partial(object)}),
        }
    };
    let definition = |column: &Column| {
        let kind = Some(&*column.kind).filter(|kind| !kind.is_empty());
        json!({
            "name": column.name, "type": kind.unwrap_or("string"), "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.iter().map(definition).collect::<Vec<_>>(),
        "rows": objects.iter().map(row).collect::<Vec<_>>(),
    })
}

/// The columns a kind declares, and those every kind has.
fn columns(declared: &[Column]) -> Vec<Column> {
    let column = |name: &str, kind: &str, format: &str, value: &str| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: format.to_owned(),
        value: value.to_owned(),
        ..Column::default()
    };
    let mut columns = declared.to_vec();
    if columns.is_empty() {
        columns.push(column("Age", "date", "", ".metadata.creationTimestamp"));
    }
    if !columns.iter().any(|column| column.format == "name") {
        columns.insert(0, column("Name", "string", "name", ".metadata.name"));
    }
    columns
}
