//! Whether the fields a CEL rule names are in the schema it stands in.

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{EntryExpr, Expr};
use serde_json::Value;

/// A field of `self` or `oldSelf` that the schema has not. Only what follows from either by names alone is looked at.
pub(super) fn undefined(rule: &IdedExpr, schema: &Value, root: bool) -> Option<String> {
    Search { schema, root }.within(rule).err()
}

#[derive(Clone, Copy)]
struct Search<'a> {
    schema: &'a Value,
    /// Whether it is the schema of the whole object.
    root: bool,
}

impl<'a> Search<'a> {
    /// The schema of an expression's value, if known. Fails with the field that is not there.
    fn within(self, expression: &IdedExpr) -> Result<Option<&'a Value>, String> {
        let all = |inner: &[&IdedExpr]| inner.iter().try_for_each(|one| self.within(one).map(drop));
        match &expression.expr {
            Expr::Ident(name) if name == "self" || name == "oldSelf" => {
                return Ok(Some(self.schema));
            }
            Expr::Select(select) => {
                return match self.within(&select.operand)? {
                    Some(schema) => self.field(schema, &select.field),
                    None => Ok(None),
                };
            }
            Expr::Call(call) => {
                all(&call
                    .args
                    .iter()
                    .chain(call.target.as_deref())
                    .collect::<Vec<_>>())?;
            }
            Expr::List(list) => all(&list.elements.iter().collect::<Vec<_>>())?,
            Expr::Comprehension(inner) => all(&[
                &inner.iter_range,
                &inner.accu_init,
                &inner.loop_cond,
                &inner.loop_step,
                &inner.result,
            ])?,
            Expr::Map(map) => {
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::StructField(field) => all(&[&field.value])?,
                        EntryExpr::MapEntry(entry) => all(&[&entry.key, &entry.value])?,
                    }
                }
            }
            Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
        }
        Ok(None)
    }

    fn field(self, schema: &'a Value, name: &str) -> Result<Option<&'a Value>, String> {
        let whole = (self.root && std::ptr::eq(schema, self.schema))
            || schema["x-kubernetes-embedded-resource"] == true;
        if let Some(known) = schema["properties"].get(name) {
            // What is there of metadata is not what the schema says of it.
            return Ok(Some(known).filter(|_| !(whole && name == "metadata")));
        }
        if let Some(values) = schema.get("additionalProperties") {
            return Ok(Some(values));
        }
        let anything = schema["x-kubernetes-preserve-unknown-fields"] == true
            || schema["x-kubernetes-int-or-string"] == true
            // Names that are no identifiers are written with escapes.
            || name.contains("__")
            || (whole && ["apiVersion", "kind", "metadata"].contains(&name));
        if anything {
            Ok(None)
        } else {
            Err(name.to_owned())
        }
    }
}
