//! The exec half of the fake server. The first `command` says what the container does.
//!
//! | command | behaviour |
//! |---|---|
//! | `echo` | stdin comes back as stdout, frame for frame |
//! | `source N` | waits for one byte of stdin, then sends N bytes in 32 KiB frames, a Success status and Close 1000 |
//! | `idle` | reads and says nothing |

use std::{iter, time::Duration};

use anyhow::{Context, bail};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{Request, respond};
use crate::{
    net::Stream,
    ws::{self, BINARY, CLOSE, CLOSE_NORMAL, PING, Socket},
};

/// Bytes of data per frame: the buffer Kubernetes servers copy with (PROTOCOL: producers use 32 KiB).
pub(crate) const CHUNK: usize = 32 * 1024;

/// Longest frame a client sends here, in bytes: a 32 KiB stdin frame with its header.
const INPUT: usize = CHUNK + 16;

/// Reading buffer of a session that only echoes keystrokes.
const KEYSTROKES: usize = 4096;

/// How long a client may take to hang up after the Close.
const LINGER: Duration = Duration::from_secs(5);

/// What a Kubernetes API server sends on channel 3 after exit code 0.
const SUCCESS: &[u8] = b"\x03{\"metadata\":{},\"status\":\"Success\"}";

/// The byte at a place in what `source` sends. A prime period, so that no frame looks like the one before.
pub(crate) fn block() -> Vec<u8> {
    iter::repeat(0..=250).flatten().take(CHUNK).collect()
}

pub(super) async fn run(mut stream: Stream, request: &Request, early: &[u8]) -> anyhow::Result<()> {
    let spoken = request
        .protocols
        .iter()
        .find(|item| matches!(item.as_str(), "v5.channel.k8s.io" | "v4.channel.k8s.io"));
    let (Some(protocol), Some(key)) = (spoken, &request.key) else {
        return respond(&mut stream, "403 Forbidden", "").await;
    };
    let command: Vec<&str> = request.params("command").collect();
    let accept = ws::accept(key);
    let mut hello = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    .into_bytes();
    // The empty message every Kubernetes server sends first, on the lowest output channel.
    ws::encode(BINARY, None, &[1], &mut hello);
    stream.write_all(&hello).await?;
    stream.flush().await?;

    match command[..] {
        ["echo"] => echo(Socket::new(stream, early, KEYSTROKES, None), true).await,
        ["idle"] => echo(Socket::new(stream, early, KEYSTROKES, None), false).await,
        ["source", bytes] => source(Socket::new(stream, early, INPUT, None), bytes.parse()?).await,
        _ => bail!("no such command: {command:?}"),
    }
}

async fn echo(mut socket: Socket, answer: bool) -> anyhow::Result<()> {
    while let Some(frame) = socket.next().await? {
        match (frame.opcode, socket.payload(&frame)) {
            (PING, _) => socket.pong(&frame).await?,
            (CLOSE, _) => {
                socket.send(CLOSE, &CLOSE_NORMAL).await?;
                return socket.shutdown().await;
            }
            // v5: stdin has ended, and so has the command.
            (BINARY, [0xFF, 0]) => return finish(socket).await,
            (BINARY, [0, _, ..]) if answer => socket.echo(&frame).await?,
            _ => {}
        }
    }
    Ok(())
}

async fn source(mut socket: Socket, bytes: usize) -> anyhow::Result<()> {
    socket.data().await.context("nobody said go")?;
    let mut data = vec![1];
    data.extend(block());
    let mut whole = Vec::new();
    ws::encode(BINARY, None, &data, &mut whole);
    for _ in 0..bytes / CHUNK {
        socket.write(&whole).await?;
    }
    if !bytes.is_multiple_of(CHUNK) {
        socket.send(BINARY, &data[..=bytes % CHUNK]).await?;
    }
    finish(socket).await
}

/// Status, Close and the end of the stream, as Kubernetes servers do without waiting for the client's Close; then reads on
/// until the client has hung up too.
async fn finish(mut socket: Socket) -> anyhow::Result<()> {
    socket.send(BINARY, SUCCESS).await?;
    socket.send(CLOSE, &CLOSE_NORMAL).await?;
    socket.shutdown().await?;
    let drained = async { while let Ok(Some(_)) = socket.next().await {} };
    timeout(LINGER, drained)
        .await
        .context("the client did not hang up after the Close")
}
