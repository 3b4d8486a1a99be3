//! Kafka: one record an event, acknowledged by every replica in sync. The key is the run that wrote it, so that a chain
//! stays in one partition and in order; the header `id` is the event's.

use std::time::Duration;

use krafka::auth::{AuthConfig, TlsConfig};
use krafka::producer::{Acks, Producer};
use krafka::{Kafka as Cluster, KrafkaError, Record};

use crate::sink::address::{KafkaAt, Mechanism};
use crate::sink::{Batch, Delivered, Head, Sink, SinkError, chain, secret};

/// Longest wait for a record to be acknowledged: less than what a batch may take, for the reason to be known.
const DELIVERY: Duration = Duration::from_secs(20);
/// Longest wait for one answer.
const REQUEST: Duration = Duration::from_secs(10);

/// A topic.
pub(crate) struct Kafka {
    at: KafkaAt,
    /// Dropped after a failure: what it may still hold back must not be sent late.
    producer: Option<Producer>,
}

impl Kafka {
    pub(crate) fn new(at: KafkaAt) -> Self {
        Self { at, producer: None }
    }

    async fn connect(&self) -> Result<Producer, SinkError> {
        let mut builder = Cluster::builder(self.at.brokers.clone())
            .client_id("drawbridge")
            .request_timeout(REQUEST)
            .connect_timeout(REQUEST / 2);
        if let Some(security) = self.security().await? {
            builder = builder.security(security);
        }
        let cluster = builder.connect().await.map_err(refused)?;
        cluster
            .producer()
            .acks(Acks::All)
            .delivery_timeout(DELIVERY)
            .linger(Duration::ZERO)
            .build()
            .await
            .map_err(refused)
    }

    async fn security(&self) -> Result<Option<AuthConfig>, SinkError> {
        let tls = self.at.tls.then(|| match &self.at.ca {
            Some(path) => TlsConfig::new().with_ca_cert(path.display().to_string()),
            None => TlsConfig::new().with_native_roots(),
        });
        let Some((user, file)) = &self.at.login else {
            return Ok(tls.map(AuthConfig::ssl));
        };
        // Read again for every connection: it may have been rotated.
        let password = secret(file).await?;
        let login = match self.at.mechanism {
            Mechanism::Plain => AuthConfig::sasl_plain,
            Mechanism::ScramSha256 => AuthConfig::sasl_scram_sha256,
            Mechanism::ScramSha512 => AuthConfig::sasl_scram_sha512,
        };
        let security = login(user.clone(), password);
        Ok(Some(match tls {
            Some(tls) => security.with_tls(tls),
            None => security,
        }))
    }

    async fn produce(&self, producer: &Producer, batch: &Batch) -> Result<(), SinkError> {
        let mut acknowledged = Vec::with_capacity(batch.count);
        for line in batch.lines() {
            let Head { id, instance, .. } = Head::of(&line)?;
            let record = Record::new(self.at.topic.clone(), line)
                .key(instance)
                .header("id", id);
            acknowledged.push(producer.enqueue(record).await.map_err(refused)?);
        }
        for answer in acknowledged {
            let _where = answer.await.map_err(refused)?;
        }
        Ok(())
    }
}

impl Sink for Kafka {
    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> Delivered<'a> {
        Box::pin(async move {
            // Taken out: a delivery that is given up half way leaves none behind.
            let producer = match self.producer.take() {
                Some(producer) => producer,
                None => self.connect().await?,
            };
            self.produce(&producer, batch).await?;
            self.producer = Some(producer);
            Ok(())
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: KrafkaError) -> SinkError {
    SinkError::Refused(chain(&error))
}
