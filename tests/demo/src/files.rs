//! The demo's directory: kubeconfigs, certificates, logs. Gone when the demo is.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A temporary directory only this user can look into.
pub(crate) struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    /// Makes it.
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("drawbridge-demo-")
            .tempdir()
            .context("failed to make a directory for the demo; is TMPDIR writable?")?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file nobody else may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let mut file = private(&path)?;
        file.write_all(text.as_bytes())
            .with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }
}

/// Opens a file nobody else may read, empty.
pub(crate) fn private(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("failed to write {}", path.display()))
}
