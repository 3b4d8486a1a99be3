//! `audit/schema` is what `schemagen` prints.

use std::path::Path;

#[test]
fn the_committed_schema_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/event.v1.schema.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let generated = drawbridge_audit::event::schema();
    let line = committed
        .lines()
        .zip(generated.lines())
        .position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "audit/schema/event.v1.schema.json is not what the types say (first difference at line {:?}); run: just generate",
        line.map(|n| n + 1),
    );
}
