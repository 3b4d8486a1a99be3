//! The tasks of a recorder: one per connection that writes, then delivers; and those that clean up.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drawbridge_audit::keys::SigningKey;
use drawbridge_audit::recording::{End, Level, MANIFEST, Manifest, Opening, Verdict};
use drawbridge_audit::subject::Session;
use drawbridge_crds::v1alpha1::{Recorded, RecordingVerdict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument as _, error, info, info_span, warn};

use super::health::Part;
use super::live::{Listed, Live};
use super::spool::{Left, Place};
use super::tap::Tape;
use super::writer::{self, Sealed, Unsealed, Writer};
use super::{Finished, Recorder, Unavailable, chain, retain, word};
use crate::metrics::RecorderPart;
use crate::told;

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
/// Longest wait for the store to take one file, its own tries included: past that it counts as down.
const PUT: Duration = Duration::from_mins(1);
/// How long a session is tried to be told of a recording that there is none of.
const ENTER: Duration = Duration::from_mins(5);
/// Longest wait for the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Closed segments of a recording that are on their way to the store; further ones go with the manifest.
const ON_THE_WAY: usize = 64;

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
    ///
    /// What comes at the end, or never, is in boxes: most sessions are idle most of the time, and keep this in memory.
    pub(super) async fn run(self, writer: Box<Writer>, tell: oneshot::Sender<Finished>) {
        let recorder = Arc::clone(&self.recorder);
        recorder.metrics.recordings_open.inc();
        let mut deliveries = Deliveries::default();
        let written = self.write(writer, &mut deliveries).await;
        recorder.metrics.recordings_open.dec();
        Box::pin(recorder.finish(written, deliveries, tell)).await;
    }

    /// Writes and seals. What could not be sealed is left; nothing, if it is the next look at the spool that finds it.
    async fn write(self, mut writer: Box<Writer>, deliveries: &mut Deliveries) -> Written {
        let Self {
            recorder,
            tape,
            ending,
            begun,
            listed,
        } = self;
        let live = &listed.live;
        loop {
            wait(&tape, &writer, live).await;
            let batch = tape.take();
            let ended = batch.ended;
            let at = begun.elapsed();
            let told = Arc::clone(live);
            let work = move || {
                let result = writer.write(&batch, &told);
                Ok((writer, result))
            };
            let (back, result) = match recorder.blocking(work).await {
                Ok(done) => done,
                Err(error) => {
                    tape.lose();
                    recorder.broke(&live.opening, "disk", &error);
                    return Err(recorder.reopen(live, &error));
                }
            };
            writer = back;
            match result {
                Ok(closed) => {
                    for name in closed {
                        deliveries.start(&recorder, writer.place(), name);
                    }
                }
                Err(error) => {
                    // A bridge that must be recorded ends now; what was written so far is kept.
                    tape.lose();
                    recorder.broke(&live.opening, word(&error), &error);
                    return Err(Some(Box::new(writer.abandon(&error, None))));
                }
            }
            if ended {
                let end = ending.await.ok();
                return Box::pin(recorder.seal(writer, at, end, live)).await;
            }
        }
    }
}

/// What is sealed, or what is left to be sealed: nothing, if it is the next look at the spool that finds it.
type Written = Result<Box<Sealed>, Option<Box<Unsealed>>>;

/// Segments that go to the store while their recording goes on: a task each, and none while nothing closes.
#[derive(Default)]
struct Deliveries {
    under_way: JoinSet<Option<String>>,
    /// The names of those that are there.
    there: HashSet<String>,
}

impl Deliveries {
    fn start(&mut self, recorder: &Arc<Recorder>, place: &Place, name: String) {
        while let Some(done) = self.under_way.try_join_next() {
            self.there.extend(done.ok().flatten());
        }
        if self.under_way.len() >= ON_THE_WAY {
            return; // goes with the manifest
        }
        let (key, dir) = (place.key().to_owned(), place.dir().to_owned());
        let deliver = Arc::clone(recorder);
        let put = async move { deliver.put_file(&key, &dir, &name).await.then_some(name) };
        let tracked = recorder.deliveries.track_future(put);
        self.under_way.spawn(tracked.in_current_span());
    }

