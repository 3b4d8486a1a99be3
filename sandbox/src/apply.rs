//! Server-side apply: who manages which fields. Pure.

mod fields;
mod walk;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::{Kind, Schema};
use crate::object::metadata_mut;
use crate::status::Failure;
use fields::Fields;
use walk::{At, check, compare, fields_of, merge, prune};

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

/// One of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    manager: String,
    apply: bool,
    subresource: String,
    api_version: String,
    time: String,
    fields: Fields,
}

impl Entry {
    fn new(kind: &Kind, writer: Writer<'_>, apply: bool, fields: Fields) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            apply,
            subresource: writer.subresource.to_owned(),
            api_version: kind.api_version(),
            time: time(writer.now),
            fields,
        }
    }

    /// Whether both count the same writer's fields.
    fn same(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.apply == other.apply
            && self.subresource == other.subresource
            && (self.apply || self.api_version == other.api_version)
    }

    fn parse(entry: &Value) -> Option<Self> {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let apply = match entry["operation"].as_str()? {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        Some(Self {
            manager: text("manager"),
            apply,
            subresource: text("subresource"),
            api_version: text("apiVersion"),
            time: text("time"),
            fields: Fields::from_json(&entry["fieldsV1"])?,
        })
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": if self.apply { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }

    /// For a conflict.
    fn readable(&self) -> String {
        let subresource = match self.subresource.as_str() {
            "" => String::new(),
            name => format!(" with subresource {name:?}"),
        };
        let using = if self.apply {
            String::new()
        } else {
            format!(" using {}", self.api_version)
        };
        format!("{:?}{subresource}{using}", self.manager)
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
    let at = At::root(kind);
    let config = applicable(config, kind, writer.subresource)?;
    check(&config, at, "").map_err(|why| {
        let name = format!(
            "{}/{}; {}, Kind={}",
            crate::object::namespace(&config),
            crate::object::name(&config),
            kind.api_version(),
            kind.kind
        );
        Failure::new(
            500,
            "",
            format!("failed to create typed patch object ({name}): {why}"),
        )
    })?;
    let mut entries = match live {
        Some(live) => entries_of(live).unwrap_or_default(),
        None => Vec::new(),
    };
    if let Some(live) = live.filter(|_| entries.is_empty()) {
        // Nobody has accounted for it so far: what is there belongs to somebody else.
        let before = Writer {
            manager: "before-first-apply",
            subresource: "",
            now: writer.now,
        };
        let mut all = fields_of(live, at);
        all.strip();
        entries.push(Entry::new(kind, before, false, all));
    }

    let mut next = fields_of(&config, at);
    owned(&mut next, kind, writer.subresource);
    let mut mine = Entry::new(kind, writer, true, next);
    let (own, mut others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.same(&mine));
    let own = own.into_iter().next();

    let mut merged = match live {
        Some(live) => merge(live, &config, at),
        None => config.clone(),
    };
    let mut difference = compare(live, Some(&merged), at);
    difference.changed.strip();
    let conflicts: Vec<(String, String)> = others
        .iter()
        .flat_map(|entry| {
            let paths = entry.fields.common(&difference.changed);
            paths.into_iter().map(|path| (entry.readable(), path))
        })
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    for entry in &mut others {
        entry.fields.subtract(&difference.changed);
    }

    if let Some(own) = &own {
        let mut theirs = Fields::default();
        for entry in &others {
            theirs.add(&entry.fields);
        }
        prune(&mut merged, [&own.fields, &mine.fields, &theirs], at);
    }
    let removed = compare(live, Some(&merged), at).removed;
    for entry in &mut others {
        entry.fields.subtract(&removed);
    }
    if let Some(own) = own
        && own.fields == mine.fields
        && own.api_version == mine.api_version
        && live.is_some_and(|live| same_but_accounts(live, &merged))
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
    let at = At::root(kind);
    let given = &object["metadata"]["managedFields"];
    let reset = *given == json!([{}]) && writer.subresource.is_empty();
    let entries = if reset {
        Some(Vec::new())
    } else if writer.subresource.is_empty() {
        entries_of(object)
            .filter(|entries| !entries.is_empty())
            .or_else(|| entries_of(live?))
    } else {
        live.and_then(entries_of)
    };
    let mut entries = entries.unwrap_or_default();
    let mut difference = compare(live, Some(object), at);
    owned(&mut difference.changed, kind, writer.subresource);
    if matches!(kind.schema, Schema::Builtin(_)) {
        unmark(&mut difference.changed);
    }
    let mine = Entry::new(kind, writer, false, difference.changed);
    for entry in &mut entries {
        if !entry.same(&mine) {
            entry.fields.subtract(&mine.fields);
        }
        entry.fields.subtract(&difference.removed);
    }
    if !mine.fields.is_empty() {
        match entries.iter_mut().find(|entry| entry.same(&mine)) {
            Some(entry) => {
                entry.fields.add(&mine.fields);
                entry.time = mine.time;
            }
            None => entries.push(mine),
        }
    }
    write(object, entries);
}

/// The parts of a built-in object that are there even when empty, so that having them is no fact of its own.
fn unmark(changed: &mut Fields) {
    for step in ["f:spec", "f:status", "f:metadata"] {
        if let Some(part) = changed.steps.get_mut(step) {
            part.here &= part.steps.is_empty();
            if let Some(containers) = part.steps.get_mut("f:containers") {
                containers.here &= containers.steps.is_empty();
            }
        }
    }
}

/// The part of an applied object that its endpoint takes.
fn applicable(config: &Value, kind: &Kind, subresource: &str) -> Result<Value, Failure> {
    let mut config = config.clone();
    let metadata = metadata_mut(&mut config);
    let accounts = metadata.remove("managedFields");
    if accounts.is_some_and(|accounts| accounts.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(fields) = config.as_object_mut() {
        if subresource == "status" {
            fields.retain(|name, _| {
                ["apiVersion", "kind", "metadata", "status"].contains(&name.as_str())
            });
            metadata_mut(&mut config).retain(|name, _| {
                ["name", "namespace", "resourceVersion", "uid"].contains(&name.as_str())
            });
        } else if kind.status && subresource.is_empty() {
            fields.remove("status");
        }
    }
    if matches!(kind.schema, Schema::Builtin(_)) {
        drop_nulls(&mut config);
    }
    Ok(config)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Leaves what can be owned by who writes to this endpoint.
fn owned(fields: &mut Fields, kind: &Kind, subresource: &str) {
    fields.strip();
    if subresource == "status" {
        fields.keep("f:status");
    } else if kind.status && subresource.is_empty() {
        fields.steps.remove("f:status");
    }
}

/// `None` if one of them does not parse.
fn entries_of(object: &Value) -> Option<Vec<Entry>> {
    match &object["metadata"]["managedFields"] {
        Value::Null => Some(Vec::new()),
        list => list.as_array()?.iter().map(Entry::parse).collect(),
    }
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| (!entry.apply, entry.time.clone(), entry.manager.clone());
        key(a).cmp(&key(b))
    });
    let first = entries.partition_point(|entry| entry.apply);
    let updaters = entries.len() - first;
    if updaters > MAX_UPDATERS {
        // One more than are too many: they become one. Only entries of other versions of the API come on top.
        let mut ancient: Vec<Entry> = Vec::new();
        for old in entries.drain(first..=first + updaters - MAX_UPDATERS) {
            match ancient
                .iter_mut()
                .find(|entry| entry.api_version == old.api_version)
            {
                Some(entry) => {
                    entry.fields.add(&old.fields);
                    entry.time = old.time;
                }
                None => ancient.push(Entry {
                    manager: ANCIENT.to_owned(),
                    subresource: String::new(),
                    ..old
                }),
            }
        }
        entries.splice(first..first, ancient);
    }
    let metadata = metadata_mut(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        let list = entries.iter().map(Entry::to_json).collect();
        metadata.insert("managedFields".to_owned(), Value::Array(list));
    }
}

fn same_but_accounts(a: &Value, b: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        metadata_mut(&mut object).remove("managedFields");
        object
    };
    without(a) == without(b)
}

fn conflict(conflicts: &[(String, String)]) -> Failure {
    let text = match conflicts {
        [(manager, path)] => {
            format!("Apply failed with 1 conflict: conflict with {manager}: {path}")
        }
        all => {
            let mut lines = Vec::new();
            let mut sorted: Vec<_> = all.iter().collect();
            sorted.sort_by_key(|(manager, _)| manager);
            let mut last = "";
            for (manager, path) in sorted {
                if last != manager {
                    lines.push(format!("conflicts with {manager}:"));
                    last = manager;
                }
                lines.push(format!("- {path}"));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                all.len(),
                lines.join("\n")
            )
        }
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(manager, path)| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {manager}"),
                "field": path,
            })
        })
        .collect();
    let mut failure = Failure::new(409, "Conflict", text);
    failure.details = json!({"causes": causes});
    failure
}

/// As Kubernetes writes times: whole seconds.
fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
