//! What schemas take out of objects, fill into them and say of them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kinds::Kinds;
use crate::release::Release;

mod builtin;
mod custom;

/// Each cause as `field: reason`, in order.
fn lines(causes: Vec<Cause>) -> Vec<String> {
    let lines = causes.into_iter();
    let mut lines: Vec<_> = lines
        .map(|cause| {
            format!(
                "{}: {}",
                cause.field,
                cause.reason.trim_start_matches("FieldValue")
            )
        })
        .collect();
    lines.sort();
    lines
}
