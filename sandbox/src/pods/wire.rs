//! Frames of a WebSocket as Go's `golang.org/x/net/websocket` takes them: each for itself, whatever its opcode, with no
//! regard for fragments.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

use crate::faults::StreamFault;

/// Longest frame that is taken, in bytes: `DefaultMaxPayloadBytes`.
const MAX_FRAME: u64 = 32 << 20;
/// Longest payload of a control frame, in bytes.
pub(super) const MAX_CONTROL: usize = 125;

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// The next frame of a client: opcode and payload.
///
/// # Errors
/// When the connection broke, or the frame is too long or has no mask.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let [first, second] = [from.read_u8().await?, from.read_u8().await?];
    let length = match second & 0x7f {
        126 => u64::from(from.read_u16().await?),
        127 => from.read_u64().await?,
        short => u64::from(short),
    };
    if length > MAX_FRAME || second & 0x80 == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut mask = [0; 4];
    from.read_exact(&mut mask).await?;
    let mut payload = Vec::new();
    from.take(length).read_to_end(&mut payload).await?;
    if payload.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok((first & 0x0f, payload))
}

/// Writes a frame in one piece, and does to it what a test ordered.
///
/// # Errors
/// When the connection broke, or is to break.
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    opcode: u8,
    payload: &[u8],
    fault: StreamFault,
) -> io::Result<()> {
    let header = FrameHeader {
        opcode: opcode.into(),
        ..FrameHeader::default()
    };
    let mut frame = Vec::with_capacity(payload.len() + 10);
    let length = payload.len() as u64;
    header
        .format(length, &mut frame)
        .map_err(io::Error::other)?;
    frame.extend_from_slice(payload);
    if fault != StreamFault::None {
        frame.truncate(frame.len() / 2);
    }
    to.write_all(&frame).await?;
    to.flush().await?;
    match fault {
        StreamFault::None => Ok(()),
        StreamFault::StallMidFrame => std::future::pending().await,
        _ => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}
