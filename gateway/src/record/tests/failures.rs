//! Disks and stores that fail during a recording, hang, and come back.

use std::task::{Context, Waker};

use super::*;

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut random = 1_u32;
    std::iter::repeat_with(|| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b' ' + (random >> 24) as u8 % 90
    })
    .take(bytes)
    .collect()
}

/// Waits until something is so.
async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let reached = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reached = timeout(Duration::from_mins(10), reached).await;
    reached.unwrap_or_else(|_| panic!("not within ten minutes: {what}"));
}

/// Sends until the bridge is told that it must end; how many bytes that were.
async fn send_until_the_end(tap: &mut Tap) -> usize {
    let piece = noise(64 * 1024);
    let mut sent = 0;
    for _ in 0..10_000 {
        let room = tap.poll(&mut Context::from_waker(Waker::noop()));
        match room {
            Room::Now => {
                tap.data(Stream::Stdout, &piece, None);
                sent += piece.len();
            }
            Room::Later => {}
            Room::Never => return sent,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never told, after {sent} bytes");
}

fn manifest(bytes: &[u8]) -> drawbridge_audit::recording::Manifest {
    drawbridge_audit::recording::Manifest::read(bytes).expect("a manifest")
}

async fn stored(recorder: &Recorder, id: Uuid) -> drawbridge_audit::recording::Manifest {
    let key = format!("recordings/shop/6f1c/{id}/manifest.json");
    manifest(&recorder.store().get(&key, 1 << 20).await.expect("stored"))
}

#[tokio::test(start_paused = true)]
async fn segments_reach_the_store_while_the_console_is_open_after_a_minute_or_a_mebibyte() {
    let world = World::over(Arc::new(Faulty::default()));
    let recorder = world.recorder(metrics());
    let (id, recording, mut tap) = begun(&recorder, false).await;
    let name = |number| format!("recordings/shop/6f1c/{id}/0000000{number}.seg");
    let there = async |number| recorder.store().get(&name(number), 16 << 20).await.is_ok();
    let opened = Instant::now();
    tap.data(Stream::Stdout, b"the first minute\n", None);
    tokio::time::sleep(Duration::from_secs(55)).await;
    assert!(!there(0).await, "it is not a minute old");
    until("the first segment", async || there(0).await).await;
    let closed = opened.elapsed();
    assert!(closed < Duration::from_secs(65), "{closed:?}");
    for piece in noise(3 << 20).chunks(128 << 10) {
        tap.data(Stream::Stdout, piece, None);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let began = Instant::now();
    until("the second segment", async || there(1).await).await;
    assert!(began.elapsed() < Duration::from_secs(20), "full, not old");
    assert!(recorder.lives().get(id).is_some(), "it is still open");
    drop(tap);
    recording.finish(bye()).await.expect("sealed");
    recorder.settle(Duration::from_mins(1)).await;
    assert!(stored(&recorder, id).await.segments.len() > 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_given_up_asked_again_and_gets_everything_when_it_is_back() {
    let store = Arc::new(Faulty::default());
    let world = World::over(Arc::clone(&store) as _);
    let recorder = world.recorder(metrics());
    store.set(StoreMode::Hangs);
    let (id, recording, mut tap) = begun(&recorder, false).await;
    for minute in 0..20 {
        tap.data(
            Stream::Stdout,
            format!("minute {minute}\n").as_bytes(),
            None,
        );
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    // No more can hang than there are turns.
    assert_eq!(store.asked(), PUTS);
    let told = || world.told().len();
    assert_eq!(
        world.events().await,
        [(Type::RecorderFailed, Some("store".to_owned()))]
    );
    drop(tap);
    recording
        .finish(bye())
        .await
        .expect("sealed without a store");
    assert_eq!((told(), recorder.health.is_up(Part::Store)), (0, false));
    store.set(StoreMode::Up);
    until("delivered", async || told() == 1).await;
    recorder.settle(Duration::from_mins(1)).await;
    let manifest = stored(&recorder, id).await;
    assert_eq!(manifest.verdict, Verdict::Complete);
    for segment in &manifest.segments {
        let key = format!("recordings/shop/6f1c/{id}/{}", segment.name);
        let bytes = recorder.store().get(&key, 1 << 20).await.expect("there");
        assert_eq!(
            drawbridge_audit::hash::Sha256::of(&bytes),
            segment.sha256,
            "{key}"
        );
    }
    assert_eq!(recorder.spool.used(), 0);
    let recovered = (Type::RecorderRecovered, Some("store".to_owned()));
    assert_eq!(world.events().await[1..], [recovered]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_asked_ever_more_seldom() {
    let store = Arc::new(Faulty::default());
    let world = World::over(Arc::clone(&store) as _);
    let recorder = world.recorder(metrics());
    store.set(StoreMode::Down);
    let (_, recording, mut tap) = begun(&recorder, false).await;
    tap.data(Stream::Stdout, b"x", None);
    drop(tap);
    recording.finish(bye()).await.expect("sealed");
    tokio::time::sleep(Duration::from_mins(10)).await;
    // Half a second, one, two … and then 30: six in the first half minute, 19 in the rest.
    let asked = store.asked();
    assert!((20..=30).contains(&asked), "{asked}");
    store.set(StoreMode::Up);
    recorder.settle(Duration::from_mins(1)).await;
    assert_eq!(world.told().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_the_store_down_the_bound_holds_what_must_be_recorded_ends_and_all_works_again_by_itself()
 {
    let store = Arc::new(Faulty::default());
    let world = World {
        most: 3 << 20,
        ..World::over(Arc::clone(&store) as _)
    };
    let metrics = metrics();
    let recorder = world.recorder(Arc::clone(&metrics));
    store.set(StoreMode::Down);
    let (id, recording, mut tap) = begun(&recorder, false).await;
    let sent = send_until_the_end(&mut tap).await;
    assert!(sent > 2 << 20, "{sent}");
    recorder.spool.measure().expect("readable");
    assert!(recorder.spool.used() <= world.most);
    drop(tap);
    let sealed = recording.finish(bye()).await.expect("sealed").recorded;
    assert_eq!(sealed.verdict, RecordingVerdict::Interrupted);
    let refused = recorder.reserve(opening(Uuid::now_v7(), true)).await;
    assert_eq!(refused.expect_err("no room").word(), "full");
    assert_eq!(metrics.spool_up.get(), 0);
    let reason = |text: &str| Some(text.to_owned());
    let mut events = world.events().await;
    events.sort_by_key(|(_, reason)| reason.clone());
    assert_eq!(
        events,
        [
            (Type::RecorderFailed, reason("full")), // the console
            (Type::RecorderFailed, reason("spool")),
            (Type::RecorderFailed, reason("store")),
        ]
    );
    store.set(StoreMode::Up);
    until("delivered", async || world.told().len() == 1).await;
    until("the spool is cleared", async || recorder.spool.used() == 0).await;
    let (_, again, tap) = begun(&recorder, true).await;
    drop(tap);
    again.finish(bye()).await.expect("sealed");
    assert_eq!(metrics.spool_up.get(), 1);
    assert!(
        world
            .events()
            .await
            .contains(&(Type::RecorderRecovered, reason("spool")))
    );
    recorder.settle(Duration::from_mins(1)).await;
    let manifest = stored(&recorder, id).await;
    assert!(manifest.bytes.stdout > 2 << 20, "{:?}", manifest.bytes);
    assert!(manifest.transfers_unknown && manifest.segments.len() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_best_effort_console_goes_on_when_its_recording_breaks_off_and_three_places_say_so() {
    let world = World {
        most: 64 * 1024,
        ..World::new()
    };
    let metrics = metrics();
    let recorder = world.recorder(Arc::clone(&metrics));
    let mut opening = opening(Uuid::now_v7(), true);
    opening.settings.level = Level::BestEffort;
    let (id, recording, mut tap) = begun_from(&recorder, opening).await;
    tap.data(Stream::Stdout, b"kept\n", None);
    let live = recorder.lives().get(id).expect("open");
    live.pieces().recv().await.expect("written");
    drop(live);
    tap.data(Stream::Stdout, &noise(200_000), None);
    let (entry, streams) = world.delivered(id).await;
    assert_eq!(
        tap.poll(&mut Context::from_waker(Waker::noop())),
        Room::Now,
        "it goes on"
    );
    assert_eq!(entry.verdict, RecordingVerdict::Interrupted);
    assert!(entry.reason.expect("told").contains("recorder failed"));
    assert_eq!(streams[&1], b"kept\n");
    assert_eq!(metrics.unrecorded.get(), 1);
    let full = (Type::RecorderFailed, Some("full".to_owned()));
    assert!(world.events().await.contains(&full));
    let events = world.events.lock().expect("not poisoned");
    let event = events
        .iter()
        .find(|event| event.facts().reason == full.1)
        .expect("told");
    assert_eq!(
        event.facts().connection.as_deref(),
        Some(&*id.to_string()),
        "which console"
    );
    drop((tap, recording));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_cannot_be_written_is_tried_again_and_the_recording_stays_whole() {
    let world = World::new();
    let recorder = world.recorder(metrics());
    let (id, recording, mut tap) = begun(&recorder, false).await;
    tap.data(Stream::Stdout, b"all of it", None);
    // No file can be made in place of a directory.
    let reserve = recorder.lives().get(id).expect("open").dir.join("reserve");
    std::fs::remove_file(&reserve).expect("there");
    std::fs::create_dir(&reserve).expect("made");
    drop(tap);
    assert!(recording.finish(bye()).await.is_none(), "not yet");
    let events = world.events().await;
    assert!(
        events.contains(&(Type::RecorderFailed, Some("disk".to_owned()))),
        "{events:?}"
    );
    tokio::time::sleep(Duration::from_mins(5)).await;
    recorder.take_up().await; // it is not somebody else's to seal
    assert!(world.told().is_empty());
    std::fs::remove_dir(&reserve).expect("removed");
    let (entry, streams) = world.delivered(id).await;
    assert_eq!(
        (entry.verdict, entry.reason),
        (RecordingVerdict::Complete, None)
    );
    assert_eq!(streams[&1], b"all of it");
}

#[tokio::test(start_paused = true)]
async fn a_recording_whose_last_words_do_not_fit_says_so_and_how_the_connection_ended() {
    let world = World::new();
    let recorder = world.recorder(metrics());
    let (id, recording, mut tap) = begun(&recorder, false).await;
    let live = recorder.lives().get(id).expect("open");
    let mut pieces = live.pieces();
    tap.data(Stream::Stdout, b"kept\n", None);
    pieces.recv().await.expect("written");
    // The next segment's name is taken, as by a disk that takes nothing new.
    tokio::time::sleep(Duration::from_secs(59)).await;
    std::fs::create_dir(live.dir.join("00000001.seg")).expect("made");
    until("closed", async || {
        let key = format!("recordings/shop/6f1c/{id}/00000000.seg");
        recorder.store().get(&key, 1 << 20).await.is_ok()
    })
    .await;
    drop(tap);
    let finish = tokio::spawn(recording.finish(bye()));
    until("given up", async || !world.events().await.is_empty()).await;
    std::fs::remove_dir(live.dir.join("00000001.seg")).expect("removed");
    assert!(finish.await.expect("no panic").is_none());
    let (entry, streams) = world.delivered(id).await;
    assert_eq!(entry.verdict, RecordingVerdict::Interrupted);
    let reason = entry.reason.expect("told");
    assert!(reason.contains("recorder failed"), "{reason}");
    assert_eq!(streams[&1], b"kept\n");
    let dir = entry.location.strip_prefix("file://").expect("a directory");
    let file = std::fs::read(std::path::Path::new(dir).join("manifest.json")).expect("there");
    assert_eq!(manifest(&file).end, Some(bye()));
}

#[tokio::test]
async fn a_long_recording_has_room_for_its_manifest_on_a_disk_that_is_full() {
    let world = World::new();
    let recorder = world.recorder(metrics());
    let opening = opening(Uuid::now_v7(), true);
    let mut place = recorder.spool.reserve(&opening).expect("room");
    place.keep();
    for number in 0..200 {
        place.segment(number).expect("made");
    }
    let aside = std::fs::metadata(place.dir().join("reserve")).expect("there");
    let line =
        r#"{"name":"00000199.seg","bytes":1048576,"sha256":"","chunks":1000,"lines":100000},"#;
    let needed = 200 * (line.len() + 64) * 4 / 3;
    assert!(aside.len() > needed as u64, "{} of {needed}", aside.len());
}
