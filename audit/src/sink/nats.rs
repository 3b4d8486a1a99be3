//! NATS `JetStream`: one message an event, acknowledged by the stream that stores the subject. The event's id is the
//! message's: within its window (2 minutes by default) `JetStream` itself drops what is delivered twice.

use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};

use crate::sink::address::NatsAt;
use crate::sink::{Batch, Delivered, Head, Sink, SinkError, chain, secret, tls};

/// Longest wait for a connection, and for the acknowledgement of one message.
const WAIT: Duration = Duration::from_secs(10);

/// The stream behind a subject.
pub(crate) struct Nats {
    at: NatsAt,
    tls: Option<rustls::ClientConfig>,
    /// Dropped after a failure: what it may still hold back must not be sent late.
    context: Option<Context>,
}

impl Nats {
    pub(crate) fn new(at: NatsAt) -> Result<Self, SinkError> {
        let tls = at.tls.then(|| tls::client(at.ca.as_ref())).transpose()?;
        Ok(Self {
            at,
            tls,
            context: None,
        })
    }

    async fn connect(&self) -> Result<Context, SinkError> {
        let mut options = ConnectOptions::new()
            .name("drawbridge")
            .connection_timeout(WAIT)
            .require_tls(self.at.tls);
        if let Some(tls) = &self.tls {
            options = options.tls_client_config(tls.clone());
        }
        // Read again for every connection: they may have been rotated.
        if let Some((user, path)) = &self.at.login {
            options = options.user_and_password(user.clone(), secret(path).await?);
        }
        if let Some(path) = &self.at.token_file {
            options = options.token(secret(path).await?);
        }
        let client = options
            .connect(&self.at.servers[..])
            .await
            .map_err(|error| SinkError::Refused(chain(&error)))?;
        let mut context = jetstream::new(client);
        context.set_timeout(WAIT);
        Ok(context)
    }

    async fn publish(&self, context: &Context, batch: &Batch) -> Result<(), SinkError> {
        let refused = |error: jetstream::context::PublishError| match error.kind() {
            PublishErrorKind::StreamNotFound => SinkError::Refused(format!(
                "no JetStream stream stores subject {}",
                self.at.subject
            )),
            _ => SinkError::Refused(chain(&error)),
        };
        let mut acknowledged = Vec::with_capacity(batch.count);
        for line in batch.lines() {
            let id = Head::of(&line)?.id;
            let message = PublishMessage::build().payload(line).message_id(id);
            let sent = context.send_publish(self.at.subject.clone(), message);
            acknowledged.push(sent.await.map_err(refused)?);
        }
        for answer in acknowledged {
            answer.await.map_err(refused)?;
        }
        Ok(())
    }
}

impl Sink for Nats {
    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> Delivered<'a> {
        Box::pin(async move {
            // Taken out: a delivery that is given up half way leaves none behind.
            let context = match self.context.take() {
                Some(context) => context,
                None => self.connect().await?,
            };
            self.publish(&context, batch).await?;
            self.context = Some(context);
            Ok(())
        })
    }
}
