//! A value made from files, made anew when they change, without disturbing who uses the old one.
//!
//! The files are read every few seconds and compared by content. That sees what inotify misses (network file systems,
//! the symlink swap of a Kubernetes volume) and costs next to nothing.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::metrics::Metrics;

/// A value and the files it is made from.
pub struct Reloading<T> {
    files: Vec<PathBuf>,
    make: Box<Make<T>>,
    current: RwLock<Arc<T>>,
}

/// Makes the value from the contents of the files, in their order.
type Make<T> = dyn Fn(&[Vec<u8>]) -> anyhow::Result<T> + Send + Sync;

/// What the files held when they were last tried.
type Seen = [u8; 32];

impl<T> Reloading<T> {
    /// Reads the files and makes the value from their contents, in their order.
    ///
    /// # Errors
    /// When a file cannot be read, or `make` fails.
    pub fn load(
        files: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let value = make(&read(&files)?)?;
        Ok(Self {
            files,
            make: Box::new(make),
            current: RwLock::new(Arc::new(value)),
        })
    }

    /// The value as of now.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files every `interval`, for ever. What cannot be loaded is logged and counted once; the old value
    /// stays, and the next change is tried again.
    pub async fn keep(&self, interval: Duration, metrics: &Metrics) {
        let mut seen = read(&self.files).map(|contents| digest(&contents)).ok();
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.look(&mut seen) {
                Ok(false) => {}
                Ok(true) => info!(files = ?self.files, "loaded changed files"),
                Err(error) => {
                    metrics.reload_errors.inc();
                    warn!(files = ?self.files, error = format!("{error:#}"), "changed files cannot be used; what was loaded before stays in use");
                }
            }
        }
    }

    /// One look: whether a new value was made. An error is told once per content.
    fn look(&self, seen: &mut Option<Seen>) -> anyhow::Result<bool> {
        let contents = match read(&self.files) {
            Ok(contents) => contents,
            // Told when they vanish, not on every look after that.
            Err(error) => {
                return if seen.take().is_some() {
                    Err(error)
                } else {
                    Ok(false)
                };
            }
        };
        let now = digest(&contents);
        if *seen == Some(now) {
            return Ok(false);
        }
        *seen = Some(now);
        let value = (self.make)(&contents)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
        Ok(true)
    }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    files
        .iter()
        .map(|file| {
            std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))
        })
        .collect()
}

fn digest(contents: &[Vec<u8>]) -> Seen {
    let mut hash = Sha256::new();
    for content in contents {
        hash.update(content.len().to_be_bytes());
        hash.update(content);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_loaded_and_a_bad_one_leaves_the_old_value_and_is_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("number");
        std::fs::write(&file, "1").expect("writes");
        let number = Reloading::load(vec![file.clone()], |contents| {
            Ok(String::from_utf8_lossy(&contents[0]).parse::<u32>()?)
        })
        .expect("loads");
        let mut seen = Some(digest(&[b"1".to_vec()]));
        assert!(!number.look(&mut seen).expect("nothing new"));
        std::fs::write(&file, "2").expect("writes");
        assert!(number.look(&mut seen).expect("loads"));
        std::fs::write(&file, "two").expect("writes");
        assert!(number.look(&mut seen).is_err());
        assert!(!number.look(&mut seen).expect("told once"));
        std::fs::remove_file(&file).expect("removes");
        assert!(number.look(&mut seen).is_err());
        assert!(!number.look(&mut seen).expect("told once"));
        assert_eq!(*number.current(), 2);
        std::fs::write(&file, "3").expect("writes");
        assert!(number.look(&mut seen).expect("loads"));
        assert_eq!(*number.current(), 3);
    }

    #[test]
    fn a_missing_file_is_named_at_the_start() {
        let error = Reloading::load(vec!["/nonexistent/tls.crt".into()], |_| Ok(()))
            .err()
            .expect("fails");
        assert!(
            format!("{error:#}").contains("/nonexistent/tls.crt"),
            "{error:#}"
        );
    }
}
