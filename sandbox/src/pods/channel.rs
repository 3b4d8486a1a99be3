//! Subprotocols of exec and attach: which one, what a frame means in it, and how the end is told. Frames are read as Go's
//! `golang.org/x/net/websocket` takes them: each for itself, whatever its opcode, with no regard for fragments.

use std::{borrow::Cow, io};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::{faults::StreamFault, release::Release};

/// Longest frame that is taken, in bytes: `DefaultMaxPayloadBytes`.
const MAX_FRAME: usize = 32 << 20;

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// v5: the one byte after it names a channel the client closes.
pub(super) const CLOSE: u8 = 255;

/// A subprotocol, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subprotocol(pub(super) &'static str);

/// The one in which a client can end standard input.
pub(super) const V5: &str = "v5.channel.k8s.io";
const ALL: [&str; 6] = [
    "",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    V5,
];

/// The subprotocol to speak: v5 where it is known, else by the client's order.
pub(super) fn choose(offer: &str, release: Release) -> Option<Subprotocol> {
    let known = |name: &str| ALL.into_iter().find(|one| *one == name.trim());
    let common = offer.split(',').filter_map(known);
    let spoken = common.filter(|name| release > Release::V1_20 || *name != V5);
    spoken.min_by_key(|name| *name != V5).map(Subprotocol)
}

/// How an exec or attach ended: with this code, 0 is success; or why there was nothing to talk to.
pub(super) type End = Result<i32, String>;

impl Subprotocol {
    /// Whether frames are text, a digit for the channel and data in base64.
    fn base64(self) -> bool {
        self.0.contains("base64")
    }

    /// A frame's channel and data; `None` for one that means nothing.
    pub(super) fn decode(self, frame: &[u8]) -> Option<(u8, Cow<'_, [u8]>)> {
        let (&first, data) = frame.split_first()?;
        if self.base64() {
            let data = BASE64_STANDARD.decode(data).ok()?;
            return Some((first.wrapping_sub(b'0'), data.into()));
        }
        Some((first, data.into()))
    }

    /// The frame that carries data on a channel.
    pub(super) fn encode(self, channel: u8, data: &[u8]) -> Frame {
        if self.base64() {
            let text = format!("{channel}{}", BASE64_STANDARD.encode(data));
            return Frame::message(text, OpCode::Data(Data::Text), true);
        }
        let data = [&[channel], data].concat();
        Frame::message(data, OpCode::Data(Data::Binary), true)
    }

    /// What the error channel carries at the end; `None` for nothing at all. From v4 on it is a Status. Who translates v5
    /// has words of its own. A node of 1.36 leaves out `metadata` and the causes of internal errors.
    pub(super) fn report(self, end: End, argv: &str, release: Release) -> Option<String> {
        let translated = self.0 == V5;
        let mut status = match &end {
            Ok(0) => json!({"status": "Success"}),
            Ok(code) => {
                let mut why = format!("command terminated with exit code {code}");
                if !translated {
                    why = format!("error executing command [{argv}], exit code {code}");
                }
                json!({
                    "status": "Failure", "reason": "NonZeroExitCode",
                    "message": format!("command terminated with non-zero exit code: {why}"),
                    "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
                })
            }
            Err(why) => json!({
                "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {why}"),
            }),
        };
        if !self.0.starts_with('v') {
            return status["message"].as_str().map(str::to_owned);
        }
        if translated || release < Release::V1_36 {
            status["metadata"] = json!({});
            if let Err(why) = end {
                status["details"] = json!({"causes": [{"message": why}]});
            }
        }
        Some(status.to_string())
    }
}

/// The next frame of a client: opcode and payload.
///
/// # Errors
/// When the connection broke, or the frame is too long or has no mask.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(OpCode, Vec<u8>)> {
    let [first, second] = [from.read_u8().await?, from.read_u8().await?];
    let length = match second & 0x7f {
        126 => from.read_u16().await?.into(),
        127 => usize::try_from(from.read_u64().await?).unwrap_or(usize::MAX),
        short => short.into(),
    };
    if length > MAX_FRAME || second & 0x80 == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mask = from.read_u32().await?.to_be_bytes();
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(((first & 0x0f).into(), payload))
}

/// Writes a frame in one piece, and does to it what a test ordered.
///
/// # Errors
/// When the connection broke, or is to break.
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    frame: Frame,
    fault: StreamFault,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).map_err(io::Error::other)?;
    if fault != StreamFault::None {
        bytes.truncate(bytes.len() / 2);
    }
    to.write_all(&bytes).await?;
    to.flush().await?;
    match fault {
        StreamFault::None => Ok(()),
        StreamFault::StallMidFrame => std::future::pending().await,
        _ => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

#[cfg(test)]
mod tests;
