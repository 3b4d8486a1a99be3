//! Which keys are believed, and which keys open what is encrypted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use drawbridge_audit::keys::KeySet;
use drawbridge_audit::recording::Identities;
use serde_json::Value;

/// Keys.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Trust {
    /// Public keys to believe: a PEM file, a directory of `*.pem`, or the `ConfigMap` that has them as JSON
    /// (`kubectl -n drawbridge-system get configmap drawbridge-signing-keys -o json`). Repeatable.
    #[arg(long = "keys", value_name = "FILE", env = "DRAWBRIDGE_AUDIT_KEYS")]
    files: Vec<PathBuf>,
    /// Private keys that open encrypted recordings, as `age-keygen` writes them. Repeatable.
    #[arg(long = "identity", value_name = "FILE")]
    identities: Vec<PathBuf>,
}

impl Trust {
    /// The keys to believe; none if there is no flag.
    pub(crate) fn keys(&self) -> anyhow::Result<KeySet> {
        let mut keys = KeySet::default();
        for path in &self.files {
            let found = if path.is_dir() {
                directory(path)
            } else {
                file(path)
            };
            let found = found.with_context(|| format!("cannot use {}", path.display()))?;
            if found.is_empty() {
                bail!("{} holds no public key", path.display());
            }
            keys.extend(found);
        }
        Ok(keys)
    }

    /// The keys that open what is encrypted.
    pub(crate) fn identities(&self) -> anyhow::Result<Identities> {
        let mut all = String::new();
        for path in &self.identities {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            Identities::parse(&text).with_context(|| format!("cannot use {}", path.display()))?;
            all.push_str(&text);
            all.push('\n');
        }
        Ok(Identities::parse(&all)?)
    }
}

fn directory(path: &Path) -> anyhow::Result<KeySet> {
    let mut keys = KeySet::default();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            keys.extend(file(&path).with_context(|| path.display().to_string())?);
        }
    }
    Ok(keys)
}

fn file(path: &Path) -> anyhow::Result<KeySet> {
    let text = fs::read_to_string(path)?;
    let text = match serde_json::from_str(&text) {
        Ok(json) => strings(&json),
        Err(_) => text,
    };
    Ok(KeySet::from_pem(&text)?)
}

/// Every text in a JSON document: a ConfigMap's keys are among them.
fn strings(json: &Value) -> String {
    match json {
        // A field may hold a document of its own.
        Value::String(text) => match serde_json::from_str(text) {
            Ok(json @ Value::Object(_)) => strings(&json),
            _ => format!("{text}\n"),
        },
        Value::Array(items) => items.iter().map(strings).collect(),
        Value::Object(fields) => fields.values().map(strings).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use drawbridge_audit::keys::SigningKey;

    use super::*;

    #[test]
    fn keys_come_as_pem_as_a_directory_or_as_a_config_map() {
        let directory = tempfile::tempdir().unwrap();
        let keys = [SigningKey::generate(), SigningKey::generate()];
        let pem = |key: &SigningKey| key.public().to_pem();
        let bundle: String = keys.iter().map(pem).collect();
        let map = serde_json::json!({"kind": "ConfigMap", "data": {
            "one": pem(&keys[0]), "two": serde_json::json!({"publicKey": pem(&keys[1])}).to_string(),
        }});
        fs::write(directory.path().join("both.pem"), bundle).unwrap();
        fs::write(directory.path().join("map.json"), map.to_string()).unwrap();
        for (name, count) in [("both.pem", 2), (".", 2), ("map.json", 2)] {
            let trust = Trust {
                files: vec![directory.path().join(name)],
                identities: Vec::new(),
            };
            assert_eq!(trust.keys().unwrap().len(), count, "{name}");
        }
    }

    #[test]
    fn a_file_without_keys_is_a_mistake_and_not_no_trust() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("empty");
        fs::write(&path, "nothing").unwrap();
        for path in [path, directory.path().to_owned(), "/no/such/file".into()] {
            let trust = Trust {
                files: vec![path],
                identities: Vec::new(),
            };
            assert!(trust.keys().is_err());
        }
    }
}