    /// Waits for all; the names of what is there then.
    async fn done(mut self) -> HashSet<String> {
        while let Some(done) = self.under_way.join_next().await {
            self.there.extend(done.ok().flatten());
        }
        self.there
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
    /// Tells what was sealed, and delivers it.
    async fn finish(
        &self,
        written: Written,
        deliveries: Deliveries,
        tell: oneshot::Sender<Finished>,
    ) {
        let done = match written {
            Ok(done) => {
                let finished = Finished {
                    recorded: self.entry(done.place.key(), &done.manifest),
                    carried: done.carried,
                };
                let _ = tell.send(finished); // a task that is gone needs no answer
                Some((done.place, done.manifest))
            }
            Err(Some(unsealed)) => self.rescue(*unsealed, Some(tell)).await,
            Err(None) => None,
        };
        if let Some((place, manifest)) = done {
            self.count(&manifest);
            let there = deliveries.done().await;
            self.hand_over(place, &manifest, &there).await;
        }
    }

    async fn seal(
        &self,
        writer: Box<Writer>,
        at: Duration,
        end: Option<End>,
        live: &Arc<Live>,
    ) -> Written {
        let Some(key) = self.signer() else {
            let error = no_key();
            self.broke(&live.opening, "key", &error);
            return Err(Some(Box::new(writer.abandon(&error, end))));
        };
        let instance = self.rules.instance.clone();
        let told = Arc::clone(live);
        let work = move || Ok(writer.seal(at, end, &key, &instance, &told));
        match self.blocking(work).await {
            Ok(Ok(sealed)) => Ok(Box::new(sealed)),
            Ok(Err(failed)) => {
                let (unsealed, error) = *failed;
                self.broke(&live.opening, word(&error), &error);
                Err(Some(Box::new(unsealed)))
            }
            Err(error) => {
                self.broke(&live.opening, "disk", &error);
                Err(self.reopen(live, &error))
            }
        }
    }

    /// Says that a recording broke off.
    fn broke(&self, opening: &Opening, word: &'static str, error: &writer::Error) {
        let why = chain(error);
        error!(recording = %opening.recording, error = why, "recording failed");
        self.metrics.recorder_failed(RecorderPart::spool);
        if let writer::Error::Spool(_) = error {
            self.health.failed(Part::Spool, &why);
        }
        if opening.settings.level == Level::BestEffort {
            self.metrics.unrecorded.inc();
        }
        let log = self.health.log();
        log.emit(told::unrecorded(opening, word, &why));
    }

    /// What a writer has left that took everything else with it.
    fn reopen(&self, live: &Live, why: &writer::Error) -> Option<Box<Unsealed>> {
        let place = self.spool.claim(&live.dir).ok().flatten()?;
        let reason = format!("the recorder failed: {why}");
        let opening = Box::new(Opening::clone(&live.opening));
        Some(Box::new(Unsealed::Broken(place, opening, reason, None)))
    }

    /// Seals what is left, however long that takes, and tells it if it works at once. `None`: the process ends first, and
    /// the next one finds it.
    async fn rescue(
        &self,
        mut unsealed: Unsealed,
        mut tell: Option<oneshot::Sender<Finished>>,
    ) -> Option<(Place, Manifest)> {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut key = self.key.clone();
            let known = key.wait_for(Option::is_some);
            let known = self.stop.run_until_cancelled(known).await?;
            let key = known.ok()?.clone()?;
            let instance = self.rules.instance.clone();
            let work = move || {
                let sealed = unsealed.seal(&key, &instance);
                Ok((unsealed, sealed))
            };
            let (back, sealed) = match self.blocking(work).await {
                Ok(done) => done,
                Err(error) => {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "a recording could not be sealed"
                    );
                    return None;
                }
            };
            match sealed {
                Ok(manifest) => {
                    let place = back.into_place();
                    if let Some(tell) = tell {
                        let finished = Finished {
                            recorded: self.entry(place.key(), &manifest),
                            carried: Vec::new(),
                        };
                        let _ = tell.send(finished); // a task that is gone needs no answer
                    }
                    return Some((place, manifest));
                }
                Err(error) => {
                    tell = None; // nobody waits longer
                    unsealed = back;
                    self.metrics.recorder_failed(RecorderPart::seal);
                    let why = &error as &dyn std::error::Error;
                    error!(
                        error = why,
                        ?pause,
                        "a recording cannot be sealed; to be tried again"
                    );
                }
            }
            self.stop.run_until_cancelled(sleep(pause)).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn signer(&self) -> Option<Arc<SigningKey>> {
        self.key.borrow().clone()
    }

    /// Lets a connection go on that cannot be recorded: on record, in a metric and in its session's status.
    pub(super) fn go_without(self: &Arc<Self>, opening: Opening, why: &Unavailable) {
        let words = chain(why);
        warn!(recording = %opening.recording, error = words, "going on without a recording");
        self.metrics.unrecorded.inc();
        let log = self.health.log();
        log.emit(told::unrecorded(&opening, why.word(), &words));
        let recorder = Arc::clone(self);
        let enter = async move {
            let entry = Recorded {
                id: opening.recording.to_string(),
                location: String::new(),
                verdict: RecordingVerdict::Missing,
                reason: Some(bounded(&words)),
                started_at: Time(opening.started_at),
                duration_seconds: 0,
                bytes: 0,
                chain_head: String::new(),
            };
            let entered = recorder.enter(&opening.session, &entry);
            if timeout(ENTER, entered).await.is_err() {
                warn!(recording = entry.id, "its session's status does not say so");
            }
        };
        self.deliveries.spawn(enter.in_current_span());
    }

    /// Tells a session of a recording; `false`: the process ends first.
    async fn enter(&self, session: &Session, entry: &Recorded) -> bool {
        self.persist(RecorderPart::status, || async {
            match timeout(CALL_TIMEOUT, self.ledger.enter(session, entry)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer from the API server".to_owned()),
            }
        })
        .await
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
                self.health.failed(Part::Spool, &chain(&error));
                error!(
                    error = &error as &dyn std::error::Error,
                    "the spool cannot be read"
                );
                return;
            }
        };
        if !self.health.is_up(Part::Spool) {
            let spool = self.spool.clone();
            if self.blocking(move || Ok(spool.probe()?)).await.is_ok() {
                self.health.works(Part::Spool); // not only when somebody connects
            }
        }
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
        let (place, manifest) = match left {
            Left::Sealed(place) => match read_manifest(place.dir()).await {
                Ok(manifest) => (place, manifest),
                Err(error) => {
                    self.metrics.recorder_failed(RecorderPart::seal);
                    error!(
                        error = &error as &dyn std::error::Error,
                        "a recording in the spool cannot be delivered"
                    );
                    return;
                }
            },
            Left::Open(place, opening) => {
                let reason = "the gateway ended before the session did".to_owned();
                let unsealed = Unsealed::Broken(place, opening, reason, None);
                let Some(sealed) = self.rescue(unsealed, None).await else {
                    return;
                };
                sealed
            }
        };
        info!(verdict = ?manifest.verdict, "took up a recording that was left in the spool");
        self.count(&manifest);
        self.hand_over(place, &manifest, &HashSet::new()).await;
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
        if !self.enter(&manifest.opening.session, &entry).await {
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
            let turn = Arc::clone(&self.puts).acquire_owned().await; // never closed
            let bytes = tokio::fs::read(dir.join(name)).await;
            let bytes = bytes.map_err(|error| error.to_string())?;
            let (store, key) = (self.store.clone(), format!("{key}/{name}"));
            // In a task: what hangs in a file system cannot be interrupted, and keeps its turn, so that no more can hang.
            let put = tokio::spawn(async move {
                let put = store.put(&key, Bytes::from(bytes)).await;
                drop(turn);
                put.map_err(|error| chain(&error))
            });
            let put = match timeout(PUT, put).await {
                Ok(put) => put.unwrap_or_else(|panic| Err(panic.to_string())),
                Err(_) => Err("the store does not answer".to_owned()),
            };
            match &put {
                Ok(()) => self.health.works(Part::Store),
                Err(why) => self.health.failed(Part::Store, why),
            }
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
                (RecordingVerdict::Interrupted, Some(bounded(reason)))
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
            let swept = retain::sweep(retain::Sweep {
                store: &self.store,
                ledger: &*self.ledger,
                spool: &self.spool,
                log: self.health.log(),
                retention: self.rules.retention,
                now: self.clock.now(),
            })
            .await;
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

/// As much of a reason as a status may hold.
fn bounded(reason: &str) -> String {
    reason[..reason.floor_char_boundary(256)].to_owned()
}

fn no_key() -> writer::Error {
    std::io::Error::other("there is no key to sign recordings with").into()
}
