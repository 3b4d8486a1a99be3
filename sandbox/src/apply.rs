//! Server-side apply: who manages which fields. Pure.

mod fields;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    object::metadata_mut, patch::merge::merge, rest::Call, schema::Structural, status::Failure,
};
use fields::{Nodes, Path, Paths, changed, has, nodes, ownable, readable, retain};

const APPLY: &str = "Apply";

/// One of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    manager: String,
    /// `Apply` or `Update`
    operation: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    subresource: String,
    api_version: String,
    time: String,
    fields_type: String,
    #[serde(with = "fields")]
    fields_v1: Paths,
}

impl Entry {
    fn new(call: &Call, now: Timestamp, operation: &str, fields_v1: Paths) -> Self {
        Self {
            manager: call.query.get("fieldManager").to_owned(),
            operation: operation.to_owned(),
            subresource: call.subresource.clone(),
            api_version: call.kind.api_version(),
            time: format!("{now:.0}"),
            fields_type: "FieldsV1".to_owned(),
            fields_v1,
        }
    }

    /// Whose fields it counts.
    fn of(&self) -> [&str; 3] {
        [&self.manager, &self.operation, &self.subresource]
    }
}

/// What the live object (`None`: there is none yet) becomes when a call applies `config` to it: merged by the lists' keys,
/// fields dropped that the manager had applied before and nobody else manages, `metadata.managedFields` brought up to
/// date. A result that differs in nothing but times keeps the old times. A `resourceVersion` in `config` is in the result.
///
/// # Errors
/// 409 with one cause for each field somebody else manages, unless it is forced.
pub(crate) fn apply(
    live: Option<&Value>,
    config: &Value,
    call: &Call,
    now: Timestamp,
) -> Result<Value, Failure> {
    let schema = &Structural::of(&call.kind).schema;
    let live = live.unwrap_or(&Value::Null);
    let may_own = |path: &Path| ownable(path, call);
    let mut applied = nodes(config, schema);
    applied.retain(|path, (_, owned)| *owned && may_own(path));
    let mut mine = Entry::new(call, now, APPLY, applied.into_keys().collect());
    let entries = entries_of(live).into_iter();
    let (own, mut others): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.of() == mine.of());

    let mut merged = merge(live, config, schema, false);
    let mut taken = changed(&nodes(live, schema), &nodes(&merged, schema));
    taken.retain(may_own);
    if !call.query.flag("force") {
        refuse(&others, &taken)?;
    }
    let own = own.first();
    if let Some(Entry { fields_v1: old, .. }) = own {
        let theirs = others.iter().flat_map(|entry| &entry.fields_v1);
        let keep = theirs.chain(&mine.fields_v1).cloned().collect();
        let mut stays = |path: &Path, _: &Value, _: Option<usize>, _: bool| {
            // What tells a list's items apart stays in them.
            let key = matches!(path.as_slice(), [.., item, field]
                if item.starts_with("k:") && item.contains(&format!("{:?}:", &field[2..])));
            key || !has(old, path) || has(&keep, path) || *path == ["f:metadata"]
        };
        retain(&mut merged, schema, &mut Path::new(), &mut stays);
    }
    hand_over(&mut others, &taken, &nodes(&merged, schema));
    if let Some(own) = own.filter(|own| merged == *live && own.fields_v1 == mine.fields_v1) {
        mine.time.clone_from(&own.time);
    }
    others.push(mine);
    write(&mut merged, others);
    Ok(merged)
}

/// Brings `metadata.managedFields` of `object`, which replaces `live`, up to date after any other write: the fields that
/// changed belong to the writer (operation `Update`), those that went to nobody. The writer may set `managedFields`.
pub(crate) fn record(live: Option<&Value>, object: &mut Value, call: &Call, now: Timestamp) {
    let schema = &Structural::of(&call.kind).schema;
    let live = live.unwrap_or(&Value::Null);
    let mut entries = entries_of(object);
    if entries.is_empty() || !call.subresource.is_empty() {
        entries = entries_of(live);
    }
    let after = nodes(object, schema);
    let mut taken = changed(&nodes(live, schema), &after);
    taken.retain(|path| ownable(path, call));
    hand_over(&mut entries, &taken, &after);
    let mine = Entry::new(call, now, "Update", taken);
    match entries.iter_mut().find(|entry| entry.of() == mine.of()) {
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

/// Takes from entries what somebody else has taken, and what is no longer there.
fn hand_over(entries: &mut [Entry], taken: &Paths, after: &Nodes) {
    for entry in entries {
        let fields = &mut entry.fields_v1;
        fields.retain(|path| after.contains_key(path) && !taken.contains(path));
    }
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields_v1.is_empty());
    let order = |entry: &Entry| [&entry.operation, &entry.time, &entry.manager].map(String::clone);
    entries.sort_by_key(order);
    let metadata = metadata_mut(object);
    metadata.remove("managedFields");
    if !entries.is_empty() {
        metadata.insert("managedFields".to_owned(), json!(entries));
    }
}

/// Fails if fields of entries are taken, with one cause for each.
fn refuse(entries: &[Entry], taken: &Paths) -> Result<(), Failure> {
    let mut texts = Vec::new();
    let mut causes = Vec::new();
    for entry in entries {
        let mut message = format!("conflict with {:?}", entry.manager);
        if entry.operation != APPLY {
            message = format!("{message} using {}", entry.api_version);
        }
        for path in entry.fields_v1.intersection(taken) {
            let field = readable(path);
            texts.push(format!("{message}: {field}"));
            causes.push(
                json!({"reason": "FieldManagerConflict", "message": message, "field": field}),
            );
        }
    }
    let (count, texts) = (texts.len(), texts.join(", "));
    let s = if count == 1 { "" } else { "s" };
    let why = format!("Apply failed with {count} conflict{s}: {texts}");
    let mut failure = Failure::new(409, why);
    failure.details = json!({"causes": causes});
    (count == 0).then_some(()).ok_or(failure)
}

#[cfg(test)]
mod tests;
