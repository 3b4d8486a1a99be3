//! HTTP: batches of lines (`application/x-ndjson`), signed with a secret both sides know.
//!
//! `Drawbridge-Signature: t=1893456000,v1=<hex>`: HMAC-SHA256 of the time, a dot and the body. The receiver computes the
//! same and refuses what differs, or is older than it would ever accept. Any 2xx says that the whole batch is safe.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, Request, StatusCode};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::sink::address::WebhookAt;
use crate::sink::{Batch, Delivered, Sink, SinkError, chain, secret, tls};

/// Longest wait for a TCP connection.
const CONNECT: Duration = Duration::from_secs(10);

const SIGNATURE: HeaderName = HeaderName::from_static("drawbridge-signature");
const EVENTS: HeaderName = HeaderName::from_static("drawbridge-events");

/// The receiver.
pub(crate) struct Webhook {
    at: WebhookAt,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Webhook {
    pub(crate) fn new(at: WebhookAt) -> Result<Self, SinkError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        let plain = at.url.scheme_str() == Some("http");
        let builder = HttpsConnectorBuilder::new();
        let connector = if plain {
            // Never used for TLS; the connector wants a configuration all the same.
            builder.with_tls_config(tls::nobody()?).https_or_http()
        } else {
            builder
                .with_tls_config(tls::client(at.ca.as_ref())?)
                .https_only()
        };
        let connector = connector.enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { at, client })
    }

    async fn post(&self, batch: &Batch) -> Result<(), SinkError> {
        let mut request = Request::post(self.at.url.clone())
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header(
                USER_AGENT,
                concat!("drawbridge/", env!("CARGO_PKG_VERSION")),
            )
            .header(EVENTS, batch.count);
        if let Some(path) = &self.at.secret_file {
            let secret = secret(path).await?; // for every batch: it may be rotated at any time
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default().as_secs();
            request = request.header(SIGNATURE, signature(secret.as_bytes(), now, &batch.bytes));
        }
        let request = request
            .body(Full::new(batch.bytes.clone()))
            .map_err(|error| SinkError::Refused(error.to_string()))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| SinkError::Refused(chain(&error)))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::PAYLOAD_TOO_LARGE => Err(SinkError::TooLarge),
            status => Err(SinkError::Refused(format!("it answered {status}"))),
        }
    }
}

impl Sink for Webhook {
    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> Delivered<'a> {
        Box::pin(self.post(batch))
    }
}

fn signature(secret: &[u8], time: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{time}.").as_bytes());
    context.update(body);
    format!("t={time},v1={}", hex::encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_openssl_makes() {
        // printf '1893456000.{}\n' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            signature(b"secret", 1_893_456_000, b"{}\n"),
            "t=1893456000,v1=cdec2e16985244ea9c0e3a70258759ef66b840ab789fea0759849cc7cf95ff3c"
        );
    }
}
