//! A request turned away: what the client is told, what the log is told, and what is counted.

use std::borrow::Cow;
use std::error::Error;

use bytes::Bytes;
use drawbridge_protocol::status::{MAX_JSON, Reason, Status};
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION,
    WWW_AUTHENTICATE,
};
use http::{HeaderValue, Response, StatusCode};
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use crate::grant::Denied;

pub use crate::body::Body;

/// Which kind of refusal; the label of the metric.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Kind {
    /// 401: no credential, or none that a session was given.
    Unauthenticated,
    /// 401: the credential of a session that has ended.
    Ended,
    /// 403: a good credential used for what its session does not allow, or not yet.
    NotGranted,
    /// 403: a page on another site asked.
    ForeignOrigin,
    /// 403: not something this gateway serves.
    NotServed,
    /// 403: no subprotocol both sides know.
    NoSubprotocol,
    /// 400: the request is not what it should be.
    Malformed,
    /// 400, naming the version we speak.
    WebSocketVersion,
    /// 405: another method is wanted.
    Method,
    /// 414
    TooLong,
    /// 404: there is no such recording, or it cannot be shown.
    NoRecording,
    /// 429: the session has as many connections as it may.
    TooManyConnections,
    /// 400: the upstream cannot do what the client needs.
    Unsupported,
    /// The upstream refused; the code is its own, or 502.
    UpstreamRefused,
    /// 502: the upstream could not be reached, or did not behave.
    UpstreamFailed,
    /// 504: the upstream took too long.
    UpstreamTimeout,
    /// 503: we or the API server cannot answer now.
    Unavailable,
}

impl Kind {
    fn code(self) -> u16 {
        match self {
            Self::Malformed | Self::WebSocketVersion | Self::Unsupported => 400,
            Self::Unauthenticated | Self::Ended => 401,
            Self::NotGranted | Self::ForeignOrigin | Self::NotServed | Self::NoSubprotocol => 403,
            Self::NoRecording => 404,
            Self::Method => 405,
            Self::TooLong => 414,
            Self::TooManyConnections => 429,
            Self::UpstreamRefused | Self::UpstreamFailed => 502,
            Self::UpstreamTimeout => 504,
            Self::Unavailable => 503,
        }
    }

    /// Its name in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Ended => "ended",
            Self::NotGranted => "not_granted",
            Self::ForeignOrigin => "foreign_origin",
            Self::NotServed => "not_served",
            Self::NoSubprotocol => "no_subprotocol",
            Self::Malformed => "malformed",
            Self::WebSocketVersion => "websocket_version",
            Self::NoRecording => "no_recording",
            Self::Method => "method",
            Self::TooLong => "too_long",
            Self::TooManyConnections => "too_many_connections",
            Self::Unsupported => "unsupported",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Unavailable => "unavailable",
        }
    }
}

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.label(), encoder)
    }
}

