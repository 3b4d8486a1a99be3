//! How a console ended, as a client of its subprotocol knows it.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::checks::text;

/// How a console ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Standard output since the last read.
    pub stdout: Vec<u8>,
    /// Standard error since the last read.
    pub stderr: Vec<u8>,
    /// All of channel 3; `None` when nothing came.
    pub status: Option<Vec<u8>>,
    /// The close code; `None` when the connection went without one.
    pub close: Option<u16>,
    /// When the status came, or if there was none, when it was over.
    pub at: Instant,
}

impl End {
    /// The status as JSON.
    ///
    /// # Errors
    /// When there was none, or it is not JSON.
    pub fn json(&self) -> Result<Value> {
        let status = self
            .status
            .as_ref()
            .with_context(|| format!("no status: {self:?}"))?;
        serde_json::from_slice(status).with_context(|| text(status))
    }

    /// The message of the failure it ended with, in JSON or in words.
    ///
    /// # Errors
    /// When it did not end with a failure, or not with close code 1000 after it: kubectl shows the failure only then.
    pub fn failure(&self) -> Result<String> {
        let status = self
            .status
            .as_ref()
            .with_context(|| format!("no status: {self:?}"))?;
        ensure!(
            self.close == Some(1000),
            "closed with {:?}, not 1000",
            self.close
        );
        let Ok(json) = serde_json::from_slice::<Value>(status) else {
            return Ok(text(status));
        };
        ensure!(json["status"] == "Failure", "not a failure: {json}");
        Ok(json["message"].as_str().unwrap_or_default().to_owned())
    }

    /// The exit code, as a client of its subprotocol would know it: in a JSON status, or as the last number of a text;
    /// nothing at all, followed by close code 1000, is success before v4.
    ///
    /// # Errors
    /// When it ended for another reason.
    pub fn exit_code(&self, protocol: &str) -> Result<u32> {
        ensure!(
            self.close == Some(1000),
            "closed with {:?}, not 1000: {self:?}",
            self.close
        );
        if !protocol.starts_with('v') {
            let Some(words) = &self.status else {
                return Ok(0);
            };
            let number = text(words)
                .trim_end()
                .rsplit(' ')
                .next()
                .and_then(|word| word.parse().ok());
            return number.with_context(|| format!("no exit code in {:?}", text(words)));
        }
        let status = self.json()?;
        if status["status"] == "Success" {
            return Ok(0);
        }
        ensure!(
            status["reason"] == "NonZeroExitCode",
            "no exit code in {status}"
        );
        let causes = status["details"]["causes"].as_array().into_iter().flatten();
        let code = causes
            .into_iter()
            .find(|cause| cause["reason"] == "ExitCode")
            .and_then(|cause| cause["message"].as_str());
        code.and_then(|code| code.parse().ok())
            .with_context(|| format!("no exit code in {status}"))
    }
}
