//! CustomResourceDefinitions: what their schema demands of objects, what it fills in, and what it takes out. Pure.

use serde_json::Value;

use crate::kinds::Kind;
use crate::release::Release;
use crate::status::Cause;

/// A CustomResourceDefinition's schema for one version, compiled.
#[derive(Debug)]
pub struct Structural {
    /// As it was declared (`openAPIV3Schema`).
    pub schema: Value,
}

impl Structural {
    /// # Errors
    /// What makes the schema not structural, or a rule that does not compile.
    pub fn compile(_schema: &Value, _release: Release) -> Result<Self, Vec<Cause>> {
        todo!("schema")
    }

    /// Takes out fields the schema does not name. Returns their paths, for `fieldValidation`.
    pub fn prune(&self, _object: &mut Value) -> Vec<String> {
        todo!("schema")
    }

    /// Fills in defaults.
    pub fn default(&self, _object: &mut Value) {
        todo!("schema")
    }

    /// What is wrong with an object, `before` being the one it replaces: schema first, then CEL rules.
    #[must_use]
    pub fn validate(&self, _object: &Value, _before: Option<&Value>) -> Vec<Cause> {
        todo!("schema")
    }
}

/// The kinds a CustomResourceDefinition defines, one for each served version.
///
/// # Errors
/// What is wrong with it.
pub fn kinds_of(_definition: &Value, _release: Release) -> Result<Vec<Kind>, Vec<Cause>> {
    todo!("schema")
}

/// Checks an object of a built-in kind by its Rust type and Kubernetes' own rules for names, labels, immutable fields and
/// so on, as far as this product can meet them; fills in its defaults.
///
/// # Errors
/// What is wrong with it.
pub fn check_builtin(
    _kind: &Kind,
    _object: &mut Value,
    _before: Option<&Value>,
) -> Result<(), Vec<Cause>> {
    todo!("schema")
}
