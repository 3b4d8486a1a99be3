//! `crds/yaml` is what `crdgen` prints.

use std::path::Path;

#[test]
fn the_committed_definitions_are_what_the_types_say() {
    for (file, definition) in drawbridge_crds::definitions() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("yaml")
            .join(file);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let generated = drawbridge_crds::to_yaml(&definition).expect("definitions are YAML");
        let line = committed
            .lines()
            .zip(generated.lines())
            .position(|(a, b)| a != b);
        assert!(
            committed == generated,
            "crds/yaml/{file} is not what the types say (first difference at line {:?});\n\
             run: cargo run -p drawbridge-crds --features crdgen --bin crdgen > crds/yaml/{file}",
            line.map(|n| n + 1),
        );
    }
}
