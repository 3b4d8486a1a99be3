//! Subprotocols of exec and attach: which one, what a frame means in it, and how the end is told. Pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::wire::{BINARY, TEXT};
use crate::release::Release;

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// v5: the one byte after it names a channel the client closes.
pub(super) const CLOSE: u8 = 255;

/// A subprotocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subprotocol {
    pub(super) name: &'static str,
    /// From 4 on the end is a Status, from 5 on a channel can be closed.
    pub(super) version: u8,
    /// Whether frames are text, a digit for the channel and data in base64.
    base64: bool,
}

const fn of(name: &'static str, version: u8, base64: bool) -> Subprotocol {
    Subprotocol {
        name,
        version,
        base64,
    }
}

static ALL: [Subprotocol; 6] = [
    of("", 1, false),
    of("channel.k8s.io", 1, false),
    of("base64.channel.k8s.io", 1, true),
    of("v4.channel.k8s.io", 4, false),
    of("v4.base64.channel.k8s.io", 4, true),
    of(V5, 5, false),
];

/// The subprotocol that the API server translates for older nodes.
pub(super) const V5: &str = "v5.channel.k8s.io";

/// The subprotocol to speak: v5 where it is known, else by the client's order.
pub(super) fn choose(offer: &[&str], v5: bool) -> Option<&'static Subprotocol> {
    let known = offer.iter().filter_map(|name| {
        ALL.iter()
            .find(|one| one.name == *name && (v5 || one.version < 5))
    });
    known.min_by_key(|one| one.version < 5)
}

/// How an exec or attach ended.
pub(super) enum End {
    /// With this code; 0 is success.
    Exit(i32),
    /// There was nothing to talk to.
    Failed(String),
}

impl Subprotocol {
    /// A frame's channel and data; `None` for one that means nothing.
    pub(super) fn decode<'a>(&self, frame: &'a [u8]) -> Option<(u8, Cow<'a, [u8]>)> {
        let (&first, data) = frame.split_first()?;
        if self.base64 {
            let data = BASE64_STANDARD.decode(data).ok()?;
            return Some((first.wrapping_sub(b'0'), data.into()));
        }
        Some((first, data.into()))
    }

    /// Opcode and payload of data on a channel.
    pub(super) fn encode(&self, channel: u8, data: &[u8]) -> (u8, Vec<u8>) {
        if self.base64 {
            let text = format!("{channel}{}", BASE64_STANDARD.encode(data));
            (TEXT, text.into_bytes())
        } else {
            (BINARY, [&[channel], data].concat())
        }
    }

    /// What the error channel carries at the end; `None` for nothing at all. Who translates v5 has words of its own. A
    /// node of 1.36 leaves out `metadata` and the causes of internal errors.
    pub(super) fn report(&self, end: &End, argv: &[String], release: Release) -> Option<String> {
        let translated = self.version == 5;
        let mut status = match end {
            End::Exit(0) => json!({"status": "Success"}),
            End::Exit(code) => {
                let why = if translated {
                    format!("command terminated with exit code {code}")
                } else {
                    let command = argv.join(" ");
                    format!("error executing command [{command}], exit code {code}")
                };
                json!({
                    "status": "Failure", "reason": "NonZeroExitCode",
                    "message": format!("command terminated with non-zero exit code: {why}"),
                    "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
                })
            }
            End::Failed(why) => json!({
                "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {why}"),
            }),
        };
        if self.version < 4 {
            return status["message"].as_str().map(str::to_owned);
        }
        if translated || release < Release::V1_36 {
            status["metadata"] = json!({});
            if let End::Failed(why) = end {
                status["details"] = json!({"causes": [{"message": why}]});
            }
        }
        Some(status.to_string())
    }
}

#[cfg(test)]
mod tests;
