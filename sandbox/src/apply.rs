//! Server-side apply: who manages which fields. Pure.

mod fields;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::object::metadata_mut;
use crate::patch::merge::{How, merge};
use crate::schema::{Structural, lists};
use crate::status::Failure;
use fields::{Fields, Nodes, prune, readable};

/// Managers with operation `Update` of one object; the oldest beyond that are counted as one, as Kubernetes does.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// A write whose fields are accounted for.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or what the user agent says before its first slash.
    pub manager: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    /// Of the write.
    pub now: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Operation {
    Apply,
    Update,
}

/// One of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    manager: String,
    operation: Operation,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    subresource: String,
    api_version: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    fields_type: String,
    fields_v1: Fields,
}

impl Entry {
    fn new(kind: &Kind, writer: Writer<'_>, operation: Operation, fields_v1: Fields) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            operation,
            subresource: writer.subresource.to_owned(),
            api_version: kind.api_version(),
            // As Kubernetes writes times: whole seconds.
            time: writer.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            fields_type: "FieldsV1".to_owned(),
            fields_v1,
        }
    }

    /// Whether both count the same writer's fields.
    fn same(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// For a conflict.
    fn readable(&self) -> String {
        let using = match self.operation {
            Operation::Apply => String::new(),
            Operation::Update => format!(" using {}", self.api_version),
        };
        format!("{:?}{using}", self.manager)
    }
}

/// What the live object (`None`: there is none yet) becomes when `config` is applied to it: merged by the lists' keys,
/// fields dropped that the manager had applied before and nobody else manages, `metadata.managedFields` brought up to
/// date. A result that differs in nothing but times keeps the old times. A `resourceVersion` in `config` is in the result.
///
/// # Errors
/// 400 if `config` has `managedFields`, 500 (as Kubernetes) if its lists lack keys, 409 with one cause for each field
/// somebody else manages, unless `force`.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    kind: &Kind,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Failure> {
    let schema = &Structural::of(kind).schema;
    let config = applicable(config, kind, writer.subresource)?;
    if let Some(why) = lists::unmergeable(schema, &config) {
        return Err(Failure::new(
            500,
            "",
            format!("failed to create typed patch object: {why}"),
        ));
    }
    let owned = |nodes: &Nodes<'_>| nodes.owned(kind, writer.subresource);
    let before = live.map(|live| Nodes::of(live, schema)).unwrap_or_default();
    let mut entries = live.and_then(entries_of).unwrap_or_default();
    if live.is_some() && entries.is_empty() {
        // Nobody has accounted for it so far: what is there belongs to somebody else.
        let nobody = Writer {
            manager: "before-first-apply",
            subresource: "",
            ..writer
        };
        entries.push(Entry::new(kind, nobody, Operation::Update, owned(&before)));
    }
    let mut mine = Entry::new(
        kind,
        writer,
        Operation::Apply,
        owned(&Nodes::of(&config, schema)),
    );
    let (own, mut others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.same(&mine));

    let mut merged = merge(live.cloned(), &config, schema, How::Apply)?;
    let changed = Nodes::of(&merged, schema).changed_since(&before);
    let conflicts: Vec<(String, String)> = others
        .iter()
        .flat_map(|entry| {
            let fields = entry.fields_v1.0.intersection(&changed.0);
            fields.map(|path| (entry.readable(), readable(path)))
        })
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    for entry in &mut others {
        entry.fields_v1.0.retain(|path| !changed.0.contains(path));
    }
    if let Some(own) = own.first() {
        let mut keep = mine.fields_v1.clone();
        keep.0.extend(
            others
                .iter()
                .flat_map(|entry| entry.fields_v1.0.iter().cloned()),
        );
        prune(&mut merged, schema, &mut Vec::new(), &own.fields_v1, &keep);
    }
    let after = Nodes::of(&merged, schema);
    for entry in &mut others {
        entry
            .fields_v1
            .0
            .retain(|path| after.0.contains_key(path) || !before.0.contains_key(path));
    }
    let same = live.is_some_and(|live| without_accounts(live) == without_accounts(&merged));
    if let Some(own) = own.into_iter().next()
        && same
        && own.fields_v1 == mine.fields_v1
        && own.api_version == mine.api_version
    {
        mine.time = own.time;
    }
    others.push(mine);
    write(&mut merged, others);
    Ok(merged)
}

