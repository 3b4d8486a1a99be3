//! Small assertions with messages that show what was there instead.

use anyhow::{Result, bail};

/// Fails unless `text` contains `part`; the error shows both.
///
/// # Errors
/// When it does not.
pub fn contains(text: &str, part: &str) -> Result<()> {
    if text.contains(part) {
        return Ok(());
    }
    bail!("{part:?} is not in: {text}")
}

/// Bytes as text for a message, whatever they are.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
