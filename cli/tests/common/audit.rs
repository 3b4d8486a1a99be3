//! Recordings in a directory, made as a gateway makes them, and the binary to look at them with.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use drawbridge_audit::keys::SigningKey;
use drawbridge_audit::recording::{
    Encoder, End, MANIFEST, Mode, Opening, Seal, SegmentWriter, Settings, Stream, Subprotocols,
    VERSION, Verdict, segment_name,
};
use drawbridge_audit::subject::{Pod, Session};
use tempfile::TempDir;

/// A directory with `keys.pem` and `recordings`.
pub(crate) struct Audit {
    pub(crate) root: TempDir,
    key: SigningKey,
}

/// Writes one recording.
pub(crate) struct Recorder {
    path: PathBuf,
    encoder: Encoder,
    writer: SegmentWriter,
}

impl Audit {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let key = SigningKey::generate();
        fs::write(root.path().join("keys.pem"), key.public().to_pem()).unwrap();
        Self { root, key }
    }

    /// Begins the recording of a terminal.
    pub(crate) fn begin(&self, name: &str) -> Recorder {
        let opening = Opening {
            version: VERSION,
            recording: uuid::Uuid::now_v7(),
            session: Session {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
                uid: "u".to_owned(),
            },
            user: "alice@example.com".to_owned(),
            pod: Pod {
                name: "web-0".to_owned(),
                uid: "p".to_owned(),
                container: "app".to_owned(),
                node: "n".to_owned(),
            },
            mode: Mode::Exec,
            argv: vec!["sh".to_owned()],
            tty: true,
            stdin: true,
            subprotocols: Subprotocols::default(),
            started_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            settings: Settings::default(),
            gateway: "gateway-0".to_owned(),
            legal_hold: false,
        };
        let path = self.root.path().join("recordings").join(name);
        fs::create_dir_all(&path).unwrap();
        Recorder {
            path,
            encoder: Encoder::new(&opening),
            writer: SegmentWriter::new(&opening).unwrap(),
        }
    }

    /// Ends and seals it; its directory.
    pub(crate) fn end(&self, mut recorder: Recorder, at: Duration) -> String {
        let end = End {
            reason: "Completed".to_owned(),
            exit_code: Some(0),
        };
        recorder.encoder.end(at, &end);
        recorder.flush(0);
        let manifest = recorder.writer.seal(Seal {
            verdict: Verdict::Complete,
            end: Some(end),
            transfers: Vec::new(),
            gaps: Vec::new(),
            cut: 0,
            sealed_by: "gateway-0".to_owned(),
        });
        fs::write(recorder.path.join(MANIFEST), manifest.sign(&self.key)).unwrap();
        recorder.path.to_str().unwrap().to_owned()
    }
}

impl Recorder {
    /// Records output; a segment is closed at this length.
    pub(crate) fn output(&mut self, at: Duration, bytes: &[u8], segment: u64) {
        self.encoder.data(at, Stream::Stdout, bytes);
        self.flush(segment);
    }

    fn flush(&mut self, segment: u64) {
        while let Some(batch) = self.encoder.take() {
            let name = segment_name(self.writer.number());
            let mut options = File::options();
            let mut file = options
                .create(true)
                .append(true)
                .open(self.path.join(name))
                .unwrap();
            file.write_all(&self.writer.write(&batch).unwrap()).unwrap();
            if self.writer.length() > segment {
                self.writer.close();
            }
        }
    }
}
