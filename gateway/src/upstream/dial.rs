//! One connection to one server: TCP, TLS, and the client's half of the WebSocket handshake (RFC 6455, section 4.1).

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use drawbridge_protocol::subprotocol::UpstreamOffer;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Answer, DialError};
use crate::bridge::Leg;
use crate::transport::{Transport, prepare};
use crate::upgrade::has_token;

/// Longest answer head, and bytes read in one go while shaking hands. hyper's minimum is 8 KiB.
const MAX_HEAD: usize = 16 * 1024;
/// Most bytes read of a refusal's body. A kubelet's is a line, an API server's `Status` rarely 2 KiB.
const MAX_BODY: usize = 64 * 1024;

/// The API server's own name for the audit id of a request; what we send is what its audit log shows.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// A server to connect to.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// Name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: plain HTTP.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Endpoint {
    /// Host and port, as a URI and a `Host` header have them.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    pub(super) async fn connect(&self) -> Result<Transport, DialError> {
        let to = || self.authority();
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .and_then(|tcp| prepare(&tcp).map(|()| tcp))
            .map_err(|source| DialError::Connect { to: to(), source })?;
        let Some((config, name)) = &self.tls else {
            return Ok(Transport::Plain(tcp));
        };
        let tls = TlsConnector::from(Arc::clone(config))
            .connect(name.clone(), tcp)
            .await
            .map_err(|source| DialError::Tls { to: to(), source })?;
        Ok(Transport::Tls(Box::new(tls.into())))
    }
}

/// A request for an upgrade, written from nothing: no header of the client is in it.
pub(super) struct Handshake<'a> {
    /// Path and query.
    pub(super) target: String,
    pub(super) authority: String,
    pub(super) authorization: Option<HeaderValue>,
    /// `Impersonate-User`, where the server is to act as somebody else.
    pub(super) impersonate: Option<String>,
    /// This connection's id.
    pub(super) connection: &'a str,
    pub(super) offer: &'a UpstreamOffer,
}

impl Handshake<'_> {
    /// Shakes hands over `io`.
    pub(super) async fn upgrade(self, io: Transport) -> Result<Leg<Transport>, DialError> {
        let key = generate_key();
        let request = self.request(&key)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(io))
            .await?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(DialError::Answered(read(response).await));
            }
            let headers = response.headers();
            let subprotocol = self.check(headers, &key)?;
            let upgraded = hyper::upgrade::on(response).await?;
            let parts = upgraded
                .downcast::<TokioIo<Transport>>()
                .map_err(|_| DialError::Handshake("the connection is not the one it was"))?;
            Ok(Leg {
                io: parts.io.into_inner(),
                // A copy of the few bytes there are: the slice would keep hyper's whole read buffer.
                read: Bytes::copy_from_slice(&parts.read_buf),
                subprotocol,
            })
        };
        // The connection must be driven for the exchange to move; both end here, so that nothing outlives a timeout.
        let mut exchange = pin!(exchange);
        let mut connection = pin!(connection.with_upgrades());
        tokio::select! {
            biased;
            leg = &mut exchange => leg,
            _ = &mut connection => exchange.await,
        }
    }

    fn request(&self, key: &str) -> Result<Request<Empty<Bytes>>, DialError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.target.parse().map_err(|_| DialError::TooLong)?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.parse()?);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, key.parse()?);
        if let Some(offer) = self.offer.header() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offer.parse()?);
        }
        let agent = concat!("drawbridge-gateway/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(AUDIT_ID, self.connection.parse()?);
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        if let Some(user) = &self.impersonate {
            headers.insert(HeaderName::from_static("impersonate-user"), user.parse()?);
        }
        Ok(request)
    }

    fn check(
        &self,
        headers: &HeaderMap,
        key: &str,
    ) -> Result<drawbridge_protocol::subprotocol::Subprotocol, DialError> {
        if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade")
        {
            return Err(DialError::Handshake(
                "it upgrades to something else than a WebSocket",
            ));
        }
        let accept = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(DialError::Handshake(
                "Sec-WebSocket-Accept does not answer our key",
            ));
        }
        let mut chosen = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let first = chosen.next().map(HeaderValue::as_bytes);
        if chosen.next().is_some() {
            return Err(DialError::Handshake("it names more than one subprotocol"));
        }
        Ok(self.offer.selected(first)?)
    }
}

/// Reads an answer other than 101, up to [`MAX_BODY`]; of a longer or broken body nothing is kept.
async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    Answer {
        code: head.status.as_u16(),
        body: body.unwrap_or_default(),
        retry_after: head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok()),
    }
}
