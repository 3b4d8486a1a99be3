//! The tasks of a recorder: one per connection that writes, then delivers; and those that clean up.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use drawbridge_audit::recording::{End, MANIFEST, Manifest, Opening, Verdict};
use drawbridge_crds::v1alpha1::{Recorded, RecordingVerdict};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument as _, error, info, info_span, warn};

use super::live::{Listed, Live};
use super::spool::{Left, Place};
use super::tap::Tape;
use super::writer::{self, Sealed, Writer, Written, salvage};
use super::{Finished, Recorder, retain};
use crate::metrics::RecorderPart;

/// How often a writer takes what was heard.
const FLUSH: Duration = Duration::from_secs(1);
/// The same, while somebody follows.
const FLUSH_LIVE: Duration = Duration::from_millis(50);
/// How often the spool is looked through for what others left.
pub(super) const LOOK: Duration = Duration::from_mins(1);
/// Pause after a first failure of the store or the API server; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest wait for the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Closed segments that wait for the store; further ones go with the manifest.
const WAITING: usize = 64;

/// What one connection's writer works with.
pub(super) struct Run {
    pub(super) recorder: Arc<Recorder>,
    pub(super) tape: Tape,
    pub(super) ending: oneshot::Receiver<End>,
    pub(super) begun: Instant,
    pub(super) listed: Listed,
}

impl Run {
    /// Writes until the bridge is gone, seals, tells what it sealed, and delivers.
    pub(super) async fn run(self, writer: Writer, tell: oneshot::Sender<Finished>) {
        let recorder = Arc::clone(&self.recorder);
        recorder.metrics.recordings_open.inc();
        let (closed, waiting) = mpsc::channel(WAITING);
        let (sealed, delivery) = oneshot::channel();
        let (key, dir) = (
            writer.place().key().to_owned(),
            writer.place().dir().to_owned(),
        );
        let deliver = Arc::clone(&recorder).deliver(key, dir, waiting, delivery);
        recorder.deliveries.spawn(deliver.in_current_span());
        let result = self.write(writer, &closed).await;
        recorder.metrics.recordings_open.dec();
        match result {
            Ok(Sealed {
                place,
                manifest,
                carried,
            }) => {
                recorder.count(&manifest);
                let finished = Finished {
                    recorded: recorder.entry(place.key(), &manifest),
                    carried,
                };
                let _ = tell.send(finished); // a task that is gone needs no answer
                let _ = sealed.send((place, manifest)); // as above
            }
            Err(error) => {
                recorder.metrics.recorder_failed(RecorderPart::seal);
                error!(
                    error = &error as &dyn std::error::Error,
                    "a recording could not be sealed; to be tried again"
                );
            }
        }
    }

    async fn write(
        self,
        mut writer: Writer,
        closed: &mpsc::Sender<String>,
    ) -> Result<Sealed, writer::Error> {
        let Self {
            recorder,
            tape,
            ending,
            begun,
            listed,
        } = self;
        loop {
            wait(&tape, &writer, &listed.live).await;
            let batch = tape.take();
            let ended = batch.ended;
            let at = begun.elapsed();
            let (back, result) = recorder
                .blocking(move || {
                    let result = writer.write(&batch);
                    Ok((writer, result))
                })
                .await?;
            writer = back;
            match result {
                Ok(Written {
                    pieces,
                    closed: names,
                }) => {
                    listed.live.tell(pieces);
                    for name in names {
                        let _ = closed.try_send(name); // goes with the manifest
                    }
                }
                Err(error) => {
                    // A bridge that must be recorded ends now; what was written so far is kept.
                    tape.lose();
                    return recorder.give_up(writer, error).await;
                }
            }
            if ended {
                let end = ending.await.ok();
                return recorder.seal(writer, at, end, &listed.live).await;
            }
        }
    }
}