/// Why a request is turned away.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    kind: Kind,
    code: u16,
    message: Cow<'static, str>,
    /// The upstream's own `Status`, told unchanged.
    verbatim: Option<Bytes>,
    retry_after: Option<u32>,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Refusal {
    /// A refusal with the code of its kind. `message` is shown to the client and says what to do.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            code: kind.code(),
            message: message.into(),
            verbatim: None,
            retry_after: None,
            source: None,
        }
    }

    /// What went wrong behind it: for the log, never for the client.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Another HTTP code than its kind's: 400 to 599.
    #[must_use]
    pub fn with_code(mut self, code: u16) -> Self {
        debug_assert!((400..600).contains(&code), "{code} is no refusal");
        self.code = code;
        self
    }

    /// A `Status` from upstream to be told as it is. Ignored when longer than clients read ([`MAX_JSON`]).
    #[must_use]
    pub fn verbatim(mut self, status: Bytes) -> Self {
        self.verbatim = Some(status).filter(|status| status.len() <= MAX_JSON);
        self
    }

    /// When it may be worth trying again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Which kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The HTTP code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// What the client is told.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.message
    }

    /// The same refusal again, without what was behind it.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            kind: self.kind,
            code: self.code,
            message: self.message.clone(),
            verbatim: self.verbatim.clone(),
            retry_after: self.retry_after,
            source: None,
        }
    }

    /// The answer: a Kubernetes `Status` of at most 1024 bytes, after which the connection is closed.
    #[must_use]
    pub fn response(&self) -> Response<Body> {
        let json = match &self.verbatim {
            Some(status) => status.clone(),
            None => Bytes::from(
                Status::new(reason(self.code), &*self.message)
                    .with_code(self.code)
                    .http_json(),
            ),
        };
        let mut response = Response::new(Body::from(json));
        *response.status_mut() =
            StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Whatever else the client sent (a body, frames it pipelined) is not read.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        match self.kind {
            Kind::Unauthenticated | Kind::Ended => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Kind::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            Kind::WebSocketVersion => {
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let kind = match denied {
            Denied::Ended(_) => Kind::Ended,
            _ => Kind::NotGranted,
        };
        Self::new(kind, denied.to_string())
    }
}

/// The machine-readable reason that goes with an HTTP code.
fn reason(code: u16) -> Reason {
    match code {
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        410 => Reason::Gone,
        413 | 414 => Reason::RequestEntityTooLarge,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        code if code >= 500 => Reason::InternalError,
        _ => Reason::BadRequest,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use http_body_util::BodyExt;

    use super::*;

    pub(crate) async fn json(response: Response<Body>) -> serde_json::Value {
        let body = response
            .into_body()
            .collect()
            .await
            .expect("in memory")
            .to_bytes();
        assert!(body.len() <= MAX_JSON, "{} bytes", body.len());
        serde_json::from_slice(&body).expect("JSON")
    }

    #[tokio::test]
    async fn every_kind_is_a_status_with_its_code_and_reason_and_closes_the_connection() {
        for (kind, code, reason) in [
            (Kind::Unauthenticated, 401, "Unauthorized"),
            (Kind::Ended, 401, "Unauthorized"),
            (Kind::NotGranted, 403, "Forbidden"),
            (Kind::ForeignOrigin, 403, "Forbidden"),
            (Kind::NotServed, 403, "Forbidden"),
            (Kind::NoSubprotocol, 403, "Forbidden"),
            (Kind::Malformed, 400, "BadRequest"),
            (Kind::WebSocketVersion, 400, "BadRequest"),
            (Kind::Method, 405, "MethodNotAllowed"),
            (Kind::TooLong, 414, "RequestEntityTooLarge"),
            (Kind::TooManyConnections, 429, "TooManyRequests"),
            (Kind::Unsupported, 400, "BadRequest"),
            (Kind::UpstreamRefused, 502, "InternalError"),
            (Kind::UpstreamFailed, 502, "InternalError"),
            (Kind::UpstreamTimeout, 504, "Timeout"),
            (Kind::Unavailable, 503, "ServiceUnavailable"),
        ] {
            let response = Refusal::new(kind, "why").response();
            assert_eq!(response.status().as_u16(), code, "{kind:?}");
            assert_eq!(response.headers()[CONNECTION], "close");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            let body = json(response).await;
            assert_eq!(
                (
                    &body["kind"],
                    &body["apiVersion"],
                    &body["status"],
                    &body["code"],
                    &body["reason"],
                    &body["message"]
                ),
                (
                    &"Status".into(),
                    &"v1".into(),
                    &"Failure".into(),
                    &code.into(),
                    &reason.into(),
                    &"why".into()
                ),
                "{kind:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_long_message_is_cut_to_what_clients_read() {
        let body = json(Refusal::new(Kind::UpstreamFailed, "\"é".repeat(2000)).response()).await;
        assert!(body["message"].as_str().expect("text").len() > 500);
    }

    #[tokio::test]
    async fn an_upstream_status_is_told_unchanged_if_clients_can_read_it() {
        let own = Bytes::from_static(
            br#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"x":1}"#,
        );
        let refusal = Refusal::new(Kind::UpstreamRefused, "no pod")
            .with_code(404)
            .verbatim(own.clone());
        let again = refusal.again().response();
        assert_eq!(again.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            again
                .into_body()
                .collect()
                .await
                .expect("in memory")
                .to_bytes(),
            own
        );
        let long = Bytes::from(vec![b' '; MAX_JSON + 1]);
        let body = json(
            Refusal::new(Kind::UpstreamRefused, "no pod")
                .with_code(404)
                .verbatim(long)
                .response(),
        )
        .await;
        assert_eq!(
            (&body["message"], &body["reason"]),
            (&"no pod".into(), &"NotFound".into())
        );
    }

    #[test]
    fn the_client_is_not_told_what_is_behind_it() {
        let refusal = Refusal::new(Kind::UpstreamFailed, "cannot reach the API server")
            .because("connect 10.0.0.1: refused");
        assert_eq!(refusal.public(), "cannot reach the API server");
        assert_eq!(
            refusal.source().expect("kept").to_string(),
            "connect 10.0.0.1: refused"
        );
    }

    #[test]
    fn headers_say_what_would_be_right() {
        let header = |kind, name: http::HeaderName| {
            let response = Refusal::new(kind, "").retry_after(1).response();
            assert_eq!(response.headers()[RETRY_AFTER], "1");
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().expect("text").to_owned())
        };
        assert_eq!(
            header(Kind::WebSocketVersion, SEC_WEBSOCKET_VERSION).as_deref(),
            Some("13")
        );
        assert_eq!(header(Kind::Method, ALLOW).as_deref(), Some("GET"));
        assert_eq!(
            header(Kind::Unauthenticated, WWW_AUTHENTICATE).as_deref(),
            Some("Bearer")
        );
        assert_eq!(header(Kind::NotGranted, WWW_AUTHENTICATE), None);
    }
}
