//! Server-side apply: who manages which fields. Pure.

mod fields;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::object::metadata_mut;
use crate::patch::merge::{How, merge};
use crate::schema::Structural;
use crate::status::Failure;
use fields::{Nodes, Path, Paths, changed, nodes, ownable, prune, readable};

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
    manager: String,
    operation: Operation,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    subresource: String,
    api_version: String,
    time: String,
    fields_type: String,
    #[serde(with = "fields")]
    fields_v1: Paths,
}

impl Entry {
    fn new(kind: &Kind, writer: Writer<'_>, operation: Operation, fields_v1: Paths) -> Self {
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
}

/// What the live object (`None`: there is none yet) becomes when `config` is applied to it: merged by the lists' keys,
/// fields dropped that the manager had applied before and nobody else manages, `metadata.managedFields` brought up to
/// date. A result that differs in nothing but times keeps the old times. A `resourceVersion` in `config` is in the result.
///
/// # Errors
/// 409 with one cause for each field somebody else manages, unless `force`.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    kind: &Kind,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Failure> {
    let schema = &Structural::of(kind).schema;
    let may_own = |path: &Path| ownable(path, kind, writer.subresource);
    let before = live.map(|live| nodes(live, schema)).unwrap_or_default();
    let applied = nodes(config, schema).into_iter();
    let applied = applied.filter(|(path, (_, owned))| *owned && may_own(path));
    let applied = applied.map(|(path, _)| path).collect();
    let mut mine = Entry::new(kind, writer, Operation::Apply, applied);
    let entries = live.map(entries_of).unwrap_or_default().into_iter();
    let (own, mut others): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.same(&mine));

    let mut merged = merge(live.cloned(), config, schema, How::Apply);
    let mut taken = changed(&before, &nodes(&merged, schema));
    taken.retain(may_own);
    if let Some(failure) = conflict(&others, &taken).filter(|_| !force) {
        return Err(failure);
    }
    for entry in &mut others {
        entry.fields_v1.retain(|path| !taken.contains(path));
    }
    if let Some(own) = own.first() {
        let theirs = others.iter().flat_map(|entry| &entry.fields_v1);
        let keep = theirs.chain(&mine.fields_v1).cloned().collect();
        prune(&mut merged, schema, &mut Path::new(), &own.fields_v1, &keep);
    }
    let after = nodes(&merged, schema);
    forget_removed(&mut others, &before, &after);
    if let [own] = own.as_slice()
        && own.fields_v1 == mine.fields_v1
        && !changed(&before, &after).iter().any(may_own)
        && before.keys().all(|path| after.contains_key(path))
    {
        mine.time.clone_from(&own.time);
    }
    others.push(mine);
    write(&mut merged, others);
    Ok(merged)
}

/// Brings `metadata.managedFields` of `object`, which replaces `live`, up to date after any other write: the fields that
/// changed belong to the writer (operation `Update`), those that went to nobody. The writer may set `managedFields`.
pub fn record(live: Option<&Value>, object: &mut Value, kind: &Kind, writer: Writer<'_>) {
    let schema = &Structural::of(kind).schema;
    let mut entries = entries_of(object);
    if entries.is_empty() || !writer.subresource.is_empty() {
        entries = live.map(entries_of).unwrap_or_default();
    }
    let before = live.map(|live| nodes(live, schema)).unwrap_or_default();
    let after = nodes(object, schema);
    let mut taken = changed(&before, &after);
    taken.retain(|path| ownable(path, kind, writer.subresource));
    forget_removed(&mut entries, &before, &after);
    let mine = Entry::new(kind, writer, Operation::Update, taken);
    for entry in entries.iter_mut().filter(|entry| !entry.same(&mine)) {
        entry
            .fields_v1
            .retain(|path| !mine.fields_v1.contains(path));
    }
    match entries.iter_mut().find(|entry| entry.same(&mine)) {
        _ if mine.fields_v1.is_empty() => {}
        Some(entry) => {
            entry.fields_v1.extend(mine.fields_v1);
            entry.time = mine.time;
        }
        None => entries.push(mine),
    }
    write(object, entries);
}

/// None of them if one does not parse.
fn entries_of(object: &Value) -> Vec<Entry> {
    Vec::deserialize(&object["metadata"]["managedFields"]).unwrap_or_default()
}

fn forget_removed(entries: &mut [Entry], before: &Nodes<'_>, after: &Nodes<'_>) {
    let removed = |path: &Path| before.contains_key(path) && !after.contains_key(path);
    for entry in entries {
        entry.fields_v1.retain(|path| !removed(path));
    }
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields_v1.is_empty());
    entries.sort_by_key(|entry| (entry.operation, entry.time.clone(), entry.manager.clone()));
    let first = entries.partition_point(|entry| entry.operation == Operation::Apply);
    while entries.len() - first > MAX_UPDATERS {
        let oldest = entries.remove(first);
        entries[first].fields_v1.extend(oldest.fields_v1);
        ANCIENT.clone_into(&mut entries[first].manager);
    }
    let metadata = metadata_mut(object);
    metadata.remove("managedFields");
    if !entries.is_empty() {
        metadata.insert("managedFields".to_owned(), json!(entries));
    }
}

/// That fields of entries are taken, with one cause for each.
fn conflict(entries: &[Entry], taken: &Paths) -> Option<Failure> {
    let mut texts = Vec::new();
    let mut causes = Vec::new();
    for entry in entries {
        let using = match entry.operation {
            Operation::Apply => String::new(),
            Operation::Update => format!(" using {}", entry.api_version),
        };
        let message = format!("conflict with {:?}{using}", entry.manager);
        for path in entry.fields_v1.intersection(taken) {
            let field = readable(path);
            texts.push(format!("{message}: {field}"));
            causes.push(
                json!({"reason": "FieldManagerConflict", "message": message, "field": field}),
            );
        }
    }
    let conflicts = if texts.len() == 1 {
        "conflict"
    } else {
        "conflicts"
    };
    let (count, texts) = (texts.len(), texts.join(", "));
    let why = format!("Apply failed with {count} {conflicts}: {texts}");
    let mut failure = Failure::new(409, why);
    failure.details = json!({"causes": causes});
    (count > 0).then_some(failure)
}

#[cfg(test)]
mod tests;
