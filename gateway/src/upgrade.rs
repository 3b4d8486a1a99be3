//! The server's half of the WebSocket handshake (RFC 6455, section 4.2). Pure: headers in, headers out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drawbridge_protocol::subprotocol::Subprotocol;
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::refusal::{Body, Kind, Refusal};

/// Length of the nonce a client sends, in bytes (section 4.1).
const NONCE: usize = 16;

/// A client's handshake, found to be whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    accept: String,
}

impl Handshake {
    /// Checks the headers of a GET.
    ///
    /// # Errors
    /// 400, saying what is missing; for another version, naming ours (section 4.4).
    pub fn check(version: Version, headers: &HeaderMap) -> Result<Self, Refusal> {
        let websocket =
            has_token(headers, &UPGRADE, "websocket") && has_token(headers, &CONNECTION, "upgrade");
        if !websocket || version != Version::HTTP_11 {
            return Err(Refusal::new(
                Kind::Malformed,
                "Upgrade request required: this is served to WebSocket clients, over HTTP/1.1",
            ));
        }
        if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
            return Err(Refusal::new(
                Kind::WebSocketVersion,
                "only version 13 of the WebSocket protocol is spoken here",
            ));
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY)
            .filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == NONCE))
            .ok_or_else(|| {
                Refusal::new(
                    Kind::Malformed,
                    "Sec-WebSocket-Key must be there once, with 16 bytes in base64",
                )
            })?;
        Ok(Self {
            accept: derive_accept_key(key),
        })
    }

    /// The answer that upgrades. Only the subprotocol both sides settled on is named; none, if the client offered none.
    #[must_use]
    pub fn response(&self, subprotocol: Subprotocol) -> Response<Body> {
        let named = (subprotocol != Subprotocol::Unnamed).then(|| subprotocol.name());
        self.naming(named)
    }

    /// The same, naming a subprotocol of whatever kind.
    #[must_use]
    pub fn naming(&self, subprotocol: Option<&'static str>) -> Response<Body> {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(name) = subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        response
    }
}

/// Whether a comma list has a token, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values
        .next()
        .is_none()
        .then(|| value.as_bytes().trim_ascii())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 6455, section 1.3.
    pub(crate) fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(
            SEC_WEBSOCKET_KEY,
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        headers
    }

    fn check(change: impl Fn(&mut HeaderMap)) -> Result<Handshake, Kind> {
        let mut headers = headers();
        change(&mut headers);
        Handshake::check(Version::HTTP_11, &headers).map_err(|refusal| refusal.kind())
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_the_rfc_says() {
        let handshake = check(|_| ()).expect("whole");
        let response = handshake.response(Subprotocol::V4);
        assert_eq!(response.status(), 101);
        assert_eq!(
            response.headers()[SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(
            response.headers()[SEC_WEBSOCKET_PROTOCOL],
            "v4.channel.k8s.io"
        );
        assert_eq!(response.headers()[CONNECTION], "Upgrade");
    }

    #[test]
    fn a_client_that_offered_nothing_is_named_nothing() {
        let response = check(|_| ()).expect("whole").response(Subprotocol::Unnamed);
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn spellings_that_real_clients_use_are_taken() {
        assert!(
            check(|headers| drop(headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"))))
                .is_ok()
        );
        assert!(
            check(|headers| drop(
                headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"))
            ))
            .is_ok()
        );
    }

    #[test]
    fn what_is_not_a_handshake_says_what_is_missing() {
        let set = |name: HeaderName, value: &'static str| {
            check(move |headers| drop(headers.insert(&name, HeaderValue::from_static(value))))
        };
        let unset = |name: HeaderName| check(move |headers| drop(headers.remove(&name)));
        for result in [
            unset(UPGRADE),
            unset(CONNECTION),
            unset(SEC_WEBSOCKET_KEY),
            set(UPGRADE, "SPDY/3.1"),
            set(UPGRADE, "websockets"),
            set(CONNECTION, "close"),
            set(SEC_WEBSOCKET_KEY, ""),
            set(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZQ=="),
            set(SEC_WEBSOCKET_KEY, "not base64 at all!!!"),
            check(|headers| {
                assert!(headers.append(
                    SEC_WEBSOCKET_KEY,
                    HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==")
                ));
            }),
        ] {
            assert_eq!(result, Err(Kind::Malformed));
        }
        for version in ["8", "", "12", "13, 8"] {
            assert_eq!(
                set(SEC_WEBSOCKET_VERSION, version),
                Err(Kind::WebSocketVersion),
                "{version}"
            );
        }
        assert_eq!(unset(SEC_WEBSOCKET_VERSION), Err(Kind::WebSocketVersion));
        let old = Handshake::check(Version::HTTP_10, &headers());
        assert_eq!(old.expect_err("refused").kind(), Kind::Malformed);
    }

    proptest! {
        #[test]
        fn no_key_makes_it_panic(key in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut headers = headers();
            if let Ok(key) = HeaderValue::from_bytes(&key) {
                headers.insert(SEC_WEBSOCKET_KEY, key);
            }
            let _ = Handshake::check(Version::HTTP_11, &headers);
        }
    }
}
