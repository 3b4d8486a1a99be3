//! Frames of a WebSocket as Go's `golang.org/x/net/websocket` takes them: each for itself, whatever its opcode, with no
//! regard for fragments.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

use crate::faults::StreamFault;

/// Longest frame that is taken, in bytes: `DefaultMaxPayloadBytes`.
const MAX_FRAME: usize = 32 << 20;

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
