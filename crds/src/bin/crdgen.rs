//! Prints every CustomResourceDefinition; `crds/yaml` is this program's output.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    for (n, (_, definition)) in drawbridge_crds::definitions().iter().enumerate() {
        if n > 0 {
            println!("---");
        }
        print!("{}", drawbridge_crds::to_yaml(definition)?);
    }
    Ok(())
}
