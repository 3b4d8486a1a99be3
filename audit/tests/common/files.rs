//! Recordings in memory, made as a gateway makes them.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::time::Duration;

use drawbridge_audit::keys::SigningKey;
use drawbridge_audit::recording::{
    Encoder, End, Level, MANIFEST, Mode, Opening, Seal, SegmentWriter, Settings, Source, Stream,
    Subprotocols, VERSION, Verdict, is_segment, segment_name,
};
use drawbridge_audit::subject::{Pod, Session};

/// The files of one recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Files(pub(crate) BTreeMap<String, Vec<u8>>);

impl Source for Files {
    fn manifest(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(MANIFEST).cloned())
    }

    fn segments(&self) -> io::Result<Vec<String>> {
        Ok(self
            .0
            .keys()
            .filter(|name| is_segment(name))
            .cloned()
            .collect())
    }

    fn segment(&self, number: u32) -> io::Result<Option<Box<dyn Read + '_>>> {
        let file = self.0.get(&segment_name(number));
        Ok(file.map(|file| Box::new(Cursor::new(file)) as _))
    }
}

pub(crate) fn opening(tty: bool) -> Opening {
    Opening {
        version: VERSION,
        recording: uuid::Uuid::now_v7(),
        session: Session {
            namespace: "shop".to_owned(),
            name: "alice".to_owned(),
            uid: "2b1d6ba6-1d0c-4c3a-9d5c-0a4b4f3c9d51".to_owned(),
        },
        user: "alice@example.com".to_owned(),
        pod: Pod {
            name: "web-0".to_owned(),
            uid: "9a1c7a0e-6f0f-4d68-8a3e-3f2f6c1b7d10".to_owned(),
            container: "app".to_owned(),
            node: "node-1".to_owned(),
        },
        mode: Mode::Exec,
        argv: vec!["sh".to_owned()],
        tty,
        stdin: true,
        subprotocols: Subprotocols::default(),
        started_at: "2026-01-02T03:04:05Z".parse().expect("a time"),
        settings: Settings {
            level: Level::Required,
            keystrokes: false,
            payloads: true,
            recipients: Vec::new(),
        },
        gateway: "gateway-0".to_owned(),
        legal_hold: false,
    }
}

pub(crate) fn end() -> End {
    End {
        reason: "Completed".to_owned(),
        exit_code: Some(0),
    }
}

/// Records `data`, a chunk for each item, with so many chunks in a segment. Sealed if there is a key.
pub(crate) fn record(
    opening: &Opening,
    data: &[(Stream, Vec<u8>)],
    chunks: usize,
    key: Option<&SigningKey>,
) -> Files {
    let mut files = Files::default();
    let mut encoder = Encoder::new(opening);
    let mut writer = SegmentWriter::new(opening).expect("a writer");
    let mut at = Duration::ZERO;
    let mut flush = |encoder: &mut Encoder, writer: &mut SegmentWriter| {
        while let Some(batch) = encoder.take() {
            let file = files.0.entry(segment_name(writer.number())).or_default();
            file.extend(writer.write(&batch).expect("a chunk"));
        }
    };
    for (index, (stream, bytes)) in data.iter().enumerate() {
        at += Duration::from_millis(3);
        encoder.data(at, *stream, bytes);
        flush(&mut encoder, &mut writer);
        if (index + 1) % chunks == 0 {
            writer.close();
        }
    }
    encoder.end(at, &end());
    flush(&mut encoder, &mut writer);
    if let Some(key) = key {
        let manifest = writer.seal(Seal {
            verdict: Verdict::Complete,
            end: Some(end()),
            transfers: encoder.transfers().to_vec(),
            gaps: encoder.gaps().to_vec(),
            cut: 0,
            sealed_by: opening.gateway.clone(),
        });
        files.0.insert(MANIFEST.to_owned(), manifest.sign(key));
    }
    files
}
