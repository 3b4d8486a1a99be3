use std::sync::Mutex;

mod failures;
mod faulty;
mod retention;

use drawbridge_audit::event::{Event as AuditEvent, Type};
use drawbridge_audit::keys::{KeySet, SigningKey};
use drawbridge_audit::recording::{
    Directory, Event, Identities, Level, Mode, Reader, Settings, Source, Stream, Subprotocols,
    VERSION, Verdict, Verification, verify,
};
use drawbridge_audit::subject;
use drawbridge_crds::v1alpha1::RecordingVerdict;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

use self::faulty::{Faulty, Mode as StoreMode};
use super::ledger::Standing;
use super::*;

/// What sessions were told, and what they say.
#[derive(Default)]
pub(crate) struct Told(pub(crate) Mutex<Vec<Recorded>>, Mutex<Standing>);

impl Ledger for Told {
    fn enter<'a>(
        &'a self,
        _: &'a subject::Session,
        entry: &'a Recorded,
    ) -> BoxFuture<'a, Result<(), kube::Error>> {
        self.0.lock().expect("not poisoned").push(entry.clone());
        Box::pin(async { Ok(()) })
    }

    fn standing<'a>(
        &'a self,
        _: &'a subject::Session,
    ) -> BoxFuture<'a, Result<Standing, kube::Error>> {
        let standing = *self.1.lock().expect("not poisoned");
        Box::pin(async move { Ok(standing) })
    }
}

/// A recorder's surroundings, which outlive it.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) told: Arc<Told>,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) most: u64,
    /// What the audit log was told.
    events: Arc<Mutex<Vec<AuditEvent>>>,
    log: Log,
    clock: Clock,
    retention: Retention,
    _key: watch::Sender<Option<Arc<SigningKey>>>,
    keys: Key,
    store: Store,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = Arc::new(SigningKey::generate());
        let (tx, keys) = watch::channel(Some(Arc::clone(&key)));
        let store = Store::directory(&dir.path().join("store")).expect("a store");
        let (log, mut emitted) = Log::for_tests(1024);
        let events = Arc::<Mutex<Vec<AuditEvent>>>::default();
        let list = Arc::clone(&events);
        tokio::spawn(async move {
            while let Some(event) = emitted.next().await {
                list.lock().expect("not poisoned").push(event);
            }
        });
        Self {
            dir,
            told: Arc::default(),
            key,
            most: 1 << 30,
            events,
            log,
            clock: Clock::wall(),
            retention: Retention::default(),
            _key: tx,
            keys,
            store,
        }
    }

    fn over(store: Arc<dyn object_store::ObjectStore>) -> Self {
        Self {
            store: Store::other(store, "memory://"),
            ..Self::new()
        }
    }

    pub(crate) fn recorder(&self, metrics: Arc<Metrics>) -> Arc<Recorder> {
        let spool = Spool::open(&self.dir.path().join("spool"), self.most).expect("a spool");
        let rules = Rules {
            instance: "gateway-1".to_owned(),
            retention: self.retention,
            ..Rules::default()
        };
        let mut recorder = Recorder::new(
            spool,
            self.store.clone(),
            self.keys.clone(),
            Arc::clone(&self.told) as _,
            rules,
            metrics,
            self.log.clone(),
        );
        recorder.clock = Steady::new(self.clock.clone());
        Arc::new(recorder)
    }

    /// Kinds and reasons of what the audit log was told so far.
    async fn events(&self) -> Vec<(Type, Option<String>)> {
        tokio::task::yield_now().await; // what was emitted is listed by another task
        let events = self.events.lock().expect("not poisoned");
        let told = |event: &AuditEvent| (event.kind(), event.facts().reason.clone());
        events.iter().map(told).collect()
    }

    fn told(&self) -> Vec<Recorded> {
        self.told.0.lock().expect("not poisoned").clone()
    }

    /// Waits until a recording was delivered, and checks it.
    async fn delivered(&self, id: Uuid) -> (Recorded, BTreeStreams) {
        let entry = loop {
            let told = self.told();
            if let Some(entry) = told.into_iter().find(|told| told.id == id.to_string()) {
                break entry;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let dir = entry.location.strip_prefix("file://").expect("a directory");
        let source = Directory(dir.into());
        (entry, self.verified(&source))
    }

    /// Checks a recording and returns its streams.
    fn verified(&self, source: &dyn Source) -> BTreeStreams {
        let keys: KeySet = [self.key.public()].into_iter().collect();
        let nobody = Identities::default();
        match verify(source, &keys, &nobody, &mut |_| {}).expect("readable") {
            Verification::Sealed(_) => {}
            other => panic!("{other:?}"),
        }
        let mut streams = BTreeStreams::new();
        for timed in Reader::new(source, &nobody) {
            if let Event::Data(stream, data) = timed.expect("readable").event {
                streams.entry(stream as usize).or_default().extend(data);
            }
        }
        streams
    }
}

type BTreeStreams = std::collections::BTreeMap<usize, Vec<u8>>;

/// A recorder that forgets everything with its directory, which must be kept as long. Its spool takes `most` bytes.
pub(crate) fn recorder(metrics: Arc<Metrics>, log: Log, most: u64) -> (Arc<Recorder>, World) {
    let world = World {
        most,
        log,
        ..World::new()
    };
    (world.recorder(metrics), world)
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::unregistered())
}

