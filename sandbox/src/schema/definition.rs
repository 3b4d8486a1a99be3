//! CustomResourceDefinitions: whether one is in order, and the kinds it defines.

use serde_json::{Value, json};

use super::names::{LABEL_1035, label_1035};
use super::{Structural, invalid, required, unsupported};
use crate::kinds::{Column, Kind, Schema, Source};
use crate::object;
use crate::release::Release;
use crate::status::{Cause, qualified};

/// The kinds a CustomResourceDefinition defines, one for each served version.
///
/// # Errors
/// What is wrong with it.
pub fn kinds_of(definition: &Value, release: Release) -> Result<Vec<Kind>, Vec<Cause>> {
    let spec = &definition["spec"];
    let mut causes = Vec::new();
    check_names(definition, &mut causes);
    let none = Vec::new();
    let versions = spec["versions"].as_array().unwrap_or(&none);
    if versions.is_empty() {
        causes.push(required("spec.versions", "must have at least one version"));
    }
    let storing = versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count();
    if !versions.is_empty() && storing != 1 {
        causes.push(invalid(
            "spec.versions",
            &spec["versions"],
            "must have exactly one version marked as storage version",
        ));
    }
    let mut kinds = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        let name = version["name"].as_str().unwrap_or_default();
        if label_1035(name).is_some() {
            causes.push(invalid(format!("{at}.name"), &json!(name), LABEL_1035));
        }
        if versions[..index].iter().any(|other| other["name"] == name) {
            causes.push(invalid(
                "spec.versions",
                &spec["versions"],
                "must contain unique version names",
            ));
        }
        let columns = columns(&version["additionalPrinterColumns"], &at, &mut causes);
        let Some(schema) = version["schema"].get("openAPIV3Schema") else {
            causes.push(required(
                format!("{at}.schema.openAPIV3Schema"),
                "schemas are required",
            ));
            continue;
        };
        match Structural::compile(schema, release) {
            Ok(structural) if version["served"] == true => {
                kinds.push(kind(spec, version, columns, structural));
            }
            Ok(_) => {}
            Err(wrong) => {
                // Kubernetes keeps the schema of an only version elsewhere.
                let at = match versions.len() {
                    1 => "spec.validation.openAPIV3Schema".to_owned(),
                    _ => format!("{at}.schema.openAPIV3Schema"),
                };
                causes.extend(wrong.into_iter().map(|cause| Cause {
                    field: format!("{at}{}", cause.field),
                    ..cause
                }));
            }
        }
    }
    if causes.is_empty() {
        Ok(kinds)
    } else {
        Err(causes)
    }
}

fn check_names(definition: &Value, causes: &mut Vec<Cause>) {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&names["plural"]));
    let name = object::name(definition);
    if name != qualified(&group, &plural) {
        causes.push(invalid(
            "metadata.name",
            &json!(name),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if group.is_empty() {
        causes.push(required("spec.group", ""));
    } else if !group.contains('.') {
        causes.push(invalid(
            "spec.group",
            &json!(group),
            "should be a domain with at least one dot",
        ));
    }
    match spec["scope"].as_str() {
        None | Some("") => causes.push(required("spec.scope", "")),
        Some("Cluster" | "Namespaced") => {}
        Some(_) => causes.push(unsupported(
            "spec.scope",
            &spec["scope"],
            ["Cluster", "Namespaced"].into_iter(),
        )),
    }
    for (field, needed) in [
        ("plural", true),
        ("kind", true),
        ("singular", false),
        ("listKind", false),
    ] {
        let at = format!("spec.names.{field}");
        let value = text(&names[field]);
        if value.is_empty() {
            if needed {
                causes.push(required(at, ""));
            }
        } else if field.ends_with("ind") && label_1035(&value.to_ascii_lowercase()).is_some() {
            let why = format!("may have mixed case, but should otherwise match: {LABEL_1035}");
            causes.push(invalid(at, &names[field], &why));
        } else if !field.ends_with("ind") && label_1035(&value).is_some() {
            causes.push(invalid(at, &names[field], LABEL_1035));
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, item) in names[field].as_array().into_iter().flatten().enumerate() {
            if label_1035(item.as_str().unwrap_or_default()).is_some() {
                causes.push(invalid(
                    format!("spec.names.{field}[{index}]"),
                    item,
                    LABEL_1035,
                ));
            }
        }
    }
}

fn columns(declared: &Value, at: &str, causes: &mut Vec<Cause>) -> Vec<Column> {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    let mut columns = Vec::new();
    for (index, column) in declared.as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}.additionalPrinterColumns[{index}]");
        let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
        for field in ["name", "type", "jsonPath"] {
            if text(field).is_empty() {
                causes.push(required(format!("{at}.{field}"), ""));
            }
        }
        let kind = text("type");
        if !kind.is_empty() && !TYPES.contains(&kind.as_str()) {
            let why = format!("must be one of {}", TYPES.join(","));
            causes.push(invalid(format!("{at}.type"), &column["type"], &why));
        }
        let path = text("jsonPath");
        if !path.is_empty() && !path.starts_with('.') {
            let why = "must be a simple json path starting with .";
            causes.push(invalid(format!("{at}.jsonPath"), &column["jsonPath"], why));
        }
        columns.push(Column {
            name: text("name"),
            kind,
            format: text("format"),
            priority: column["priority"]
                .as_i64()
                .and_then(|priority| priority.try_into().ok())
                .unwrap_or(0),
            description: text("description"),
            value: Source::Path(path),
        });
    }
    columns
}

fn kind(spec: &Value, version: &Value, columns: Vec<Column>, structural: Structural) -> Kind {
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let or = |field: &str, other: String| match text(&names[field]) {
        empty if empty.is_empty() => other,
        given => given,
    };
    let list = |field: &str| {
        let items = names[field].as_array().into_iter().flatten();
        items.map(&text).collect::<Vec<_>>()
    };
    let kind = text(&names["kind"]);
    Kind {
        group: text(&spec["group"]),
        version: text(&version["name"]),
        plural: text(&names["plural"]),
        singular: or("singular", kind.to_lowercase()),
        list_kind: or("listKind", format!("{kind}List")),
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: spec["scope"] == "Namespaced",
        status: version["subresources"].get("status").is_some(),
        generation: true,
        subresources: Vec::new(),
        virtual_only: false,
        columns,
        schema: Schema::Custom(Box::new(structural)),
        kind,
    }
}
