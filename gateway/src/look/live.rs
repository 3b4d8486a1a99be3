//! Following a recording while it is made: everything until now, then what happens, over a WebSocket that carries lines of
//! asciicast one way.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drawbridge_audit::recording::{Chunks, Identities, segment_name};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::bridge::{Leg, Stop};
use crate::grant::ending;
use crate::record::live::Live;
use crate::record::live::Piece;
use crate::transport::Transport;

/// The subprotocol: a browser takes an answer only if it names one that was offered.
pub(crate) const SUBPROTOCOL: &str = "live.drawbridge.dev";

/// A viewer that takes nothing for so long is given up.
const STALL: Duration = Duration::from_secs(20);
/// How often one who has nothing to see is pinged: load balancers commonly cut after 60 s of silence.
const PING: Duration = Duration::from_secs(15);
/// How long the last word may take.
const CLOSE: Duration = Duration::from_secs(2);
/// Longest message a viewer may send; it has nothing to say.
const MAX_INPUT: usize = 4096;
/// Chunks read from the disk that may wait for a viewer.
const READ_AHEAD: usize = 4;

/// Where a follower is: the chunk it needs next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    segment: u32,
    chunk: u32,
}

/// Why following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The recording did.
    Recording,
    /// The viewer left, or was lost.
    Viewer,
    /// The viewer may not look any more.
    Stopped(Stop),
    /// The viewer's right was taken away.
    Forbidden,
    /// The recording cannot be read.
    Broken,
}

impl End {
    /// Its name in the audit log.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Recording => "recording_ended",
            Self::Viewer => "viewer_left",
            Self::Stopped(_) => "stopped",
            Self::Forbidden => "not_allowed_any_more",
            Self::Broken => "broken",
        }
    }

    /// What the viewer is told; `None`: there is nobody to tell.
    fn close(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Recording => (CloseCode::Normal, "the recording ended".into()),
            Self::Viewer => return None,
            Self::Stopped(stop) => (
                CloseCode::Policy,
                format!("your session {}", ending(stop)).into(),
            ),
            Self::Forbidden => (
                CloseCode::Policy,
                "you may not look at this session's recordings any more".into(),
            ),
            Self::Broken => (
                CloseCode::Error,
                "the recording cannot be read here any more".into(),
            ),
        };
        Some(CloseFrame { code, reason })
    }
}

/// What is followed: taken from a [`Live`] at once, since whoever holds one of those keeps its other followers waiting for
/// its end.
#[derive(Debug)]
pub(crate) struct Followed {
    dir: PathBuf,
    pieces: broadcast::Receiver<Piece>,
}

impl Followed {
    /// Begins to listen.
    pub(crate) fn new(live: &Arc<Live>) -> Self {
        Self {
            dir: live.dir.clone(),
            pieces: live.pieces(),
        }
    }

    /// Shows it to `client` until it ends, the client leaves, or `stop` resolves.
    pub(crate) async fn show(self, client: Leg<Transport>, stop: impl Future<Output = End>) -> End {
        let config = WebSocketConfig::default()
            .read_buffer_size(MAX_INPUT)
            .max_message_size(Some(MAX_INPUT))
            .max_frame_size(Some(MAX_INPUT));
        let socket = WebSocketStream::from_partially_read(
            client.io,
            client.read.to_vec(),
            Role::Server,
            Some(config),
        )
        .await;
        relay(socket, self, stop).await
    }

    /// Sends what there is and what comes.
    async fn pump(
        mut self,
        to: &mut (impl Sink<Message, Error = WsError> + Unpin),
    ) -> Result<End, Gone> {
        let mut at = At::default();
        loop {
            at = read(&self.dir, at, to).await?;
            loop {
                let piece = match timeout(PING, self.pieces.recv()).await {
                    Err(_) => {
                        send(to, Message::Ping(Bytes::new())).await?;
                        continue;
                    }
                    Ok(Ok(piece)) => piece,
                    // It fell behind: the files have what it missed.
                    Ok(Err(RecvError::Lagged(_))) => break,
                    Ok(Err(RecvError::Closed)) => return Ok(End::Recording),
                };
                let its = At {
                    segment: piece.segment,
                    chunk: piece.chunk,
                };
                let follows = its == at || (its.chunk == 0 && its.segment == at.segment + 1);
                if its < at {
                    continue; // read from the file already
                }
                if !follows {
                    break; // between them is one that came before it listened
                }
                send(to, Message::Binary(Bytes::copy_from_slice(&piece.lines))).await?;
                at = At {
                    segment: its.segment,
                    chunk: its.chunk + 1,
                };
            }
        }
    }
}

/// Why nothing more can be sent.
#[derive(Debug)]
enum Gone {
    Viewer,
    Broken,
}

async fn send(
    to: &mut (impl Sink<Message, Error = WsError> + Unpin),
    message: Message,
) -> Result<(), Gone> {
    match timeout(STALL, to.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone::Viewer),
    }
}