fn opening(id: Uuid, tty: bool) -> Opening {
    Opening {
        version: VERSION,
        recording: id,
        session: subject::Session {
            namespace: "shop".into(),
            name: "fix-cart".into(),
            uid: "6f1c".into(),
        },
        user: "alice@example.com".into(),
        pod: subject::Pod {
            name: "web".into(),
            uid: "p-1".into(),
            container: "app".into(),
            node: "n1".into(),
        },
        mode: Mode::Exec,
        argv: vec!["sh".into()],
        tty,
        stdin: true,
        subprotocols: Subprotocols::default(),
        started_at: "2026-01-01T00:00:00Z".parse().expect("a time"),
        settings: Settings {
            level: Level::Required,
            ..Settings::default()
        },
        gateway: "gateway-1".into(),
        legal_hold: false,
    }
}

fn bye() -> End {
    End {
        reason: "Completed".into(),
        exit_code: Some(0),
    }
}

async fn begun(recorder: &Arc<Recorder>, tty: bool) -> (Uuid, Recording, Tap) {
    begun_from(recorder, opening(Uuid::now_v7(), tty)).await
}

async fn begun_from(recorder: &Arc<Recorder>, opening: Opening) -> (Uuid, Recording, Tap) {
    let id = opening.recording;
    let prepared = recorder.reserve(opening).await.expect("room");
    let begun = recorder.begin(prepared, Subprotocols::default());
    let (recording, tap) = begun.await.expect("begun");
    (id, recording, tap)
}

fn is_empty(dir: &std::path::Path) -> bool {
    std::fs::read_dir(dir).expect("readable").next().is_none()
}

#[tokio::test]
async fn a_connection_becomes_a_verified_recording_in_the_store_and_the_spool_is_cleared() {
    let world = World::new();
    let recorder = world.recorder(metrics());
    let (id, recording, mut tap) = begun(&recorder, true).await;
    assert_eq!(recorder.lives().of("6f1c").len(), 1);
    tap.resize(100, 40);
    tap.data(Stream::Stdout, b"$ \xff\0", None);
    tap.data(Stream::Stdout, "\u{20ac}".as_bytes(), None);
    drop(tap);
    let sealed = recording.finish(bye()).await.expect("sealed").recorded;
    assert!(recorder.lives().of("6f1c").is_empty());
    let (entry, streams) = world.delivered(id).await;
    assert_eq!(sealed, entry);
    assert_eq!(entry.verdict, RecordingVerdict::Complete);
    assert_eq!(streams[&1], b"$ \xff\0\xe2\x82\xac");
    recorder.settle(Duration::from_secs(5)).await;
    assert!(is_empty(&world.dir.path().join("spool/recordings")));
    assert_eq!(recorder.spool.used(), 0);
}

#[tokio::test]
async fn what_was_heard_is_in_the_file_within_the_second_and_survives_the_process() {
    let world = World::new();
    let recorder = world.recorder(metrics());
    let (id, recording, mut tap) = begun(&recorder, false).await;
    let live = recorder.lives().get(id).expect("open");
    let mut pieces = live.pieces();
    tap.data(Stream::Stdout, b"before the crash\n", None);
    let piece = timeout(Duration::from_secs(2), pieces.recv()).await;
    piece.expect("within the second").expect("told");
    // Nobody can take it over while it is being written.
    let next = world.recorder(metrics());
    next.take_up().await;
    assert!(world.told().is_empty());
    // As if the process were killed: its files stay as they are, and its lock is gone.
    let copy = world.dir.path().join("copy");
    let from = live.dir.clone();
    std::fs::create_dir(&copy).expect("made");
    for file in std::fs::read_dir(&from).expect("readable") {
        let file = file.expect("readable").path();
        std::fs::copy(&file, copy.join(file.file_name().expect("named"))).expect("copied");
    }
    drop((recording, tap));
    let (entry, _) = world.delivered(id).await;
    assert_eq!(entry.verdict, RecordingVerdict::Interrupted);
    recorder.settle(Duration::from_secs(5)).await;
    world.told.0.lock().expect("not poisoned").clear();
    std::fs::create_dir_all(from.parent().expect("below")).expect("made");
    std::fs::rename(&copy, &from).expect("moved");
    // Half a chunk at its end.
    let segment = from.join("00000000.seg");
    let mut bytes = std::fs::read(&segment).expect("there");
    bytes.extend_from_slice(&bytes.clone()[..30]);
    std::fs::write(&segment, bytes).expect("written");
    next.take_up().await;
    let (entry, streams) = world.delivered(id).await;
    assert_eq!(entry.verdict, RecordingVerdict::Interrupted);
    assert!(entry.reason.expect("told").contains("gateway ended"));
    assert_eq!(streams[&1], b"before the crash\n");
}

