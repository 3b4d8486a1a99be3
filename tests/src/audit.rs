//! The API server's audit log: who it saw doing what. The proof of what never reached it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// An audit log as a growing file of JSON lines.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// One event (`audit.k8s.io/v1 Event`), as far as the tests look.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// One for all stages of a request.
    #[serde(rename = "auditID")]
    pub id: String,
    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub stage: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// `get`, `create` and so on.
    pub verb: String,
    /// Whose credential it was.
    pub user: Who,
    /// As whom it was done, if as somebody else.
    #[serde(default)]
    pub impersonated_user: Option<Who>,
    /// What it was done to.
    #[serde(default)]
    pub object_ref: Object,
    /// How it was answered, once it was.
    #[serde(default)]
    pub response_status: Code,
    /// What the client says it is.
    #[serde(default)]
    pub user_agent: String,
}

/// An identity.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Who {
    /// The username.
    pub username: String,
    /// Its groups.
    pub groups: Vec<String>,
}

/// A reference to an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    /// Empty for the core group.
    #[serde(rename = "apiGroup")]
    pub group: String,
    /// Plural, lower case.
    pub resource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// E.g. `exec`; empty for the object itself.
    pub subresource: String,
}

/// A response code.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Code {
    /// HTTP's; 0 until there is one.
    pub code: u16,
}

impl Audit {
    /// The log at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The end of the log now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        let data = std::fs::metadata(&self.path)
            .with_context(|| format!("no audit log at {}", self.path.display()))?;
        Ok(Mark(data.len()))
    }

    /// Every event logged after `mark` that `which` chooses. A line still being written is not seen yet.
    ///
    /// # Errors
    /// When it cannot be read, or a whole line is no event.
    pub fn since(&self, mark: Mark, which: impl Fn(&Seen) -> bool) -> Result<Vec<Seen>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut lines = BufReader::new(file);
        let (mut line, mut found) = (String::new(), Vec::new());
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            let seen: Seen = serde_json::from_str(&line)
                .with_context(|| format!("not an audit event: {line}"))?;
            if which(&seen) {
                found.push(seen);
            }
            line.clear();
        }
        Ok(found)
    }
}

impl Seen {
    /// Whether it is a stream into a pod of `namespace`: exec, attach or port-forward, however it was answered.
    #[must_use]
    pub fn is_stream_in(&self, namespace: &str) -> bool {
        let object = &self.object_ref;
        object.resource == "pods"
            && object.namespace == namespace
            && !matches!(
                object.subresource.as_str(),
                "" | "status" | "log" | "binding"
            )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_whole_lines_after_the_mark_are_seen() -> Result<()> {
        let line = r#"{"auditID":"1","stage":"ResponseStarted","requestURI":"/api/v1/namespaces/shop/pods/web/exec","verb":"get","user":{"username":"g"},"objectRef":{"resource":"pods","namespace":"shop","name":"web","subresource":"exec"},"responseStatus":{"code":101}}"#;
        let mut file = tempfile::NamedTempFile::new()?;
        writeln!(file, "{line}")?;
        let audit = Audit::new(file.path().to_owned());
        let mark = audit.mark()?;
        write!(file, "{line}\n{line}")?;
        let seen = audit.since(mark, |seen| seen.is_stream_in("shop"))?;
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].response_status.code, 101);
        assert!(
            audit
                .since(mark, |seen| seen.is_stream_in("other"))?
                .is_empty()
        );
        Ok(())
    }
}
