//! What is deleted from the store, and what is not.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::super::retain::{self, Sweep};
use super::*;

const DAY: Duration = Duration::from_hours(24);

/// A wall clock that somebody sets.
#[derive(Clone, Default)]
struct Set(Arc<AtomicI64>);

impl Set {
    fn by_hours(&self, hours: i64) {
        self.0.store(hours, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let (set, start, since) = (self.clone(), Timestamp::now(), Instant::now());
        Clock::from_fn(move || {
            let hours = SignedDuration::from_hours(set.0.load(Ordering::Relaxed));
            start + since.elapsed() + hours
        })
    }
}

async fn sweep(world: &World, recorder: &Recorder) -> Result<usize, retain::Error> {
    let sweep = Sweep {
        store: recorder.store(),
        ledger: &*world.told,
        spool: &recorder.spool,
        log: &world.log,
        retention: world.retention,
        now: recorder.clock.now(),
    };
    retain::sweep(sweep).await
}

fn says(world: &World, held: bool, open: bool) {
    *world.told.1.lock().expect("not poisoned") = Standing { held, open };
}

async fn one(recorder: &Arc<Recorder>) -> Uuid {
    let (id, recording, mut tap) = begun(recorder, true).await;
    tap.data(Stream::Stdout, b"$ ", None);
    drop(tap);
    recording.finish(bye()).await.expect("sealed");
    let key = format!("recordings/shop/6f1c/{id}");
    while recorder.spool.holds(&key) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    id
}

async fn there(recorder: &Recorder, id: Uuid) -> bool {
    let key = format!("recordings/shop/6f1c/{id}/00000000.seg");
    recorder.store().get(&key, 1 << 20).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_changes_no_length_and_deletes_nothing_young_or_open() {
    let set = Set::default();
    let world = World {
        clock: set.clock(),
        retention: Retention {
            age: Some(DAY),
            bytes: None,
        },
        ..World::over(Arc::new(Faulty::default()))
    };
    let recorder = world.recorder(metrics());
    let young = one(&recorder).await;
    let facts = Opening {
        started_at: world.clock.now(),
        ..opening(Uuid::now_v7(), false)
    };
    let started = facts.started_at;
    let (open, recording, mut tap) = begun_from(&recorder, facts).await;
    says(&world, false, true);
    for hours in [0, 720, -720, 2] {
        set.by_hours(hours);
        tap.data(Stream::Stdout, format!("{hours}\n").as_bytes(), None);
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(
            sweep(&world, &recorder).await.expect("swept"),
            0,
            "set by {hours} hours"
        );
    }
    assert!(there(&recorder, young).await && there(&recorder, open).await);
    drop(tap);
    recording.finish(bye()).await.expect("sealed");
    while world.told().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let key = format!("recordings/shop/6f1c/{open}/manifest.json");
    let file = recorder.store().get(&key, 1 << 20).await.expect("stored");
    let keys: KeySet = [world.key.public()].into_iter().collect();
    let (manifest, _) =
        drawbridge_audit::recording::Manifest::verify(&file, &keys).expect("signed");
    assert_eq!(manifest.verdict, Verdict::Complete);
    assert!(
        (360.0..361.5).contains(&manifest.duration_seconds),
        "{}",
        manifest.duration_seconds
    );
    let length = manifest.ended_at.duration_since(started).as_secs_f64();
    assert!((length - manifest.duration_seconds).abs() < 0.001);
    // A day that has really passed is another matter.
    set.by_hours(0);
    tokio::time::sleep(DAY).await;
    assert_eq!(sweep(&world, &recorder).await.expect("swept"), 2);
    let removed = (Type::Removed, Some("age".to_owned()));
    assert_eq!(world.events().await, [removed.clone(), removed]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_asked_when_it_is_deleted_and_what_is_open_stays_however_old() {
    let world = World {
        clock: Set::default().clock(),
        retention: Retention {
            age: Some(DAY),
            bytes: Some(0),
        },
        ..World::over(Arc::new(Faulty::default()))
    };
    let recorder = world.recorder(metrics());
    let held = one(&recorder).await;
    let (open, recording, mut tap) = begun(&recorder, true).await;
    tap.data(Stream::Stdout, b"still here", None);
    tokio::time::sleep(5 * DAY).await;
    assert!(there(&recorder, open).await, "its first segment");
    says(&world, true, true);
    assert_eq!(
        sweep(&world, &recorder).await.expect("swept"),
        0,
        "labelled meanwhile"
    );
    says(&world, false, true);
    assert_eq!(
        sweep(&world, &recorder).await.expect("swept"),
        1,
        "the label is gone"
    );
    assert!(!there(&recorder, held).await && there(&recorder, open).await);
    // As another gateway sees it, which does not have it in its spool.
    let other = World::new();
    let elsewhere = Sweep {
        store: recorder.store(),
        ledger: &*world.told,
        spool: &other.recorder(metrics()).spool,
        log: &world.log,
        retention: world.retention,
        now: recorder.clock.now(),
    };
    assert_eq!(retain::sweep(elsewhere).await.expect("swept"), 0, "open");
    says(&world, true, false);
    assert_eq!(retain::sweep(elsewhere).await.expect("swept"), 0, "held");
    says(&world, false, false);
    assert_eq!(
        retain::sweep(elsewhere).await.expect("swept"),
        1,
        "nobody seals it any more"
    );
    let events = world.events.lock().expect("not poisoned");
    let removed: Vec<_> = events
        .iter()
        .map(|event| event.facts().recording.clone().expect("which"))
        .collect();
    assert_eq!(removed.len(), 2);
    assert_eq!(
        (removed[0].id.clone(), removed[0].verdict.as_deref()),
        (held.to_string(), Some("Complete"))
    );
    assert_eq!(
        (removed[1].id.clone(), removed[1].verdict.as_deref()),
        (open.to_string(), None)
    );
    drop((recording, tap));
}

#[tokio::test]
async fn nothing_is_deleted_that_cannot_be_put_on_record() {
    let (log, emitted) = Log::for_tests(8);
    drop(emitted); // nobody writes any more
    let world = World {
        log,
        retention: Retention {
            age: None,
            bytes: Some(0),
        },
        ..World::over(Arc::new(Faulty::default()))
    };
    let recorder = world.recorder(metrics());
    let id = one(&recorder).await;
    assert!(sweep(&world, &recorder).await.is_err());
    assert!(there(&recorder, id).await);
}