#[tokio::test]
async fn a_full_spool_refuses_new_connections_and_ends_those_that_must_be_recorded() {
    let world = World {
        most: 40 * 1024,
        ..World::new()
    };
    let metrics = metrics();
    let recorder = world.recorder(Arc::clone(&metrics));
    let (id, recording, mut tap) = begun(&recorder, false).await;
    let mut random = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b' ' + (random >> 24) as u8 % 90
    })
    .take(200_000)
    .collect();
    tap.data(Stream::Stdout, b"kept\n", None);
    let live = recorder.lives().get(id).expect("open");
    live.pieces().recv().await.expect("written");
    tap.data(Stream::Stdout, &noise, None);
    let mut ended = false;
    for _ in 0..500 {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        ended = tap.poll(&mut cx) == Room::Never;
        if ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(ended, "the bridge is told");
    drop(tap);
    let sealed = recording.finish(bye()).await.expect("sealed").recorded;
    assert_eq!(sealed.verdict, RecordingVerdict::Interrupted);
    assert!(sealed.reason.expect("told").contains("spool"));
    let (_, streams) = world.delivered(id).await;
    assert_eq!(streams[&1], b"kept\n");
    let failures = metrics
        .recorder_failures
        .get_or_create(&crate::metrics::RecorderLabels {
            part: RecorderPart::spool,
        })
        .get();
    assert_eq!(failures, 1);
    let full = World {
        most: 1000,
        ..World::new()
    };
    let recorder = full.recorder(self::metrics());
    let refused = recorder.reserve(opening(Uuid::now_v7(), true)).await;
    assert!(refused.is_err_and(|why| why.word() == "full"));
    assert!(
        is_empty(&full.dir.path().join("spool/recordings")),
        "nothing is left"
    );
}

#[tokio::test]
async fn without_a_key_nothing_is_recorded() {
    let world = World::new();
    let (_tx, keys) = watch::channel(None);
    let world = World { keys, ..world };
    tokio::time::pause();
    let refused = world
        .recorder(metrics())
        .reserve(opening(Uuid::now_v7(), true))
        .await;
    assert!(matches!(refused, Err(Unavailable::NoKey)));
}

#[tokio::test]
async fn a_store_that_is_down_delays_and_loses_nothing() {
    let store = Arc::new(Faulty::default());
    let world = World::over(Arc::clone(&store) as _);
    let recorder = world.recorder(metrics());
    store.set(StoreMode::Down);
    let (id, recording, mut tap) = begun(&recorder, false).await;
    tap.data(Stream::Stderr, b"hello", None);
    drop(tap);
    recording
        .finish(bye())
        .await
        .expect("sealed without a store");
    while recorder.health.is_up(Part::Store) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(world.told().is_empty());
    let place = world
        .dir
        .path()
        .join(format!("spool/recordings/shop/6f1c/{id}"));
    assert_eq!(world.verified(&Directory(place.clone()))[&2], b"hello");
    store.set(StoreMode::Up);
    recorder.settle(Duration::from_secs(30)).await;
    assert_eq!(world.told().len(), 1);
    assert!(!place.exists());
    let manifest = recorder
        .store()
        .get(&format!("recordings/shop/6f1c/{id}/manifest.json"), 1 << 20)
        .await
        .expect("delivered");
    let keys: KeySet = [world.key.public()].into_iter().collect();
    let (manifest, _) =
        drawbridge_audit::recording::Manifest::verify(&manifest, &keys).expect("signed");
    assert_eq!(manifest.verdict, Verdict::Complete);
}

#[tokio::test]
async fn a_process_that_ends_first_leaves_the_delivery_to_the_next() {
    let store = Arc::new(Faulty::default());
    let world = World::over(Arc::clone(&store) as _);
    let recorder = world.recorder(metrics());
    store.set(StoreMode::Down);
    let (_, recording, tap) = begun(&recorder, false).await;
    drop(tap);
    recording.finish(bye()).await.expect("sealed");
    recorder.settle(Duration::from_millis(1)).await;
    recorder.deliveries.wait().await;
    store.set(StoreMode::Up);
    let next = world.recorder(metrics());
    next.take_up().await;
    next.settle(Duration::from_secs(10)).await;
    assert_eq!(world.told()[0].verdict, RecordingVerdict::Complete);
}