async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    followed: Followed,
    stop: impl Future<Output = End>,
) -> End {
    let (mut to, mut from) = socket.split();
    let end = tokio::select! {
        biased; // a revocation beats what is ready in the same moment
        end = stop => end,
        () = left(&mut from) => End::Viewer,
        end = followed.pump(&mut to) => match end {
            Ok(end) => end,
            Err(Gone::Viewer) => End::Viewer,
            Err(Gone::Broken) => End::Broken,
        },
    };
    if let Some(frame) = end.close() {
        let _ = timeout(CLOSE, async {
            to.send(Message::Close(Some(frame))).await?;
            left(&mut from).await; // until the viewer's own Close, which ends the handshake
            Ok::<_, WsError>(())
        })
        .await;
    }
    end
}

/// Resolves when the other side has left. What it says is of no interest.
async fn left(from: &mut (impl Stream<Item = Result<Message, WsError>> + Unpin)) {
    while let Some(Ok(message)) = from.next().await {
        if message.is_close() {
            return;
        }
    }
}

/// Sends the chunks from `at` on that the files in `dir` have. Answers which comes next.
async fn read(
    dir: &Path,
    at: At,
    to: &mut (impl Sink<Message, Error = WsError> + Unpin),
) -> Result<At, Gone> {
    let (chunks, mut received) = mpsc::channel(READ_AHEAD);
    let dir = dir.to_owned();
    let reading = tokio::task::spawn_blocking(move || files(&dir, at, &chunks));
    while let Some(lines) = received.recv().await {
        send(to, Message::Binary(lines)).await?;
    }
    match reading.await {
        Ok(Ok(at)) => Ok(at),
        _ => Err(Gone::Broken),
    }
}

/// Hands over whole chunks; one that is being written is left to be heard of.
fn files(dir: &Path, from: At, to: &mpsc::Sender<Bytes>) -> io::Result<At> {
    let mut next = from;
    for segment in from.segment.. {
        let file = match File::open(dir.join(segment_name(segment))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        for (number, chunk) in (0..).zip(Chunks::new(io::BufReader::new(file))) {
            let Ok(chunk) = chunk else { break };
            let its = At {
                segment,
                chunk: number,
            };
            if its >= from {
                let lines = chunk.lines(&Identities::none()).map_err(io::Error::other)?;
                if to.blocking_send(lines.into()).is_err() {
                    return Ok(next); // nobody listens any more
                }
                next = At {
                    segment,
                    chunk: number + 1,
                };
            }
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use drawbridge_audit::recording::{Encoder, SegmentWriter, Stream as Channel};
    use uuid::Uuid;

    use super::*;
    use crate::look::tests::opening;
    use crate::record::live::Lives;

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_falls_behind_misses_no_line_and_sees_none_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let opening = opening(Uuid::now_v7(), Vec::new());
        let listed = Arc::<Lives>::default().list(Arc::new(opening.clone()), dir.path().to_owned());
        let (near, far) = tokio::io::duplex(8192);
        let socket = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let followed = Followed::new(&listed.live);
        let showing = tokio::spawn(relay(socket, followed, std::future::pending()));
        // It waits for what comes, and then for a viewer who takes nothing.
        tokio::task::yield_now().await;
        let mut encoder = Encoder::new(&opening);
        let mut segments = SegmentWriter::new(&opening).expect("begins");
        let (mut all, mut pieces) = (Vec::new(), Vec::new());
        let (mut chunk, mut segment) = (0, 0);
        for number in 0..1000 {
            let line = format!("line {number} {}\r\n", "x".repeat(200));
            let at = Duration::from_millis(number);
            encoder.data(at, Channel::Stdout, line.as_bytes());
            let batch = encoder.take().expect("a line");
            let bytes = segments.write(&batch).expect("writes");
            let path = dir.path().join(segment_name(segment));
            let file = File::options().create(true).append(true).open(path);
            file.expect("opens").write_all(&bytes).expect("writes");
            all.extend_from_slice(&batch.lines);
            pieces.push((segment, chunk, batch.lines));
            chunk += 1;
            if chunk == 300 {
                segments.close();
                (chunk, segment) = (0, segment + 1);
            }
        }
        let later = pieces.split_off(10);
        let tell = |(segment, chunk, lines)| listed.live.tell(segment, chunk, lines);
        pieces.into_iter().for_each(tell);
        tokio::task::yield_now().await;
        later.into_iter().for_each(tell); // far more than may wait
        drop(listed);
        let mut viewer = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let (mut seen, mut messages) = (Vec::new(), 0);
        while let Some(Ok(message)) = viewer.next().await {
            if let Message::Binary(lines) = message {
                seen.extend_from_slice(&lines);
                messages += 1;
            }
        }
        assert_eq!(showing.await.expect("ends"), End::Recording);
        assert_eq!(messages, 1000);
        assert!(seen == all, "the lines, each once and in order");
    }
}
