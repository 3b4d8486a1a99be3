//! The exec half of the fake server. The first `command` says what the container does.
//!
//! | command | behaviour |
//! |---|---|
//! | `echo` | stdin comes back as stdout, frame for frame |
//! | `source KIND N RATE` | waits for one byte of stdin, then sends N bytes of that [kind](Output) in 32 KiB frames, RATE of them a second (0: as fast as it goes), a Success status and Close 1000 |
//! | `idle` | reads and says nothing |

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until, timeout},
};

use super::{Request, respond};
use crate::{
    net::Stream,
    output::Output,
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
        ["source", kind, bytes, rate] => {
            let socket = Socket::new(stream, early, INPUT, None);
            source(socket, Output::of(kind)?, bytes.parse()?, rate.parse()?).await
        }
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

async fn source(mut socket: Socket, kind: Output, bytes: usize, rate: u64) -> anyhow::Result<()> {
    let data = kind.period();
    let messages: Vec<Vec<u8>> = data
        .chunks(CHUNK)
        .map(|chunk| [&[1], chunk].concat())
        .collect();
    let frames: Vec<Vec<u8>> = messages
        .iter()
        .map(|message| {
            let mut frame = Vec::new();
            ws::encode(BINARY, None, message, &mut frame);
            frame
        })
        .collect();
    socket.data().await.context("nobody said go")?;
    let (began, mut sent) = (Instant::now(), 0_u64);
    for frame in frames.iter().cycle().take(bytes / CHUNK) {
        if let Some(due) = (sent * 1_000_000).checked_div(rate) {
            sleep_until(began + Duration::from_micros(due)).await;
        }
        socket.write(frame).await?;
        sent += CHUNK as u64;
    }
    let rest = bytes % CHUNK;
    if rest > 0 {
        let last = &messages[bytes / CHUNK % messages.len()];
        socket.send(BINARY, &last[..=rest]).await?;
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
