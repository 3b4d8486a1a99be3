//! CustomResourceDefinitions: the kinds one defines.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;

use super::values::cause;
use super::{Structural, builtin};
use crate::{kinds::Kind, release::Release, status::Cause};

/// The kinds a CustomResourceDefinition defines, one for each served version. Releases before 1.30 know no CEL rules.
///
/// # Errors
/// Patterns and rules that do not compile; the rest is checked as any built-in object is.
pub(crate) fn kinds_of(definition: &Value, release: Release) -> Result<Vec<Kind>, Vec<Cause>> {
    let mut kinds = Vec::new();
    let mut causes = Vec::new();
    let versions = definition["spec"]["versions"].as_array();
    for (index, version) in versions.into_iter().flatten().enumerate() {
        let at = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let schema = builtin::with_metadata(&version["schema"]["openAPIV3Schema"]);
        match Structural::compile(schema, release >= Release::V1_30) {
            Ok(schema) if version["served"] == true => {
                kinds.push(kind(&definition["spec"], version, schema));
            }
            Ok(_) => {}
            Err(wrong) => {
                causes.extend(wrong.iter().map(|why| cause("FieldValueInvalid", &at, why)));
            }
        }
    }
    causes.is_empty().then_some(kinds).ok_or(causes)
}

fn kind(spec: &Value, version: &Value, schema: Structural) -> Kind {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Kind {
        group: text(&spec["group"]),
        version: text(&version["name"]),
        namespaced: spec["scope"] == "Namespaced",
        status: version["subresources"].get("status").is_some(),
        generation: true,
        columns: Vec::deserialize(&version["additionalPrinterColumns"]).unwrap_or_default(),
        structural: Some(Arc::new(schema)),
        // Those left out were filled in when it was stored.
        ..Kind::deserialize(&spec["names"]).unwrap_or_default()
    }
}
