//! Leader election on a `coordination.k8s.io` Lease: of all replicas one writes.
//!
//! The rules are those of client-go, so that any tool that reads Leases understands ours. Nobody compares clocks
//! between machines: a replica takes over after it has itself watched the same record for a whole lease duration.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::metrics::{ErrorKind, Metrics, Verb};

/// A holder that was silent for this long may be replaced.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long gives up: well before anybody else may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the holder renews.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How often a standby looks, and a holder tries again after a failure.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for one answer of the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// This replica's hand on the lease.
#[derive(Debug)]
pub struct Elector<'a> {
    leases: Api<Lease>,
    name: String,
    identity: String,
    metrics: &'a Metrics,
    /// The last record seen, and when it was first seen.
    observed: Option<(LeaseSpec, Instant)>,
}

/// The lease is no longer ours: another replica may be writing already.
#[derive(Debug, thiserror::Error)]
#[error("the lease was lost: {0}; this replica must stop writing")]
pub struct Lost(String);

/// What one look at the lease says.
#[derive(Debug, PartialEq)]
enum Look {
    /// Write this: it is ours, or may become ours.
    Write(Box<LeaseSpec>),
    /// `holder` has it.
    Held { holder: String },
}

impl<'a> Elector<'a> {
    /// `identity` must be this process's alone, e.g. the pod's name.
    #[must_use]
    pub fn new(
        client: &Client,
        namespace: &str,
        name: &str,
        identity: String,
        metrics: &'a Metrics,
    ) -> Self {
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            name: name.into(),
            identity,
            metrics,
            observed: None,
        }
    }

    /// Waits until this replica holds the lease. Failures are logged and tried again.
    pub async fn acquire(&mut self) {
        let mut told = None;
        loop {
            match self.try_hold().await {
                Ok(None) => {
                    info!(lease = self.name, identity = self.identity, "leading");
                    self.metrics.leads(true);
                    return;
                }
                Ok(Some(holder)) => {
                    if told.as_ref() != Some(&holder) {
                        info!(lease = self.name, holder, "standing by");
                        told = Some(holder);
                    }
                }
                Err(error) => warn!(lease = self.name, error, "cannot take the lease"),
            }
            sleep(RETRY_EVERY).await;
        }
    }

    /// Renews the lease until it is lost.
    pub async fn hold(&mut self) -> Lost {
        let mut renewed = Instant::now();
        let mut pause = RENEW_EVERY;
        loop {
            sleep(pause).await;
            // Counted from before the request: the record may be as old as that.
            let asked = Instant::now();
            let lost = match timeout(
                RENEW_DEADLINE.saturating_sub(renewed.elapsed()),
                self.try_hold(),
            )
            .await
            {
                Ok(Ok(None)) => {
                    (renewed, pause) = (asked, RENEW_EVERY);
                    continue;
                }
                Ok(Ok(Some(holder))) => Some(format!("{holder} holds it")),
                Ok(Err(error)) => {
                    warn!(lease = self.name, error, "failed to renew the lease");
                    pause = RETRY_EVERY;
                    (renewed.elapsed() >= RENEW_DEADLINE)
                        .then(|| format!("not renewed for 10 s: {error}"))
                }
                Err(_) => Some("not renewed for 10 s: no answer from the API server".into()),
            };
            if let Some(why) = lost {
                self.metrics.leads(false);
                return Lost(why);
            }
        }
    }

    /// Gives the lease away, so that a successor need not wait for it to expire. Only after the last write.
    pub async fn release(&mut self) {
        self.metrics.leads(false);
        let released = async {
            let mut lease = self.call(self.leases.get(&self.name)).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.metrics.write(Verb::Lease);
            self.call(
                self.leases
                    .replace(&self.name, &PostParams::default(), &lease),
            )
            .await
            .map(drop)
        };
        match released.await {
            Ok(()) => info!(lease = self.name, "released the lease"),
            Err(error) => warn!(
                lease = self.name,
                error, "could not release the lease; it expires"
            ),
        }
    }

    /// Takes or renews the lease. `Some(holder)` when another has it.
    async fn try_hold(&mut self) -> Result<Option<String>, String> {
        let found = self.call(self.leases.get_opt(&self.name)).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.clone());
        self.observe(spec);
        let spec = match self.look(Timestamp::now()) {
            Look::Held { holder } => return Ok(Some(holder)),
            Look::Write(spec) => *spec,
        };
        self.metrics.write(Verb::Lease);
        let params = PostParams::default();
        let written = if let Some(mut lease) = found {
            // With the version that was read: of two who try, one is refused.
            lease.spec = Some(spec);
            self.call(self.leases.replace(&self.name, &params, &lease))
                .await?
        } else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(spec),
            };
            self.call(self.leases.create(&params, &lease)).await?
        };
        self.observe(written.spec);
        Ok(None)
    }

    fn observe(&mut self, spec: Option<LeaseSpec>) {
        let known = self.observed.as_ref().map(|(spec, _)| spec);
        if known != spec.as_ref() {
            self.observed = spec.map(|spec| (spec, Instant::now()));
        }
    }

    /// What to do about the record last observed. Pure but for the monotonic clock.
    fn look(&self, now: Timestamp) -> Look {
        let mut spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let Some((record, seen)) = &self.observed else {
            return Look::Write(Box::new(spec));
        };
        let holder = record.holder_identity.clone().unwrap_or_default();
        let transitions = record.lease_transitions.unwrap_or_default();
        if holder == self.identity {
            spec.acquire_time.clone_from(&record.acquire_time);
            spec.lease_transitions = Some(transitions);
            return Look::Write(Box::new(spec));
        }
        let seconds = record.lease_duration_seconds.unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        if !holder.is_empty() && seen.elapsed() < duration {
            debug!(holder, "the lease is held");
            return Look::Held { holder };
        }
        spec.lease_transitions = Some(transitions.saturating_add(1));
        Look::Write(Box::new(spec))
    }

    async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
        let answer = match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(kube::Error::Api(status))) => status.message,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer from the API server within 4 s".into(),
        };
        self.metrics.error(ErrorKind::Lease);
        Err(answer)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};

    use super::*;
    use crate::Guarded;
    use crate::fake::Api as Server;

    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/operator";

    fn metrics() -> Metrics {
        let store = kube::runtime::reflector::store::Writer::<Guarded>::default().as_reader();
        Metrics::register(&mut Registry::default(), store)
    }

    fn elector<'a>(server: &Server, identity: &str, metrics: &'a Metrics) -> Elector<'a> {
        Elector::new(
            &server.client(),
            "system",
            "operator",
            identity.into(),
            metrics,
        )
    }

    fn spec(server: &Server) -> Value {
        server.get(LEASE).expect("the lease is there")["spec"].clone()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_takes_it_and_the_second_stands_by() {
        let (server, metrics) = (Server::default(), metrics());
        let (mut first, mut second) = (
            elector(&server, "a", &metrics),
            elector(&server, "b", &metrics),
        );
        first.acquire().await;
        assert_eq!(spec(&server)["holderIdentity"], "a");
        assert_eq!(second.try_hold().await, Ok(Some("a".into())));
        assert_eq!(first.try_hold().await, Ok(None), "it may renew");
        assert_eq!(spec(&server)["leaseTransitions"], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_renews_is_never_replaced() {
        let (server, metrics) = (Server::default(), metrics());
        let (mut first, mut second) = (
            elector(&server, "a", &metrics),
            elector(&server, "b", &metrics),
        );
        first.acquire().await;
        tokio::select! {
            lost = first.hold() => panic!("{lost}"),
            () = second.acquire() => panic!("two leaders"),
            () = sleep(Duration::from_hours(1)) => {}
        }
        assert_eq!(spec(&server)["leaseTransitions"], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_holder_is_replaced_after_a_lease_duration_and_not_before() {
        let (server, metrics) = (Server::default(), metrics());
        let (mut first, mut second) = (
            elector(&server, "a", &metrics),
            elector(&server, "b", &metrics),
        );
        first.acquire().await;
        let began = Instant::now();
        second.acquire().await;
        let waited = began.elapsed();
        assert!(
            waited >= DURATION && waited <= DURATION + 2 * RETRY_EVERY,
            "{waited:?}"
        );
        assert_eq!(spec(&server)["leaseTransitions"], 1);
        let lost = first.hold().await;
        assert!(lost.to_string().contains("b holds it"), "{lost}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_cannot_renew_gives_up_before_anybody_may_follow() {
        let (server, metrics) = (Server::default(), metrics());
        let mut first = elector(&server, "a", &metrics);
        first.acquire().await;
        let began = Instant::now();
        server.fail("leases", 500);
        first.hold().await;
        assert!(began.elapsed() < DURATION, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_is_survived() {
        let (server, metrics) = (Server::default(), metrics());
        let mut first = elector(&server, "a", &metrics);
        first.acquire().await;
        let outage = async {
            for _ in 0..20 {
                server.fail("leases", 500);
                sleep(Duration::from_secs(6)).await;
                server.heal();
                sleep(Duration::from_secs(6)).await;
            }
        };
        tokio::select! {
            lost = first.hold() => panic!("{lost}"),
            () = outage => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_lease_is_taken_at_once() {
        let (server, metrics) = (Server::default(), metrics());
        let (mut first, mut second) = (
            elector(&server, "a", &metrics),
            elector(&server, "b", &metrics),
        );
        first.acquire().await;
        assert_eq!(second.try_hold().await, Ok(Some("a".into())));
        first.release().await;
        assert_eq!(second.try_hold().await, Ok(None));
        second.release().await;
        first.release().await;
        assert_eq!(
            spec(&server)["holderIdentity"],
            "",
            "a second release changes nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_who_try_at_once_one_gets_it() {
        let (server, metrics) = (Server::default(), metrics());
        server.put(
            LEASE,
            json!({"metadata": {"name": "operator"}, "spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}),
        );
        let (mut first, mut second) = (
            elector(&server, "a", &metrics),
            elector(&server, "b", &metrics),
        );
        let (one, other) = tokio::join!(first.try_hold(), second.try_hold());
        let held = [&one, &other]
            .iter()
            .filter(|outcome| **outcome == &Ok(None))
            .count();
        assert_eq!(held, 1, "{one:?} {other:?}");
    }
}
