//! Consoles that cannot be recorded.

use drawbridge_audit::event::Type;
use drawbridge_crds::v1alpha1::RecordingVerdict;

use super::*;
use crate::session::tests::object_with;

/// A gateway whose spool has room for a manifest, but not for the facts of a recording.
async fn full() -> (World, crate::record::tests::World) {
    let mut world = World::new().await;
    let gate = Arc::get_mut(&mut world.door.gate).expect("nobody else has it");
    let metrics = Arc::clone(&gate.metrics);
    let (recorder, kept) = crate::record::tests::recorder(metrics, gate.log.clone(), 9_500);
    gate.recorder = recorder;
    (world, kept)
}

#[tokio::test(start_paused = true)]
async fn a_console_whose_facts_cannot_be_written_is_refused_before_anything_runs() {
    let (world, kept) = full().await;
    let (code, message) = world
        .message(&websocket(EXEC, "v4.channel.k8s.io", ""))
        .await;
    assert_eq!(code, 503);
    assert!(message.contains("must be recorded"), "{message}");
    assert!(message.contains("no room"), "{message}");
    assert_eq!(world.dialled(), 0);
    let left = std::fs::read_dir(kept.dir.path().join("spool/recordings")).expect("readable");
    assert_eq!(left.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_best_effort_console_opens_without_a_recording_and_three_places_say_so() {
    let (world, kept) = full().await;
    let terms = serde_json::json!({"level": "BestEffort"});
    world.set(object_with("/status/recording", terms));
    let mut client = world
        .connect(&websocket(EXEC, "v4.channel.k8s.io", ""))
        .await;
    assert_eq!(head(&mut client).await.0, 101);
    assert_eq!(world.gate().metrics.unrecorded.get(), 1);
    let told = || kept.told.0.lock().expect("not poisoned").clone();
    while told().is_empty() {
        tokio::task::yield_now().await;
    }
    let entry = told().remove(0);
    assert_eq!(
        (entry.verdict, entry.location.as_str()),
        (RecordingVerdict::Missing, "")
    );
    let told = world.told.lock().expect("not poisoned");
    let of_a_console = |event: &&drawbridge_audit::event::Event| {
        event.kind() == Type::RecorderFailed && event.facts().connection.is_some()
    };
    let event = told.iter().find(of_a_console).expect("on record");
    assert_eq!(event.facts().connection, Some(entry.id));
    assert_eq!(event.facts().user.as_deref(), Some("alice@example.com"));
}
