//! `meta.k8s.io/v1` Tables: what `kubectl get` prints. Pure.

mod cell;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{kinds::Column, kinds::Kind, object::partial};
use cell::Cell;

/// The Table of some objects. `metadata` is the list's (`resourceVersion`, `continue`); `include` says how much of each
/// object a row carries: `Object`, or else its metadata.
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
    let of_all = |value| Column::deserialize(value).expect("it is a column");
    let mut columns = declared.to_vec();
    if columns.is_empty() {
        let age = json!({"name": "Age", "type": "date", "value": ".metadata.creationTimestamp"});
        columns.push(of_all(age));
    }
    if !columns.iter().any(|column| column.format == "name") {
        let name = json!({"name": "Name", "format": "name", "value": ".metadata.name"});
        columns.insert(0, of_all(name));
    }
    columns
}