/// Brings `metadata.managedFields` of `object`, which replaces `live`, up to date after any other write: the fields that
/// changed belong to the writer (operation `Update`), those that went to nobody. The writer may set `managedFields`, and
/// drop all of them with `[{}]`.
pub fn record(live: Option<&Value>, object: &mut Value, kind: &Kind, writer: Writer<'_>) {
    let schema = &Structural::of(kind).schema;
    let reset = object["metadata"]["managedFields"] == json!([{}]);
    let mut entries = match writer.subresource {
        "" if reset => Vec::new(),
        "" => entries_of(object)
            .filter(|entries| !entries.is_empty())
            .or_else(|| entries_of(live?))
            .unwrap_or_default(),
        _ => live.and_then(entries_of).unwrap_or_default(),
    };
    let before = live.map(|live| Nodes::of(live, schema)).unwrap_or_default();
    let after = Nodes::of(object, schema);
    let mut changed = after.changed_since(&before);
    changed
        .0
        .retain(|path| fields::ownable(path, kind, writer.subresource));
    let mine = Entry::new(kind, writer, Operation::Update, changed);
    for entry in &mut entries {
        let same = entry.same(&mine);
        entry.fields_v1.0.retain(|path| {
            let removed = before.0.contains_key(path) && !after.0.contains_key(path);
            !removed && (same || !mine.fields_v1.0.contains(path))
        });
    }
    if !mine.fields_v1.0.is_empty() {
        match entries.iter_mut().find(|entry| entry.same(&mine)) {
            Some(entry) => {
                entry.fields_v1.0.extend(mine.fields_v1.0);
                entry.time = mine.time;
            }
            None => entries.push(mine),
        }
    }
    write(object, entries);
}

/// The part of an applied object that its endpoint takes.
fn applicable(config: &Value, kind: &Kind, subresource: &str) -> Result<Value, Failure> {
    let mut config = config.clone();
    let metadata = metadata_mut(&mut config);
    let accounts = metadata.remove("managedFields").unwrap_or_default();
    if !accounts.is_null() && accounts != json!([]) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    if subresource == "status" {
        metadata.retain(|name, _| {
            ["name", "namespace", "resourceVersion", "uid"].contains(&name.as_str())
        });
    }
    for (name, value) in config.as_object_mut().into_iter().flatten() {
        let whose = match name.as_str() {
            "apiVersion" | "kind" | "metadata" => continue,
            "status" if kind.status => "status",
            _ => "",
        };
        if (whose == "status") != (subresource == "status") {
            *value = Value::Null;
        }
    }
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    Ok(config)
}

/// `None` if one of them does not parse.
fn entries_of(object: &Value) -> Option<Vec<Entry>> {
    match &object["metadata"]["managedFields"] {
        Value::Null => Some(Vec::new()),
        list => Vec::deserialize(list).ok(),
    }
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields_v1.0.is_empty());
    entries.sort_by_key(|entry| (entry.operation, entry.time.clone(), entry.manager.clone()));
    let first = entries.partition_point(|entry| entry.operation == Operation::Apply);
    while entries.len() - first > MAX_UPDATERS {
        let oldest = entries.remove(first);
        let ancient = &mut entries[first];
        ancient.fields_v1.0.extend(oldest.fields_v1.0);
        ANCIENT.clone_into(&mut ancient.manager);
        ancient.subresource.clear();
    }
    let metadata = metadata_mut(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), json!(entries));
    }
}

fn without_accounts(object: &Value) -> Value {
    let mut object = object.clone();
    metadata_mut(&mut object).remove("managedFields");
    object
}

fn conflict(conflicts: &[(String, String)]) -> Failure {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(manager, path)| {
            let message = format!("conflict with {manager}");
            json!({"reason": "FieldManagerConflict", "message": message, "field": path})
        })
        .collect();
    let texts: Vec<String> = conflicts
        .iter()
        .map(|(manager, path)| format!("conflict with {manager}: {path}"))
        .collect();
    let (count, texts) = (texts.len(), texts.join(", "));
    let plural = if count == 1 { "" } else { "s" };
    let text = format!("Apply failed with {count} conflict{plural}: {texts}");
    let mut failure = Failure::new(409, "Conflict", text);
    failure.details = json!({"causes": causes});
    failure
}

#[cfg(test)]
mod tests;