/// Waits until there is something to write, and then for more to come with it.
async fn wait(tape: &Tape, writer: &Writer, live: &Live) {
    let due = async {
        match writer.due() {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tape.something() => {}
        () = due => return,
    }
    let pause = if live.is_followed() {
        FLUSH_LIVE
    } else {
        FLUSH
    };
    tokio::select! {
        _ = timeout(pause, tape.much()) => {}
        () = live.joined() => {}
    }
}

impl Recorder {
    async fn seal(
        &self,
        writer: Writer,
        at: Duration,
        end: Option<End>,
        live: &Live,
    ) -> Result<Sealed, writer::Error> {
        let (key, instance) = (self.signer()?, self.rules.instance.clone());
        // Kept, in case that the disk does not take the rest.
        let opening = writer.opening().clone();
        let (place, dir) = (
            writer.place().key().to_owned(),
            writer.place().dir().to_owned(),
        );
        let sealed = self
            .blocking(move || writer.seal(at, end, &key, &instance))
            .await;
        match sealed {
            Ok((sealed, pieces)) => {
                live.tell(pieces);
                Ok(sealed)
            }
            Err(error) => {
                warn!(
                    recording = %opening.recording,
                    place,
                    dir = %dir.display(),
                    error = &error as &dyn std::error::Error,
                    "the end of a recording could not be written"
                );
                Err(error)
            }
        }
    }

    /// Seals what a failed writer has written.
    async fn give_up(&self, writer: Writer, why: writer::Error) -> Result<Sealed, writer::Error> {
        self.metrics.recorder_failed(RecorderPart::spool);
        let reason = format!("the recorder failed: {}", chain(&why));
        error!(error = &why as &dyn std::error::Error, "recording failed");
        let (place, opening) = writer.abandon();
        self.rescue(place, opening, reason).await
    }

    async fn rescue(
        &self,
        place: Place,
        opening: Opening,
        reason: String,
    ) -> Result<Sealed, writer::Error> {
        let (key, instance) = (self.signer()?, self.rules.instance.clone());
        self.blocking(move || salvage(place, &opening, reason, None, &key, &instance))
            .await
    }

    fn signer(&self) -> Result<Arc<drawbridge_audit::keys::SigningKey>, writer::Error> {
        let none = || std::io::Error::other("there is no key to sign recordings with");
        Ok(self.key.borrow().clone().ok_or_else(none)?)
    }

    /// Takes over what processes that are gone have left.
    pub(super) async fn take_up(self: &Arc<Self>) {
        let spool = self.spool.clone();
        let found = self
            .blocking(move || {
                let left = spool.left(&mut |dir, error| {
                    warn!(dir = %dir.display(), %error, "a recording in the spool cannot be taken up");
                })?;
                spool.measure()?;
                Ok(left)
            })
            .await;
        self.metrics.spool_used(self.spool.used());
        let left = match found {
            Ok(left) => left,
            Err(error) => {
                self.metrics.recorder_failed(RecorderPart::spool);
                error!(
                    error = &error as &dyn std::error::Error,
                    "the spool cannot be read"
                );
                return;
            }
        };
        for left in left {
            let recorder = Arc::clone(self);
            let key = match &left {
                Left::Sealed(place) | Left::Open(place, _) => place.key().to_owned(),
            };
            let span = info_span!("recording", key);
            self.deliveries
                .spawn(async move { recorder.take_over(left).await }.instrument(span));
        }
    }

    async fn take_over(&self, left: Left) {
        let sealed = match left {
            Left::Sealed(place) => read_manifest(place.dir())
                .await
                .map(|manifest| (place, manifest)),
            Left::Open(place, opening) => {
                let mut key = self.key.clone();
                let known = async { key.wait_for(Option::is_some).await.is_ok() };
                let known = self.stop.run_until_cancelled(known).await;
                if known != Some(true) {
                    return;
                }
                let reason = "the gateway ended before the session did".to_owned();
                let sealed = self.rescue(place, *opening, reason).await;
                sealed.map(|sealed| (sealed.place, sealed.manifest))
            }
        };
        match sealed {
            Ok((place, manifest)) => {
                info!(verdict = ?manifest.verdict, "took up a recording that was left in the spool");
                self.count(&manifest);
                self.hand_over(place, &manifest, &HashSet::new()).await;
            }
            Err(error) => {
                self.metrics.recorder_failed(RecorderPart::seal);
                error!(
                    error = &error as &dyn std::error::Error,
                    "a recording in the spool cannot be sealed"
                );
            }
        }
    }

    /// Brings a recording's segments to the store as they close, and the manifest when it is sealed.
    async fn deliver(
        self: Arc<Self>,
        key: String,
        dir: std::path::PathBuf,
        mut closed: mpsc::Receiver<String>,
        sealed: oneshot::Receiver<(Place, Manifest)>,
    ) {
        let mut there = HashSet::new();
        while let Some(name) = closed.recv().await {
            if !self.put_file(&key, &dir, &name).await {
                return;
            }
            there.insert(name);
        }
        if let Ok((place, manifest)) = sealed.await {
            self.hand_over(place, &manifest, &there).await;
        }
    }

    /// Brings to the store what is not there, tells the session, and clears the spool.
    async fn hand_over(&self, place: Place, manifest: &Manifest, there: &HashSet<String>) {
        let names = manifest
            .segments
            .iter()
            .map(|segment| segment.name.as_str());
        let missing = names.filter(|name| !there.contains(*name));
        for name in missing.chain([MANIFEST]) {
            if !self.put_file(place.key(), place.dir(), name).await {
                return;
            }
        }
        let entry = self.entry(place.key(), manifest);
        let session = &manifest.opening.session;
        let told = self
            .persist(RecorderPart::status, || async {
                let entered = timeout(CALL_TIMEOUT, self.ledger.enter(session, &entry)).await;
                match entered {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("no answer from the API server".to_owned()),
                }
            })
            .await;
        if !told {
            return;
        }
        let removed = self.blocking(move || Ok(place.delivered()?)).await;
        if let Err(error) = removed {
            warn!(
                error = &error as &dyn std::error::Error,
                "a delivered recording stays in the spool; to be removed later"
            );
        }
        self.metrics.spool_used(self.spool.used());
    }

    /// Brings one file to the store, however long that takes; `false`: the process ends first.
    async fn put_file(&self, key: &str, dir: &Path, name: &str) -> bool {
        let put = || async {
            let _turn = self.puts.acquire().await; // never closed
            let bytes = tokio::fs::read(dir.join(name)).await;
            let bytes = bytes.map_err(|error| error.to_string())?;
            let key = format!("{key}/{name}");
            let put = self.store.put(&key, Bytes::from(bytes)).await;
            let put = put.map_err(|error| chain(&error));
            self.store_up.store(put.is_ok(), Ordering::Relaxed);
            self.metrics.store_up.set(i64::from(put.is_ok()));
            put
        };
        self.persist(RecorderPart::store, put).await
    }

    /// Tries until it works; `false`: the process ends first.
    async fn persist<F: Future<Output = Result<(), String>>>(
        &self,
        part: RecorderPart,
        attempt: impl Fn() -> F,
    ) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let done = tokio::select! {
                done = attempt() => done,
                () = self.stop.cancelled() => return false,
            };
            let Err(error) = done else { return true };
            self.metrics.recorder_failed(part);
            warn!(part = ?part, error, ?pause, "a recording cannot be delivered; to be tried again");
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => return false,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What a session's status says of a recording.
    pub(super) fn entry(&self, key: &str, manifest: &Manifest) -> Recorded {
        let (verdict, reason) = match &manifest.verdict {
            Verdict::Complete => (RecordingVerdict::Complete, None),
            Verdict::Interrupted { reason } => {
                let reason = &reason[..reason.floor_char_boundary(256)];
                (RecordingVerdict::Interrupted, Some(reason.to_owned()))
            }
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole seconds of a duration"
        )]
        let duration_seconds = manifest.duration_seconds as u64;
        Recorded {
            id: manifest.opening.recording.to_string(),
            location: self.store.location(key),
            verdict,
            reason,
            started_at: Time(manifest.opening.started_at),
            duration_seconds,
            bytes: manifest.segments.iter().map(|segment| segment.bytes).sum(),
            chain_head: manifest.chain_head.to_string(),
        }
    }

    fn count(&self, manifest: &Manifest) {
        let complete = manifest.verdict == Verdict::Complete;
        self.metrics.recording_sealed(complete);
        let missed: u64 = manifest.gaps.iter().map(|gap| gap.bytes).sum();
        self.metrics.recording_missed.inc_by(missed);
        let written: u64 = manifest.segments.iter().map(|segment| segment.bytes).sum();
        self.metrics.recording_bytes.inc_by(written);
    }

    /// Deletes from the store what is due, each hour.
    pub(super) async fn retain(self: Arc<Self>) {
        if !self.rules.retention.is_some() {
            return;
        }
        loop {
            let now = Timestamp::now();
            let swept = retain::sweep(&self.store, &*self.ledger, self.rules.retention, now).await;
            match swept {
                Ok(0) => {}
                Ok(deleted) => info!(deleted, "deleted recordings whose time is over"),
                Err(error) => {
                    self.metrics.recorder_failed(RecorderPart::store);
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "the store cannot be looked through for old recordings"
                    );
                }
            }
            sleep(retain::EVERY).await;
        }
    }
}

async fn read_manifest(dir: &Path) -> Result<Manifest, writer::Error> {
    let file = tokio::fs::read(dir.join(MANIFEST)).await?;
    Manifest::read(&file).map_err(|error| std::io::Error::other(error).into())
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let words = next.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = next.source();
    }
    text
}
